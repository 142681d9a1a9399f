//! A store on which some objects cannot be changed, as with an object lock or a policy.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{
    ListPage, ListRequest, ObjectBody, ObjectKey, ObjectMeta, ObjectStore, PartTag, PutOptions,
    UploadId,
};

/// Refuses to put or delete keys that hold `locked`; a bulk delete stops there, as in a directory.
#[derive(Debug)]
pub(super) struct LockedStore {
    pub(super) engine: Arc<dyn ObjectStore>,
    pub(super) locked: &'static str,
}

fn refused(operation: &'static str, subject: &str) -> StoreError {
    StoreError {
        operation,
        subject: subject.to_owned(),
        kind: StoreErrorKind::Denied,
        source: None,
    }
}

#[async_trait]
impl ObjectStore for LockedStore {
    fn location(&self) -> &str {
        self.engine.location()
    }

    async fn put(&self, key: &ObjectKey, body: Bytes, o: &PutOptions) -> Result<(), StoreError> {
        if key.as_str().contains(self.locked) {
            return Err(refused("put", key.as_str()));
        }
        self.engine.put(key, body, o).await
    }

    async fn get(&self, key: &ObjectKey, r: Option<Range<u64>>) -> Result<ObjectBody, StoreError> {
        self.engine.get(key, r).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.engine.head(key).await
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        for key in keys {
            if key.as_str().contains(self.locked) {
                return Err(refused("delete", key.as_str()));
            }
            self.engine.delete(std::slice::from_ref(key)).await?;
        }
        Ok(())
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        self.engine.list(request).await
    }

    async fn begin_upload(&self, _: &ObjectKey, _: &PutOptions) -> Result<UploadId, StoreError> {
        Err(refused("begin", "an upload"))
    }

    async fn put_part(
        &self,
        _: &ObjectKey,
        _: &UploadId,
        _: u32,
        _: Bytes,
    ) -> Result<PartTag, StoreError> {
        Err(refused("put", "a part"))
    }

    async fn complete_upload(
        &self,
        _: &ObjectKey,
        _: &UploadId,
        _: &[PartTag],
        _: &PutOptions,
    ) -> Result<(), StoreError> {
        Err(refused("complete", "an upload"))
    }

    async fn abort_upload(&self, _: &ObjectKey, _: &UploadId) -> Result<(), StoreError> {
        Err(refused("abort", "an upload"))
    }

    async fn list_uploads(&self, _: &str) -> Result<Vec<(ObjectKey, UploadId)>, StoreError> {
        Err(refused("list", "uploads"))
    }

    async fn check_container(&self) -> Result<(), StoreError> {
        Err(refused("check", "the bucket"))
    }

    async fn create_container(&self) -> Result<(), StoreError> {
        Err(refused("create", "the bucket"))
    }
}
