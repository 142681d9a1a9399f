//! Page headers: where in the log a page lies, and of a segment's first page whose log it is.
//!
//! Source: `XLogPageHeaderData` and `XLogLongPageHeaderData`, PostgreSQL 18,
//! `src/include/access/xlog_internal.h`; the same since 9.3. Not here: records.

use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::TimelineId;
use crate::domain::version::ServerVersion;
use crate::fault::{Fault, Kind};

/// The bytes that the header of a segment's first page takes.
pub const SEGMENT_HEADER_BYTES: usize = 40;

/// The bytes that the header of every other page takes, padding included.
pub const PAGE_HEADER_BYTES: usize = 24;

/// The bits of `xlp_info`: the page begins with the rest of a record, its header is a long one,
/// and the record that was to go on here was given up and is overwritten.
const IS_CONTINUATION: u16 = 0x0001;
const IS_LONG: u16 = 0x0002;
const IS_OVERWRITE: u16 = 0x0008;
const FLAGS_KNOWN: u16 = 0x000F;

/// What every page says, first ones of segments included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// The magic number, which differs by major version.
    pub magic: u16,
    /// The bits of `xlp_info`.
    pub flags: u16,
    /// The timeline that was written to; 0 on no page that PostgreSQL wrote.
    pub timeline: u32,
    /// Where in the log the page lies.
    pub address: Lsn,
    /// How many bytes of the record that began on an earlier page are still to come.
    pub remaining_bytes: u32,
}

/// What the first page of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The magic number, which differs by major version; see [`SegmentHeader::version`].
    pub magic: u16,
    /// The timeline of the first record on the page.
    pub timeline: TimelineId,
    /// Where in the log the page lies.
    pub page_address: Lsn,
    /// The cluster whose log it is.
    pub system_id: u64,
    /// The size of this segment and all others.
    pub segment_size: SegmentSize,
    /// The size of a page of the log, in bytes.
    pub block_size: u32,
}

/// A segment that lies where another belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mistaken {
    /// It is of another cluster.
    #[error("it is of the cluster with system identifier {theirs}, and the archive of {ours}")]
    Cluster {
        /// Whose it is.
        theirs: u64,
        /// Whose it should be.
        ours: u64,
    },
    /// It is of another place of the log, of a later timeline, or of another size.
    #[error("it is another segment than its name says")]
    Place,
}

/// Bytes that are not the start of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentHeaderError {
    /// There is less than a header.
    #[error(
        "{length} bytes are too few for a WAL segment, which begins with {SEGMENT_HEADER_BYTES}"
    )]
    Short {
        /// How many there are.
        length: usize,
    },
    /// The file holds zeros where its header should be: a segment not yet written to.
    #[error("the WAL segment begins with zeros: nothing has been written to it")]
    Unwritten,
    /// The page does not carry the long header of a first page.
    #[error("the page with magic number {magic:04X} is not the first of a WAL segment")]
    NotFirst {
        /// What it begins with.
        magic: u16,
    },
    /// A field holds what it cannot.
    #[error("the WAL segment's header holds {value} as its {field}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is there.
        value: u64,
    },
}

impl Fault for SegmentHeaderError {
    fn kind(&self) -> Kind {
        Kind::Corrupt
    }
}

impl PageHeader {
    /// Reads the header at the beginning of `bytes`; `None` when there is less than a header.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; PAGE_HEADER_BYTES] = bytes.first_chunk()?;
        Some(Self {
            magic: u16::from_le_bytes(field(header, 0)),
            flags: u16::from_le_bytes(field(header, 2)),
            timeline: u32::from_le_bytes(field(header, 4)),
            address: Lsn::new(u64::from_le_bytes(field(header, 8))),
            remaining_bytes: u32::from_le_bytes(field(header, 16)),
        })
    }

    /// Whether the page begins with the rest of a record.
    pub fn is_continuation(self) -> bool {
        self.flags & IS_CONTINUATION != 0
    }

    /// Whether the header is that of a segment's first page.
    pub fn is_long(self) -> bool {
        self.flags & IS_LONG != 0
    }

    /// Whether the record that was to go on here was given up: after a crash the log goes on
    /// with this page, and the record's beginning stays where it was.
    pub fn is_overwrite(self) -> bool {
        self.flags & IS_OVERWRITE != 0
    }

    /// Whether the page has flags that no version writes.
    pub fn has_unknown_flags(self) -> bool {
        self.flags & !FLAGS_KNOWN != 0
    }

    /// The bytes that the header takes.
    pub fn bytes(self) -> usize {
        if self.is_long() {
            SEGMENT_HEADER_BYTES
        } else {
            PAGE_HEADER_BYTES
        }
    }
}

impl SegmentHeader {
    /// Reads the header at the beginning of `bytes`.
    ///
    /// Any magic number is accepted, for versions to come.
    pub fn parse(bytes: &[u8]) -> Result<Self, SegmentHeaderError> {
        let header: &[u8; SEGMENT_HEADER_BYTES] =
            bytes.first_chunk().ok_or(SegmentHeaderError::Short {
                length: bytes.len(),
            })?;
        if header.iter().all(|byte| *byte == 0) {
            return Err(SegmentHeaderError::Unwritten);
        }
        let page = PageHeader::parse(header).ok_or(SegmentHeaderError::Short {
            length: bytes.len(),
        })?;
        let magic = page.magic;
        if !page.is_long() {
            return Err(SegmentHeaderError::NotFirst { magic });
        }
        let segment_bytes = u64::from(u32::from_le_bytes(field(header, 32)));
        let wrong = |field, value| SegmentHeaderError::Field { field, value };
        Ok(Self {
            magic,
            timeline: TimelineId::new(page.timeline).ok_or(wrong("timeline", 0))?,
            page_address: page.address,
            system_id: u64::from_le_bytes(field(header, 24)),
            segment_size: SegmentSize::new(segment_bytes)
                .map_err(|_| wrong("segment size", segment_bytes))?,
            block_size: u32::from_le_bytes(field(header, 36)),
        })
    }

    /// The version that writes this magic number; `None` for one not known.
    pub fn version(&self) -> Option<ServerVersion> {
        ServerVersion::from_wal_magic(self.magic)
    }

    /// Whether the page is the first one of the segment so named.
    ///
    /// The timeline of the name is not compared: after a promotion the first segment of the new
    /// timeline still begins with a page of the old one.
    pub fn belongs_to(&self, name: SegmentName) -> bool {
        name.number(self.segment_size)
            .and_then(|number: SegmentNumber| number.start(self.segment_size))
            .is_some_and(|start| start == self.page_address)
    }

    /// Why this is not the segment so named, of that size and of the cluster, where that is known.
    pub fn mistaken_for(
        &self,
        name: SegmentName,
        size: SegmentSize,
        system_id: Option<u64>,
    ) -> Option<Mistaken> {
        match system_id {
            Some(ours) if ours != self.system_id => Some(Mistaken::Cluster {
                theirs: self.system_id,
                ours,
            }),
            _ => {
                let is_its_place = self.belongs_to(name) && self.timeline <= name.timeline();
                (!is_its_place || self.segment_size != size).then_some(Mistaken::Place)
            }
        }
    }
}

fn field<const N: usize>(header: &[u8], offset: usize) -> [u8; N] {
    header[offset..]
        .first_chunk()
        .copied()
        .expect("offsets are constants within the header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIRST: &[u8] = include_bytes!("../../../tests/fixtures/postgresql/wal-15");
    const PROMOTED: &[u8] = include_bytes!("../../../tests/fixtures/postgresql/wal-15-timeline-2");
    const SMALL: &[u8] = include_bytes!("../../../tests/fixtures/postgresql/wal-18-4-MiB");

    fn name(text: &str) -> SegmentName {
        text.parse().unwrap()
    }

    #[test]
    fn real_segments_say_where_they_belong() {
        let first = SegmentHeader::parse(FIRST).unwrap();
        let expected = SegmentHeader {
            magic: 0xD110,
            timeline: TimelineId::FIRST,
            page_address: "0/1000000".parse().unwrap(),
            system_id: 7_710_535_714_366_482_761,
            segment_size: SegmentSize::DEFAULT,
            block_size: 8192,
        };
        assert_eq!(first, expected);
        assert_eq!(first.version().unwrap().major, 15);
        assert!(first.belongs_to(name("000000010000000000000001")));
        assert!(!first.belongs_to(name("000000010000000000000002")));
        assert!(!first.belongs_to(name("000000010000000100000001")));

        let small = SegmentHeader::parse(SMALL).unwrap();
        assert_eq!(small.version().unwrap().major, 18);
        assert_eq!(small.system_id, 7_710_535_719_773_940_117);
        assert_eq!(small.segment_size, SegmentSize::new(4 << 20).unwrap());
        assert!(small.belongs_to(name("000000010000000000000004")));
        assert!(!small.belongs_to(name("000000010000000000000400")));
    }

    #[test]
    fn segments_of_each_version_are_told_by_their_magic() {
        for (bytes, major) in [
            (
                &include_bytes!("../../../tests/fixtures/postgresql/wal-13")[..],
                13,
            ),
            (FIRST, 15),
            (
                include_bytes!("../../../tests/fixtures/postgresql/wal-17"),
                17,
            ),
            (SMALL, 18),
        ] {
            let header = SegmentHeader::parse(bytes).unwrap();
            assert_eq!(header.version().unwrap().major, major);
        }
    }

    #[test]
    fn the_first_segment_of_a_timeline_begins_on_the_one_before() {
        let promoted = SegmentHeader::parse(PROMOTED).unwrap();
        assert_eq!(promoted.timeline, TimelineId::FIRST);
        assert!(promoted.belongs_to(name("000000020000000000000003")));
    }

    #[test]
    fn what_is_no_segment_is_refused() {
        let check = |bytes: &[u8], expected| {
            assert_eq!(SegmentHeader::parse(bytes).unwrap_err(), expected);
        };
        let change = |at: usize, byte: u8| {
            let mut bytes = FIRST.to_vec();
            bytes[at] = byte;
            bytes
        };
        let wrong = |field, value| SegmentHeaderError::Field { field, value };
        check(&FIRST[..39], SegmentHeaderError::Short { length: 39 });
        check(&[0; 8192], SegmentHeaderError::Unwritten);
        check(
            &change(2, 0),
            SegmentHeaderError::NotFirst { magic: 0xD110 },
        );
        check(&change(4, 0), wrong("timeline", 0));
        check(&change(32, 1), wrong("segment size", (16 << 20) + 1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(at in 0usize..40, byte: u8, length in 0usize..64) {
            let mut bytes = FIRST.to_vec();
            bytes[at] = byte;
            let _ = SegmentHeader::parse(&bytes[..length]);
            if let Ok(header) = SegmentHeader::parse(&bytes) {
                let _ = header.belongs_to(name("FFFFFFFFFFFFFFFFFFFFFFFF"));
            }
        }
    }
}
