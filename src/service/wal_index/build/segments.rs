//! The whole segments of an archive, from one listing, as stretches without one missing.
//!
//! Memory grows with the number of gaps, not of segments. Not here: what is in them.

use std::collections::BTreeMap;
use std::pin::pin;

use futures::TryStreamExt;

use crate::barman::repository::wal_listing::{StoredWal, WalScope};
use crate::barman::repository::{Repository, RepositoryError};
use crate::codec::Codec;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::TimelineId;
use crate::domain::wal_file::WalFileName;
use crate::service::wal_index::group::Group;

/// The segments of an archive.
#[derive(Debug)]
pub(super) struct Segments {
    size: SegmentSize,
    runs: BTreeMap<TimelineId, Vec<Run>>,
}

/// Segments without one missing, all stored alike.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: SegmentNumber,
    last: SegmentNumber,
    codec: Codec,
}

/// Segments of one group, without one missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) first: SegmentName,
    pub(super) count: u64,
}

impl Segments {
    /// One request for each 1,000 files.
    pub(super) async fn list(
        repository: &Repository,
        size: SegmentSize,
    ) -> Result<Self, RepositoryError> {
        let runs = BTreeMap::new();
        let mut segments = Self { size, runs };
        let mut pages = pin!(repository.wal_objects(WalScope::All, None));
        while let Some(page) = pages.try_next().await? {
            for file in &page.files {
                segments.take(file);
            }
        }
        Ok(segments)
    }

    /// Takes note of a file. Those of one timeline come in order.
    fn take(&mut self, file: &StoredWal) {
        let WalFileName::Segment(name) = file.name else {
            return;
        };
        let Some(number) = name.number(self.size) else {
            return;
        };
        let codec = file.codec;
        let runs = self.runs.entry(name.timeline()).or_default();
        match runs.last_mut() {
            Some(run) if run.last == number => {}
            Some(run) if run.last.next() == Some(number) && run.codec == codec => run.last = number,
            _ => runs.push(Run {
                first: number,
                last: number,
                codec,
            }),
        }
    }

    /// How a segment is stored; `None` when it is not there.
    pub(super) fn codec(&self, name: SegmentName) -> Option<Codec> {
        self.held(name.timeline(), name.number(self.size)?)
    }

    fn held(&self, timeline: TimelineId, number: SegmentNumber) -> Option<Codec> {
        let runs = self.runs.get(&timeline)?;
        let index = runs.partition_point(|run| run.last < number);
        let run = runs.get(index).filter(|run| run.first <= number)?;
        Some(run.codec)
    }

    /// The segment before this one: of its own timeline, or of the latest earlier one that has it.
    pub(super) fn before(&self, name: SegmentName) -> Option<SegmentName> {
        let number = name.number(self.size)?.previous()?;
        let timelines = self.runs.range(..=name.timeline()).rev();
        let mut holding = timelines.filter(|(timeline, _)| self.held(**timeline, number).is_some());
        let (timeline, _) = holding.next()?;
        SegmentName::new(*timeline, number, self.size)
    }

    /// All segments from `from` on and on timelines from its own on, cut into groups.
    pub(super) fn stretches(&self, from: Option<SegmentName>) -> Vec<Stretch> {
        let (timeline, first) = match from {
            Some(from) => (from.timeline(), from.number(self.size)),
            None => (TimelineId::FIRST, None),
        };
        let mut stretches: Vec<Stretch> = Vec::new();
        for (timeline, runs) in self.runs.range(timeline..) {
            for run in runs {
                let begin = first.map_or(run.first, |first| run.first.max(first));
                let mut number = Some(begin).filter(|begin| *begin <= run.last);
                while let Some(now) = number {
                    let name = SegmentName::new(*timeline, now, self.size);
                    if let Some(name) = name {
                        self.put_in(&mut stretches, name);
                    }
                    number = now.next().filter(|next| *next <= run.last);
                }
            }
        }
        stretches
    }

    fn put_in(&self, stretches: &mut Vec<Stretch>, name: SegmentName) {
        let group = |name| Group::of(name, self.size);
        if let Some(last) = stretches.last_mut()
            && group(last.first) == group(name)
            && last.end(self.size) == name.number(self.size)
        {
            last.count += 1;
        } else {
            let count = 1;
            stretches.push(Stretch { first: name, count });
        }
    }
}

impl Stretch {
    /// The number behind its last segment.
    fn end(self, size: SegmentSize) -> Option<SegmentNumber> {
        self.first.number(size)?.plus(self.count)
    }

    /// Its segments, in order.
    pub(super) fn names(self, size: SegmentSize) -> impl Iterator<Item = SegmentName> {
        let numbers = (0..self.count).filter_map(move |n| self.first.number(size)?.plus(n));
        numbers.filter_map(move |number| SegmentName::new(self.first.timeline(), number, size))
    }
}
