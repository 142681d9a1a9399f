//! Uploads of archives of unknown length: a plain thread writes, a task puts the parts.
//!
//! What is written is cut into parts of a bounded pool, hashed, and put while the next part is
//! being filled. Less than one part becomes one plain put. Nothing is visible in the store before
//! the end; whatever ends an upload early aborts it. Not here: what the bytes are.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::fault::{Fault, Kind, chain};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::parts::{Message, PART_BYTES, PARTS_MAX, PartPool, PartWriter};
use crate::store::rate::RateLimiter;
use crate::store::{ObjectKey, ObjectStore, PartTag, PutOptions, UploadId};

/// How an archive is uploaded.
#[derive(Debug, Clone)]
pub struct UploadOptions {
    /// Where part buffers come from: one pool for all uploads of a run bounds their memory.
    pub pool: PartPool,
    /// How many parts of this archive may be under way at once.
    pub parts_in_flight: usize,
    /// How the object is put.
    pub put: PutOptions,
    /// Slows all uploads that share it down to one rate.
    pub limiter: Option<Arc<RateLimiter>>,
}

impl UploadOptions {
    /// The usual sizes, with a pool of its own and no limit.
    pub fn alone(put: PutOptions) -> Self {
        Self {
            pool: PartPool::new(PART_BYTES, 3),
            parts_in_flight: 2,
            put,
            limiter: None,
        }
    }
}

/// Is told of multipart uploads, so that one left by a crash can be found and aborted.
///
/// An error of the first two fails the upload: what is not recorded may not begin.
#[async_trait]
pub trait UploadObserver: Send + Sync + 'static {
    /// An upload on `key` is about to begin.
    async fn beginning(&self, key: &ObjectKey) -> Result<(), StoreError>;
    /// It has begun, under this id.
    async fn begun(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError>;
    /// It has been completed or aborted.
    async fn ended(&self, key: &ObjectKey);
}

/// An observer that keeps no record.
#[derive(Debug, Clone, Copy)]
pub struct Unobserved;

#[async_trait]
impl UploadObserver for Unobserved {
    async fn beginning(&self, _key: &ObjectKey) -> Result<(), StoreError> {
        Ok(())
    }

    async fn begun(&self, _key: &ObjectKey, _upload: &UploadId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn ended(&self, _key: &ObjectKey) {}
}

/// How an upload fails.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// A request to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The writer was dropped before it was finished.
    #[error("the upload of {key} was given up before its end")]
    Abandoned {
        /// The object that is not there now.
        key: ObjectKey,
    },
    /// The run was cancelled.
    #[error("the upload of {key} was cancelled")]
    Cancelled {
        /// The object that is not there now.
        key: ObjectKey,
    },
    /// More parts than a store takes.
    #[error("{key} needs more than {PARTS_MAX} parts")]
    TooLarge {
        /// The object.
        key: ObjectKey,
    },
    /// The task that uploads ended without an answer.
    #[error("the upload of {key} broke off")]
    Broken {
        /// The object.
        key: ObjectKey,
    },
}

impl Fault for UploadError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Cancelled { .. } => Kind::Cancelled,
            Self::TooLarge { .. } => Kind::Unsupported,
            Self::Abandoned { .. } | Self::Broken { .. } => Kind::Internal,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Store(error) => error.hint(),
            other => other.kind().hint().to_owned(),
        }
    }
}

/// An object as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Its key.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub size: u64,
    /// The blake3 of its bytes, in hexadecimal.
    pub blake3: String,
    /// How many parts it was put in; 0 for a plain put.
    pub parts: u32,
}

/// An upload under way. Dropping it cancels it; [`abort`](Self::abort) waits until it is undone.
#[derive(Debug)]
pub struct ArchiveUpload {
    key: ObjectKey,
    task: JoinHandle<Result<Uploaded, UploadError>>,
    cancel: CancellationToken,
}

impl ArchiveUpload {
    /// Starts an upload on the runtime of the caller, which must be in one.
    pub fn start(
        store: Arc<dyn ObjectStore>,
        key: ObjectKey,
        options: UploadOptions,
        observer: Arc<dyn UploadObserver>,
        cancel: &CancellationToken,
    ) -> (Self, PartWriter) {
        // One part waits in the channel at most; the pool bounds them all.
        let (sender, receiver) = mpsc::channel(1);
        let cancel = cancel.child_token();
        let writer = PartWriter::new(options.pool.clone(), sender);
        let uploader = Uploader {
            store,
            key: key.clone(),
            options,
            observer,
            cancel: cancel.clone(),
        };
        let task = tokio::spawn(uploader.run(receiver));
        (Self { key, task, cancel }, writer)
    }

    /// Waits until the object is durable. The writer must have been finished.
    pub async fn finish(mut self) -> Result<Uploaded, UploadError> {
        let broken = UploadError::Broken {
            key: self.key.clone(),
        };
        (&mut self.task).await.unwrap_or(Err(broken))
    }

    /// Whether it has come to its end, good or bad: it takes nothing more.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends the upload and drops what it has put, and waits for that.
    pub async fn abort(mut self) {
        self.cancel.cancel();
        // What it failed with does not matter any more.
        drop((&mut self.task).await);
    }
}

impl Drop for ArchiveUpload {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

struct Uploader {
    store: Arc<dyn ObjectStore>,
    key: ObjectKey,
    options: UploadOptions,
    observer: Arc<dyn UploadObserver>,
    cancel: CancellationToken,
}

/// How far a multipart upload has come.
#[derive(Default)]
enum Progress {
    #[default]
    NotBegun,
    /// Asked for, and no answer yet: it may exist.
    Asked,
    Begun(UploadId),
}

impl Uploader {
    async fn run(self, mut parts: mpsc::Receiver<Message>) -> Result<Uploaded, UploadError> {
        let mut progress = Progress::default();
        let outcome = self.put_all(&mut parts, &mut progress).await;
        // The writer must not wait for an upload that has ended.
        drop(parts);
        if let Err(error) = &outcome {
            tracing::debug!(key = %self.key, error = chain(error), "upload failed");
            self.undo(&progress).await;
        }
        if !matches!(progress, Progress::NotBegun) {
            self.observer.ended(&self.key).await;
        }
        outcome
    }

    async fn put_all(
        &self,
        messages: &mut mpsc::Receiver<Message>,
        progress: &mut Progress,
    ) -> Result<Uploaded, UploadError> {
        let mut size = 0_u64;
        let mut number = 0_u32;
        let mut tags = Vec::new();
        let mut under_way = FuturesUnordered::new();
        let hash = loop {
            let may_take = under_way.len() < self.options.parts_in_flight.max(1);
            let message = tokio::select! {
                () = self.cancel.cancelled() => return Err(self.cancelled()),
                Some(tag) = under_way.next(), if !under_way.is_empty() => {
                    tags.push(tag?);
                    continue;
                }
                message = messages.recv(), if may_take => message,
            };
            let (part, hash) = match message {
                Some(Message::Part(part)) => (part, None),
                Some(Message::End(part, hash)) => (part, Some(hash)),
                None => {
                    return Err(UploadError::Abandoned {
                        key: self.key.clone(),
                    });
                }
            };
            size += u64::try_from(part.len()).unwrap_or(0);
            match (hash, &*progress) {
                (Some(hash), Progress::NotBegun) => {
                    self.put_whole(part).await?;
                    return Ok(self.uploaded(size, hash, 0));
                }
                (_, Progress::NotBegun) => self.begin(progress).await?,
                _ => {}
            }
            if let Progress::Begun(upload) = &*progress
                && !part.is_empty()
            {
                number += 1;
                under_way.push(self.put_part(upload.clone(), number, part));
            }
            if let Some(hash) = hash {
                break hash;
            }
        };
        while !under_way.is_empty() {
            tokio::select! {
                () = self.cancel.cancelled() => return Err(self.cancelled()),
                Some(tag) = under_way.next() => tags.push(tag?),
            }
        }
        tags.sort_by_key(|tag| tag.number);
        if let Progress::Begun(upload) = &*progress {
            self.complete(upload, &tags, size).await?;
        }
        Ok(self.uploaded(size, hash, number))
    }

    async fn complete(
        &self,
        upload: &UploadId,
        tags: &[PartTag],
        size: u64,
    ) -> Result<(), UploadError> {
        let put = &self.options.put;
        let completed = self
            .store
            .complete_upload(&self.key, upload, tags, put)
            .await;
        match completed {
            // Nobody else writes under a key that is put without a condition: an object of this
            // size is the one whose answer was lost.
            Err(error) if error.kind == StoreErrorKind::Exists && !put.if_absent => {
                let there = self.store.head(&self.key).await?;
                if there.size == size {
                    Ok(())
                } else {
                    Err(error.into())
                }
            }
            completed => Ok(completed?),
        }
    }

    async fn put_whole(&self, body: Bytes) -> Result<(), UploadError> {
        if let Some(limiter) = &self.options.limiter {
            limiter.acquire(body.len()).await;
        }
        tokio::select! {
            () = self.cancel.cancelled() => Err(self.cancelled()),
            outcome = self.store.put(&self.key, body, &self.options.put) => Ok(outcome?),
        }
    }

    /// Not given up when the run is cancelled: the id must be known to be aborted.
    async fn begin(&self, progress: &mut Progress) -> Result<(), UploadError> {
        self.observer.beginning(&self.key).await?;
        *progress = Progress::Asked;
        let upload = self
            .store
            .begin_upload(&self.key, &self.options.put)
            .await?;
        *progress = Progress::Begun(upload.clone());
        self.observer.begun(&self.key, &upload).await?;
        Ok(())
    }

    async fn put_part(
        &self,
        upload: UploadId,
        number: u32,
        part: Bytes,
    ) -> Result<PartTag, UploadError> {
        if number > PARTS_MAX {
            return Err(UploadError::TooLarge {
                key: self.key.clone(),
            });
        }
        if let Some(limiter) = &self.options.limiter {
            limiter.acquire(part.len()).await;
        }
        Ok(self
            .store
            .put_part(&self.key, &upload, number, part)
            .await?)
    }

    /// Aborts what was begun. A failure here is told, and left to the next maintenance run.
    async fn undo(&self, progress: &Progress) {
        let uploads = match progress {
            Progress::NotBegun => return,
            Progress::Begun(upload) => vec![upload.clone()],
            Progress::Asked => match self.store.list_uploads(self.key.as_str()).await {
                Ok(uploads) => uploads
                    .into_iter()
                    .filter(|(key, _)| *key == self.key)
                    .map(|(_, upload)| upload)
                    .collect(),
                Err(error) => {
                    warn!(key = %self.key, error = chain(&error), "cannot list uploads to abort");
                    return;
                }
            },
        };
        for upload in uploads {
            if let Err(error) = self.store.abort_upload(&self.key, &upload).await {
                warn!(key = %self.key, error = chain(&error), "cannot abort an upload");
            }
        }
    }

    fn cancelled(&self) -> UploadError {
        UploadError::Cancelled {
            key: self.key.clone(),
        }
    }

    fn uploaded(&self, size: u64, hash: blake3::Hash, parts: u32) -> Uploaded {
        Uploaded {
            key: self.key.clone(),
            size,
            blake3: hash.to_hex().to_string(),
            parts,
        }
    }
}

#[cfg(test)]
mod tests;
