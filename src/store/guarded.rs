//! A store that asks a guard before each request: for tests of death between two requests, and of
//! objects that may not be changed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::faulty::Call;
use crate::store::{
    ListPage, ListRequest, ObjectBody, ObjectKey, ObjectMeta, ObjectStore, PartTag, PutOptions,
    UploadId,
};

/// Says of a request on a key, or below a prefix, how it fails, if it does.
type Guard = dyn Fn(Call, &str) -> Option<StoreErrorKind> + Send + Sync;

/// The store inside, for requests that the guard lets pass. A bulk delete is asked for key by key,
/// and stops where one is refused.
pub(crate) struct GuardedStore {
    engine: Arc<dyn ObjectStore>,
    guard: Box<Guard>,
}

impl fmt::Debug for GuardedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GuardedStore").field(&self.engine).finish()
    }
}

impl GuardedStore {
    /// Does not answer any more after so many objects were put or deleted.
    pub(crate) fn dying_after(changes: usize, engine: Arc<dyn ObjectStore>) -> Self {
        let changes_left = AtomicUsize::new(changes);
        let guard = move |call, _: &str| {
            let is_read = matches!(
                call,
                Call::Get | Call::Head | Call::List | Call::ListUploads | Call::CheckContainer
            );
            let change = usize::from(!is_read);
            let count_down = |left: usize| (left > 0).then(|| left - change);
            changes_left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, count_down)
                .is_err()
                .then_some(StoreErrorKind::Unreachable)
        };
        Self {
            engine,
            guard: Box::new(guard),
        }
    }

    /// Refuses to put or delete keys that hold `locked`, as an object lock or a policy does.
    pub(crate) fn locked(locked: &'static str, engine: Arc<dyn ObjectStore>) -> Self {
        let guard = move |call, key: &str| {
            let is_refused = matches!(call, Call::Put | Call::Delete) && key.contains(locked);
            is_refused.then_some(StoreErrorKind::Denied)
        };
        Self {
            engine,
            guard: Box::new(guard),
        }
    }

    fn pass(&self, call: Call, key: &str) -> Result<(), StoreError> {
        match (self.guard)(call, key) {
            None => Ok(()),
            Some(kind) => Err(StoreError {
                operation: "guarded",
                subject: format!("{key} ({call:?})"),
                kind,
                source: None,
            }),
        }
    }
}

#[async_trait]
impl ObjectStore for GuardedStore {
    fn location(&self) -> &str {
        self.engine.location()
    }

    async fn put(&self, key: &ObjectKey, body: Bytes, o: &PutOptions) -> Result<(), StoreError> {
        self.pass(Call::Put, key.as_str())?;
        self.engine.put(key, body, o).await
    }

    async fn get(&self, key: &ObjectKey, r: Option<Range<u64>>) -> Result<ObjectBody, StoreError> {
        self.pass(Call::Get, key.as_str())?;
        self.engine.get(key, r).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.pass(Call::Head, key.as_str())?;
        self.engine.head(key).await
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        for key in keys {
            self.pass(Call::Delete, key.as_str())?;
            self.engine.delete(std::slice::from_ref(key)).await?;
        }
        Ok(())
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        self.pass(Call::List, &request.prefix)?;
        self.engine.list(request).await
    }

    async fn begin_upload(&self, key: &ObjectKey, o: &PutOptions) -> Result<UploadId, StoreError> {
        self.pass(Call::BeginUpload, key.as_str())?;
        self.engine.begin_upload(key, o).await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        self.pass(Call::PutPart, key.as_str())?;
        self.engine.put_part(key, upload, number, body).await
    }

    async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartTag],
        o: &PutOptions,
    ) -> Result<(), StoreError> {
        self.pass(Call::CompleteUpload, key.as_str())?;
        self.engine.complete_upload(key, upload, parts, o).await
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        self.pass(Call::AbortUpload, key.as_str())?;
        self.engine.abort_upload(key, upload).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId)>, StoreError> {
        self.pass(Call::ListUploads, prefix)?;
        self.engine.list_uploads(prefix).await
    }

    async fn check_container(&self) -> Result<(), StoreError> {
        self.pass(Call::CheckContainer, "")?;
        self.engine.check_container().await
    }

    async fn create_container(&self) -> Result<(), StoreError> {
        self.pass(Call::CreateContainer, "")?;
        self.engine.create_container().await
    }
}
