//! Pure: whether a file is what its name says, so that the archive never takes a wrong one.
//!
//! Not here: whose archive it goes to (`ownership`), and the records inside a segment.

use crate::domain::backup::SystemId;
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::domain::timeline::{TimelineHistory, TimelineId};
use crate::domain::version::ServerVersion;
use crate::domain::wal_file::WalFileName;
use crate::pgfile::history::{self, HistoryError};
use crate::pgfile::wal::page::{SegmentHeader, SegmentHeaderError};

/// What is known of the server whose file it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Origin {
    /// The cluster, from its control file.
    pub(super) system_id: Option<SystemId>,
    /// The size of its segments, from its control file.
    pub(super) segment_size: Option<SegmentSize>,
    /// The history of the file's timeline, when its file is there.
    pub(super) history: Option<TimelineHistory>,
}

/// A file that is not what its name says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// No header of a segment.
    #[error(transparent)]
    Header(#[from] SegmentHeaderError),
    /// Not as long as a segment of its cluster.
    #[error("it has {found} bytes and not the {expected} of a segment")]
    Size {
        /// The size found.
        found: u64,
        /// The size expected.
        expected: u64,
    },
    /// The pages of another segment.
    #[error("its first page is at {found}, and its name says {expected}")]
    Address {
        /// The address in the page.
        found: Lsn,
        /// The address by the name.
        expected: Lsn,
    },
    /// A name that no segment of this size can have.
    #[error("no segment of {segment_bytes} bytes is called {name}")]
    Name {
        /// The name.
        name: SegmentName,
        /// The size of segments.
        segment_bytes: u64,
    },
    /// The WAL of another cluster.
    #[error("it belongs to cluster {found}, and this is cluster {expected}")]
    OtherCluster {
        /// The cluster in the file.
        found: SystemId,
        /// This cluster.
        expected: SystemId,
    },
    /// Pages of a timeline that is not its own nor an ancestor.
    #[error("its first page is of timeline {found}, which timeline {named} did not come from")]
    Timeline {
        /// The timeline of the page.
        found: TimelineId,
        /// The timeline of the name.
        named: TimelineId,
    },
    /// A history file that makes no sense.
    #[error("it is no history file")]
    History(#[from] HistoryError),
    /// A history file that is not text.
    #[error("it is not text")]
    NotText,
}

/// What a segment turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Segment {
    /// What its name says.
    Checked(SegmentHeader),
    /// Of a version of PostgreSQL not known here.
    UnknownMagic(u16),
}

/// Checks a segment of `size` bytes that begins with `head`.
pub(super) fn segment(
    name: SegmentName,
    size: u64,
    head: &[u8],
    origin: &Origin,
) -> Result<Segment, CheckError> {
    if let Some(expected) = origin.segment_size
        && expected.bytes() != size
    {
        return Err(CheckError::Size {
            found: size,
            expected: expected.bytes(),
        });
    }
    let header = match (SegmentHeader::parse(head), unknown_magic(head)) {
        (Err(error @ (SegmentHeaderError::Short { .. } | SegmentHeaderError::Unwritten)), _) => {
            return Err(error.into());
        }
        (_, Some(magic)) => return Ok(Segment::UnknownMagic(magic)),
        (header, None) => header?,
    };
    if header.segment_size.bytes() != size {
        return Err(CheckError::Size {
            found: size,
            expected: header.segment_size.bytes(),
        });
    }
    check_address(name, &header)?;
    let found = SystemId(header.system_id);
    if let Some(expected) = origin.system_id
        && expected != found
    {
        return Err(CheckError::OtherCluster { found, expected });
    }
    check_timeline(name.timeline(), header.timeline, origin)?;
    Ok(Segment::Checked(header))
}

/// Checks that the first page is where the name says.
fn check_address(name: SegmentName, header: &SegmentHeader) -> Result<(), CheckError> {
    let size = header.segment_size;
    let expected = name
        .number(size)
        .and_then(|number| number.start(size))
        .ok_or(CheckError::Name {
            name,
            segment_bytes: size.bytes(),
        })?;
    if header.page_address == expected {
        Ok(())
    } else {
        Err(CheckError::Address {
            found: header.page_address,
            expected,
        })
    }
}

/// PostgreSQL copies the old line's pages into the first segment of a new timeline, so the first
/// page may be an ancestor's.
fn check_timeline(named: TimelineId, found: TimelineId, origin: &Origin) -> Result<(), CheckError> {
    let is_own = match &origin.history {
        Some(history) => history.contains(found),
        None => found <= named,
    };
    if is_own {
        Ok(())
    } else {
        Err(CheckError::Timeline { found, named })
    }
}

/// The magic number, when it is of no version known here.
fn unknown_magic(head: &[u8]) -> Option<u16> {
    let magic = u16::from_le_bytes(*head.first_chunk()?);
    let version = ServerVersion::from_wal_magic(magic);
    version.is_none().then_some(magic)
}

/// Checks a file that is no segment, from its whole content.
pub(super) fn small_file(name: WalFileName, content: &[u8]) -> Result<(), CheckError> {
    if let WalFileName::TimelineHistory(timeline) = name {
        let text = std::str::from_utf8(content).map_err(|_| CheckError::NotText)?;
        history::parse(timeline, text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::timeline::Ancestor;
    use crate::service::wal_fixture::{SegmentBuilder, segment_name};

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn origin() -> Origin {
        let ancestor = Ancestor {
            timeline: tli(1),
            switched_at: Lsn::new(5 << 20),
        };
        Origin {
            system_id: Some(SystemId(7)),
            segment_size: Some(SegmentSize::new(1 << 20).unwrap()),
            history: Some(TimelineHistory::new(tli(3), vec![ancestor]).unwrap()),
        }
    }

    fn builder() -> SegmentBuilder {
        SegmentBuilder::new(segment_name(3, 5), 7)
    }

    fn check(builder: &SegmentBuilder, size: u64) -> Result<Segment, CheckError> {
        segment(segment_name(3, 5), size, &builder.bytes()[..40], &origin())
    }

    #[test]
    fn a_segment_that_is_what_its_name_says_passes() {
        assert!(matches!(
            check(&builder(), 1 << 20),
            Ok(Segment::Checked(_))
        ));
        let copied = builder().timeline(1);
        assert!(matches!(check(&copied, 1 << 20), Ok(Segment::Checked(_))));
    }

    #[test]
    fn an_unknown_magic_passes_as_such() {
        let future = builder().magic(0xD1FF);
        assert_eq!(check(&future, 1 << 20), Ok(Segment::UnknownMagic(0xD1FF)));
    }

    #[test]
    fn each_lie_is_told() {
        let expected = 1 << 20;
        assert_eq!(
            check(&builder(), 4096),
            Err(CheckError::Size {
                found: 4096,
                expected
            })
        );
        assert!(matches!(
            check(&builder().address(6 << 20), 1 << 20),
            Err(CheckError::Address { .. })
        ));
        assert!(matches!(
            check(&builder().system_id(8), 1 << 20),
            Err(CheckError::OtherCluster { .. })
        ));
        assert!(matches!(
            check(&builder().timeline(2), 1 << 20),
            Err(CheckError::Timeline { .. })
        ));
        let zeros = segment(segment_name(3, 5), 1 << 20, &[0; 40], &origin());
        assert_eq!(
            zeros,
            Err(CheckError::Header(SegmentHeaderError::Unwritten))
        );
        let unknown = Origin::default();
        let bytes = builder().bytes();
        assert!(matches!(
            segment(segment_name(3, 5), 2 << 20, &bytes[..40], &unknown),
            Err(CheckError::Size { .. })
        ));
        assert!(matches!(
            segment(segment_name(3, 5), 20, &bytes[..20], &unknown),
            Err(CheckError::Header(SegmentHeaderError::Short { .. }))
        ));
    }

    #[test]
    fn a_history_must_parse_and_other_small_files_are_taken() {
        let name: WalFileName = "00000002.history".parse().unwrap();
        assert!(small_file(name, b"1\t0/5000000\tno recovery target\n").is_ok());
        assert!(small_file(name, b"garbage").is_err());
        assert_eq!(small_file(name, &[0xFF, 0xFE]), Err(CheckError::NotText));
        let backup = "000000010000000000000005.00000028.backup".parse().unwrap();
        assert!(small_file(backup, b"anything").is_ok());
    }
}
