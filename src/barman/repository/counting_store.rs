//! A store that counts its requests and tells versions apart by contents alone, as S3 does.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;

use crate::clock;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::memory::MemoryStore;
use crate::store::{
    ListPage, ListRequest, ObjectBody, ObjectKey, ObjectMeta, ObjectStore, PartTag, PutOptions,
    UploadId,
};

/// Requests by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Requests {
    pub(super) lists: usize,
    pub(super) gets: usize,
    pub(super) heads: usize,
    pub(super) puts: usize,
}

/// Counts, and may be made a store with other weaknesses.
#[derive(Debug, Default)]
pub(super) struct CountingStore {
    pub(super) engine: MemoryStore,
    lists: AtomicUsize,
    gets: AtomicUsize,
    heads: AtomicUsize,
    puts: AtomicUsize,
    /// No etags at all.
    pub(super) is_without_etags: AtomicBool,
    /// Each object was put just now, as far as the listing tells.
    pub(super) is_young: AtomicBool,
    /// No object may be put.
    pub(super) is_read_only: AtomicBool,
    /// What is put over an object just before it is first got.
    pub(super) race: Mutex<Option<(ObjectKey, Bytes)>>,
}

impl CountingStore {
    /// The requests since the last time this was asked.
    pub(super) fn take(&self) -> Requests {
        let take = |count: &AtomicUsize| count.swap(0, Ordering::SeqCst);
        Requests {
            lists: take(&self.lists),
            gets: take(&self.gets),
            heads: take(&self.heads),
            puts: take(&self.puts),
        }
    }

    async fn seen(&self, mut meta: ObjectMeta) -> Result<ObjectMeta, StoreError> {
        let is_young = self.is_young.load(Ordering::SeqCst);
        meta.modified = if is_young {
            clock::now()
        } else {
            DateTime::UNIX_EPOCH
        };
        meta.etag = None;
        if !self.is_without_etags.load(Ordering::SeqCst) {
            let mut body = self.engine.get(&meta.key, None).await?;
            let mut hash = blake3::Hasher::new();
            while let Some(chunk) = futures::StreamExt::next(&mut body.chunks).await {
                hash.update(&chunk?);
            }
            meta.etag = Some(format!("\"{}\"", hash.finalize().to_hex()));
        }
        Ok(meta)
    }
}

fn refused(operation: &'static str) -> StoreError {
    StoreError {
        operation,
        subject: "anything".to_owned(),
        kind: StoreErrorKind::Denied,
        source: None,
    }
}

#[async_trait]
impl ObjectStore for CountingStore {
    fn location(&self) -> &str {
        self.engine.location()
    }

    async fn put(&self, key: &ObjectKey, body: Bytes, o: &PutOptions) -> Result<(), StoreError> {
        self.puts.fetch_add(1, Ordering::SeqCst);
        if self.is_read_only.load(Ordering::SeqCst) {
            return Err(refused("put"));
        }
        self.engine.put(key, body, o).await
    }

    async fn get(&self, key: &ObjectKey, r: Option<Range<u64>>) -> Result<ObjectBody, StoreError> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        let race = self.race.lock().unwrap().take_if(|(raced, _)| raced == key);
        if let Some((key, bytes)) = race {
            let options = PutOptions::default();
            self.engine.put(&key, bytes, &options).await?;
        }
        let mut body = self.engine.get(key, r).await?;
        body.meta = self.seen(body.meta).await?;
        Ok(body)
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.heads.fetch_add(1, Ordering::SeqCst);
        self.seen(self.engine.head(key).await?).await
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        self.engine.delete(keys).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        let mut page = self.engine.list(request).await?;
        for meta in &mut page.objects {
            *meta = self.seen(meta.clone()).await?;
        }
        Ok(page)
    }

    async fn begin_upload(&self, _: &ObjectKey, _: &PutOptions) -> Result<UploadId, StoreError> {
        Err(refused("begin an upload"))
    }

    async fn put_part(
        &self,
        _: &ObjectKey,
        _: &UploadId,
        _: u32,
        _: Bytes,
    ) -> Result<PartTag, StoreError> {
        Err(refused("put a part"))
    }

    async fn complete_upload(
        &self,
        _: &ObjectKey,
        _: &UploadId,
        _: &[PartTag],
        _: &PutOptions,
    ) -> Result<(), StoreError> {
        Err(refused("complete an upload"))
    }

    async fn abort_upload(&self, _: &ObjectKey, _: &UploadId) -> Result<(), StoreError> {
        Err(refused("abort an upload"))
    }

    async fn list_uploads(&self, _: &str) -> Result<Vec<(ObjectKey, UploadId)>, StoreError> {
        Err(refused("list uploads"))
    }

    async fn check_container(&self) -> Result<(), StoreError> {
        Err(refused("check"))
    }

    async fn create_container(&self) -> Result<(), StoreError> {
        Err(refused("create"))
    }
}
