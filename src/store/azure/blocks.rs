//! Uploads in parts: blocks that lie unseen until a list of them makes the blob.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::Method;

use super::upload_id::{Upload, name_of_block};
use super::wire::Call;
use super::{AzureStore, CONTENT_TYPE, xml};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{ListRequest, ObjectKey, PartTag, UploadId};

/// More uploads than one process ever has under way.
const ENDED_MAX: usize = 1024;

/// A list of 50,000 blocks, the most that a blob has, is shorter.
const BLOCK_LIST_BYTES_MAX: usize = 16 << 20;

/// The names of uploads that this process has aborted, the latest of them.
#[derive(Debug, Default)]
pub(super) struct Ended(Mutex<VecDeque<String>>);

impl Ended {
    pub(super) fn add(&self, upload: &UploadId) {
        let Some(upload) = Upload::of_id(upload) else {
            return;
        };
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() == ENDED_MAX {
            names.pop_front();
        }
        names.push_back(upload.name);
    }

    fn has(&self, name: &str) -> bool {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().any(|ended| ended == name)
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
        let upload = self
            .under_way(upload)
            .ok_or_else(|| request.explained(StoreErrorKind::NotFound, "the upload was aborted"))?;
        let tag = upload.block_id(number);
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
    ) -> Result<(), StoreError> {
        let request = self.request("complete upload of", key.as_str());
        let upload = self
            .under_way(upload)
            .ok_or_else(|| request.explained(StoreErrorKind::NotFound, "the upload was aborted"))?;
        let list = xml::block_list(parts.iter().map(|part| part.tag.as_str()));
        let call = self
            .writing(key, list.into())
            .query("comp", "blocklist")
            .header("content-type", "application/xml")
            .header("x-ms-blob-content-type", CONTENT_TYPE)
            .only_if_absent(upload.if_absent)
            .tags(upload.tags.as_deref());
        self.wire.send(&request, call).await?;
        Ok(())
    }

    fn under_way(&self, upload: &UploadId) -> Option<Upload> {
        Upload::of_id(upload).filter(|upload| !self.ended.has(&upload.name))
    }

    /// The uploads of ours whose blocks lie under keys that begin with `prefix`: where no blob is
    /// yet, or under the key that `prefix` itself is. Blocks of other programs are not ours to name.
    pub(super) async fn uploads_under_way(
        &self,
        prefix: &str,
    ) -> Result<Vec<(ObjectKey, UploadId)>, StoreError> {
        let mut request = ListRequest {
            prefix: prefix.to_owned(),
            ..ListRequest::default()
        };
        let mut uploads = Vec::new();
        loop {
            let page = self.list_with_unfinished(&request).await?;
            for meta in page.objects {
                if meta.size == 0 || meta.key.as_str() == prefix {
                    for name in self.names_of_uploads(&meta.key).await? {
                        uploads.push((meta.key.clone(), UploadId(name)));
                    }
                }
            }
            request.token = page.next;
            if request.token.is_none() {
                return Ok(uploads);
            }
        }
    }

    async fn names_of_uploads(&self, key: &ObjectKey) -> Result<BTreeSet<String>, StoreError> {
        let request = self.request("list uploads of", key.as_str());
        let call = Call::on_blob(Method::GET, key)
            .query("comp", "blocklist")
            .query("blocklisttype", "uncommitted");
        let answer = match self.wire.send(&request, call).await {
            Err(error) if error.is_not_found() => return Ok(BTreeSet::new()),
            other => other?,
        };
        let body = answer.into_body().collect(BLOCK_LIST_BYTES_MAX).await;
        let body = body.map_err(|error| request.unanswered(error))?;
        let blocks = xml::uncommitted_blocks(&body)
            .map_err(|error| request.explained(StoreErrorKind::Corrupt, error))?;
        let names = blocks.iter().filter_map(|id| name_of_block(id));
        Ok(names.filter(|name| !self.ended.has(name)).collect())
    }
}
