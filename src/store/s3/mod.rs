//! A bucket of an S3 service, by the AWS SDK. One attempt per call.
//!
//! Written for S3-compatible services as much as for Amazon's: no checksum trailers, path-style
//! addresses at given endpoints, Content-MD5 on bulk deletes.

mod client;
mod deleting;
mod fault;
mod reading;
mod signing;
mod wire;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CompletedMultipartUpload, CompletedPart, CreateBucketConfiguration,
    ServerSideEncryption, StorageClass,
};
use bytes::Bytes;

use self::fault::{Request, is_status};
use crate::store::config::{Encryption, S3Config};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::request;
use crate::store::{
    Learnt, ListPage, ListRequest, ObjectBody, ObjectKey, ObjectMeta, ObjectStore, PartTag,
    PutOptions, UploadId,
};

/// What Barman's objects have.
const CONTENT_TYPE: &str = "binary/octet-stream";

/// A bucket of an S3 service.
#[derive(Debug)]
pub struct S3Store {
    client: Client,
    bucket: String,
    location: String,
    encryption: Option<Encryption>,
    storage_class: Option<StorageClass>,
    region: Option<String>,
    is_plain_http: bool,
    endpoint: Option<String>,
    chain: Option<Arc<str>>,
    has_bulk_delete: AtomicBool,
    /// Whether the service has refused a body without its MD5.
    wants_md5: AtomicBool,
}

impl S3Store {
    /// The bucket; no request is made, except where the host's credential sources need one.
    pub async fn new(config: &S3Config) -> Self {
        Self {
            client: client::client(config).await,
            bucket: config.bucket.clone(),
            location: format!("s3://{}", config.bucket),
            encryption: config.encryption.clone(),
            storage_class: config.storage_class.as_deref().map(StorageClass::from),
            region: config.region.clone(),
            is_plain_http: config.is_plain_http(),
            // Without what else a URL can hold, for it goes into messages.
            endpoint: config
                .endpoint_url
                .as_ref()
                .map(|url| url.origin().ascii_serialization()),
            chain: client::chain(&config.credentials).map(Arc::from),
            has_bulk_delete: AtomicBool::new(true),
            wants_md5: AtomicBool::new(false),
        }
    }

    fn request(&self, operation: &'static str, name: &str) -> Request {
        Request {
            plain: request::Request::new(operation, &self.location, name),
            endpoint: self.endpoint.clone(),
            chain: self.chain.clone(),
        }
    }

    /// The header values of encryption at rest.
    fn encryption(&self, options: &PutOptions) -> (Option<ServerSideEncryption>, Option<String>) {
        match options.encryption.as_ref().or(self.encryption.as_ref()) {
            None => (None, None),
            Some(Encryption::Aes256) => (Some(ServerSideEncryption::Aes256), None),
            Some(Encryption::AwsKms { key_id }) => {
                (Some(ServerSideEncryption::AwsKms), key_id.clone())
            }
        }
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    fn location(&self) -> &str {
        &self.location
    }

    fn learnt(&self) -> Learnt {
        Learnt {
            wants_md5: self.wants_md5.load(Ordering::Relaxed),
        }
    }

    fn recall(&self, learnt: Learnt) {
        self.wants_md5.fetch_or(learnt.wants_md5, Ordering::Relaxed);
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        options: &PutOptions,
    ) -> Result<(), StoreError> {
        let request = self.request("put", key.as_str());
        let (encryption, encryption_key) = self.encryption(options);
        self.send_body(&body, options.sha256.as_ref(), |signature| {
            self.client
                .put_object()
                .bucket(&self.bucket)
                .key(key.as_str())
                .content_type(CONTENT_TYPE)
                .set_if_none_match(options.if_absent.then(|| "*".to_owned()))
                .set_tagging(wire::tagging(&options.tags))
                .set_server_side_encryption(encryption.clone())
                .set_ssekms_key_id(encryption_key.clone())
                .set_storage_class(self.storage_class.clone())
                .body(ByteStream::from(body.clone()))
                .customize()
                .interceptor(signature)
                .send()
        })
        .await
        .map_err(|error| request.meaning(error))?;
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
        let request = self.request("begin upload of", key.as_str());
        let (encryption, encryption_key) = self.encryption(options);
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(key.as_str())
            .content_type(CONTENT_TYPE)
            .set_tagging(wire::tagging(&options.tags))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(encryption_key)
            .set_storage_class(self.storage_class.clone())
            .send()
            .await
            .map_err(|error| request.meaning(error))?;
        begun
            .upload_id()
            .map(|id| UploadId(id.to_owned()))
            .ok_or_else(|| request.explained(StoreErrorKind::Corrupt, "no upload id in the answer"))
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        let request = self.request("put part of", key.as_str());
        let put = self
            .send_body(&body, None, |signature| {
                self.client
                    .upload_part()
                    .bucket(&self.bucket)
                    .key(key.as_str())
                    .upload_id(&upload.0)
                    .part_number(i32::try_from(number).unwrap_or(i32::MAX))
                    .body(ByteStream::from(body.clone()))
                    .customize()
                    .interceptor(signature)
                    .send()
            })
            .await
            .map_err(|error| request.meaning(error))?;
        let tag = put
            .e_tag()
            .ok_or_else(|| request.explained(StoreErrorKind::Corrupt, "no ETag in the answer"))?;
        Ok(PartTag {
            number,
            tag: tag.to_owned(),
        })
    }

    async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartTag],
        options: &PutOptions,
    ) -> Result<(), StoreError> {
        let request = self.request("complete upload of", key.as_str());
        let parts = parts
            .iter()
            .map(|part| {
                CompletedPart::builder()
                    .part_number(i32::try_from(part.number).unwrap_or(i32::MAX))
                    .e_tag(&part.tag)
                    .build()
            })
            .collect();
        let whole = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        self.client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(key.as_str())
            .upload_id(&upload.0)
            .set_if_none_match(options.if_absent.then(|| "*".to_owned()))
            .multipart_upload(whole)
            .send()
            .await
            .map_err(|error| request.meaning(error))?;
        Ok(())
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        let request = self.request("abort upload of", key.as_str());
        let aborted = self
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(key.as_str())
            .upload_id(&upload.0)
            .send()
            .await;
        match aborted.map_err(|error| request.meaning(error)) {
            Err(error) if !error.is_no_upload() => Err(error),
            _ => Ok(()),
        }
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId)>, StoreError> {
        self.uploads_under_way(prefix).await
    }

    async fn check_container(&self) -> Result<(), StoreError> {
        // Not HeadBucket: its answer has no body to say what is wrong.
        let request = self.request("check", "");
        self.client
            .list_objects_v2()
            .bucket(&self.bucket)
            .max_keys(1)
            .send()
            .await
            .map_err(|error| request.meaning(error))?;
        Ok(())
    }

    async fn create_container(&self) -> Result<(), StoreError> {
        let request = self.request("create", "");
        let place = self
            .region
            .as_deref()
            .filter(|region| *region != "us-east-1")
            .map(|region| {
                CreateBucketConfiguration::builder()
                    .location_constraint(BucketLocationConstraint::from(region))
                    .build()
            });
        let created = self
            .client
            .create_bucket()
            .bucket(&self.bucket)
            .set_create_bucket_configuration(place)
            .send()
            .await;
        match created {
            Ok(_) => Ok(()),
            Err(error) if is_status(&error, 409) => self.check_container().await,
            Err(error) => Err(request.meaning(error)),
        }
    }
}

#[cfg(test)]
mod tests;
