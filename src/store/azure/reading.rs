//! Reading blobs, and what is known of them.

use std::ops::Range;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, LAST_MODIFIED};
use http::{HeaderMap, Method};

use super::fault;
use super::wire::Call;
use super::{AzureStore, xml};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::exact_body::exactly;
use crate::store::request::Request;
use crate::store::{ObjectBody, ObjectKey, ObjectMeta};

impl AzureStore {
    pub(super) async fn get_body(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<ObjectBody, StoreError> {
        let request = self.request("get", key.as_str());
        let mut call = Call::on_blob(Method::GET, key);
        if let Some(range) = &range {
            if range.is_empty() {
                return Err(request.failed(StoreErrorKind::Range));
            }
            call = call.header(
                "x-ms-range",
                format!("bytes={}-{}", range.start, range.end - 1),
            );
        }
        let answer = self.wire.send(&request, call).await?;
        let (head, body) = answer.into_parts();
        let sent = number(&head.headers, &CONTENT_LENGTH);
        // An answer to a range says the whole size behind the slash.
        let size = match text(&head.headers, &CONTENT_RANGE) {
            Some(range) => range
                .rsplit_once('/')
                .and_then(|(_, size)| size.parse().ok()),
            None => sent,
        };
        let size = size
            .ok_or_else(|| request.explained(StoreErrorKind::Corrupt, "no size in the answer"))?;
        // Emulators answer with nothing where Azure refuses.
        if range.as_ref().is_some_and(|range| range.start >= size) {
            return Err(request.failed(StoreErrorKind::Range));
        }
        let wanted = range.map_or(size, |range| {
            range.end.min(size).saturating_sub(range.start)
        });
        if sent != Some(wanted) {
            return Err(request.explained(
                StoreErrorKind::Corrupt,
                format!("asked for {wanted} bytes, the answer has another length"),
            ));
        }
        Ok(ObjectBody {
            meta: meta(key, size, &head.headers),
            chunks: exactly(wanted, request.clone(), request.chunks(body)),
        })
    }
}

/// What a HEAD says of a blob.
pub(super) fn meta_of_head(
    request: &Request,
    key: &ObjectKey,
    headers: &HeaderMap,
) -> Result<ObjectMeta, StoreError> {
    let size = number(headers, &CONTENT_LENGTH)
        .ok_or_else(|| request.explained(StoreErrorKind::Corrupt, "no size in the answer"))?;
    Ok(meta(key, size, headers))
}

fn meta(key: &ObjectKey, size: u64, headers: &HeaderMap) -> ObjectMeta {
    ObjectMeta {
        key: key.clone(),
        size,
        etag: text(headers, &ETAG).map(fault::plain_etag),
        modified: xml::time(text(headers, &LAST_MODIFIED)),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    text(headers, name)?.trim().parse().ok()
}
