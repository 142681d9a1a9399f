//! Reads one segment, whose bytes come in pieces of any size, and hands out its records.
//!
//! Nothing is copied but records over page edges, and pages over the edges of pieces. Not here:
//! what lies on a page (`walk`), and what records say.

use crate::domain::lsn::Lsn;
use crate::domain::version::ServerVersion;
use crate::fault::{Fault, Kind};
use crate::pgfile::wal::assembly::Assembly;
use crate::pgfile::wal::page::{
    PageHeader, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentHeaderError,
};
use crate::pgfile::wal::record::{Record, RecordHeader};
use crate::pgfile::wal::stop::SegmentEnd;
use crate::pgfile::wal::walk::{Position, Walk};

/// What to do with records beyond finding them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderOptions {
    /// Whether a record whose bytes do not make its checksum stops the reading.
    pub check_crc: bool,
    /// Which records over page edges are put together.
    pub bodies: Bodies,
}

/// Which records' bodies are wanted. Those that lie on one page come with theirs in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bodies {
    /// All.
    All,
    /// Those of the log itself and of transactions, which is what recovery can stop at. The
    /// images of blocks, most of a busy server's log, are then passed over and not copied.
    OfRecovery,
}

/// What is met in a segment, in the order of the log.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A page, before the records that begin or end on it.
    Page(PageHeader),
    /// A record, when its last byte has been read.
    Record(Record<'a>),
    /// A record that began and will never end: the server crashed while it wrote it, and the log
    /// goes on behind.
    GivenUp {
        /// Where it began.
        begin: Lsn,
    },
}

/// Bytes that are no segment of a version known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReaderError {
    /// The first page has no header.
    #[error(transparent)]
    Header(#[from] SegmentHeaderError),
    /// The first page is of a version not known.
    #[error("the WAL has the magic number {magic:04X}, which is none of PostgreSQL 13 to 18")]
    Version {
        /// What is there.
        magic: u16,
    },
    /// The first page lies where no segment begins.
    #[error("the WAL segment says that it begins at {address}, where none of its size does")]
    Address {
        /// What is there.
        address: Lsn,
    },
    /// Pages of a size that there is not.
    #[error("the WAL has pages of {bytes} bytes")]
    PageSize {
        /// What is there.
        bytes: u32,
    },
    /// There are more bytes than a segment has.
    #[error("there are bytes behind the WAL segment's end")]
    Long,
}

impl Fault for ReaderError {
    fn kind(&self) -> Kind {
        match self {
            Self::Header(error) => error.kind(),
            Self::Version { .. } => Kind::Unsupported,
            Self::Address { .. } | Self::PageSize { .. } | Self::Long => Kind::Corrupt,
        }
    }
}

/// What one segment leaves to the next: a record that began and did not end, and where the last
/// whole one began, which the next must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carry(pub(super) Position);

/// What there is to say of a segment when all of it was read.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How the segment ends.
    pub end: SegmentEnd,
    /// The record that begins in the segment and does not end in it.
    pub unfinished: Option<Unfinished>,
    /// How many bytes at the segment's beginning belong to a record that began before it, and
    /// were passed over because that beginning was not given.
    pub head_skipped_bytes: u64,
    /// What the reader of the next segment needs; `None` where this one is not whole.
    pub carry: Option<Carry>,
}

/// A record that does not end in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinished {
    /// Its first byte, in this segment or an earlier one.
    pub begin: Lsn,
    /// Its length.
    pub total_bytes: u32,
    /// How many of its bytes have been read.
    pub held_bytes: u32,
    /// Its header, when that has been read.
    pub header: Option<RecordHeader>,
}

/// Reads one segment from its first byte on.
#[derive(Debug)]
pub struct SegmentReader {
    options: ReaderOptions,
    before: Option<Position>,
    walk: Option<Walk>,
    /// The beginning of a page that a piece ended in.
    held: Vec<u8>,
}

impl Bodies {
    /// Whether these are records of the log itself or of transactions.
    pub(super) fn is_of_recovery(manager: u8) -> bool {
        manager <= 1
    }
}

impl SegmentReader {
    /// Of a segment of which nothing is known, or after `carry` of the one before it. A carry
    /// that does not lead to this segment is passed over.
    pub fn new(options: ReaderOptions, carry: Option<Carry>) -> Self {
        Self {
            options,
            before: carry.map(|carry| carry.0),
            walk: None,
            held: Vec::new(),
        }
    }

    /// Reads the next bytes and calls `each` for what they complete.
    ///
    /// # Errors
    /// The bytes are no segment of PostgreSQL 13 to 18, or more than one; what is wrong behind
    /// the first header is told by [`SegmentReader::finish`].
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Event<'_>),
    ) -> Result<(), ReaderError> {
        while !bytes.is_empty() {
            let wanted = self.wanted_bytes()?;
            if self.held.is_empty() && bytes.len() >= wanted {
                match &mut self.walk {
                    None => self.open(&bytes[..wanted])?,
                    Some(walk) => {
                        let (page, rest) = bytes.split_at(wanted);
                        walk.page(page, &mut each);
                        bytes = rest;
                    }
                }
                continue;
            }
            let taken = (wanted - self.held.len()).min(bytes.len());
            self.held.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.held.len() == wanted {
                let mut held = std::mem::take(&mut self.held);
                match &mut self.walk {
                    None => self.open(&held)?,
                    Some(walk) => {
                        walk.page(&held, &mut each);
                        held.clear();
                    }
                }
                self.held = held;
            }
        }
        Ok(())
    }

    /// The segment's header, once it has been read.
    pub fn segment(&self) -> Option<&SegmentHeader> {
        self.walk.as_ref().map(Walk::segment)
    }

    /// Says how the segment ended.
    ///
    /// # Errors
    /// There was not even a header.
    pub fn finish(self) -> Result<Finished, ReaderError> {
        let walk = self.walk.ok_or(SegmentHeaderError::Short {
            length: self.held.len(),
        })?;
        let head_skipped_bytes = walk.head_skipped_bytes;
        let (end, position, unfinished) = walk.finish();
        Ok(Finished {
            end,
            unfinished: unfinished.as_ref().map(Unfinished::of),
            head_skipped_bytes,
            carry: position.map(Carry),
        })
    }

    /// How many bytes make the next step: the first header, and then pages.
    fn wanted_bytes(&self) -> Result<usize, ReaderError> {
        match &self.walk {
            None => Ok(SEGMENT_HEADER_BYTES),
            Some(walk) if walk.is_at_end() => Err(ReaderError::Long),
            Some(walk) => page_bytes(walk.segment()),
        }
    }

    fn open(&mut self, header: &[u8]) -> Result<(), ReaderError> {
        let segment = SegmentHeader::parse(header)?;
        page_bytes(&segment)?;
        let magic = segment.magic;
        let version = ServerVersion::from_wal_magic(magic).ok_or(ReaderError::Version { magic })?;
        let (start, size) = (segment.page_address.to_u64(), segment.segment_size.bytes());
        let end = start
            .checked_add(size)
            .filter(|_| start.is_multiple_of(size))
            .ok_or(ReaderError::Address {
                address: segment.page_address,
            })?;
        let place = (version.major, Lsn::new(end));
        self.walk = Some(Walk::new(self.options, segment, place, self.before.take()));
        Ok(())
    }
}

/// The size of the segment's pages: `XLOG_BLCKSZ`, which can be set when PostgreSQL is built.
fn page_bytes(segment: &SegmentHeader) -> Result<usize, ReaderError> {
    let bytes = segment.block_size;
    let is_possible = bytes.is_power_of_two() && (1 << 10..=1 << 16).contains(&bytes);
    usize::try_from(bytes)
        .ok()
        .filter(|_| is_possible)
        .ok_or(ReaderError::PageSize { bytes })
}

impl Unfinished {
    fn of(assembly: &Assembly) -> Self {
        Self {
            begin: assembly.begin,
            total_bytes: assembly.total_bytes,
            held_bytes: assembly.held_bytes,
            header: assembly.whole_header(),
        }
    }
}
