//! From the file to the store: compressed on a plain thread, in memory that has a bound.
//!
//! A file of up to 32 MiB is compressed whole and put by one request; a larger one streams, and
//! becomes one request as well when no more than that is left of it.
//! Not here: whether it may be put, and what is there already.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task;
use tokio_util::sync::CancellationToken;

use crate::codec::compress::Compressor;
use crate::codec::digest::{Blake3, Sha256};
use crate::codec::{Codec, Compression};
use crate::service::wal_archive::error::ArchiveError;
use crate::service::wal_archive::file::{self, WalFile};
use crate::service::wal_archive::turn::Turn;
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
        wants_digest: bool,
        turn: &Turn,
    ) -> Result<Body, ArchiveError> {
        turn.to_compress().await;
        let mut memory = self.reserve(mib(file.size) + 1).await;
        turn.has_memory();
        let thread = Arc::clone(&self.threads).acquire_owned().await;
        let (path, size) = (file.path.clone(), file.size);
        let wants_sha256 = self.wants_sha256;
        let made = on_thread(move |stop| {
            let length = usize::try_from(size).map_err(io::Error::other)?;
            if compression.codec == Codec::None {
                return read_as_it_is(&path, length, (wants_digest, wants_sha256), stop);
            }
            let sink = Vec::with_capacity(length + (64 << 10));
            let (mut bytes, digest) =
                compress(&path, size, compression, wants_digest, (sink, stop))?;
            bytes.shrink_to_fit();
            Ok((bytes, digest, None))
        })
        .await;
        drop(thread);
        let (bytes, digest, sha256) = made.map_err(|source| read_error(&file.path, source))?;
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
            _memory: memory,
        })
    }

    /// Compresses a file and uploads it as it is compressed. Dropping the future aborts the upload.
    pub(super) async fn stream(
        &self,
        file: &WalFile,
        compression: Compression,
        target: (Arc<dyn ObjectStore>, ObjectKey, PutOptions),
    ) -> Result<(), ArchiveError> {
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
        let written = on_thread(move |stop| {
            let (writer, _) = compress(&path, size, compression, false, (writer, stop))?;
            writer.finish()
        })
        .await;
        let outcome = match written {
            Ok(()) => upload.finish().await.map(drop).map_err(ArchiveError::from),
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

    async fn reserve(&self, mib: u32) -> OwnedSemaphorePermit {
        Arc::clone(&self.memory)
            .acquire_many_owned(mib.min(BUDGET_MIB))
            .await
            .expect("the semaphore is never closed")
    }
}

/// Compresses the file into `sink` and gives it back, with the digest of the file if wanted.
fn compress<W: Write>(
    path: &Path,
    size: u64,
    compression: Compression,
    wants_digest: bool,
    (sink, stop): (W, &AtomicBool),
) -> io::Result<(W, Option<String>)> {
    let mut hasher = wants_digest.then(Blake3::new);
    let mut compressor = Compressor::new(sink, compression)?;
    file::read_chunks(path, size, stop, |chunk| {
        if let Some(hasher) = &mut hasher {
            hasher.update(chunk);
        }
        compressor.write_all(chunk)
    })?;
    Ok((compressor.finish()?, hasher.map(|hasher| hasher.to_hex())))
}

/// Reads a file of `length` bytes, with the digest and the SHA-256 of it where they are wanted.
/// The latter takes longer than the reading, and so is taken by another thread meanwhile.
fn read_as_it_is(
    path: &Path,
    length: usize,
    (wants_digest, wants_sha256): (bool, bool),
    stop: &AtomicBool,
) -> io::Result<(Vec<u8>, Option<String>, Option<String>)> {
    let mut bytes = vec![0; length];
    let mut digest = wants_digest.then(Blake3::new);
    let sha256 = thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel::<&[u8]>();
        let hashing = wants_sha256.then(|| {
            scope.spawn(move || {
                let mut sha256 = Sha256::new();
                for stretch in receiver {
                    sha256.update(stretch);
                }
                sha256.finish_hex()
            })
        });
        file::read_into(path, &mut bytes, stop, |stretch| {
            // Fails only where nobody takes the SHA-256.
            let _ = sender.send(stretch);
            if let Some(digest) = &mut digest {
                digest.update(stretch);
            }
        })?;
        drop(sender);
        // Without it the store takes it itself.
        Ok::<_, io::Error>(hashing.and_then(|hashing| hashing.join().ok()))
    })?;
    Ok((bytes, digest.map(|digest| digest.to_hex()), sha256))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stored_as_it_is_has_the_digests_of_what_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("000000010000000000000001");
        let contents: Vec<u8> = (0..700_000).map(|n: u32| n.to_le_bytes()[1]).collect();
        std::fs::write(&path, &contents).unwrap();
        let stop = AtomicBool::new(false);
        let mut blake3 = Blake3::new();
        blake3.update(&contents);
        let mut sha256 = Sha256::new();
        sha256.update(&contents);
        let read = |wants| read_as_it_is(&path, contents.len(), wants, &stop).unwrap();
        let both = (Some(blake3.to_hex()), Some(sha256.finish_hex()));
        assert_eq!(read((true, true)), (contents.clone(), both.0, both.1));
        assert_eq!(read((false, false)), (contents.clone(), None, None));
        for length in [contents.len() - 1, contents.len() + 1] {
            assert!(read_as_it_is(&path, length, (true, true), &stop).is_err());
        }
        stop.store(true, Ordering::Relaxed);
        assert!(read_as_it_is(&path, contents.len(), (true, true), &stop).is_err());
    }
}
