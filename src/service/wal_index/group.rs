//! Which segments make one index object: 16 of one timeline, aligned by their numbers.
//!
//! Not here: what is known of them.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::TimelineId;

/// How many segments make a group. A group that lacks one is given up when a segment so far ahead
/// of that is there.
const SEGMENTS: u64 = 16;

/// One group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    timeline: TimelineId,
    index: u64,
}

/// The number of a segment of a cluster with segments of this size.
fn number(name: SegmentName, size: SegmentSize) -> Option<u64> {
    name.number(size).map(SegmentNumber::to_u64)
}

impl Group {
    /// The group of this segment; `None` when its name does not fit the size.
    pub(crate) fn of(name: SegmentName, size: SegmentSize) -> Option<Self> {
        Some(Self {
            timeline: name.timeline(),
            index: number(name, size)? / SEGMENTS,
        })
    }

    /// The name of its first segment.
    pub(crate) fn first(self, size: SegmentSize) -> Option<SegmentName> {
        let start = self
            .index
            .checked_mul(SEGMENTS)?
            .checked_mul(size.bytes())?;
        let first = SegmentNumber::holding(Lsn::new(start), size);
        SegmentName::new(self.timeline, first, size)
    }

    /// The numbers of its segments. PostgreSQL's first segment is number 1.
    fn numbers(self) -> RangeInclusive<u64> {
        let first = self.index * SEGMENTS;
        first.max(1)..=first + SEGMENTS - 1
    }
}

/// The groups of which all segments are in `names`, or whose missing ones are not waited for any
/// longer when `newest` is there.
pub(crate) fn due(
    names: &BTreeSet<SegmentName>,
    newest: SegmentName,
    size: SegmentSize,
) -> Vec<Group> {
    let Some(newest) = number(newest, size) else {
        return Vec::new();
    };
    let groups: BTreeSet<Group> = names.iter().filter_map(|n| Group::of(*n, size)).collect();
    let is_due = |group: &Group| {
        let present: BTreeSet<u64> = of_group(names, *group, size)
            .filter_map(|name| number(name, size))
            .collect();
        let mut missing = group.numbers().rev().filter(|n| !present.contains(n));
        let last_missing = missing.next();
        last_missing.is_none_or(|missing| newest >= missing + SEGMENTS)
    };
    groups.into_iter().filter(is_due).collect()
}

/// Those of the names that are in the group, in order.
pub(crate) fn of_group(
    names: &BTreeSet<SegmentName>,
    group: Group,
    size: SegmentSize,
) -> impl Iterator<Item = SegmentName> {
    let names = names.iter().copied();
    names.filter(move |name| Group::of(*name, size) == Some(group))
}

/// The names, which are in order, cut where one is missing between two.
pub(crate) fn runs(
    names: impl IntoIterator<Item = SegmentName>,
    size: SegmentSize,
) -> Vec<Vec<SegmentName>> {
    let mut runs: Vec<Vec<SegmentName>> = Vec::new();
    for name in names {
        match runs.last_mut() {
            Some(run) if run.last().and_then(|last| last.next(size)) == Some(name) => {
                run.push(name);
            }
            _ => runs.push(vec![name]),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::wal_fixture::{SEGMENT_BYTES, segment_name};

    fn size() -> SegmentSize {
        SegmentSize::new(u64::from(SEGMENT_BYTES)).unwrap()
    }

    fn due_of(numbers: impl IntoIterator<Item = u64>, newest: u64) -> usize {
        let names = numbers.into_iter().map(|n| segment_name(1, n)).collect();
        due(&names, segment_name(1, newest), size()).len()
    }

    #[test]
    fn a_group_is_due_when_it_is_complete_or_waits_for_what_is_long_past() {
        assert_eq!(due_of(16..32, 31), 1);
        assert_eq!(due_of(16..31, 30), 0);
        // There is no segment 0.
        assert_eq!(due_of(1..16, 15), 1);
        // The first group of a new timeline.
        assert_eq!(due_of(20..32, 34), 0);
        assert_eq!(due_of(20..32, 35), 1);
        let with_hole = || (16..32).filter(|n| *n != 30);
        assert_eq!(due_of(with_hole(), 45), 0);
        assert_eq!(due_of(with_hole(), 46), 1);
        assert_eq!(due_of(16..48, 47), 2);
    }

    #[test]
    fn runs_end_where_a_segment_is_missing() {
        let names = [3, 4, 5, 7, 8].map(|n| segment_name(1, n));
        let lengths: Vec<usize> = runs(names, size()).iter().map(Vec::len).collect();
        assert_eq!(lengths, [3, 2]);
    }
}
