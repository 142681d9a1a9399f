//! Uploads in parts: blocks that lie unseen until a list of them makes the blob.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::Method;

use super::wire::{self, Call};
use super::{AzureStore, CONTENT_TYPE, upload_id, xml};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::request::Request;
use crate::store::{ListRequest, ObjectKey, ObjectStore, PartTag, PutOptions, UploadId};

/// More uploads than one process ever has under way.
const ENDED_MAX: usize = 1024;

/// A list of 50,000 blocks, the most that a blob has, is shorter.
const BLOCK_LIST_BYTES_MAX: usize = 16 << 20;

/// Uploads under way, each with its key.
type Uploads = Vec<(ObjectKey, UploadId)>;

/// The uploads that this process has aborted, the latest of them.
#[derive(Debug, Default)]
pub(super) struct Ended(Mutex<VecDeque<UploadId>>);

impl Ended {
    pub(super) fn add(&self, upload: &UploadId) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() == ENDED_MAX {
            ended.pop_front();
        }
        ended.push_back(upload.clone());
    }

    fn has(&self, upload: &UploadId) -> bool {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.contains(upload)
    }

    /// Fails where the upload of that request was aborted.
    fn refuse(&self, request: &Request, upload: &UploadId) -> Result<(), StoreError> {
        if self.has(upload) {
            return Err(request.explained(StoreErrorKind::NoUpload, "the upload was aborted"));
        }
        Ok(())
    }
}

impl AzureStore {
    pub(super) async fn put_block(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        let request = self.request("put part of", key.as_str());
        self.ended.refuse(&request, upload)?;
        let tag = upload_id::block_id(upload, number);
        let call = self
            .writing(key, body)
            .query("comp", "block")
            .query("blockid", &tag);
        self.wire.send(&request, call).await?;
        Ok(PartTag { number, tag })
    }

    pub(super) async fn put_block_list(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartTag],
        options: &PutOptions,
    ) -> Result<(), StoreError> {
        let request = self.request("complete upload of", key.as_str());
        self.ended.refuse(&request, upload)?;
        let list = xml::block_list(parts.iter().map(|part| part.tag.as_str()));
        let call = self
            .writing(key, list.into())
            .query("comp", "blocklist")
            .header("content-type", "application/xml")
            .header("x-ms-blob-content-type", CONTENT_TYPE)
            .only_if_absent(options.if_absent)
            .tags(wire::tags(&options.tags).as_deref());
        match self.wire.send(&request, call).await {
            Ok(_) => Ok(()),
            // Whoever made the blob has dropped the blocks of all others with it.
            Err(gone) if gone.is_no_upload() && options.if_absent => match self.head(key).await {
                Ok(_) => Err(StoreError {
                    kind: StoreErrorKind::Exists,
                    ..gone
                }),
                Err(absent) if absent.is_not_found() => Err(gone),
                Err(other) => Err(other),
            },
            Err(error) => Err(error),
        }
    }

    /// The uploads of ours whose blocks lie under keys that begin with `prefix`: where no blob is
    /// yet, or under the key that `prefix` itself is. Blocks of other programs are not ours to name.
    pub(super) async fn uploads_under_way(&self, prefix: &str) -> Result<Uploads, StoreError> {
        let mut request = ListRequest {
            prefix: prefix.to_owned(),
            ..ListRequest::default()
        };
        let mut uploads = Vec::new();
        loop {
            let page = self.list_with_unfinished(&request).await?;
            for meta in page.objects {
                if meta.size == 0 || meta.key.as_str() == prefix {
                    uploads.extend(self.uploads_of(&meta.key).await?);
                }
            }
            request.token = page.next;
            if request.token.is_none() {
                return Ok(uploads);
            }
        }
    }

    async fn uploads_of(&self, key: &ObjectKey) -> Result<Uploads, StoreError> {
        let request = self.request("list uploads of", key.as_str());
        let call = Call::on_blob(Method::GET, key)
            .query("comp", "blocklist")
            .query("blocklisttype", "uncommitted");
        let answer = match self.wire.send(&request, call).await {
            Err(error) if error.is_not_found() => return Ok(Uploads::new()),
            other => other?,
        };
        let body = answer.into_body().collect(BLOCK_LIST_BYTES_MAX).await;
        let body = body.map_err(|error| request.unanswered(error))?;
        let blocks = xml::uncommitted_blocks(&body)
            .map_err(|error| request.explained(StoreErrorKind::Corrupt, error))?;
        let mut uploads: Uploads = Vec::new();
        for upload in blocks.iter().filter_map(|id| upload_id::of_block(id)) {
            let is_known = uploads.iter().rev().any(|(_, known)| *known == upload);
            if !is_known && !self.ended.has(&upload) {
                uploads.push((key.clone(), upload));
            }
        }
        Ok(uploads)
    }
}
