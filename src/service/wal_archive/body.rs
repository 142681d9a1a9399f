//! From the file to the store: compressed on a plain thread, in memory that has a bound.
//!
//! A file of up to 32 MiB is compressed whole and put by one request; a larger one streams, and
//! becomes one request as well when no more than that is left of it.
//! Not here: whether it may be put, and what is there already.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task;
use tokio_util::sync::CancellationToken;

use crate::codec::Compression;
use crate::service::wal_archive::error::ArchiveError;
use crate::service::wal_archive::file::WalFile;
use crate::service::wal_archive::store::PutWay;
use crate::service::wal_archive::turn::Turn;
use crate::service::wal_archive::whole::{
    Wants, Whole, compress_into, compress_whole, threads_of_use,
};
use crate::service::wal_index::gather::Gatherer;
use crate::store::parts::PartPool;
use crate::store::upload::{ArchiveUpload, Unobserved, UploadOptions};
use crate::store::{ObjectKey, ObjectStore, PutOptions};

/// The largest file that is compressed whole, and the size of the parts of larger ones.
pub(super) const WHOLE_BYTES_MAX: usize = 32 << 20;

/// What all bodies under way may take, in MiB: one streamed file, or several whole ones.
const BUDGET_MIB: u32 = 64;

/// Memory and threads for bodies under way.
#[derive(Debug, Clone)]
pub(super) struct Bodies {
    memory: Arc<Semaphore>,
    threads: Arc<Semaphore>,
    /// Whether the store needs a SHA-256 of what is put.
    wants_sha256: bool,
}

/// A file as it will be stored.
pub(super) struct Body {
    /// Its bytes in the codec.
    pub(super) bytes: Bytes,
    /// The digest of the file itself, when it was asked for.
    pub(super) digest: Option<String>,
    /// The SHA-256 of `bytes`, where it cost no time.
    pub(super) sha256: Option<String>,
    /// What the index needs of the file, when it was asked for.
    pub(super) index: Option<Gatherer>,
    /// The memory it takes, given back when it is dropped.
    _memory: OwnedSemaphorePermit,
}

/// Ends the work of a thread when the future that waits for it is dropped.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` on a thread that may block, and tells it to stop when this future is dropped.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let stop = Arc::new(AtomicBool::new(false));
    let guard = StopOnDrop(Arc::clone(&stop));
    let outcome = task::spawn_blocking(move || work(&stop)).await;
    drop(guard);
    outcome.map_err(io::Error::other)?
}

/// Whether the file streams, in parts where it must.
pub(super) fn streams(file: &WalFile) -> bool {
    usize::try_from(file.size).map_or(true, |size| size > WHOLE_BYTES_MAX)
}

impl Bodies {
    pub(super) fn new(wants_sha256: bool) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Self {
            memory: Arc::new(Semaphore::new(BUDGET_MIB.try_into().unwrap_or(64))),
            threads: Arc::new(Semaphore::new(threads)),
            wants_sha256,
        }
    }

    /// Compresses a file that does not stream, in its turn.
    pub(super) async fn whole(
        &self,
        file: &WalFile,
        compression: Compression,
        way: PutWay,
        turn: &Turn,
    ) -> Result<Body, ArchiveError> {
        turn.to_compress().await;
        let mut memory = self.reserve(mib(file.size) + 1).await;
        turn.has_memory();
        let threads_max = threads_of_use(file.size, compression.codec);
        let threads = self.take_threads(if way.is_alone { threads_max } else { 1 });
        let threads = threads.await;
        let (path, size) = (file.path.clone(), file.size);
        let wants = Wants {
            digest: way.wants_digest,
            sha256: self.wants_sha256,
            index: file.is_indexed,
            threads: threads.num_permits(),
        };
        let made =
            on_thread(move |stop| compress_whole((&path, size), compression, wants, stop)).await;
        drop(threads);
        let Whole {
            bytes,
            digest,
            sha256,
            index,
        } = made.map_err(|source| read_error(&file.path, source))?;
        let bytes = Bytes::from(bytes);
        let kept = mib(u64::try_from(bytes.len()).unwrap_or(u64::MAX)) + 1;
        let spare = memory
            .num_permits()
            .saturating_sub(kept.try_into().unwrap_or(usize::MAX));
        drop(memory.split(spare));
        Ok(Body {
            bytes,
            digest,
            sha256,
            index,
            _memory: memory,
        })
    }

    /// Compresses a file and uploads it as it is compressed; how many bytes it takes there, and
    /// what the index needs of it. Dropping the future aborts the upload.
    pub(super) async fn stream(
        &self,
        file: &WalFile,
        compression: Compression,
        target: (Arc<dyn ObjectStore>, ObjectKey, PutOptions),
    ) -> Result<(u64, Option<Gatherer>), ArchiveError> {
        let memory = self.reserve(BUDGET_MIB).await;
        let (store, key, put) = target;
        let options = UploadOptions {
            pool: PartPool::new(WHOLE_BYTES_MAX, 2),
            parts_in_flight: 1,
            put,
            limiter: None,
        };
        let cancel = CancellationToken::new();
        let (upload, writer) =
            ArchiveUpload::start(store, key, options, Arc::new(Unobserved), &cancel);
        let (path, size) = (file.path.clone(), file.size);
        let wants = Wants::of_stream(file.is_indexed);
        let written = on_thread(move |stop| {
            let (writer, seen) = compress_into((&path, size), compression, wants, (writer, stop))?;
            writer.finish()?;
            Ok(seen.index)
        })
        .await;
        let outcome = match written {
            Ok(index) => {
                let uploaded = upload.finish().await;
                uploaded
                    .map(|uploaded| (uploaded.size, index))
                    .map_err(ArchiveError::from)
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                match upload.finish().await {
                    Ok(_) => Err(read_error(&file.path, error)),
                    Err(cause) => Err(cause.into()),
                }
            }
            Err(error) => {
                upload.abort().await;
                Err(read_error(&file.path, error))
            }
        };
        drop(memory);
        outcome
    }

    /// A thread to compress on, and of those that nobody has so many that they are `count_max`.
    async fn take_threads(&self, count_max: usize) -> OwnedSemaphorePermit {
        let mut taken = Arc::clone(&self.threads)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        while taken.num_permits() < count_max
            && let Ok(free) = Arc::clone(&self.threads).try_acquire_owned()
        {
            taken.merge(free);
        }
        taken
    }

    async fn reserve(&self, mib: u32) -> OwnedSemaphorePermit {
        Arc::clone(&self.memory)
            .acquire_many_owned(mib.min(BUDGET_MIB))
            .await
            .expect("the semaphore is never closed")
    }
}

fn read_error(path: &Path, source: io::Error) -> ArchiveError {
    ArchiveError::Read {
        path: path.to_path_buf(),
        source,
    }
}

/// So many bytes in MiB, rounded up.
fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX - 1)
}
