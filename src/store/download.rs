//! One object as a plain `Read`, fetched by several ranged requests at a time.
//!
//! The parts come in order and at most `parts_ahead` of them are in memory, whatever the size of
//! the object: their buffers go round between the requests and the reader. Each part must be of
//! the same version of the object. Not here: making a request again (`store::retry`), decoding.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{ObjectKey, ObjectMeta, ObjectStore};

/// How an object is fetched.
#[derive(Debug, Clone)]
pub struct DownloadOptions {
    /// The size of a ranged request; at least 1.
    pub part_bytes: usize,
    /// How many parts are under way or waiting to be read; at least 1.
    pub parts_ahead: usize,
    /// Ends the download: the reader then fails instead of waiting.
    pub cancel: CancellationToken,
}

impl Default for DownloadOptions {
    fn default() -> Self {
        Self {
            part_bytes: 8 << 20,
            parts_ahead: 3,
            cancel: CancellationToken::new(),
        }
    }
}

/// The bytes of an object in order, for a thread that may block.
///
/// Reading inside async code panics: it belongs on a plain or blocking thread. When it is
/// dropped, the requests under way end.
pub struct ChunkReader {
    size: u64,
    seen_bytes: u64,
    ready: mpsc::Receiver<Result<Vec<u8>, StoreError>>,
    free: mpsc::Sender<Vec<u8>>,
    part: Vec<u8>,
    position: usize,
    hasher: blake3::Hasher,
    failure: Option<StoreError>,
    cancel: CancellationToken,
    fetching: JoinHandle<()>,
}

/// Begins to fetch an object on the current tokio runtime.
///
/// `meta` is of the version wanted; where it has no etag, all parts must agree with the first
/// answer instead. `Read` fails with the store's words; the [`StoreError`] itself waits in
/// [`ChunkReader::take_failure`], for the layers between swallow causes.
pub fn reader(
    store: Arc<dyn ObjectStore>,
    meta: &ObjectMeta,
    options: &DownloadOptions,
) -> ChunkReader {
    let parts_ahead = options.parts_ahead.max(1);
    let (ready_sender, ready) = mpsc::channel(parts_ahead);
    let (free, free_receiver) = mpsc::channel(parts_ahead);
    for _ in 0..parts_ahead {
        free.try_send(Vec::new())
            .expect("the channel was made to hold this many buffers");
    }
    let fetch = Fetch {
        store,
        key: meta.key.clone(),
        size: meta.size,
        etag: meta.etag.clone(),
        part_bytes: options.part_bytes.max(1).try_into().unwrap_or(u64::MAX),
    };
    let cancel = options.cancel.clone();
    let fetching = tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = fetch.run(free_receiver, ready_sender) => {}
        }
    });
    ChunkReader {
        size: meta.size,
        seen_bytes: 0,
        ready,
        free,
        part: Vec::new(),
        position: 0,
        hasher: blake3::Hasher::new(),
        failure: None,
        cancel: options.cancel.clone(),
        fetching,
    }
}

impl ChunkReader {
    /// Reads what is left, so that [`Self::digest`] is of the whole object.
    pub fn drain(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(|_| ())
    }

    /// Bytes read so far.
    pub fn seen_bytes(&self) -> u64 {
        self.seen_bytes
    }

    /// The blake3 digest, in hexadecimal, of the bytes read so far.
    pub fn digest(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// The store's failure that ended the reading, if there was one.
    pub fn take_failure(&mut self) -> Option<StoreError> {
        self.failure.take()
    }

    /// Makes `part` the next part; false at the end of the object.
    fn advance(&mut self) -> io::Result<bool> {
        if self.seen_bytes == self.size {
            return Ok(false);
        }
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("the download was cancelled"));
        }
        let used = std::mem::take(&mut self.part);
        self.position = 0;
        if used.capacity() > 0 {
            // Fails only where no further part is to be fetched.
            drop(self.free.try_send(used));
        }
        match self.ready.blocking_recv() {
            Some(Ok(part)) => {
                self.part = part;
                Ok(true)
            }
            Some(Err(error)) => {
                let shown = io::Error::other(crate::fault::chain(&error));
                self.failure = Some(error);
                Err(shown)
            }
            None => Err(io::Error::other("the download was cancelled")),
        }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || (self.position == self.part.len() && !self.advance()?) {
            return Ok(0);
        }
        let rest = &self.part[self.position..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.hasher.update(&rest[..count]);
        self.position += count;
        self.seen_bytes += u64::try_from(count).map_err(io::Error::other)?;
        Ok(count)
    }
}

impl Drop for ChunkReader {
    fn drop(&mut self) {
        self.fetching.abort();
    }
}

impl fmt::Debug for ChunkReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkReader")
            .field("size", &self.size)
            .field("seen_bytes", &self.seen_bytes)
            .finish_non_exhaustive()
    }
}

/// The asking side.
struct Fetch {
    store: Arc<dyn ObjectStore>,
    key: ObjectKey,
    size: u64,
    etag: Option<String>,
    part_bytes: u64,
}

impl Fetch {
    /// Fetches part after part into the buffers that come back, until the end, the first
    /// failure, or until the reader is gone.
    async fn run(
        mut self,
        mut free: mpsc::Receiver<Vec<u8>>,
        ready: mpsc::Sender<Result<Vec<u8>, StoreError>>,
    ) {
        let mut begin = 0;
        let mut under_way = FuturesOrdered::new();
        loop {
            tokio::select! {
                buffer = free.recv(), if begin < self.size => {
                    let Some(buffer) = buffer else { return };
                    let end = self.size.min(begin.saturating_add(self.part_bytes));
                    under_way.push_back(part(Arc::clone(&self.store), self.key.clone(), begin..end, buffer));
                    begin = end;
                }
                Some(fetched) = under_way.next() => {
                    let part = fetched.and_then(|(bytes, meta)| self.same_version(&meta).map(|()| bytes));
                    let is_failed = part.is_err();
                    if ready.send(part).await.is_err() || is_failed {
                        return;
                    }
                }
                else => return,
            }
        }
    }

    fn same_version(&mut self, meta: &ObjectMeta) -> Result<(), StoreError> {
        let is_same_etag = match (&self.etag, &meta.etag) {
            (Some(wanted), Some(found)) => wanted == found,
            (None, found) => {
                self.etag.clone_from(found);
                true
            }
            (Some(_), None) => true,
        };
        if is_same_etag && meta.size == self.size {
            Ok(())
        } else {
            Err(get_error(&self.key, StoreErrorKind::Changed))
        }
    }
}

/// Gets one range whole into `buffer`.
async fn part(
    store: Arc<dyn ObjectStore>,
    key: ObjectKey,
    range: Range<u64>,
    mut buffer: Vec<u8>,
) -> Result<(Vec<u8>, ObjectMeta), StoreError> {
    let length = usize::try_from(range.end - range.start)
        .map_err(|_| get_error(&key, StoreErrorKind::Unsupported))?;
    buffer.clear();
    buffer.reserve_exact(length);
    let mut body = store.get(&key, Some(range)).await?;
    while let Some(chunk) = body.chunks.next().await {
        let chunk = chunk?;
        if buffer.len() + chunk.len() > length {
            return Err(get_error(&key, StoreErrorKind::Corrupt));
        }
        buffer.extend_from_slice(&chunk);
    }
    if buffer.len() < length {
        return Err(get_error(&key, StoreErrorKind::Unreachable));
    }
    Ok((buffer, body.meta))
}

fn get_error(key: &ObjectKey, kind: StoreErrorKind) -> StoreError {
    StoreError {
        operation: "get",
        subject: key.to_string(),
        kind,
        source: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::PutOptions;
    use crate::store::faulty::{Call, Fault, FaultyStore, Trouble};
    use crate::store::memory::MemoryStore;

    const PART_BYTES: usize = 1000;

    fn bytes(size: usize) -> Vec<u8> {
        (0..size)
            .map(|n| u8::try_from(n * 31 % 251).unwrap())
            .collect()
    }

    fn options(parts_ahead: usize) -> DownloadOptions {
        DownloadOptions {
            part_bytes: PART_BYTES,
            parts_ahead,
            ..DownloadOptions::default()
        }
    }

    fn seam(store: &Arc<FaultyStore>) -> Arc<dyn ObjectStore> {
        Arc::<FaultyStore>::clone(store)
    }

    async fn stored(contents: &[u8]) -> (Arc<FaultyStore>, ObjectMeta) {
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let key = ObjectKey::new("object");
        let body = contents.to_vec().into();
        store.put(&key, body, &PutOptions::default()).await.unwrap();
        let meta = store.head(&key).await.unwrap();
        (store, meta)
    }

    /// What reading the whole object gives, and how it failed if it did.
    async fn read(
        store: &Arc<FaultyStore>,
        meta: &ObjectMeta,
        options: DownloadOptions,
    ) -> (io::Result<Vec<u8>>, String, Option<StoreErrorKind>) {
        let mut reader = reader(seam(store), meta, &options);
        tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            let outcome = reader.read_to_end(&mut all).map(|_| all);
            let failure = reader.take_failure().map(|error| error.kind);
            (outcome, reader.digest(), failure)
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn parts_come_in_order_with_the_digest_of_the_whole() {
        for (size, parts_ahead) in [
            (0, 3),
            (1, 1),
            (PART_BYTES, 3),
            (PART_BYTES + 1, 1),
            (10 * PART_BYTES, 2),
            (25 * PART_BYTES + 7, 3),
        ] {
            let contents = bytes(size);
            let (store, meta) = stored(&contents).await;
            let (outcome, digest, failure) = read(&store, &meta, options(parts_ahead)).await;
            assert_eq!((outcome.unwrap(), failure), (contents.clone(), None));
            assert_eq!(digest, blake3::hash(&contents).to_hex().as_str());
            let gets = store
                .calls()
                .iter()
                .filter(|(call, _)| *call == Call::Get)
                .count();
            assert_eq!(gets, size.div_ceil(PART_BYTES));
        }
    }

    #[tokio::test]
    async fn a_part_of_another_version_is_refused() {
        let (store, meta) = stored(&bytes(5000)).await;
        let other = ObjectMeta {
            etag: Some("other".to_owned()),
            ..meta.clone()
        };
        let shorter = ObjectMeta { size: 4999, ..meta };
        for meta in [other, shorter] {
            let (outcome, _, failure) = read(&store, &meta, options(3)).await;
            assert!(outcome.is_err());
            assert_eq!(failure, Some(StoreErrorKind::Changed));
        }
    }

    #[tokio::test]
    async fn a_part_that_fails_fails_the_reader_at_its_place() {
        let (store, meta) = stored(&bytes(5000)).await;
        store.add(Fault::next(Call::Get, Trouble::Fails(StoreErrorKind::Denied)).after(2));
        let mut reader = reader(seam(&store), &meta, &options(3));
        let read = tokio::task::spawn_blocking(move || {
            let outcome = reader.drain();
            (
                outcome.is_err(),
                reader.seen_bytes(),
                reader.take_failure().map(|error| error.kind),
            )
        });
        assert_eq!(
            read.await.unwrap(),
            (true, 2000, Some(StoreErrorKind::Denied))
        );
    }

    #[tokio::test]
    async fn a_cancelled_download_does_not_wait() {
        let (store, meta) = stored(&bytes(5000)).await;
        store.add(Fault::next(Call::Get, Trouble::Hangs));
        let options = options(3);
        let cancel = options.cancel.clone();
        let reading = read(&store, &meta, options);
        let (outcome, ()) = tokio::join!(reading, async { cancel.cancel() });
        assert!(outcome.0.is_err() && outcome.2.is_none());
    }

    #[tokio::test]
    async fn no_more_parts_are_fetched_than_may_be_ahead() {
        let (store, meta) = stored(&bytes(10 * PART_BYTES)).await;
        let mut reader = reader(seam(&store), &meta, &options(3));
        let read = tokio::task::spawn_blocking(move || {
            let mut first = [0; 10];
            reader.read_exact(&mut first).unwrap();
            // The buffer being read counts too, so its place is not free yet.
            let fetched = store
                .calls()
                .iter()
                .filter(|(call, _)| *call == Call::Get)
                .count();
            drop(reader);
            fetched
        });
        assert!(read.await.unwrap() <= 3);
    }
}
