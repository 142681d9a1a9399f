//! The store's points: it answers, and the credentials allow each request that is ever made.

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;

use super::{Check, Points};
use crate::fault::{self, Fault, Kind};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{ListRequest, ObjectKey, ObjectStore, PutOptions};

const STORE: &str = "store";
const PUT: &str = "put";
const GET: &str = "get";
const LIST: &str = "list";
const PUT_IF_ABSENT: &str = "put-if-absent";
const UPLOAD: &str = "upload";
const DELETE: &str = "delete";

/// Tests them. Whether objects can be read and listed, as far as is known.
pub(super) async fn check(check: &Check, points: &mut Points) -> bool {
    let store = &*check.repository.store;
    if check.is_created
        && let Err(error) = store.create_container().await
    {
        check_failed(&error, points);
        points.not_run(
            &[PUT, GET, LIST, PUT_IF_ABSENT, UPLOAD, DELETE],
            "the store could not be made",
        );
        return false;
    }
    if let Err(error) = store.check_container().await {
        check_failed(&error, points);
        points.not_run(
            &[PUT, GET, LIST, PUT_IF_ABSENT, UPLOAD, DELETE],
            "the store does not answer as it should",
        );
        return false;
    }
    points.ok(STORE, store.location());
    let name = format!("check-{:016x}", fastrand::u64(..));
    let probe = Probe {
        store,
        key: check.repository.layout.private(&name),
        body: Bytes::from(format!("{name}\n")),
    };
    probe.check(points).await
}

/// The usual hint for a store that does not answer is to run this very check.
fn check_failed(error: &StoreError, points: &mut Points) {
    match error.kind() {
        Kind::Unreachable => {
            let hint = "Check that the endpoint is spelled right and that this host can reach it: \
                        name resolution, firewall, proxy variables, http or https.";
            points.refuse(STORE, Kind::Unreachable, (fault::chain(error), hint));
        }
        Kind::Config => {
            let hint = "Check bucket, region and endpoint; for a certificate of your own, name \
                        its authority by endpointCA or AWS_CA_BUNDLE.";
            points.refuse(STORE, Kind::Config, (fault::chain(error), hint));
        }
        _ => points.failed(STORE, error),
    }
}

/// Whether a store honoured the condition that nothing stands there, where something does.
fn judge_condition(
    outcome: Result<(), StoreError>,
    (name, hint): (&'static str, &'static str),
    points: &mut Points,
) {
    match outcome {
        Err(error) if error.kind == StoreErrorKind::Exists => {
            points.ok(name, "refused to replace an object");
        }
        Ok(()) => points.warn(name, "the store ignores the condition", hint),
        Err(error) if error.kind == StoreErrorKind::Unsupported => {
            points.warn(name, "the store does not know the condition", hint);
        }
        Err(error) => points.failed(name, &error),
    }
}

/// An object of this check alone.
struct Probe<'a> {
    store: &'a dyn ObjectStore,
    key: ObjectKey,
    body: Bytes,
}

impl Probe<'_> {
    async fn check(&self, points: &mut Points) -> bool {
        if let Err(error) = self.put(false).await {
            points.failed(PUT, &error);
            points.not_run(
                &[GET, LIST, PUT_IF_ABSENT, UPLOAD, DELETE],
                "nothing can be put",
            );
            return true;
        }
        points.ok(PUT, format!("{}", self.key));
        match self.get().await {
            Ok(bytes) if bytes == self.body => points.ok(GET, "what was put"),
            Ok(_) => points.refuse(
                GET,
                Kind::Corrupt,
                (
                    "other bytes than were put".to_owned(),
                    "Look for a proxy or cache between this host and the store.",
                ),
            ),
            Err(error) => points.failed(GET, &error),
        }
        match self.is_listed().await {
            Ok(true) => points.ok(LIST, "what was put"),
            Ok(false) => points.refuse(
                LIST,
                Kind::Corrupt,
                (
                    "the listing lacks what was put".to_owned(),
                    "Use a store whose listings show an object as soon as it is put.",
                ),
            ),
            Err(error) => points.failed(LIST, &error),
        }
        self.check_put_if_absent(points).await;
        self.check_upload(points).await;
        match self.delete().await {
            Ok(true) => points.ok(DELETE, "what was put"),
            Ok(false) => points.refuse(
                DELETE,
                Kind::Corrupt,
                (
                    "the object is still there".to_owned(),
                    "Look for a retention or versioning rule that keeps objects.",
                ),
            ),
            Err(error) => points.failed(DELETE, &error),
        }
        true
    }

    async fn check_put_if_absent(&self, points: &mut Points) {
        const HINT: &str = "See that one server alone archives here: where the store does not \
            refuse, two that put the same WAL file at the same moment are not told apart.";
        let hint = (PUT_IF_ABSENT, HINT);
        judge_condition(self.put(true).await, hint, points);
    }

    /// An upload in parts, to be completed where an object stands already.
    async fn check_upload(&self, points: &mut Points) {
        const HINT: &str = "See that one server alone archives here: where the store does not \
            refuse, two that upload the same WAL file above 32 MiB are not told apart.";
        match self.upload().await {
            Ok(completed) => judge_condition(completed, (UPLOAD, HINT), points),
            Err(error) => points.failed(UPLOAD, &error),
        }
    }

    async fn put(&self, if_absent: bool) -> Result<(), StoreError> {
        let options = PutOptions {
            if_absent,
            ..PutOptions::default()
        };
        self.store.put(&self.key, self.body.clone(), &options).await
    }

    async fn get(&self) -> Result<BytesMut, StoreError> {
        self.store
            .get(&self.key, None)
            .await?
            .chunks
            .try_collect()
            .await
    }

    async fn is_listed(&self) -> Result<bool, StoreError> {
        let mut request = ListRequest {
            prefix: self.key.as_str().to_owned(),
            ..ListRequest::default()
        };
        loop {
            let page = self.store.list(&request).await?;
            let is_here = page.objects.iter().any(|meta| meta.key == self.key);
            if is_here || page.next.is_none() {
                return Ok(is_here);
            }
            request.token = page.next;
        }
    }

    /// How the completion ended. The upload is aborted but where it was completed.
    async fn upload(&self) -> Result<Result<(), StoreError>, StoreError> {
        let options = PutOptions {
            if_absent: true,
            ..PutOptions::default()
        };
        let upload = self.store.begin_upload(&self.key, &options).await?;
        let body = self.body.clone();
        let put = self.store.put_part(&self.key, &upload, 1, body).await;
        let completed = match put {
            Ok(part) => {
                let parts = [part];
                let complete = self
                    .store
                    .complete_upload(&self.key, &upload, &parts, &options);
                Ok(complete.await)
            }
            Err(error) => Err(error),
        };
        self.store.abort_upload(&self.key, &upload).await?;
        completed
    }

    /// Whether the object is gone.
    async fn delete(&self) -> Result<bool, StoreError> {
        self.store.delete(std::slice::from_ref(&self.key)).await?;
        match self.store.head(&self.key).await {
            Ok(_) => Ok(false),
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) => Err(error),
        }
    }
}
