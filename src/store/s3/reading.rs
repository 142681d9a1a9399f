//! Reading: objects, what is known of them, listings.

use std::ops::Range;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{EncodingType, Object};
use bytes::Bytes;
use futures::stream::{self, Stream};

use super::fault::{Request, is_status};
use super::{S3Store, wire};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::exact_body::exactly;
use crate::store::http::innermost;
use crate::store::{ListPage, ListRequest, ObjectBody, ObjectKey, ObjectMeta, PageToken, UploadId};

impl S3Store {
    pub(super) async fn get_body(
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
            chunks: exactly(wanted, request.plain.clone(), chunks(request, found.body)),
        })
    }

    pub(super) async fn head_meta(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
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

    pub(super) async fn list_page(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        let about = self.request("list", &request.prefix);
        let sent = self
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
            .await;
        let listed = match sent.map_err(|error| about.meaning(error)) {
            // No key can begin so.
            Err(error) if error.is_not_found() => return Ok(ListPage::default()),
            other => other?,
        };
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

    pub(super) async fn uploads_under_way(
        &self,
        prefix: &str,
    ) -> Result<Vec<(ObjectKey, UploadId)>, StoreError> {
        let request = self.request("list uploads of", prefix);
        let mut uploads = Vec::new();
        let mut markers: (Option<String>, Option<String>) = (None, None);
        loop {
            let listed = self
                .client
                .list_multipart_uploads()
                .bucket(&self.bucket)
                .prefix(prefix)
                // Not with encoding-type: Ceph encodes the keys then without saying so, and of
                // whoever keeps to our names none needs it.
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

/// The body as it arrives.
fn chunks(request: Request, body: ByteStream) -> impl Stream<Item = Result<Bytes, StoreError>> {
    stream::unfold((body, request), |(mut body, request)| async move {
        let chunk = body
            .next()
            .await?
            .map_err(|error| request.explained(StoreErrorKind::Unreachable, innermost(&error)));
        Some((chunk, (body, request)))
    })
}
