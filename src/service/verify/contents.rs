//! The bytes of one tar, read to their end: held to the digest that was recorded, or decoded.
//!
//! Memory is a few parts of it, whatever its size. Not here: which tars a backup needs (`presence`).

use std::cell::Cell;
use std::io::{self, Read};
use std::sync::Arc;

use tokio::task;
use tokio_util::sync::CancellationToken;

use crate::barman::repository::{Repository, StoredArchive};
use crate::codec::decompress::decompressor;
use crate::service::object_read::Watched;
use crate::service::verify::OnBytes;
use crate::store::download::{self, ChunkReader, DownloadOptions};
use crate::store::error::{StoreError, StoreErrorKind};

/// Memory for what is fetched ahead, shared by all tars under way.
const BUFFER_BYTES: usize = 36 << 20;
const PART_BYTES_MIN: usize = 256 << 10;
const PART_BYTES_MAX: usize = 8 << 20;
const PARTS_AHEAD: usize = 3;
/// What is given to a digest at a time.
const READ_BYTES: usize = 128 << 10;

/// How a tar came out.
#[derive(Debug)]
pub(super) enum Contents {
    /// All its bytes are as they should be.
    Sound,
    /// They are not, and how.
    Damaged(String),
    /// It could not be read.
    NotRead(StoreError),
    /// The token was cancelled.
    Cancelled,
}

/// How tars are read.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) repository: Repository,
    pub(super) download: DownloadOptions,
    pub(super) on_bytes: OnBytes,
}

impl Reading {
    /// For so many tars at a time.
    pub(super) fn new(
        repository: &Repository,
        jobs: usize,
        on_bytes: OnBytes,
        cancel: &CancellationToken,
    ) -> Self {
        let part_bytes = BUFFER_BYTES / (jobs.max(1) * PARTS_AHEAD);
        Self {
            repository: repository.clone(),
            download: DownloadOptions {
                part_bytes: part_bytes.clamp(PART_BYTES_MIN, PART_BYTES_MAX),
                parts_ahead: PARTS_AHEAD,
                cancel: cancel.clone(),
            },
            on_bytes,
        }
    }

    /// Reads a tar to its end. `blake3` is what was recorded of it, in hexadecimal; without, it is
    /// decoded, and must be a tar up to its end marker.
    pub(super) async fn read(&self, archive: &StoredArchive, blake3: Option<&str>) -> Contents {
        let store = &self.repository.store;
        let looked = tokio::select! {
            () = self.download.cancel.cancelled() => return Contents::Cancelled,
            looked = store.head(&archive.key) => looked,
        };
        let name = archive.key.base_name();
        let meta = match looked {
            Err(error) if error.is_not_found() => {
                return Contents::Damaged(format!("{name} is missing"));
            }
            Err(error) => return Contents::NotRead(error),
            Ok(meta) if meta.size != archive.size => {
                return Contents::NotRead(changed(archive));
            }
            Ok(meta) => meta,
        };
        let mut reader = download::reader(Arc::clone(store), &meta, &self.download);
        let (archive, blake3) = (archive.clone(), blake3.map(str::to_owned));
        let on_bytes = Arc::clone(&self.on_bytes);
        let cancel = self.download.cancel.clone();
        let worker = task::spawn_blocking(move || {
            let read = match &blake3 {
                Some(recorded) => hold_to(&mut reader, recorded, &on_bytes),
                None => decode(&mut reader, &archive, &on_bytes),
            };
            match (read, reader.take_failure()) {
                (_, Some(failure)) => Contents::NotRead(failure),
                (Err(_), None) if cancel.is_cancelled() => Contents::Cancelled,
                (Ok(None), None) => Contents::Sound,
                (Ok(Some(text)), None) => {
                    Contents::Damaged(format!("{} {text}", archive.key.base_name()))
                }
                (Err(error), None) => {
                    let name = archive.key.base_name();
                    Contents::Damaged(format!("{name} cannot be decoded: {error}"))
                }
            }
        });
        worker.await.unwrap_or(Contents::Cancelled)
    }
}

fn changed(archive: &StoredArchive) -> StoreError {
    StoreError {
        operation: "get",
        subject: archive.key.to_string(),
        kind: StoreErrorKind::Changed,
        source: None,
    }
}

/// What is wrong, if the bytes have another digest.
fn hold_to(
    reader: &mut ChunkReader,
    recorded: &str,
    on_bytes: &OnBytes,
) -> io::Result<Option<String>> {
    let mut counted = Counted {
        inner: &mut *reader,
        on_bytes,
    };
    let mut buffer = vec![0; READ_BYTES];
    while counted.read(&mut buffer)? > 0 {}
    let found = reader.digest();
    Ok((found != recorded).then(|| {
        format!("has other bytes than were stored: its blake3 is {found}, and was {recorded}")
    }))
}

/// What is wrong, if the bytes are no whole tar. Reads what follows it as well.
fn decode(
    reader: &mut ChunkReader,
    archive: &StoredArchive,
    on_bytes: &OnBytes,
) -> io::Result<Option<String>> {
    let counted = Counted {
        inner: &mut *reader,
        on_bytes,
    };
    let mut watched = Watched {
        inner: decompressor(counted, archive.codec)?,
        is_at_end: Cell::new(false),
    };
    {
        let mut tar = tar::Archive::new(&mut watched);
        for entry in tar.entries()? {
            // What is in it is read on the way to the next.
            entry?;
        }
    }
    // The end of a tar is a block of zeros. The reader takes the end of the stream for it too.
    if watched.is_at_end.get() {
        return Ok(Some("ends before the end of its tar".to_owned()));
    }
    let mut buffer = vec![0; READ_BYTES];
    while watched.read(&mut buffer)? > 0 {}
    drop(watched);
    reader.drain()?;
    Ok(None)
}

/// A reader that tells how far it is.
struct Counted<'a> {
    inner: &'a mut ChunkReader,
    on_bytes: &'a OnBytes,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        (self.on_bytes)(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}
