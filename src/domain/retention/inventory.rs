//! What WAL the archive holds, counted in stretches between the positions where a decision can
//! change: memory grows with the backups and timelines, not with the WAL.
//!
//! Not here: the decision itself, and the names of single files.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use crate::domain::backup::Backup;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::{TimelineHistory, TimelineId};

/// The WAL of an archive but for its histories, which are never deleted.
#[derive(Debug, Clone)]
pub struct WalInventory {
    size: SegmentSize,
    /// No decision changes but at one of these positions, whatever the timeline.
    breaks: BTreeSet<SegmentNumber>,
    stretches: BTreeMap<(TimelineId, Option<SegmentNumber>), Stretch>,
}

/// Files of one timeline that share their fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first segment of which there is a file.
    pub first: SegmentName,
    /// The last.
    pub last: SegmentName,
    /// How many files: whole segments, partial ones, backup histories, each compression on its own.
    pub files: u64,
    /// Their sizes together, as stored.
    pub bytes: u64,
    /// When the newest of them was put, by the store's clock.
    pub newest_put: DateTime<Utc>,
}

impl Stretch {
    /// Both together; `other` follows on the same timeline.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            files: self.files.saturating_add(other.files),
            bytes: self.bytes.saturating_add(other.bytes),
            newest_put: self.newest_put.max(other.newest_put),
        }
    }
}

impl WalInventory {
    /// An empty inventory for decisions about these backups.
    ///
    /// The segment size is that of the newest backup that has ended; a plan that meets another
    /// deletes no WAL.
    pub fn new<'a>(
        backups: impl Iterator<Item = &'a Backup> + Clone,
        histories: &[TimelineHistory],
    ) -> Self {
        let newest = backups.clone().max_by_key(|backup| backup.end_time);
        let size = newest.map_or(SegmentSize::DEFAULT, |backup| backup.segment_size);
        let mut breaks = BTreeSet::new();
        for backup in backups {
            for name in [backup.begin_wal, backup.end_wal].into_iter().flatten() {
                breaks.extend(name.number(size));
            }
            let end = backup.end_wal.and_then(|name| name.number(size));
            breaks.extend(end.and_then(SegmentNumber::next));
            breaks.extend(backup.begin_lsn.map(|l| SegmentNumber::holding(l, size)));
        }
        for ancestor in histories.iter().flat_map(TimelineHistory::ancestors) {
            breaks.insert(SegmentNumber::holding(ancestor.switched_at, size));
        }
        Self {
            size,
            breaks,
            stretches: BTreeMap::new(),
        }
    }

    /// The size of segments that positions are counted in.
    pub fn segment_size(&self) -> SegmentSize {
        self.size
    }

    /// Adds a file that is, or belongs to, `segment`.
    ///
    /// A name that is no segment's of this size is left out: it is nothing of this cluster's.
    pub fn add(&mut self, segment: SegmentName, bytes: u64, put: DateTime<Utc>) {
        let Some(number) = segment.number(self.size) else {
            return;
        };
        let start = self.breaks.range(..=number).next_back().copied();
        let file = Stretch {
            first: segment,
            last: segment,
            files: 1,
            bytes,
            newest_put: put,
        };
        self.stretches
            .entry((segment.timeline(), start))
            .and_modify(|stretch| *stretch = stretch.join(file))
            .or_insert(file);
    }

    /// The timelines that have WAL.
    pub fn timelines(&self) -> BTreeSet<TimelineId> {
        self.stretches
            .keys()
            .map(|(timeline, _)| *timeline)
            .collect()
    }

    /// The first segment of a timeline of which there is a file.
    pub fn first_segment(&self, timeline: TimelineId) -> Option<SegmentNumber> {
        let of_it = (timeline, None)..=(timeline, Some(SegmentNumber::MAX));
        let (_, stretch) = self.stretches.range(of_it).next()?;
        stretch.first.number(self.size)
    }

    /// All stretches, by timeline and position.
    pub fn stretches(&self) -> impl Iterator<Item = &Stretch> {
        self.stretches.values()
    }

    /// When the newest file of each timeline was put.
    pub fn newest_put(&self) -> BTreeMap<TimelineId, DateTime<Utc>> {
        let mut newest = BTreeMap::new();
        for ((timeline, _), stretch) in &self.stretches {
            let put = newest.entry(*timeline).or_insert(stretch.newest_put);
            *put = stretch.newest_put.max(*put);
        }
        newest
    }
}
