//! Where reading a segment stopped: at its end, where the log ends, or where it is broken.
//!
//! A log that ends and one that is damaged look alike at the first bad byte: a crash leaves torn
//! pages, and a recycled file keeps the records of its former life. What tells them apart is what
//! follows: pages behind the place that do belong to this log were written after it. Not here:
//! finding the place (`walk`).

use crate::domain::lsn::Lsn;
use crate::domain::timeline::TimelineId;
use crate::fault::{Fault, Kind};

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentEnd {
    /// All of it was read, to its last page or to the record that switched to the next.
    Whole,
    /// The log ends here: nothing behind it was written as part of this log.
    Ends(Stop),
    /// The log goes on behind this place, or should: the place is damaged.
    Broken(Stop),
}

/// A place that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the WAL cannot be read at {at}: {reason}")]
pub struct Stop {
    /// The first byte of the record, or of the page, that is wrong.
    pub at: Lsn,
    /// What is wrong with it.
    pub reason: StopReason,
}

/// What is wrong with a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// Nothing has been written there.
    #[error("there are zeros")]
    Zeros,
    /// The bytes given end before the segment does.
    #[error("the segment's bytes end")]
    NoBytes,
    /// The page belongs to another place of the log: a recycled file.
    #[error("the page says that it lies at {found}")]
    Address {
        /// Where the page says it lies.
        found: Lsn,
    },
    /// The page is of another version, or none.
    #[error("the page has the magic number {found:04X}")]
    Magic {
        /// What is there.
        found: u16,
    },
    /// The page has flags that there are not, or not those of its place.
    #[error("the page has the flags {found:04X}")]
    Flags {
        /// What is there.
        found: u16,
    },
    /// The page is of no timeline, or of one before that of an earlier page.
    #[error("the page is of timeline {found}, and follows one of timeline {previous}")]
    Timeline {
        /// What is there.
        found: u32,
        /// The timeline of the page before.
        previous: TimelineId,
    },
    /// A record ends on this page that did not begin before.
    #[error("the page continues a record that did not begin")]
    UnexpectedContinuation,
    /// The record does not go on where it should.
    #[error("the record is not continued on the page at {page}")]
    NoContinuation {
        /// The page where it should go on.
        page: Lsn,
    },
    /// The record goes on with another number of bytes than are missing.
    #[error("the page at {page} continues it with {found} bytes, and {missing} are missing")]
    ContinuationLength {
        /// The page where it goes on.
        page: Lsn,
        /// What the page says.
        found: u32,
        /// What the record needs.
        missing: u32,
    },
    /// No record has this length.
    #[error("the record says that it has {found} bytes")]
    Length {
        /// What is there.
        found: u32,
    },
    /// The version has no such resource manager.
    #[error("the record is of resource manager {found}")]
    ResourceManager {
        /// What is there.
        found: u8,
    },
    /// The record does not follow the one before it.
    #[error("the record says that it follows one at {found}")]
    Previous {
        /// What is there.
        found: Lsn,
    },
    /// The record's bytes do not make its checksum.
    #[error("the record has checksum {found:08X} but its bytes make {made:08X}")]
    Checksum {
        /// What is there.
        found: u32,
        /// What the bytes make.
        made: u32,
    },
}

impl Fault for Stop {
    fn kind(&self) -> Kind {
        Kind::Corrupt
    }
}

/// What the pages behind a stop tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// There were none.
    Nothing,
    /// None of them belongs to this log.
    Foreign,
    /// One of them was written as part of this log.
    Written,
}

impl Stop {
    /// Whether the log ends here or is broken, by what lies behind.
    ///
    /// Where nothing does, on a segment's last page, only what a log ends with is taken for its end.
    pub(super) fn judged(self, behind: Behind) -> SegmentEnd {
        let is_usual_end = matches!(
            self.reason,
            StopReason::Zeros
                | StopReason::NoBytes
                | StopReason::Address { .. }
                | StopReason::Previous { .. }
        );
        match behind {
            Behind::Written => SegmentEnd::Broken(self),
            Behind::Nothing if !is_usual_end => SegmentEnd::Broken(self),
            Behind::Nothing | Behind::Foreign => SegmentEnd::Ends(self),
        }
    }
}
