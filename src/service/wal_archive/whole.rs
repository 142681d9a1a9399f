//! A file compressed whole, in memory, by as many threads as it is given.
//!
//! Its SHA-256, where the store wants one, is taken meanwhile and not after: on an idle host a
//! call is as fast as its longest part. What the index needs is gathered from the same bytes.
//! Everything here blocks.
//! Not here: who may take how much memory (`body`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use crate::codec::compress::Compressor;
use crate::codec::digest::{Blake3, Sha256};
use crate::codec::pieces::{Joiner, Piece, PieceEncoder, can_be_joined};
use crate::codec::{Codec, Compression};
use crate::service::wal_archive::file::{self, READ_BYTES};
use crate::service::wal_index::gather::Gatherer;

/// How much of a file is compressed apart: enough that the codec does not miss what lies before.
const PIECE_BYTES: u64 = 2 << 20;

/// What a body is to be, besides its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wants {
    /// The digest of the file, for which one thread must see all of it.
    pub(super) digest: bool,
    /// The SHA-256 of the bytes as stored.
    pub(super) sha256: bool,
    /// What the index needs, of a segment.
    pub(super) index: bool,
    /// How many threads may compress.
    pub(super) threads: usize,
}

impl Wants {
    /// Nothing of the stored bytes, which may be put in parts while they come.
    pub(super) fn of_stream(index: bool) -> Self {
        Self {
            digest: false,
            sha256: false,
            index,
            threads: 1,
        }
    }
}

/// What was wanted of the file itself and goes by while it is read.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) digest: Option<Blake3>,
    pub(super) index: Option<Gatherer>,
}

impl Seen {
    fn new(wants: Wants) -> Self {
        Self {
            digest: wants.digest.then(Blake3::new),
            index: wants.index.then(Gatherer::new),
        }
    }

    fn see(&mut self, stretch: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.update(stretch);
        }
        if let Some(index) = &mut self.index {
            index.push(stretch);
        }
    }
}

/// A file as it will be stored.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) index: Option<Gatherer>,
}

/// Stored bytes as they come together.
struct Assembly {
    bytes: Vec<u8>,
    sha256: Option<Sha256>,
}

impl Assembly {
    fn new(length: usize, wants: Wants) -> Self {
        Self {
            // Pages that nothing is written to take no memory.
            bytes: Vec::with_capacity(length + (64 << 10)),
            sha256: wants.sha256.then(Sha256::new),
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn finish(mut self, seen: Seen) -> Whole {
        self.bytes.shrink_to_fit();
        Whole {
            bytes: self.bytes,
            digest: seen.digest.map(|digest| digest.to_hex()),
            sha256: self.sha256.map(Sha256::finish_hex),
            index: seen.index,
        }
    }
}

/// A writer that hands on what is written, in chunks.
struct Handing {
    chunk: Vec<u8>,
    sender: mpsc::Sender<Vec<u8>>,
}

impl Handing {
    fn hand_on(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(READ_BYTES));
        let sent = self.sender.send(chunk);
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Handing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= READ_BYTES {
            self.hand_on()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How many threads are of use for such a file.
pub(super) fn threads_of_use(size: u64, codec: Codec) -> usize {
    if can_be_joined(codec) || codec == Codec::Zstd {
        usize::try_from(size.div_ceil(PIECE_BYTES)).unwrap_or(1)
    } else {
        1
    }
}

/// Compresses the file of `size` bytes, unless `stop` is set meanwhile.
pub(super) fn compress_whole(
    (path, size): (&Path, u64),
    compression: Compression,
    wants: Wants,
    stop: &AtomicBool,
) -> io::Result<Whole> {
    let length = usize::try_from(size).map_err(io::Error::other)?;
    let threads = wants.threads.min(threads_of_use(size, compression.codec));
    if compression.codec == Codec::None {
        as_it_is(path, length, wants, stop)
    } else if threads > 1 && can_be_joined(compression.codec) && !wants.digest {
        let wants = Wants { threads, ..wants };
        let parts = (wants, Assembly::new(length, wants));
        in_pieces((path, size), compression, parts, stop)
    } else {
        let by = |threads| {
            let parts = (Wants { threads, ..wants }, Assembly::new(length, wants));
            in_one((path, size), compression, parts, stop)
        };
        match by(threads) {
            // zstd fails where the system gives it no thread.
            Err(_) if threads > 1 && !stop.load(Ordering::Relaxed) => by(1),
            outcome => outcome,
        }
    }
}

/// Compresses the file into `sink` and gives it back, with what is wanted of the file.
pub(super) fn compress_into<W: Write>(
    (path, size): (&Path, u64),
    compression: Compression,
    wants: Wants,
    (sink, stop): (W, &AtomicBool),
) -> io::Result<(W, Seen)> {
    let mut seen = Seen::new(wants);
    let mut compressor = Compressor::with_threads(sink, compression, wants.threads)?;
    file::read_chunks(path, size, stop, |chunk| {
        seen.see(chunk);
        compressor.write_all(chunk)
    })?;
    Ok((compressor.finish()?, seen))
}

/// One thread compresses while this one takes the SHA-256.
fn in_one(
    file: (&Path, u64),
    compression: Compression,
    (wants, mut assembly): (Wants, Assembly),
    stop: &AtomicBool,
) -> io::Result<Whole> {
    let seen = thread::scope(|scope| {
        let (sender, chunks) = mpsc::channel();
        let work = move || {
            let chunk = Vec::with_capacity(READ_BYTES);
            let sink = Handing { chunk, sender };
            let (mut sink, seen) = compress_into(file, compression, wants, (sink, stop))?;
            sink.hand_on()?;
            Ok::<_, io::Error>(seen)
        };
        let Ok(compressing) = thread::Builder::new().spawn_scoped(scope, work.clone()) else {
            // The system gives no thread: first the one, then the other.
            let seen = work()?;
            for chunk in chunks {
                assembly.push(&chunk);
            }
            return Ok(seen);
        };
        drop(work);
        for chunk in chunks {
            assembly.push(&chunk);
        }
        compressing.join().map_err(|_| panicked())?
    })?;
    Ok(assembly.finish(seen))
}

/// Several threads compress a piece each, and this one joins them. They see the file in no order:
/// one more reads it for the index, which the kernel still holds.
fn in_pieces(
    (path, size): (&Path, u64),
    compression: Compression,
    (wants, mut assembly): (Wants, Assembly),
    stop: &AtomicBool,
) -> io::Result<Whole> {
    let source = File::open(path)?;
    let count = size.div_ceil(PIECE_BYTES);
    let (mut joiner, header) = Joiner::begin(compression)?;
    assembly.push(&header);
    let first_free = AtomicU64::new(0);
    let work = |sender: mpsc::Sender<_>| {
        loop {
            let number = first_free.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                break;
            }
            let begin = number * PIECE_BYTES;
            let range = begin..size.min(begin + PIECE_BYTES);
            let piece = piece(&source, range, compression, stop);
            if sender.send((number, piece)).is_err() {
                // Another piece failed, and nobody listens any more.
                break;
            }
        }
    };
    let index = thread::scope(|scope| {
        let (sender, made) = mpsc::channel();
        let index = || gather((path, size), stop);
        let spawn = || thread::Builder::new().spawn_scoped(scope, index).ok();
        let gathering = wants.index.then(spawn).flatten();
        let mut is_shared = false;
        for _ in 0..wants.threads {
            let theirs = sender.clone();
            let started = thread::Builder::new().spawn_scoped(scope, || work(theirs));
            is_shared |= started.is_ok();
        }
        if is_shared {
            drop(sender);
        } else {
            // The system gives no thread: first all pieces, then all of the joining.
            work(sender);
        }
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        for (number, piece) in made {
            waiting.insert(number, piece?);
            while let Some(piece) = waiting.remove(&next) {
                assembly.push(joiner.join(&piece));
                next += 1;
            }
        }
        if next == count {
            // Without it the segment is not indexed.
            Ok(gathering.and_then(|gathering| gathering.join().ok().flatten()))
        } else {
            Err(panicked())
        }
    })?;
    file::check_unchanged(&source, path, size)?;
    assembly.push(&joiner.end());
    let digest = None;
    Ok(assembly.finish(Seen { digest, index }))
}

/// Reads a file for the index alone; `None` where that fails.
fn gather((path, size): (&Path, u64), stop: &AtomicBool) -> Option<Gatherer> {
    let mut gatherer = Gatherer::new();
    let read = file::read_chunks(path, size, stop, |chunk| {
        gatherer.push(chunk);
        Ok(())
    });
    read.is_ok().then_some(gatherer)
}

fn piece(
    source: &File,
    range: Range<u64>,
    compression: Compression,
    stop: &AtomicBool,
) -> io::Result<Piece> {
    let mut encoder = PieceEncoder::new(compression)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut at = range.start;
    while at < range.end {
        if stop.load(Ordering::Relaxed) {
            return Err(file::given_up());
        }
        let left = usize::try_from(range.end - at).map_err(io::Error::other)?;
        let stretch = &mut buffer[..left.min(READ_BYTES)];
        source.read_exact_at(stretch, at)?;
        encoder.write_all(stretch)?;
        at += u64::try_from(stretch.len()).map_err(io::Error::other)?;
    }
    encoder.finish()
}

/// Reads a file of `length` bytes, with the digest and the SHA-256 of it where they are wanted.
/// The latter takes longer than the reading, and so is taken by another thread meanwhile.
fn as_it_is(path: &Path, length: usize, wants: Wants, stop: &AtomicBool) -> io::Result<Whole> {
    let mut bytes = vec![0; length];
    let mut seen = Seen::new(wants);
    let sha256 = thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel::<&[u8]>();
        let hash = move || {
            let mut sha256 = Sha256::new();
            for stretch in receiver {
                sha256.update(stretch);
            }
            sha256.finish_hex()
        };
        let spawn = || thread::Builder::new().spawn_scoped(scope, hash).ok();
        let hashing = wants.sha256.then(spawn).flatten();
        file::read_into(path, &mut bytes, stop, |stretch| {
            // Fails only where nobody takes the SHA-256.
            let _ = sender.send(stretch);
            seen.see(stretch);
        })?;
        drop(sender);
        // Without it the store takes it itself.
        Ok::<_, io::Error>(hashing.and_then(|hashing| hashing.join().ok()))
    })?;
    Ok(Whole {
        bytes,
        digest: seen.digest.map(|digest| digest.to_hex()),
        sha256,
        index: seen.index,
    })
}

fn panicked() -> io::Error {
    io::Error::other("a thread that compressed panicked")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::codec::decompress::decompressor;

    const SIZE: usize = 5 << 20;

    fn wants(threads: usize) -> Wants {
        Wants {
            digest: false,
            sha256: true,
            index: true,
            threads,
        }
    }

    /// A file of several pieces, the last of them shorter.
    fn file_of(folder: &Path) -> (std::path::PathBuf, Vec<u8>) {
        let path = folder.join("000000010000000000000001");
        let contents: Vec<u8> = (0..u32::try_from(SIZE).unwrap())
            .map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3] & 15)
            .collect();
        fs::write(&path, &contents).unwrap();
        (path, contents)
    }

    fn sha256_of(bytes: &[u8]) -> String {
        let mut sha256 = Sha256::new();
        sha256.update(bytes);
        sha256.finish_hex()
    }

    #[test]
    fn whatever_the_codec_and_threads_the_file_reads_back_and_has_its_digests() {
        let folder = tempfile::tempdir().unwrap();
        let (path, contents) = file_of(folder.path());
        let size = u64::try_from(SIZE).unwrap();
        let stop = AtomicBool::new(false);
        for codec in Codec::ALL {
            for (digest, sha256, threads) in [(true, true, 3), (false, true, 3), (false, false, 1)]
            {
                let wants = Wants {
                    digest,
                    sha256,
                    index: sha256,
                    threads,
                };
                let compression = Compression { codec, level: None };
                let whole = compress_whole((&path, size), compression, wants, &stop).unwrap();
                let mut read = Vec::new();
                let mut reader = decompressor(&whole.bytes[..], codec).unwrap();
                io::copy(&mut reader, &mut read).unwrap();
                assert!(read == contents, "{compression} by {threads} threads");
                assert_eq!(whole.index.is_some(), wants.index);
                assert_eq!(whole.digest, digest.then(|| Blake3::of(&contents)));
                assert_eq!(whole.sha256, sha256.then(|| sha256_of(&whole.bytes)));
            }
        }
    }

    #[test]
    fn a_file_that_changes_or_is_given_up_makes_no_body() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = file_of(folder.path());
        let size = u64::try_from(SIZE).unwrap();
        let mut stop = AtomicBool::new(false);
        for codec in Codec::ALL {
            let compression = Compression { codec, level: None };
            for size in [size - 1, size + 1] {
                let made = compress_whole((&path, size), compression, wants(2), &stop);
                assert!(made.is_err(), "{compression}: {size} bytes");
            }
            *stop.get_mut() = true;
            let made = compress_whole((&path, size), compression, wants(2), &stop);
            assert!(made.is_err(), "{compression} goes on");
            *stop.get_mut() = false;
        }
    }
}
