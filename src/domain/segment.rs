//! WAL segments: the files the log is cut into, their sizes, numbers and 24-digit names.
//!
//! Source: `XLogFileName` and `IsValidWalSegSize`, PostgreSQL 18,
//! src/include/access/xlog_internal.h.

use std::fmt;
use std::str::FromStr;

use crate::domain::lsn::Lsn;
use crate::domain::timeline::TimelineId;

/// The size of a WAL segment: a power of two from 1 MiB to 1 GiB, fixed for a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentSize(u32);

/// A number of bytes that is no segment size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes is no WAL segment size: expected a power of two from 1 MiB to 1 GiB")]
pub struct SegmentSizeError {
    bytes: u64,
}

impl SegmentSize {
    /// 16 MiB, what initdb chooses when it is not told otherwise.
    pub const DEFAULT: Self = Self(16 << 20);

    /// The size of this many bytes.
    pub fn new(bytes: u64) -> Result<Self, SegmentSizeError> {
        u32::try_from(bytes)
            .ok()
            .filter(|size| size.is_power_of_two() && (1 << 20..=1 << 30).contains(size))
            .map(Self)
            .ok_or(SegmentSizeError { bytes })
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// How many segments share the upper half of an LSN, and so the middle 8 digits of a name.
    pub fn segments_per_log(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

/// The position of a segment in the log, counted from 0 in segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SegmentNumber(u64);

impl SegmentNumber {
    /// Above all segments that there can be.
    pub const MAX: Self = Self(u64::MAX);

    /// The segment that holds the byte at `lsn`; one on the boundary belongs to the later segment.
    pub fn holding(lsn: Lsn, size: SegmentSize) -> Self {
        Self(lsn.to_u64() / size.bytes())
    }

    /// The segment that holds the last byte before `lsn`: where a log that ends at `lsn` ends.
    pub fn ending_at(lsn: Lsn, size: SegmentSize) -> Self {
        Self(lsn.to_u64().saturating_sub(1) / size.bytes())
    }

    /// The next segment; `None` past the end of the log's address space.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// The segment before; `None` at the start of the log.
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// The segment so many after this one; `None` past the end of the log's address space.
    pub fn plus(self, count: u64) -> Option<Self> {
        self.0.checked_add(count).map(Self)
    }

    /// The first byte of this segment; `None` past the end of the log's address space.
    pub fn start(self, size: SegmentSize) -> Option<Lsn> {
        self.0.checked_mul(size.bytes()).map(Lsn::new)
    }

    /// Segments since the start of the log.
    pub fn to_u64(self) -> u64 {
        self.0
    }
}

/// The name of a segment: timeline, log and segment number as 8 hexadecimal digits each.
///
/// Which byte of the log it starts at depends on the cluster's segment size; the name alone
/// does not tell. Names order by timeline first, then by position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    timeline: TimelineId,
    log: u32,
    segment: u32,
}

/// Text that is no segment name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no WAL segment name: expected 24 hexadecimal digits")]
pub struct SegmentNameError {
    text: String,
}

impl SegmentName {
    /// The name of segment `number` on `timeline`; `None` past the end of the log.
    pub fn new(timeline: TimelineId, number: SegmentNumber, size: SegmentSize) -> Option<Self> {
        let log = u32::try_from(number.0 / size.segments_per_log()).ok()?;
        let segment = u32::try_from(number.0 % size.segments_per_log()).ok()?;
        Some(Self {
            timeline,
            log,
            segment,
        })
    }

    /// The timeline, the first 8 digits.
    pub fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// Where the segment lies in a log cut into segments of `size`; `None` when the last 8 digits
    /// are too large for that size.
    pub fn number(self, size: SegmentSize) -> Option<SegmentNumber> {
        let segment = u64::from(self.segment);
        (segment < size.segments_per_log())
            .then(|| SegmentNumber(u64::from(self.log) * size.segments_per_log() + segment))
    }

    /// The name that follows on the same timeline; `None` at the end of the log.
    pub fn next(self, size: SegmentSize) -> Option<Self> {
        Self::new(self.timeline, self.number(size)?.next()?, size)
    }

    /// The first 16 digits, which name the folder that archives keep the segment in.
    pub fn folder(self) -> String {
        format!("{:08X}{:08X}", self.timeline.to_u32(), self.log)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:08X}{:08X}{:08X}",
            self.timeline.to_u32(),
            self.log,
            self.segment
        )
    }
}

impl fmt::Debug for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SegmentName {
    type Err = SegmentNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let part = |range| {
            text.get(range)
                .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        };
        let is_hex = text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit());
        is_hex
            .then(|| {
                let timeline = TimelineId::new(part(0..8)?)?;
                Some(Self {
                    timeline,
                    log: part(8..16)?,
                    segment: part(16..24)?,
                })
            })
            .flatten()
            .ok_or_else(|| SegmentNameError {
                text: text.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn name_and_number_are_one(timeline in 1u32.., shift in 20u32..=30, number in 0u64..1 << 32) {
            let size = SegmentSize::new(1 << shift).unwrap();
            let number = SegmentNumber(number % (size.segments_per_log() << 16));
            let name = SegmentName::new(TimelineId::new(timeline).unwrap(), number, size).unwrap();
            prop_assert_eq!(name.number(size), Some(number));
            prop_assert_eq!(name.to_string().parse::<SegmentName>().unwrap(), name);
        }
    }

    #[test]
    fn the_next_name_carries_into_the_log_number() {
        for (size_mib, name, next) in [
            (16, "0000000100000000000000FF", "000000010000000100000000"),
            (16, "000000010000000000000001", "000000010000000000000002"),
            (1, "0000000A00000000000000FF", "0000000A0000000000000100"),
            (1024, "000000010000000000000003", "000000010000000100000000"),
        ] {
            let size = SegmentSize::new(size_mib << 20).unwrap();
            let name: SegmentName = name.parse().unwrap();
            assert_eq!(name.next(size).unwrap().to_string(), next);
        }
    }

    #[test]
    fn a_boundary_ends_the_earlier_segment_and_starts_the_later() {
        let boundary = Lsn::new(32 << 20);
        assert_eq!(
            SegmentNumber::holding(boundary, SegmentSize::DEFAULT),
            SegmentNumber(2)
        );
        assert_eq!(
            SegmentNumber::ending_at(boundary, SegmentSize::DEFAULT),
            SegmentNumber(1)
        );
    }

    #[test]
    fn sizes_and_names_that_cannot_be_are_refused() {
        for bytes in [0, 1, 1 << 19, (1 << 20) + 1, 3 << 20, 1 << 31, u64::MAX] {
            assert!(SegmentSize::new(bytes).is_err(), "{bytes}");
        }
        for text in [
            "",
            "00000001000000000000000",
            "0000000100000000000000G1",
            "000000000000000000000001",
        ] {
            assert!(text.parse::<SegmentName>().is_err(), "{text}");
        }
        let odd: SegmentName = "000000010000000000000100".parse().unwrap();
        assert_eq!(odd.number(SegmentSize::DEFAULT), None);
    }
}
