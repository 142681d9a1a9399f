//! Which segments an archive has, as runs without a gap: memory grows with the gaps alone.
//!
//! Pure. Not here: listing them, and which are needed (`line`).

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use crate::domain::segment::{SegmentNumber, SegmentSize};
use crate::domain::timeline::TimelineId;

/// Segments in a row on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: SegmentNumber,
    pub(super) last: SegmentNumber,
    /// When the first was put, by the store's clock.
    pub(super) first_put: DateTime<Utc>,
}

/// The segments of an archive, of one size.
#[derive(Debug, Clone)]
pub(super) struct Archived {
    pub(super) size: SegmentSize,
    runs: BTreeMap<TimelineId, Vec<Run>>,
    partial: BTreeSet<(TimelineId, SegmentNumber)>,
}

impl Archived {
    /// None yet.
    pub(super) fn new(size: SegmentSize) -> Self {
        Self {
            size,
            runs: BTreeMap::new(),
            partial: BTreeSet::new(),
        }
    }

    /// Adds a whole segment. On each timeline they come in rising order, some of them twice.
    pub(super) fn add(&mut self, timeline: TimelineId, number: SegmentNumber, put: DateTime<Utc>) {
        let runs = self.runs.entry(timeline).or_default();
        match runs.last_mut() {
            Some(run) if number <= run.last => {}
            Some(run) if run.last.next() == Some(number) => run.last = number,
            _ => runs.push(Run {
                first: number,
                last: number,
                first_put: put,
            }),
        }
    }

    /// Adds a segment that is there unfinished.
    pub(super) fn add_partial(&mut self, timeline: TimelineId, number: SegmentNumber) {
        self.partial.insert((timeline, number));
    }

    /// The timelines that have any.
    pub(super) fn timelines(&self) -> impl Iterator<Item = TimelineId> + '_ {
        self.runs.keys().copied()
    }

    /// The runs of a timeline, in order.
    pub(super) fn runs(&self, timeline: TimelineId) -> &[Run] {
        self.runs.get(&timeline).map_or(&[], Vec::as_slice)
    }

    /// Whether a segment is there, whole or not.
    pub(super) fn has_any(&self, timeline: TimelineId, number: SegmentNumber) -> bool {
        let mut runs = self.runs(timeline).iter();
        runs.any(|run| (run.first..=run.last).contains(&number))
            || self.partial.contains(&(timeline, number))
    }

    /// What of `begin..=end` is not there.
    pub(super) fn missing(
        &self,
        timeline: TimelineId,
        (begin, end): (SegmentNumber, SegmentNumber),
    ) -> Vec<(SegmentNumber, SegmentNumber)> {
        let mut missing = Vec::new();
        let mut next = Some(begin);
        for run in self.runs(timeline) {
            let Some(from) = next.filter(|from| *from <= end) else {
                return missing;
            };
            if run.last < from {
                continue;
            }
            if let Some(before) = run.first.previous()
                && from <= before
            {
                missing.push((from, before.min(end)));
            }
            next = run.last.next();
        }
        if let Some(from) = next.filter(|from| *from <= end) {
            missing.push((from, end));
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lsn::Lsn;

    fn number(at: u64) -> SegmentNumber {
        let size = SegmentSize::DEFAULT;
        SegmentNumber::holding(Lsn::new(at * size.bytes()), size)
    }

    #[test]
    fn what_is_missing_of_a_range_is_told_as_ranges() {
        let put = DateTime::UNIX_EPOCH;
        let mut archived = Archived::new(SegmentSize::DEFAULT);
        let timeline = TimelineId::FIRST;
        for at in [2, 3, 3, 4, 7, 9] {
            archived.add(timeline, number(at), put);
        }
        for (range, expected) in [
            ((2, 4), &[][..]),
            ((3, 9), &[(5, 6), (8, 8)]),
            ((0, 2), &[(0, 1)]),
            ((0, 1), &[(0, 1)]),
            ((5, 5), &[(5, 5)]),
            ((8, 12), &[(8, 8), (10, 12)]),
            ((10, 12), &[(10, 12)]),
        ] {
            let range = (number(range.0), number(range.1));
            let missing = archived.missing(timeline, range);
            let found: Vec<_> = missing
                .iter()
                .map(|(first, last)| (first.to_u64(), last.to_u64()))
                .collect();
            assert_eq!(found, expected, "{range:?}");
        }
        assert_eq!(archived.runs(timeline).len(), 3);
    }
}
