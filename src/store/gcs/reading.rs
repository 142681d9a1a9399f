//! Reading: objects, what is known of them, listings.

use std::ops::Range;

use chrono::{DateTime, Utc};
use http::{HeaderMap, Method, header};

use super::client::Call;
use super::wire::{self, ListResource, OBJECT_FIELDS, ObjectResource};
use super::{GcsStore, client};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::exact_body::exactly;
use crate::store::request::Request;
use crate::store::{ListPage, ListRequest, ObjectBody, ObjectKey, ObjectMeta, PageToken};

/// What a listing asks to be told.
const LIST_FIELDS: &str = "nextPageToken,prefixes,items(name,size,generation,timeCreated)";

/// The most entries of one page.
const PAGE_MAX: u16 = 1000;

impl GcsStore {
    pub(super) async fn get_body(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<ObjectBody, StoreError> {
        let request = self.request("get", key.as_str());
        if range.as_ref().is_some_and(Range::is_empty) {
            return Err(request.failed(StoreErrorKind::Range));
        }
        let target = format!("{}?alt=media", self.object_path(key));
        // Without it the service unpacks what others stored with `Content-Encoding: gzip`.
        let mut call = Call::new(Method::GET, target).header(header::ACCEPT_ENCODING, "gzip");
        if let Some(range) = &range {
            let value = format!("bytes={}-{}", range.start, range.end - 1);
            call = call.header(header::RANGE, value);
        }
        let answer = self.client.send(&request, call).await?;
        if !answer.status().is_success() {
            let answer = self.client.refusal(&request, answer).await?;
            if answer.status == 404 && !answer.is_no_object() {
                return Err(self.absence(&request, key).await);
            }
            return Err(answer.of(&request));
        }
        let (head, body) = answer.into_parts();
        let meta = meta_of_headers(&request, key, &head.headers, range.is_some())?;
        let wanted = range.map_or(meta.size, |range| {
            range.end.min(meta.size).saturating_sub(range.start)
        });
        let sent: Option<u64> = number(&head.headers, header::CONTENT_LENGTH.as_str());
        if sent.is_some_and(|sent| sent != wanted) {
            return Err(request.explained(
                StoreErrorKind::Corrupt,
                format!("asked for {wanted} bytes, the answer has another length"),
            ));
        }
        Ok(ObjectBody {
            meta,
            chunks: exactly(wanted, request.clone(), request.chunks(body)),
        })
    }

    pub(super) async fn head_meta(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.head_as(&self.request("head", key.as_str()), key).await
    }

    /// Why bytes of an object are not to be had: asked of the face that answers in JSON.
    async fn absence(&self, request: &Request, key: &ObjectKey) -> StoreError {
        match self.head_as(request, key).await {
            Ok(_) => request.explained(StoreErrorKind::Unreachable, "it was not there at first"),
            Err(error) => error,
        }
    }

    async fn head_as(&self, request: &Request, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let target = format!("{}?fields={OBJECT_FIELDS}", self.object_path(key));
        match self
            .client
            .answer(request, Call::new(Method::GET, target))
            .await?
        {
            Ok((_, body)) => {
                let found: ObjectResource = client::parsed(request, &body)?;
                let meta = found.to_meta().filter(|meta| meta.key == *key);
                meta.ok_or_else(|| {
                    request.explained(StoreErrorKind::Corrupt, "the answer is of no such object")
                })
            }
            // Google says which of them is missing. Where only the emulators' short text comes,
            // a bucket that can be listed is there, so that it is the object that is not.
            Err(answer)
                if answer.is_absent() && !answer.is_no_object() && !answer.is_no_bucket() =>
            {
                self.check(request).await?;
                Err(request.caused(StoreErrorKind::NotFound, answer))
            }
            Err(answer) => Err(answer.of(request)),
        }
    }

    /// Fails unless the bucket is there and may be listed.
    pub(super) async fn check(&self, request: &Request) -> Result<(), StoreError> {
        let target = format!("{}?maxResults=1&fields=nextPageToken", self.objects_path());
        let call = Call::new(Method::GET, target);
        match self.client.answer(request, call).await? {
            Ok(_) => Ok(()),
            Err(answer) if answer.is_absent() => {
                Err(request.caused(StoreErrorKind::NoContainer, answer))
            }
            Err(answer) => Err(answer.of(request)),
        }
    }

    pub(super) async fn list_page(&self, asked: &ListRequest) -> Result<ListPage, StoreError> {
        let mut asked = asked.clone();
        loop {
            let page = self.list_once(&asked).await?;
            // The key after which the listing was to begin may have been all of it.
            if !page.objects.is_empty() || !page.prefixes.is_empty() || page.next.is_none() {
                return Ok(page);
            }
            asked.token.clone_from(&page.next);
        }
    }

    async fn list_once(&self, asked: &ListRequest) -> Result<ListPage, StoreError> {
        let request = self.request("list", &asked.prefix);
        let size = asked.page_size_max.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        let size = size.to_string();
        let mut pairs = vec![
            ("maxResults", size.as_str()),
            ("fields", LIST_FIELDS),
            ("prefix", &asked.prefix),
        ];
        if asked.is_delimited {
            pairs.push(("delimiter", "/"));
        }
        if let Some(token) = &asked.token {
            pairs.push(("pageToken", &token.0));
        }
        // A token goes on within the same listing: all but it stays as it was.
        if let Some(after) = &asked.start_after {
            pairs.push(("startOffset", after));
        }
        let target = format!("{}{}", self.objects_path(), wire::query(&pairs));
        let listed: ListResource = self
            .client
            .json(&request, Call::new(Method::GET, target))
            .await?;
        let metas: Option<Vec<ObjectMeta>> =
            listed.items.iter().map(ObjectResource::to_meta).collect();
        let mut objects = metas.ok_or_else(|| {
            request.explained(
                StoreErrorKind::Corrupt,
                "an entry without size or generation",
            )
        })?;
        // The service begins with the key itself.
        if let Some(after) = &asked.start_after {
            objects.retain(|meta| meta.key.as_str() > after.as_str());
        }
        Ok(ListPage {
            objects,
            prefixes: listed.prefixes,
            next: listed.next_page_token.map(PageToken),
        })
    }
}

/// A header that is a number.
fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// What the head of a GET says of its object. `is_ranged`: a part was asked for, and must be
/// what came.
fn meta_of_headers(
    request: &Request,
    key: &ObjectKey,
    headers: &HeaderMap,
    is_ranged: bool,
) -> Result<ObjectMeta, StoreError> {
    let corrupt = |what: &str| request.explained(StoreErrorKind::Corrupt, what);
    let content_range = headers.get(header::CONTENT_RANGE);
    let size = match (content_range, is_ranged) {
        (Some(content_range), _) => content_range
            .to_str()
            .ok()
            .and_then(|text| text.rsplit_once('/')?.1.trim().parse().ok()),
        (None, false) => number(headers, "x-goog-stored-content-length")
            .or_else(|| number(headers, header::CONTENT_LENGTH.as_str())),
        (None, true) => {
            return Err(
                request.explained(StoreErrorKind::Unsupported, "the service ignores ranges")
            );
        }
    };
    let generation = number(headers, "x-goog-generation");
    let modified = headers
        .get(header::LAST_MODIFIED)
        .and_then(|value| DateTime::parse_from_rfc2822(value.to_str().ok()?).ok());
    Ok(ObjectMeta {
        key: key.clone(),
        size: size.ok_or_else(|| corrupt("no size in the answer"))?,
        etag: Some(
            generation
                .ok_or_else(|| corrupt("no generation in the answer"))?
                .to_string(),
        ),
        modified: modified.map_or(DateTime::UNIX_EPOCH, |at| at.with_timezone(&Utc)),
    })
}
