//! What the index needs of a segment, gathered while its bytes go by for another purpose.
//!
//! Not here: whose bytes they are (`wal_archive`), and where it waits (`pending`).

use crate::domain::backup::SystemId;
use crate::domain::log::summary::SegmentSummary;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::pgfile::wal::page::SEGMENT_HEADER_BYTES;
use crate::pgfile::wal::reader::{Carry, ReaderError};
use crate::pgfile::wal::seam;
use crate::pgfile::wal::stop::SegmentEnd;
use crate::pgfile::wal::summary::SegmentSummarizer;

/// How much is kept of a record over the edge of a segment, on each side of it. A longer one
/// stays unread.
pub(crate) const EDGE_BYTES_MAX: usize = 512 << 10;

/// A segment read by itself.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// Its cluster, by its own header.
    pub(crate) system_id: SystemId,
    /// The size of segments, by its own header.
    pub(crate) segment_size: SegmentSize,
    /// What it tells, its sets of ids at whatever size.
    pub(crate) summary: SegmentSummary,
    /// Its first pages up to the end of the record that began before it; empty when none did, or
    /// when they are too long.
    pub(crate) head: Vec<u8>,
    /// What the next segment needs.
    pub(crate) carry: Option<Carry>,
}

/// A segment that cannot be indexed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatherError {
    /// It is no WAL that is known here.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// Its records end before it does.
    #[error("it is not whole: {0}")]
    NotWhole(String),
    /// Its header is that of another segment.
    #[error("it is another segment than its name says")]
    Name,
}

/// Takes a segment's bytes as they come. Costs less than half a millisecond for each MiB.
#[derive(Debug)]
pub(crate) struct Gatherer {
    summarizer: SegmentSummarizer,
    failure: Option<ReaderError>,
    head: Vec<u8>,
    head_wanted: usize,
}

impl Gatherer {
    pub(crate) fn new() -> Self {
        Self {
            // What is archived was checked by nobody, and what recovery reads it checks itself.
            summarizer: SegmentSummarizer::new(false, None),
            failure: None,
            head: Vec::new(),
            head_wanted: SEGMENT_HEADER_BYTES,
        }
    }

    /// Takes the next bytes. What is wrong with them is told at the end.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.failure.is_some() {
            return;
        }
        self.take_head(bytes);
        self.failure = self.summarizer.push(bytes).err();
    }

    fn take_head(&mut self, mut bytes: &[u8]) {
        while self.head.len() < self.head_wanted && !bytes.is_empty() {
            let missing = (self.head_wanted - self.head.len()).min(bytes.len());
            let (now, later) = bytes.split_at(missing);
            self.head.extend_from_slice(now);
            bytes = later;
            if self.head.len() == SEGMENT_HEADER_BYTES {
                let wanted = seam::head_bytes(&self.head).and_then(|b| usize::try_from(b).ok());
                let wanted = wanted.filter(|wanted| *wanted <= EDGE_BYTES_MAX);
                self.head_wanted = wanted.unwrap_or(0);
            }
        }
    }

    /// What there is to say of the segment so named, all of which has been taken.
    pub(crate) fn finish(self, name: SegmentName) -> Result<Piece, GatherError> {
        if let Some(error) = self.failure {
            return Err(error.into());
        }
        let all = self.summarizer.finish(name, usize::MAX)?;
        match all.end {
            SegmentEnd::Whole => {}
            SegmentEnd::Ends(stop) | SegmentEnd::Broken(stop) => {
                return Err(GatherError::NotWhole(stop.to_string()));
            }
        }
        let header = all.header;
        if !header.belongs_to(name) || header.timeline > name.timeline() {
            return Err(GatherError::Name);
        }
        let mut head = self.head;
        if head.len() != self.head_wanted {
            head = Vec::new();
        }
        Ok(Piece {
            system_id: SystemId(header.system_id),
            segment_size: header.segment_size,
            summary: all.summary,
            head,
            carry: all.carry,
        })
    }
}
