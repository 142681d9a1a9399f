//! A bucket of an S3 service, by the AWS SDK. One attempt per call.
//!
//! Written for S3-compatible services as much as for Amazon's: no checksum trailers, path-style
//! addresses at given endpoints, Content-MD5 on bulk deletes.

mod client;
mod fault;
mod wire;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CompletedMultipartUpload, CompletedPart, CreateBucketConfiguration,
    Delete, EncodingType, Object, ObjectIdentifier, ServerSideEncryption, StorageClass,
};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use self::fault::Request;
use crate::store::config::{Encryption, S3Config, S3Credentials};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{
    ListPage, ListRequest, ObjectBody, ObjectKey, ObjectMeta, ObjectStore, PageToken, PartTag,
    PutOptions, UploadId,
};

/// The most keys of one bulk delete.
const DELETE_KEYS_MAX: usize = 1000;

/// How many deletes of one key each run at once, where the service has no bulk delete.
const SINGLE_DELETES_AT_ONCE: usize = 8;

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
    is_chain: bool,
    has_bulk_delete: AtomicBool,
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
            is_chain: matches!(config.credentials, S3Credentials::Chain { .. }),
            has_bulk_delete: AtomicBool::new(true),
        }
    }

    fn request(&self, operation: &'static str, name: &str) -> Request {
        Request {
            operation,
            subject: format!("{}/{name}", self.location),
            is_chain: self.is_chain,
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

    async fn get_range(
        &self,
        request: &Request,
        key: &ObjectKey,
        range: Option<&Range<u64>>,
    ) -> Result<GetObjectOutput, StoreError> {
        let header = match range {
            Some(range) if range.is_empty() => {
                return Err(request.failed(StoreErrorKind::Range));
            }
            Some(range) => Some(format!("bytes={}-{}", range.start, range.end - 1)),
            None => None,
        };
        self.client
            .get_object()
            .bucket(&self.bucket)
            .key(key.as_str())
            .set_range(header)
            .send()
            .await
            .map_err(|error| request.meaning(error))
    }

    /// A HEAD has no body to say whether the key or the bucket is missing, or what else is
    /// wrong: a GET has.
    async fn head_again(
        &self,
        request: &Request,
        key: &ObjectKey,
    ) -> Result<ObjectMeta, StoreError> {
        match self.get_range(request, key, Some(&(0..1))).await {
            Ok(found) => meta_of_get(request, key, &found, true),
            Err(error) if error.kind == StoreErrorKind::Range => {
                let found = self.get_range(request, key, None).await?;
                meta_of_get(request, key, &found, false)
            }
            Err(error) => Err(error),
        }
    }

    async fn delete_one(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let request = self.request("delete", key.as_str());
        let deleted = self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(key.as_str())
            .send()
            .await;
        match deleted.map_err(|error| request.meaning(error)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn delete_singly(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        let deletes: Vec<_> = keys.iter().map(|key| self.delete_one(key)).collect();
        stream::iter(deletes)
            .buffer_unordered(SINGLE_DELETES_AT_ONCE)
            .try_collect()
            .await
    }

    /// One bulk delete. Keys that XML cannot say are not for it.
    async fn delete_bulk(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        let first = keys.first().map_or("", ObjectKey::as_str);
        let request = self.request("delete", first);
        let identifiers: Vec<ObjectIdentifier> = keys
            .iter()
            .filter_map(|key| ObjectIdentifier::builder().key(key.as_str()).build().ok())
            .collect();
        assert_eq!(
            identifiers.len(),
            keys.len(),
            "each key makes an identifier"
        );
        let delete = Delete::builder()
            .set_objects(Some(identifiers))
            .quiet(true)
            .build()
            .map_err(|error| request.explained(StoreErrorKind::Other, error.to_string()))?;
        let deleted = self
            .client
            .delete_objects()
            .bucket(&self.bucket)
            .delete(delete)
            .customize()
            .interceptor(wire::ContentMd5)
            .send()
            .await
            .map_err(|error| request.meaning(error))?;
        for error in deleted.errors() {
            let request = self.request("delete", error.key().unwrap_or(first));
            let error = fault::meaning_of_code(&request, error.code(), error.message());
            if !error.is_not_found() {
                return Err(error);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for S3Store {
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
        let (encryption, encryption_key) = self.encryption(options);
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(key.as_str())
            .content_type(CONTENT_TYPE)
            .set_if_none_match(options.if_absent.then(|| "*".to_owned()))
            .set_tagging(wire::tagging(&options.tags))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(encryption_key)
            .set_storage_class(self.storage_class.clone())
            .body(ByteStream::from(body))
            .send()
            .await
            .map_err(|error| request.meaning(error))?;
        Ok(())
    }

    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<ObjectBody, StoreError> {
        let request = self.request("get", key.as_str());
        let found = self.get_range(&request, key, range.as_ref()).await?;
        let meta = meta_of_get(&request, key, &found, range.is_some())?;
        let wanted = range.map_or(meta.size, |range| {
            range.end.min(meta.size).saturating_sub(range.start)
        });
        let sent = found
            .content_length()
            .and_then(|sent| u64::try_from(sent).ok());
        if sent.is_some_and(|sent| sent != wanted) {
            return Err(request.explained(
                StoreErrorKind::Corrupt,
                format!("asked for {wanted} bytes, the answer has another length"),
            ));
        }
        Ok(ObjectBody {
            meta,
            chunks: chunks_of(request, found.body, wanted),
        })
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let request = self.request("head", key.as_str());
        let sent = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(key.as_str())
            .send()
            .await;
        let found = match sent {
            Ok(found) => found,
            Err(error) if is_status(&error, 404) || is_status(&error, 400) => {
                return self.head_again(&request, key).await;
            }
            Err(error) => return Err(request.meaning(error)),
        };
        Ok(ObjectMeta {
            key: key.clone(),
            size: size_of(&request, found.content_length())?,
            etag: found.e_tag().map(str::to_owned),
            modified: wire::time(found.last_modified()),
        })
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        if let [key] = keys {
            return self.delete_one(key).await;
        }
        let (plain, odd): (Vec<ObjectKey>, Vec<ObjectKey>) = keys
            .iter()
            .cloned()
            .partition(|key| wire::is_xml_text(key.as_str()));
        for chunk in plain.chunks(DELETE_KEYS_MAX) {
            if self.has_bulk_delete.load(Ordering::Relaxed) {
                match self.delete_bulk(chunk).await {
                    Err(error) if error.kind == StoreErrorKind::Unsupported => {
                        self.has_bulk_delete.store(false, Ordering::Relaxed);
                    }
                    Err(error) => return Err(error),
                    Ok(()) => continue,
                }
            }
            self.delete_singly(chunk).await?;
        }
        self.delete_singly(&odd).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        let about = self.request("list", &request.prefix);
        let listed = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(&request.prefix)
            .encoding_type(EncodingType::Url)
            .set_delimiter(request.is_delimited.then(|| "/".to_owned()))
            .set_start_after(request.start_after.clone())
            .set_continuation_token(request.token.clone().map(|token| token.0))
            .set_max_keys(request.page_size_max.map(i32::from))
            .send()
            .await
            .map_err(|error| about.meaning(error))?;
        let is_encoded = listed.encoding_type() == Some(&EncodingType::Url);
        let next = listed
            .is_truncated()
            .unwrap_or(false)
            .then(|| {
                let token = listed.next_continuation_token().map(str::to_owned);
                token.map(PageToken).ok_or_else(|| {
                    about.explained(StoreErrorKind::Corrupt, "more follows, but not where")
                })
            })
            .transpose()?;
        let mut page = ListPage {
            next,
            ..ListPage::default()
        };
        for object in listed.contents() {
            page.objects
                .push(meta_of_listed(&about, object, is_encoded)?);
        }
        for prefix in listed.common_prefixes() {
            page.prefixes
                .push(listed_text(&about, prefix.prefix(), is_encoded)?);
        }
        Ok(page)
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
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(key.as_str())
            .upload_id(&upload.0)
            .part_number(i32::try_from(number).unwrap_or(i32::MAX))
            .body(ByteStream::from(body))
            .send()
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
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId)>, StoreError> {
        let request = self.request("list uploads of", prefix);
        let mut uploads = Vec::new();
        let mut markers: (Option<String>, Option<String>) = (None, None);
        loop {
            let listed = self
                .client
                .list_multipart_uploads()
                .bucket(&self.bucket)
                .prefix(prefix)
                .encoding_type(EncodingType::Url)
                .set_key_marker(markers.0.take())
                .set_upload_id_marker(markers.1.take())
                .send()
                .await
                .map_err(|error| request.meaning(error))?;
            let is_encoded = listed.encoding_type() == Some(&EncodingType::Url);
            for upload in listed.uploads() {
                let key = listed_text(&request, upload.key(), is_encoded)?;
                let id = upload.upload_id().unwrap_or_default().to_owned();
                uploads.push((ObjectKey::new(key), UploadId(id)));
            }
            let next_key = listed.next_key_marker().filter(|key| !key.is_empty());
            let (true, Some(next_key)) = (listed.is_truncated().unwrap_or(false), next_key) else {
                return Ok(uploads);
            };
            markers = (
                Some(listed_text(&request, Some(next_key), is_encoded)?),
                listed.next_upload_id_marker().map(str::to_owned),
            );
        }
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

fn is_status<E>(
    error: &aws_sdk_s3::error::SdkError<
        E,
        aws_smithy_runtime_api::client::orchestrator::HttpResponse,
    >,
    status: u16,
) -> bool {
    error
        .raw_response()
        .is_some_and(|raw| raw.status().as_u16() == status)
}

fn size_of(request: &Request, size: Option<i64>) -> Result<u64, StoreError> {
    size.and_then(|size| u64::try_from(size).ok())
        .ok_or_else(|| request.explained(StoreErrorKind::Corrupt, "no size in the answer"))
}

/// What a GET says of its object. `is_ranged`: a part was asked for, and must be what came.
fn meta_of_get(
    request: &Request,
    key: &ObjectKey,
    found: &GetObjectOutput,
    is_ranged: bool,
) -> Result<ObjectMeta, StoreError> {
    let size = match (found.content_range(), is_ranged) {
        (Some(content_range), _) => wire::whole_size(content_range).ok_or_else(|| {
            request.explained(StoreErrorKind::Corrupt, "no size in Content-Range")
        })?,
        (None, false) => size_of(request, found.content_length())?,
        (None, true) => {
            return Err(
                request.explained(StoreErrorKind::Unsupported, "the service ignores ranges")
            );
        }
    };
    Ok(ObjectMeta {
        key: key.clone(),
        size,
        etag: found.e_tag().map(str::to_owned),
        modified: wire::time(found.last_modified()),
    })
}

fn meta_of_listed(
    request: &Request,
    object: &Object,
    is_encoded: bool,
) -> Result<ObjectMeta, StoreError> {
    Ok(ObjectMeta {
        key: ObjectKey::new(listed_text(request, object.key(), is_encoded)?),
        size: size_of(request, object.size())?,
        etag: object.e_tag().map(str::to_owned),
        modified: wire::time(object.last_modified()),
    })
}

fn listed_text(
    request: &Request,
    text: Option<&str>,
    is_encoded: bool,
) -> Result<String, StoreError> {
    let text =
        text.ok_or_else(|| request.explained(StoreErrorKind::Corrupt, "an entry without a key"))?;
    if !is_encoded {
        return Ok(text.to_owned());
    }
    wire::decode_key(text)
        .ok_or_else(|| request.explained(StoreErrorKind::Corrupt, "a key that is not UTF-8"))
}

/// The body in chunks as they arrive. Fails unless exactly `wanted` bytes come.
fn chunks_of(
    request: Request,
    body: ByteStream,
    wanted: u64,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let request = Arc::new(request);
    stream::try_unfold((body, wanted), move |(mut body, left)| {
        let request = Arc::clone(&request);
        async move {
            match body.next().await {
                Some(Ok(chunk)) => {
                    let size = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                    let left = left.checked_sub(size).ok_or_else(|| {
                        request.explained(StoreErrorKind::Corrupt, "more bytes than announced")
                    })?;
                    Ok(Some((chunk, (body, left))))
                }
                Some(Err(error)) => {
                    Err(request.explained(StoreErrorKind::Unreachable, fault::innermost(&error)))
                }
                None if left == 0 => Ok(None),
                None => Err(request.explained(
                    StoreErrorKind::Unreachable,
                    format!("the answer broke off {left} bytes before its end"),
                )),
            }
        }
    })
    .boxed()
}
