//! The derived cache of the catalog: `<server>/cellarman/catalog.jsonl.zst`.
//!
//! What `backup.info` files and marks say, so that a reader of the catalog fetches only those that
//! changed. It may be deleted at any time, and one that cannot be read is as good as none.
//!
//! ```text
//! {"header":{"version":1}}
//! {"object":{"id":"20261121T054347","object":"record","etag":"9b2c..","size":1384,
//!            "modified":1795239827000000000,"text":"backup_label=.."}}      one line each
//! {"end":{"blake3":".."}}                              of all the lines before, ends of lines included
//! ```
//!
//! The lines are one zstd frame. An entry holds the text itself and not what was read in it, so a
//! release that reads more in a record finds it. It is bound to the etag, the size and the time of
//! the version it was read from, as the listing tells them: whoever does not find all three alike
//! fetches the object. Objects without an etag, large ones and those that are no text are never
//! entered. Nothing in it is secret that is not so in `backup.info`.
//!
//! Not here: what is fetched, and when the cache is written (`catalog`).

use std::io::{self, BufRead, BufReader, Read, Write};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::barman::layout::Layout;
use crate::barman::repository::folders::{Small, Stamp};
use crate::domain::backup::BackupId;
use crate::store::ObjectKey;

/// The version of the format. Another one is not read.
const VERSION: u32 = 1;

/// The longest text that is entered: records of volume snapshots have some kilobytes.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// The longest line: such a text with each byte escaped.
const LINE_BYTES_MAX: u64 = 512 << 10;

/// The largest window a frame may ask for, as a power of two.
const WINDOW_LOG_MAX: u32 = 23;

const COMPRESSION_LEVEL: i32 = 3;

/// Where the cache lies.
pub(super) fn key(layout: &Layout) -> ObjectKey {
    layout.private("catalog.jsonl.zst")
}

/// One small object and what it says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CachedObject {
    pub(super) id: BackupId,
    pub(super) small: Small,
    pub(super) stamp: Stamp,
    pub(super) text: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Header { version: u32 },
    Object(ObjectLine),
    End { blake3: String },
}

#[derive(Serialize, Deserialize)]
struct ObjectLine {
    id: String,
    object: Kind,
    etag: String,
    size: u64,
    /// Nanoseconds since 1970.
    modified: i64,
    text: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Record,
    Keep,
    DoubledKeep,
}

impl From<Small> for Kind {
    fn from(small: Small) -> Self {
        match small {
            Small::Record => Self::Record,
            Small::Keep => Self::Keep,
            Small::DoubledKeep => Self::DoubledKeep,
        }
    }
}

impl From<Kind> for Small {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Record => Self::Record,
            Kind::Keep => Self::Keep,
            Kind::DoubledKeep => Self::DoubledKeep,
        }
    }
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads a cache, one entry in memory at a time.
pub(super) struct CacheReader {
    lines: BufReader<zstd::Decoder<'static, BufReader<io::Cursor<Bytes>>>>,
    digest: blake3::Hasher,
    line: Vec<u8>,
}

impl CacheReader {
    /// Begins to read what is stored.
    pub(super) fn new(stored: Bytes) -> io::Result<Self> {
        let mut decoder = zstd::Decoder::new(io::Cursor::new(stored))?.single_frame();
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        let mut reader = Self {
            lines: BufReader::new(decoder),
            digest: blake3::Hasher::new(),
            line: Vec::new(),
        };
        match reader.line()? {
            Line::Header { version: VERSION } => Ok(reader),
            _ => Err(broken("it is of another version")),
        }
    }

    /// The next entry; `None` after the last, when all of it proved to be as it was written.
    pub(super) fn next(&mut self) -> io::Result<Option<CachedObject>> {
        match self.line()? {
            Line::Object(line) => object(line).map(Some),
            Line::End { blake3 } if blake3 == self.digest.finalize().to_hex().as_str() => Ok(None),
            _ => Err(broken("its digest does not fit")),
        }
    }

    fn line(&mut self) -> io::Result<Line> {
        self.line.clear();
        let mut lines = (&mut self.lines).take(LINE_BYTES_MAX);
        lines.read_until(b'\n', &mut self.line)?;
        let line = serde_json::from_slice(&self.line)?;
        if !matches!(line, Line::End { .. }) {
            self.digest.update(&self.line);
        }
        Ok(line)
    }
}

fn object(line: ObjectLine) -> io::Result<CachedObject> {
    Ok(CachedObject {
        id: line.id.parse().map_err(|_| broken("an id is none"))?,
        small: line.object.into(),
        stamp: Stamp {
            etag: Some(line.etag.into()),
            size: line.size,
            modified: chrono::DateTime::from_timestamp_nanos(line.modified),
        },
        text: line.text,
    })
}

/// Writes a cache; what it holds in memory is compressed.
pub(super) struct CacheWriter {
    encoder: zstd::Encoder<'static, Vec<u8>>,
    digest: blake3::Hasher,
}

impl CacheWriter {
    /// Begins a cache without entries.
    pub(super) fn new() -> io::Result<Self> {
        let mut encoder = zstd::Encoder::new(Vec::new(), COMPRESSION_LEVEL)?;
        encoder.include_checksum(true)?;
        let mut writer = Self {
            encoder,
            digest: blake3::Hasher::new(),
        };
        writer.line(&Line::Header { version: VERSION })?;
        Ok(writer)
    }

    /// Enters an object, if it is of a kind that is.
    pub(super) fn add(
        &mut self,
        id: &BackupId,
        small: Small,
        stamp: &Stamp,
        text: &str,
    ) -> io::Result<()> {
        let (Some(etag), Some(modified)) = (&stamp.etag, stamp.modified.timestamp_nanos_opt())
        else {
            return Ok(());
        };
        if text.len() > TEXT_BYTES_MAX {
            return Ok(());
        }
        self.line(&Line::Object(ObjectLine {
            id: id.to_string(),
            object: small.into(),
            etag: etag.to_string(),
            size: stamp.size,
            modified,
            text: text.to_owned(),
        }))
    }

    /// The cache as it is stored.
    pub(super) fn finish(mut self) -> io::Result<Bytes> {
        let blake3 = self.digest.finalize().to_hex().to_string();
        self.line(&Line::End { blake3 })?;
        Ok(self.encoder.finish()?.into())
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.digest.update(&text);
        self.encoder.write_all(&text)
    }
}
