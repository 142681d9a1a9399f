//! A store that dies after so many changes: each further request fails.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{
    ListPage, ListRequest, ObjectBody, ObjectKey, ObjectMeta, ObjectStore, PartTag, PutOptions,
    UploadId,
};

/// Lets `changes_left` objects be put or deleted, one by one even within a bulk delete.
#[derive(Debug)]
pub(crate) struct DyingStore {
    pub(crate) engine: Arc<dyn ObjectStore>,
    pub(crate) changes_left: AtomicUsize,
}

fn dead(operation: &'static str) -> StoreError {
    StoreError {
        operation,
        subject: "anything".to_owned(),
        kind: StoreErrorKind::Unreachable,
        source: None,
    }
}

impl DyingStore {
    fn live(&self, operation: &'static str) -> Result<(), StoreError> {
        let is_alive = self.changes_left.load(Ordering::SeqCst) > 0;
        is_alive.then_some(()).ok_or_else(|| dead(operation))
    }

    fn change(&self, operation: &'static str) -> Result<(), StoreError> {
        self.live(operation)?;
        self.changes_left.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for DyingStore {
    fn location(&self) -> &str {
        self.engine.location()
    }

    async fn put(&self, key: &ObjectKey, body: Bytes, o: &PutOptions) -> Result<(), StoreError> {
        self.change("put")?;
        self.engine.put(key, body, o).await
    }

    async fn get(&self, key: &ObjectKey, r: Option<Range<u64>>) -> Result<ObjectBody, StoreError> {
        self.live("get")?;
        self.engine.get(key, r).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.live("head")?;
        self.engine.head(key).await
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        for key in keys {
            self.change("delete")?;
            self.engine.delete(std::slice::from_ref(key)).await?;
        }
        Ok(())
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        self.live("list")?;
        self.engine.list(request).await
    }

    async fn begin_upload(&self, _: &ObjectKey, _: &PutOptions) -> Result<UploadId, StoreError> {
        Err(dead("begin an upload"))
    }

    async fn put_part(
        &self,
        _: &ObjectKey,
        _: &UploadId,
        _: u32,
        _: Bytes,
    ) -> Result<PartTag, StoreError> {
        Err(dead("put a part"))
    }

    async fn complete_upload(
        &self,
        _: &ObjectKey,
        _: &UploadId,
        _: &[PartTag],
        _: &PutOptions,
    ) -> Result<(), StoreError> {
        Err(dead("complete an upload"))
    }

    async fn abort_upload(&self, _: &ObjectKey, _: &UploadId) -> Result<(), StoreError> {
        Err(dead("abort an upload"))
    }

    async fn list_uploads(&self, _: &str) -> Result<Vec<(ObjectKey, UploadId)>, StoreError> {
        Err(dead("list uploads"))
    }

    async fn check_container(&self) -> Result<(), StoreError> {
        Err(dead("check"))
    }

    async fn create_container(&self) -> Result<(), StoreError> {
        Err(dead("create"))
    }
}
