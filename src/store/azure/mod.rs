//! A container of Azure Blob Storage, by REST requests of our own. One attempt per call.
//!
//! Objects are block blobs. Not here: finding and refreshing tokens and the arithmetic of
//! signatures, which `object_store` lends us (`credentials`, `wire`).

mod blocks;
mod credentials;
mod deleting;
mod fault;
mod listing;
mod reading;
mod upload_id;
mod wire;
mod xml;

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;

use self::blocks::Ended;
use self::wire::{Call, Wire};
use crate::store::config::AzureConfig;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::request::Request;
use crate::store::{
    ListPage, ListRequest, ObjectBody, ObjectKey, ObjectMeta, ObjectStore, PartTag, PutOptions,
    UploadId,
};

/// What Barman's blobs have.
const CONTENT_TYPE: &str = "application/octet-stream";

/// A container of Azure Blob Storage.
pub struct AzureStore {
    wire: Wire,
    location: String,
    encryption_scope: Option<String>,
    ended: Ended,
}

impl fmt::Debug for AzureStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AzureStore").field(&self.location).finish()
    }
}

impl AzureStore {
    /// The container; no request is made. Fails where the credentials have no possible form.
    pub fn new(config: &AzureConfig) -> Result<Self, StoreError> {
        Ok(Self {
            wire: Wire::new(config)?,
            location: location(config),
            encryption_scope: config.encryption_scope.clone(),
            ended: Ended::default(),
        })
    }

    fn request(&self, operation: &'static str, name: &str) -> Request {
        Request::new(operation, &self.location, name)
    }

    /// A call that writes bytes of a blob, which are encrypted in the scope that was asked for.
    fn writing<'a>(&self, key: &'a ObjectKey, body: Bytes) -> Call<'a> {
        let call = Call::on_blob(Method::PUT, key).body(body);
        match &self.encryption_scope {
            Some(scope) => call.header("x-ms-encryption-scope", scope),
            None => call,
        }
    }
}

/// The container's URL.
fn location(config: &AzureConfig) -> String {
    let base = config.endpoint_url.as_str().trim_end_matches('/');
    format!("{base}/{}", config.container)
}

#[async_trait]
impl ObjectStore for AzureStore {
    fn location(&self) -> &str {
        &self.location
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        options: &PutOptions,
    ) -> Result<(), StoreError> {
        let request = self.request("put", key.as_str());
        let call = self
            .writing(key, body)
            .header("x-ms-blob-type", "BlockBlob")
            .header("content-type", CONTENT_TYPE)
            .only_if_absent(options.if_absent)
            .tags(wire::tags(&options.tags).as_deref());
        self.wire.send(&request, call).await?;
        Ok(())
    }

    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<ObjectBody, StoreError> {
        self.get_body(key, range).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let request = self.request("head", key.as_str());
        let call = Call::on_blob(Method::HEAD, key);
        let answer = self.wire.send(&request, call).await?;
        reading::meta_of_head(&request, key, answer.headers())
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        self.delete_keys(keys).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        self.list_page(request).await
    }

    /// Azure is not asked: an upload begins with its first block.
    async fn begin_upload(&self, _: &ObjectKey, _: &PutOptions) -> Result<UploadId, StoreError> {
        Ok(upload_id::new())
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        self.put_block(key, upload, number, body).await
    }

    async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartTag],
        options: &PutOptions,
    ) -> Result<(), StoreError> {
        self.put_block_list(key, upload, parts, options).await
    }

    /// Azure has no request that drops blocks: they stay, unseen, until a blob is put under the
    /// key or a week has passed. The upload is only forgotten, by this process.
    async fn abort_upload(&self, _: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        self.ended.add(upload);
        Ok(())
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId)>, StoreError> {
        self.uploads_under_way(prefix).await
    }

    async fn check_container(&self) -> Result<(), StoreError> {
        // Not the container's properties: a signature for one container may not read them.
        let request = self.request("check", "");
        let call = Call::on_container(Method::GET)
            .query("comp", "list")
            .query("maxresults", "1");
        self.wire.send(&request, call).await?;
        Ok(())
    }

    async fn create_container(&self) -> Result<(), StoreError> {
        let request = self.request("create", "");
        let call = Call::on_container(Method::PUT);
        match self.wire.send(&request, call).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == StoreErrorKind::Exists => self.check_container().await,
            // A signature for one container may not make it, and is of use only where it is.
            Err(error) if error.kind == StoreErrorKind::Denied => {
                self.check_container().await.map_err(|_| error)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
