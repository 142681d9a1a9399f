//! A bucket of Google Cloud Storage, by requests of our own on its JSON API. One attempt per call.
//!
//! # Uploads in parts
//!
//! An upload is a *resumable session*: one part after the other, and the object appears with the
//! last. Parts asked for at once wait for their turn, so one archive goes out over one connection
//! at a time; what runs side by side are archives, and the pieces of one. The other ways were
//! weighed and left:
//!
//! * Objects for parts, put together by `compose`: in parallel, but a bucket with a retention policy
//!   or soft delete keeps (and bills) each part for its whole time, the cold classes bill each for
//!   weeks, a writer that may only create cannot take them away, and a crash leaves them visible.
//! * The XML API's multipart uploads: in parallel, but without conditions, and no emulator judges
//!   them.
//!
//! A session that a crash leaves is invisible, costs nothing and ends by itself after a week, and
//! whoever knows its address may write the object until then. So the address stays in this
//! process, an upload's id is a number of our own, and there is nothing to list or to abort of
//! other processes. What follows from sessions: parts are put in order, each once.
//!
//! Bytes are checked by their CRC32C: of a whole put by the service before it takes it, of an upload
//! by us in the answer to its end. The etag is the generation.

mod client;
mod deleting;
mod fault;
mod federation;
mod jwt;
mod reading;
mod session;
mod token;
mod uploading;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;

use self::client::{Call, Client};
use self::session::Session;
use crate::store::config::GcsConfig;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::request::Request;
use crate::store::{
    ListPage, ListRequest, ObjectBody, ObjectKey, ObjectMeta, ObjectStore, PartTag, PutOptions,
    UploadId,
};

/// A bucket of Google Cloud Storage.
pub struct GcsStore {
    client: Client,
    bucket: String,
    location: String,
    kms_key_name: Option<String>,
    storage_class: Option<String>,
    project: Option<String>,
    sessions: Mutex<BTreeMap<String, Arc<Session>>>,
}

impl fmt::Debug for GcsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GcsStore").field(&self.location).finish()
    }
}

impl GcsStore {
    /// The bucket; no request is made.
    pub fn new(config: &GcsConfig) -> Self {
        Self {
            client: Client::new(config),
            bucket: config.bucket.clone(),
            location: format!("gs://{}", config.bucket),
            kms_key_name: config.kms_key_name.clone(),
            storage_class: config.storage_class.clone(),
            project: config.project.clone(),
            sessions: Mutex::default(),
        }
    }

    fn request(&self, operation: &'static str, name: &str) -> Request {
        Request::new(operation, &self.location, name)
    }

    /// The path of the bucket's objects.
    fn objects_path(&self) -> String {
        format!("/storage/v1/b/{}/o", wire::path_element(&self.bucket))
    }

    /// The path of one object.
    fn object_path(&self, key: &ObjectKey) -> String {
        format!(
            "{}/{}",
            self.objects_path(),
            wire::path_element(key.as_str())
        )
    }
}

#[async_trait]
impl ObjectStore for GcsStore {
    fn location(&self) -> &str {
        &self.location
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        options: &PutOptions,
    ) -> Result<(), StoreError> {
        self.put_whole(key, body, options).await
    }

    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<ObjectBody, StoreError> {
        self.get_body(key, range).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.head_meta(key).await
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        self.delete_keys(keys).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        self.list_page(request).await
    }

    async fn begin_upload(
        &self,
        key: &ObjectKey,
        options: &PutOptions,
    ) -> Result<UploadId, StoreError> {
        self.begin_session(key, options).await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        self.put_part_in_turn(key, upload, number, body).await
    }

    async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartTag],
        // The session has the condition since it began.
        _options: &PutOptions,
    ) -> Result<(), StoreError> {
        self.complete_session(key, upload, parts).await
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        self.abort_session(key, upload).await
    }

    /// Those of this process: others cannot be seen, and need not be aborted.
    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId)>, StoreError> {
        let sessions = self.sessions.lock();
        let sessions = sessions.unwrap_or_else(PoisonError::into_inner);
        let found = sessions
            .iter()
            .filter(|(_, session)| session.key.as_str().starts_with(prefix))
            .map(|(id, session)| (session.key.clone(), UploadId(id.clone())));
        Ok(found.collect())
    }

    async fn check_container(&self) -> Result<(), StoreError> {
        // Not the bucket itself: few roles for objects may look at it.
        self.check(&self.request("check", "")).await
    }

    async fn create_container(&self) -> Result<(), StoreError> {
        let request = self.request("create", "");
        let Some(project) = &self.project else {
            // Without a project nothing can be made: good enough if it is there.
            return match self.check(&request).await {
                Err(error) if error.kind == StoreErrorKind::NoContainer => {
                    let text = "to make a bucket, name its project with GOOGLE_CLOUD_PROJECT";
                    Err(request.explained(StoreErrorKind::Config, text))
                }
                other => other,
            };
        };
        let target = format!("/storage/v1/b{}", wire::query(&[("project", project)]));
        let body = serde_json::json!({ "name": self.bucket }).to_string();
        let call = Call::new(Method::POST, target).body("application/json; charset=UTF-8", body);
        match self.client.answer(&request, call).await? {
            Ok(_) => Ok(()),
            Err(answer) if answer.status == 409 => self.check_container().await,
            Err(answer) => Err(answer.of(&request)),
        }
    }
}
