//! What an upload is cut into: the writer that fills parts and the pool they come from.
//!
//! Not here: sending them (`store::upload`).

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

/// The size of a part, until an archive has 5,000 of them.
pub const PART_BYTES: usize = 8 << 20;
/// The size of the parts after those, so that 10,000 parts hold 350 GiB.
const LATE_PART_BYTES: usize = 64 << 20;
const SMALL_PARTS_MAX: u32 = 5_000;
/// The most parts that stores take.
pub(super) const PARTS_MAX: u32 = 10_000;

/// What a writer sends to the task that uploads.
pub(super) enum Message {
    /// A full part.
    Part(Bytes),
    /// The rest, less than a part, and the digest of everything.
    End(Bytes, blake3::Hash),
}

/// Where a plain thread writes the archive. Blocks while parts are on their way, so never for async code.
///
/// A failed upload shows as an error of kind `BrokenPipe`; its cause is what
/// [`ArchiveUpload::finish`] returns. Dropping the writer unfinished aborts the upload.
#[derive(Debug)]
pub struct PartWriter {
    pool: PartPool,
    sender: mpsc::Sender<Message>,
    part: Option<PartBuffer>,
    number: u32,
    hasher: blake3::Hasher,
    stored: Arc<AtomicU64>,
}

impl PartWriter {
    pub(super) fn new(pool: PartPool, sender: mpsc::Sender<Message>) -> Self {
        Self {
            pool,
            sender,
            part: None,
            number: 1,
            hasher: blake3::Hasher::new(),
            stored: Arc::default(),
        }
    }

    /// How many bytes were written so far, for reading while the writer is wrapped in others.
    pub fn stored(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.stored)
    }

    /// Sends what is left and the end mark.
    pub fn finish(mut self) -> io::Result<()> {
        let rest = self.take_part();
        let hash = self.hasher.finalize();
        self.send(Message::End(rest, hash))
    }

    fn take_part(&mut self) -> Bytes {
        let Some(part) = self.part.take() else {
            return Bytes::new();
        };
        self.hasher.update(&part.bytes);
        Bytes::from_owner(part)
    }

    fn send(&self, message: Message) -> io::Result<()> {
        self.sender
            .blocking_send(message)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload has ended"))
    }

    fn part_bytes(&self) -> usize {
        if self.number <= SMALL_PARTS_MAX {
            self.pool.0.part_bytes
        } else {
            LATE_PART_BYTES
        }
    }
}

impl io::Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part_bytes = self.part_bytes();
        let pool = &self.pool;
        let part = self.part.get_or_insert_with(|| pool.take());
        let length = bytes.len().min(part_bytes - part.bytes.len());
        part.bytes.extend_from_slice(&bytes[..length]);
        let is_full = part.bytes.len() == part_bytes;
        self.stored
            .fetch_add(u64::try_from(length).unwrap_or(0), Ordering::Relaxed);
        if is_full {
            let part = self.take_part();
            self.send(Message::Part(part))?;
            self.number += 1;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Buffers for parts: at most so many exist at once, and they are used again.
///
/// Every archive being written holds one while it fills it, so a pool shared by archives needs one for
/// each of them and one more, or they would wait for each other for ever.
#[derive(Debug, Clone)]
pub struct PartPool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    part_bytes: usize,
    parts_max: usize,
    state: Mutex<PoolState>,
    given_back: Condvar,
}

#[derive(Debug, Default)]
struct PoolState {
    idle: VecDeque<Vec<u8>>,
    taken: usize,
}

impl PartPool {
    /// A pool of at most `parts_max` buffers of `part_bytes` each; none is allocated yet.
    pub fn new(part_bytes: usize, parts_max: usize) -> Self {
        assert!(part_bytes > 0 && parts_max > 0, "a pool holds something");
        Self(Arc::new(Pool {
            part_bytes,
            parts_max,
            state: Mutex::default(),
            given_back: Condvar::new(),
        }))
    }

    /// An empty buffer; waits for one to be given back when all are taken.
    fn take(&self) -> PartBuffer {
        let mut state = self.lock();
        while state.taken >= self.0.parts_max {
            state = self
                .0
                .given_back
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.taken += 1;
        let bytes = state
            .idle
            .pop_back()
            .unwrap_or_else(|| Vec::with_capacity(self.0.part_bytes));
        PartBuffer {
            bytes,
            pool: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct PartBuffer {
    bytes: Vec<u8>,
    pool: PartPool,
}

impl AsRef<[u8]> for PartBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for PartBuffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut state = self.pool.lock();
        state.taken -= 1;
        // A late part's buffer has grown far past the pool's size: it is not kept.
        if bytes.capacity() <= self.pool.0.part_bytes {
            state.idle.push_back(bytes);
        }
        drop(state);
        self.pool.0.given_back.notify_one();
    }
}
