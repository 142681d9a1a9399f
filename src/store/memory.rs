//! A store in memory: what a store should be, for tests and for trying things out.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::stream;

use crate::clock;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::page::PageBuilder;
use crate::store::{
    ListPage, ListRequest, ObjectBody, ObjectKey, ObjectMeta, ObjectStore, PartTag, PutOptions,
    UploadId,
};

/// How many bytes of a body come at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    contents: Mutex<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    objects: BTreeMap<String, Stored>,
    uploads: BTreeMap<String, Upload>,
    version: u64,
}

#[derive(Debug, Clone)]
struct Stored {
    bytes: Bytes,
    version: u64,
    modified: DateTime<Utc>,
}

#[derive(Debug)]
struct Upload {
    key: ObjectKey,
    parts: BTreeMap<u32, Bytes>,
}

impl Stored {
    fn meta(&self, key: &str) -> ObjectMeta {
        ObjectMeta {
            key: ObjectKey::new(key),
            size: u64::try_from(self.bytes.len()).unwrap_or(u64::MAX),
            etag: Some(self.version.to_string()),
            modified: self.modified,
        }
    }
}

impl Contents {
    fn store(&mut self, key: &ObjectKey, bytes: Bytes) {
        self.version += 1;
        let stored = Stored {
            bytes,
            version: self.version,
            modified: clock::now(),
        };
        self.objects.insert(key.as_str().to_owned(), stored);
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an object one that was put at another time.
    #[cfg(test)]
    pub(crate) fn set_modified(&self, key: &ObjectKey, modified: DateTime<Utc>) {
        if let Some(stored) = self.contents().objects.get_mut(key.as_str()) {
            stored.modified = modified;
        }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(operation: &'static str, key: &ObjectKey, kind: StoreErrorKind) -> StoreError {
    StoreError {
        operation,
        subject: format!("memory:{key}"),
        kind,
        source: None,
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    fn location(&self) -> &'static str {
        "memory:"
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        options: &PutOptions,
    ) -> Result<(), StoreError> {
        let mut contents = self.contents();
        if options.if_absent && contents.objects.contains_key(key.as_str()) {
            return Err(failed("put", key, StoreErrorKind::Exists));
        }
        contents.store(key, Bytes::copy_from_slice(&body));
        Ok(())
    }

    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<ObjectBody, StoreError> {
        let stored = self
            .contents()
            .objects
            .get(key.as_str())
            .cloned()
            .ok_or_else(|| failed("get", key, StoreErrorKind::NotFound))?;
        let size = stored.bytes.len();
        let clamp = |at: u64| usize::try_from(at).map_or(size, |at| at.min(size));
        let bytes = match range {
            Some(range) if clamp(range.start) >= size || range.is_empty() => {
                return Err(failed("get", key, StoreErrorKind::Range));
            }
            Some(range) => stored.bytes.slice(clamp(range.start)..clamp(range.end)),
            None => stored.bytes.clone(),
        };
        let starts = (0..bytes.len()).step_by(CHUNK_BYTES);
        let chunks: Vec<_> = starts
            .map(|at| Ok(bytes.slice(at..bytes.len().min(at + CHUNK_BYTES))))
            .collect();
        Ok(ObjectBody {
            meta: stored.meta(key.as_str()),
            chunks: stream::iter(chunks).boxed(),
        })
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.contents()
            .objects
            .get(key.as_str())
            .map(|stored| stored.meta(key.as_str()))
            .ok_or_else(|| failed("head", key, StoreErrorKind::NotFound))
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        let mut contents = self.contents();
        for key in keys {
            contents.objects.remove(key.as_str());
        }
        Ok(())
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        let mut page = PageBuilder::new(request, self.location())?;
        let contents = self.contents();
        let from = (Bound::Included(request.prefix.as_str()), Bound::Unbounded);
        for (key, stored) in contents.objects.range::<str, _>(from) {
            if !key.starts_with(&request.prefix) || !page.offer(stored.meta(key)) {
                break;
            }
        }
        Ok(page.finish())
    }

    async fn begin_upload(
        &self,
        key: &ObjectKey,
        _options: &PutOptions,
    ) -> Result<UploadId, StoreError> {
        let mut contents = self.contents();
        contents.version += 1;
        let id = format!("upload-{}", contents.version);
        let upload = Upload {
            key: key.clone(),
            parts: BTreeMap::new(),
        };
        contents.uploads.insert(id.clone(), upload);
        Ok(UploadId(id))
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        let mut contents = self.contents();
        let upload = contents
            .uploads
            .get_mut(&upload.0)
            .filter(|upload| upload.key == *key)
            .ok_or_else(|| failed("put part of", key, StoreErrorKind::NoUpload))?;
        let tag = format!("{number}-{}", body.len());
        // A copy: the caller's buffer is part of a bounded pool.
        upload.parts.insert(number, Bytes::copy_from_slice(&body));
        Ok(PartTag { number, tag })
    }

    async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartTag],
        options: &PutOptions,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "complete upload of";
        let mut contents = self.contents();
        let found = contents
            .uploads
            .get(&upload.0)
            .filter(|upload| upload.key == *key)
            .ok_or_else(|| failed(OPERATION, key, StoreErrorKind::NoUpload))?;
        let mut whole = BytesMut::new();
        let mut last = 0;
        for part in parts {
            let bytes = found
                .parts
                .get(&part.number)
                .filter(|bytes| part.number > last && part.tag.ends_with(&bytes.len().to_string()))
                .ok_or_else(|| failed(OPERATION, key, StoreErrorKind::Other))?;
            whole.extend_from_slice(bytes);
            last = part.number;
        }
        if options.if_absent && contents.objects.contains_key(key.as_str()) {
            return Err(failed(OPERATION, key, StoreErrorKind::Exists));
        }
        contents.store(key, whole.freeze());
        contents.uploads.remove(&upload.0);
        Ok(())
    }

    async fn abort_upload(&self, _key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        self.contents().uploads.remove(&upload.0);
        Ok(())
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId)>, StoreError> {
        let uploads = &self.contents().uploads;
        Ok(uploads
            .iter()
            .filter(|(_, upload)| upload.key.as_str().starts_with(prefix))
            .map(|(id, upload)| (upload.key.clone(), UploadId(id.clone())))
            .collect())
    }

    async fn check_container(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn create_container(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
