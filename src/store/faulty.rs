//! A store that fails as a script says: for tests of what stands on a store.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};

use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{
    ListPage, ListRequest, ObjectBody, ObjectKey, ObjectMeta, ObjectStore, PartTag, PutOptions,
    UploadId,
};

/// The requests of the seam.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`ObjectStore::put`].
    Put,
    /// [`ObjectStore::get`].
    Get,
    /// [`ObjectStore::head`].
    Head,
    /// [`ObjectStore::delete`].
    Delete,
    /// [`ObjectStore::list`].
    List,
    /// [`ObjectStore::begin_upload`].
    BeginUpload,
    /// [`ObjectStore::put_part`].
    PutPart,
    /// [`ObjectStore::complete_upload`].
    CompleteUpload,
    /// [`ObjectStore::abort_upload`].
    AbortUpload,
    /// [`ObjectStore::list_uploads`].
    ListUploads,
    /// [`ObjectStore::check_container`].
    CheckContainer,
    /// [`ObjectStore::create_container`].
    CreateContainer,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The request fails and is not carried out.
    Fails(StoreErrorKind),
    /// The request is carried out, and its answer is lost: a timeout.
    ReplyLost,
    /// The body breaks off after so many bytes. Only of [`Call::Get`].
    ShortBody(u64),
    /// The body pauses for ever after so many bytes. Only of [`Call::Get`].
    StalledBody(u64),
    /// The answer takes that long.
    Slow(Duration),
    /// No answer ever comes, and the request is not carried out.
    Hangs,
}

/// One line of a script: the next matching calls after `skip` of them meet `trouble`.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which requests; all when absent.
    pub call: Option<Call>,
    /// Only for keys (or prefixes) that contain this.
    pub key_contains: String,
    /// How many matching calls go well before.
    pub skip: u32,
    /// How many meet the trouble.
    pub times: u32,
    /// The trouble.
    pub trouble: Trouble,
}

impl Fault {
    /// The next call of that kind meets the trouble, once.
    pub fn next(call: Call, trouble: Trouble) -> Self {
        Self {
            call: Some(call),
            key_contains: String::new(),
            skip: 0,
            times: 1,
            trouble,
        }
    }

    /// The next `times` calls of that kind meet the trouble.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// So many calls go well before.
    #[must_use]
    pub fn after(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    /// Only for keys that contain this.
    #[must_use]
    pub fn on(self, key_contains: impl Into<String>) -> Self {
        Self {
            key_contains: key_contains.into(),
            ..self
        }
    }
}

/// A store that fails as a script says, and otherwise is the one inside.
#[derive(Debug)]
pub struct FaultyStore {
    engine: Arc<dyn ObjectStore>,
    script: Mutex<Vec<Fault>>,
    calls: Mutex<VecDeque<(Call, String)>>,
    /// One in so many calls fails by chance; none when 0.
    chance: AtomicU32,
}

/// How many calls are remembered.
const CALLS_MAX: usize = 100_000;

impl FaultyStore {
    /// A store without faults yet.
    pub fn new(engine: Arc<dyn ObjectStore>) -> Self {
        Self {
            engine,
            script: Mutex::new(Vec::new()),
            calls: Mutex::new(VecDeque::new()),
            chance: AtomicU32::new(0),
        }
    }

    /// Adds a line to the script.
    pub fn add(&self, fault: Fault) {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.push(fault);
    }

    /// From now on one in `calls` calls is throttled, is unreachable or loses its answer, by chance.
    pub fn fail_one_in(&self, calls: u32) {
        self.chance.store(calls, Ordering::Relaxed);
    }

    /// The calls made so far with their keys, oldest first.
    pub fn calls(&self) -> Vec<(Call, String)> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().cloned().collect()
    }

    /// Notes a call and takes the trouble that the script has for it.
    fn trouble(&self, call: Call, key: &str) -> Option<Trouble> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.len() == CALLS_MAX {
            calls.pop_front();
        }
        calls.push_back((call, key.to_owned()));
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        for fault in script.iter_mut() {
            let is_meant = fault.call.is_none_or(|meant| meant == call)
                && key.contains(&fault.key_contains)
                && fault.times > 0;
            if !is_meant {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.times -= 1;
            return Some(fault.trouble);
        }
        let chance = self.chance.load(Ordering::Relaxed);
        (chance > 0 && fastrand::u32(0..chance) == 0).then(|| by_chance(call))
    }

    fn failed(&self, call: Call, key: &str, kind: StoreErrorKind) -> StoreError {
        StoreError {
            operation: "script",
            subject: format!("{}/{key}", self.engine.location()),
            kind,
            source: Some(format!("{call:?} fails as scripted").into()),
        }
    }

    async fn act<T>(
        &self,
        call: Call,
        key: &str,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        match self.trouble(call, key) {
            Some(Trouble::Fails(kind)) => Err(self.failed(call, key, kind)),
            Some(Trouble::ReplyLost) => {
                work.await?;
                Err(self.failed(call, key, StoreErrorKind::Timeout))
            }
            Some(Trouble::Slow(wait)) => {
                tokio::time::sleep(wait).await;
                work.await
            }
            Some(Trouble::Hangs) => std::future::pending().await,
            Some(Trouble::ShortBody(_) | Trouble::StalledBody(_)) | None => work.await,
        }
    }
}

/// A lost answer to the beginning of an upload leaves one that nobody knows of: such litter is
/// only scripted.
fn by_chance(call: Call) -> Trouble {
    let kinds = if call == Call::BeginUpload { 2 } else { 3 };
    match fastrand::u32(0..kinds) {
        0 => Trouble::Fails(StoreErrorKind::Throttled),
        1 => Trouble::Fails(StoreErrorKind::Unreachable),
        _ => Trouble::ReplyLost,
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    fn location(&self) -> &str {
        self.engine.location()
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        options: &PutOptions,
    ) -> Result<(), StoreError> {
        let work = self.engine.put(key, body, options);
        self.act(Call::Put, key.as_str(), work).await
    }

    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<ObjectBody, StoreError> {
        let (kind, left) = match self.trouble(Call::Get, key.as_str()) {
            Some(Trouble::Fails(kind)) => return Err(self.failed(Call::Get, key.as_str(), kind)),
            Some(Trouble::ReplyLost) => {
                return Err(self.failed(Call::Get, key.as_str(), StoreErrorKind::Timeout));
            }
            Some(Trouble::Hangs) => std::future::pending().await,
            Some(Trouble::Slow(wait)) => {
                tokio::time::sleep(wait).await;
                return self.engine.get(key, range).await;
            }
            Some(Trouble::ShortBody(bytes)) => (Some(StoreErrorKind::Unreachable), bytes),
            Some(Trouble::StalledBody(bytes)) => (None, bytes),
            None => return self.engine.get(key, range).await,
        };
        let body = self.engine.get(key, range).await?;
        let end = match kind {
            Some(kind) => stream::iter([Err(self.failed(Call::Get, key.as_str(), kind))]).boxed(),
            None => stream::pending().boxed(),
        };
        let mut left = usize::try_from(left).unwrap_or(usize::MAX);
        let begun = body.chunks.map(move |chunk| {
            chunk.map(|bytes| {
                let bytes = bytes.slice(..bytes.len().min(left));
                left -= bytes.len();
                bytes
            })
        });
        let begun = begun.take_while(|chunk| {
            let goes_on = chunk.as_ref().is_ok_and(|bytes| !bytes.is_empty());
            futures::future::ready(goes_on)
        });
        Ok(ObjectBody {
            meta: body.meta,
            chunks: begun.chain(end).boxed(),
        })
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let work = self.engine.head(key);
        self.act(Call::Head, key.as_str(), work).await
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        let first = keys.first().map_or("", ObjectKey::as_str);
        self.act(Call::Delete, first, self.engine.delete(keys))
            .await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        let work = self.engine.list(request);
        self.act(Call::List, &request.prefix, work).await
    }

    async fn begin_upload(
        &self,
        key: &ObjectKey,
        options: &PutOptions,
    ) -> Result<UploadId, StoreError> {
        let work = self.engine.begin_upload(key, options);
        self.act(Call::BeginUpload, key.as_str(), work).await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        let work = self.engine.put_part(key, upload, number, body);
        self.act(Call::PutPart, key.as_str(), work).await
    }

    async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartTag],
        options: &PutOptions,
    ) -> Result<(), StoreError> {
        let work = self.engine.complete_upload(key, upload, parts, options);
        self.act(Call::CompleteUpload, key.as_str(), work).await
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        let work = self.engine.abort_upload(key, upload);
        self.act(Call::AbortUpload, key.as_str(), work).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId)>, StoreError> {
        let work = self.engine.list_uploads(prefix);
        self.act(Call::ListUploads, prefix, work).await
    }

    async fn check_container(&self) -> Result<(), StoreError> {
        let work = self.engine.check_container();
        self.act(Call::CheckContainer, "", work).await
    }

    async fn create_container(&self) -> Result<(), StoreError> {
        let work = self.engine.create_container();
        self.act(Call::CreateContainer, "", work).await
    }
}
