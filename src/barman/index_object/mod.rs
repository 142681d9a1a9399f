//! What segments tell of the points that recovery can stop at, kept beside the log.
//!
//! An object lies at `<server>/cellarman/index/<outline>.jsonl.zst`: one line of JSON on the
//! cluster, one on each segment, and one at the end with their number, in one zstd frame with its
//! checksum. The segments follow one another on one timeline. Objects are never changed: one that
//! says more about the same segments comes to lie beside. All of it is derived from the log, and
//! can be made again. Not here: listing and fetching them (`repository::wal_index`).

mod line;

use std::io::{self, BufRead, BufReader, Write};

use serde::{Deserialize, Serialize};

use crate::barman::index_object::line::Line;
use crate::barman::layout::Layout;
use crate::domain::backup::SystemId;
use crate::domain::log::outline::{Outline, OutlineError};
use crate::domain::log::summary::{SegmentSummary, outline_of};
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::store::ObjectKey;

/// The version of the format that is written, and the newest that is read.
const FORMAT: u32 = 1;

/// How the contents are compressed: small matters more here than fast.
const LEVEL: i32 = 6;

/// The largest contents that are read: 64 segments, each with its two sets at their largest.
const TEXT_BYTES_MAX: u64 = 256 << 20;

/// How the names of objects end.
const SUFFIX: &str = ".jsonl.zst";

/// The summaries of segments that follow one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexObject {
    /// The cluster whose log it is.
    pub system_id: SystemId,
    /// The size of its segments.
    pub segment_size: SegmentSize,
    /// The segments, in order.
    pub segments: Vec<SegmentSummary>,
}

/// Contents that are not those of an index object.
#[derive(Debug, thiserror::Error)]
pub enum IndexObjectError {
    /// They cannot be decompressed: cut off, or damaged.
    #[error("it is damaged: {0}")]
    Damaged(#[from] io::Error),
    /// A line is not what it should be.
    #[error("line {line} is not understood: {source}")]
    Line {
        /// Which line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// A value is none.
    #[error("line {line} has no proper {field}")]
    Value {
        /// Which line, from 1.
        line: usize,
        /// The value's name.
        field: &'static str,
    },
    /// A later release has written it.
    #[error("it has format {0}, and this release reads {FORMAT}")]
    Format(u32),
    /// Segments are missing in it, or do not follow one another.
    #[error("its segments are not those that it should have")]
    Segments,
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    system_id: String,
    segment_size: u64,
}

#[derive(Serialize, Deserialize)]
struct Foot {
    segments: usize,
}

/// What the keys of all index objects begin with.
pub fn prefix(layout: &Layout) -> String {
    layout.private("index/").as_str().to_owned()
}

/// Where the object with this outline lies.
pub fn key(layout: &Layout, outline: &Outline) -> ObjectKey {
    layout.private(&format!("index/{outline}{SUFFIX}"))
}

/// The outline that an object's key tells.
///
/// # Errors
/// Fails for objects that are none of the index.
pub fn outline(key: &ObjectKey) -> Result<Outline, OutlineError> {
    let name = key.base_name();
    name.strip_suffix(SUFFIX).unwrap_or(name).parse()
}

impl IndexObject {
    /// What its name tells; `None` when it has no segments.
    pub fn outline(&self) -> Option<Outline> {
        let outline = outline_of(&self.segments)?;
        Some(Outline {
            system_id: Some(self.system_id),
            ..outline
        })
    }

    /// Its bytes as stored.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
        encoder.include_checksum(true)?;
        let head = Head {
            format: FORMAT,
            system_id: self.system_id.to_string(),
            segment_size: self.segment_size.bytes(),
        };
        put_line(&mut encoder, &head)?;
        for segment in &self.segments {
            put_line(&mut encoder, &Line::of(segment))?;
        }
        let segments = self.segments.len();
        put_line(&mut encoder, &Foot { segments })?;
        encoder.finish()
    }

    /// Reads what was stored.
    pub fn parse(bytes: &[u8]) -> Result<Self, IndexObjectError> {
        let decoder = io::Read::take(zstd::Decoder::new(bytes)?, TEXT_BYTES_MAX);
        let lines: Vec<String> = BufReader::new(decoder).lines().collect::<Result<_, _>>()?;
        let [head, segments @ .., foot] = &lines[..] else {
            return Err(IndexObjectError::Segments);
        };
        let head: Head = from_line(head, 1)?;
        if head.format > FORMAT {
            return Err(IndexObjectError::Format(head.format));
        }
        let value = |field| IndexObjectError::Value { line: 1, field };
        let system_id = head.system_id.parse().map(SystemId);
        let segment_size = SegmentSize::new(head.segment_size);
        let foot: Foot = from_line(foot, lines.len())?;
        let object = Self {
            system_id: system_id.map_err(|_| value("system_id"))?,
            segment_size: segment_size.map_err(|_| value("segment_size"))?,
            segments: segments
                .iter()
                .zip(2..)
                .map(|(text, line)| from_line::<Line>(text, line)?.to_summary(line))
                .collect::<Result<_, _>>()?,
        };
        let is_as_promised = foot.segments == object.segments.len() && object.follow();
        is_as_promised
            .then_some(object)
            .ok_or(IndexObjectError::Segments)
    }

    /// Whether there are segments, each the one after the last.
    fn follow(&self) -> bool {
        let mut pairs = self.segments.windows(2);
        let follows = |one: SegmentName, other| one.next(self.segment_size) == Some(other);
        !self.segments.is_empty() && pairs.all(|pair| follows(pair[0].name, pair[1].name))
    }
}

fn put_line<T: Serialize>(writer: &mut impl Write, value: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, value)?;
    writer.write_all(b"\n")
}

fn from_line<T: for<'de> Deserialize<'de>>(text: &str, line: usize) -> Result<T, IndexObjectError> {
    serde_json::from_str(text).map_err(|source| IndexObjectError::Line { line, source })
}

#[cfg(test)]
mod tests;
