//! Pure: which object answers a request for a WAL file, what it must hold, and what comes next.

use crate::codec::Codec;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::domain::version::ServerVersion;
use crate::domain::wal_file::WalFileName;
use crate::pgfile::wal::page::{SegmentHeader, SegmentHeaderError};
use crate::service::wal_restore::error::ContentError;
use crate::store::ObjectKey;

/// What is kept ahead of PostgreSQL, in bytes.
const AHEAD_BYTES_MAX: u64 = 128 << 20;

/// What is kept ahead of PostgreSQL, in segments: at least, and at most.
const AHEAD_SEGMENTS: (u64, u64) = (2, 64);

/// An object that may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) key: ObjectKey,
    pub(super) name: WalFileName,
    pub(super) codec: Codec,
}

/// The object that answers a request for `wanted`, of those found, which come in order of keys:
/// a whole segment before an unfinished one, then the first key.
pub(super) fn choose(
    wanted: WalFileName,
    found: &[Candidate],
    takes_partial: bool,
) -> Option<&Candidate> {
    let whole = found.iter().find(|candidate| candidate.name == wanted);
    let partial = || match wanted {
        WalFileName::Segment(segment) if takes_partial => found
            .iter()
            .find(|candidate| candidate.name == WalFileName::Partial(segment)),
        _ => None,
    };
    whole.or_else(partial)
}

/// Checks what an object held: a whole segment must be one, and the one of its name.
///
/// Returns the magic number when it is of no version known here: then only the length is checked.
pub(super) fn check(
    served: WalFileName,
    size: u64,
    head: &[u8],
) -> Result<Option<u16>, ContentError> {
    let WalFileName::Segment(name) = served else {
        return Ok(None);
    };
    let parsed = SegmentHeader::parse(head);
    if let Err(error @ (SegmentHeaderError::Short { .. } | SegmentHeaderError::Unwritten)) = parsed
    {
        return Err(error.into());
    }
    if let Some(magic) = head.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
        && ServerVersion::from_wal_magic(magic).is_none()
    {
        return match SegmentSize::new(size) {
            Ok(_) => Ok(Some(magic)),
            Err(_) => Err(ContentError::Size {
                found: size,
                expected: size.next_power_of_two(),
            }),
        };
    }
    let header = parsed?;
    if header.segment_size.bytes() != size {
        return Err(ContentError::Size {
            found: size,
            expected: header.segment_size.bytes(),
        });
    }
    if header.belongs_to(name) {
        Ok(None)
    } else {
        Err(ContentError::Address {
            found: header.page_address,
        })
    }
}

/// The segments to keep ready after `asked`, the next one first.
pub(super) fn ahead(asked: SegmentName, size: SegmentSize) -> Vec<SegmentName> {
    let (least, most) = AHEAD_SEGMENTS;
    let count = (AHEAD_BYTES_MAX / size.bytes()).clamp(least, most);
    let mut names = Vec::new();
    let mut current = asked;
    for _ in 0..count {
        let Some(next) = current.next(size) else {
            break;
        };
        names.push(next);
        current = next;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::wal_fixture::{SegmentBuilder, segment_name};

    fn candidates(names: &[&str]) -> Vec<Candidate> {
        names
            .iter()
            .map(|text| {
                let (name, codec) = Codec::split_suffix(text);
                Candidate {
                    key: ObjectKey::new(*text),
                    name: name.parse().unwrap(),
                    codec,
                }
            })
            .collect()
    }

    #[test]
    fn a_whole_segment_goes_before_a_partial_one_and_then_by_key() {
        const NAME: &str = "000000010000000000000005";
        for (found, takes_partial, chosen) in [
            (vec!["", ".bz2", ".gz"], true, Some("")),
            (vec![".gz", ".lz4", ".zst"], true, Some(".gz")),
            (
                vec![".00000028.backup", ".gz", ".partial"],
                true,
                Some(".gz"),
            ),
            (vec![".partial", ".zst"], true, Some(".zst")),
            (
                vec![".00000028.backup.gz", ".partial.gz"],
                true,
                Some(".partial.gz"),
            ),
            (vec![".partial.gz"], false, None),
            (vec![".00000028.backup"], true, None),
            (vec![], true, None),
        ] {
            let found: Vec<String> = found.iter().map(|end| format!("{NAME}{end}")).collect();
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            let found = candidates(&found);
            let chosen = chosen.map(|end| ObjectKey::new(format!("{NAME}{end}")));
            let answer = choose(NAME.parse().unwrap(), &found, takes_partial);
            assert_eq!(answer.map(|candidate| candidate.key.clone()), chosen);
        }
    }

    #[test]
    fn a_segment_must_be_the_one_of_its_name() {
        let name = segment_name(1, 5);
        let served = WalFileName::Segment(name);
        let head = SegmentBuilder::new(name, 7).bytes()[..40].to_vec();
        assert_eq!(check(served, 1 << 20, &head), Ok(None));
        assert!(matches!(
            check(served, 1 << 19, &head),
            Err(ContentError::Size { .. })
        ));
        assert!(matches!(
            check(WalFileName::Segment(segment_name(1, 6)), 1 << 20, &head),
            Err(ContentError::Address { .. })
        ));
        assert!(matches!(
            check(served, 1 << 20, &[0; 40]),
            Err(ContentError::Header(_))
        ));
        assert!(matches!(
            check(served, 0, &[]),
            Err(ContentError::Header(_))
        ));
        let future = SegmentBuilder::new(name, 7).magic(0xD1FF).bytes()[..40].to_vec();
        assert_eq!(check(served, 1 << 20, &future), Ok(Some(0xD1FF)));
        assert!(check(served, 1000, &future).is_err());
        assert_eq!(check(WalFileName::Partial(name), 5, b"short"), Ok(None));
    }

    #[test]
    fn what_is_kept_ahead_is_bounded_in_bytes_and_in_number() {
        for (mib, count) in [(1, 64), (16, 8), (64, 2), (1024, 2)] {
            let size = SegmentSize::new(mib << 20).unwrap();
            let names = ahead("000000010000000000000001".parse().unwrap(), size);
            assert_eq!(names.len(), count, "{mib}");
            assert_eq!(names[0].to_string(), "000000010000000000000002");
        }
    }
}
