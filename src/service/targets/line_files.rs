//! The segments of a line that the archive holds, from one listing.
//!
//! Where the line left a timeline in the middle of a segment, the later timeline's file holds all
//! of that segment, and PostgreSQL asks for it first: `XLogFileReadAnyTLI`,
//! src/backend/access/transam/xlogrecovery.c. Memory grows with the number of gaps, not of segments.
//! Not here: what is in them.

use std::pin::pin;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;

use crate::barman::repository::wal_listing::{StoredWal, WalScope};
use crate::barman::repository::{Repository, RepositoryError};
use crate::codec::Codec;
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::{TimelineHistory, TimelineId};
use crate::domain::wal_file::WalFileName;
use crate::store::ObjectKey;

/// The files of a line from some segment on.
#[derive(Debug, Clone)]
pub struct LineFiles {
    line: TimelineHistory,
    size: SegmentSize,
    begin: SegmentNumber,
    /// In order, none empty, none overlapping.
    runs: Vec<Run>,
}

/// Segments without one missing, all stored alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: SegmentNumber,
    last: SegmentNumber,
    held: Held,
    /// When the newest of them was put, or of files that they come before, by the store's clock.
    newest_put: DateTime<Utc>,
}

/// A segment's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineFile {
    /// The segment, on the timeline whose file it is.
    pub segment: SegmentName,
    /// How it is compressed.
    pub codec: Codec,
    /// Whether it is an unfinished one, as a failover leaves it.
    pub is_partial: bool,
}

impl LineFile {
    /// The file's name.
    pub fn name(&self) -> WalFileName {
        if self.is_partial {
            WalFileName::Partial(self.segment)
        } else {
            WalFileName::Segment(self.segment)
        }
    }
}

/// How segments are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    timeline: TimelineId,
    codec: Codec,
    is_partial: bool,
}

impl LineFiles {
    /// Lists the line from `begin` on, up to `until` where that is given: one request for each
    /// 1,000 files.
    pub async fn list(
        repository: &Repository,
        line: &TimelineHistory,
        (begin, size): (SegmentNumber, SegmentSize),
        until: Option<SegmentNumber>,
    ) -> Result<Self, RepositoryError> {
        let mut files = Self {
            line: line.clone(),
            size,
            begin,
            runs: Vec::new(),
        };
        let ancestors = line.ancestors().iter();
        let mut spans: Vec<(TimelineId, Option<SegmentNumber>)> = ancestors
            .map(|left| {
                let last = SegmentNumber::ending_at(left.switched_at, size);
                let last = until.map_or(last, |until| last.min(until));
                (left.timeline, Some(last))
            })
            .collect();
        spans.push((line.timeline(), until));
        let mut from = begin;
        for (timeline, last) in spans {
            if last.is_none_or(|last| from <= last) {
                files.list_span(repository, timeline, (from, last)).await?;
                from = last.unwrap_or(from);
            }
        }
        Ok(files)
    }

    async fn list_span(
        &mut self,
        repository: &Repository,
        timeline: TimelineId,
        (from, last): (SegmentNumber, Option<SegmentNumber>),
    ) -> Result<(), RepositoryError> {
        let Some(first) = SegmentName::new(timeline, from, self.size) else {
            return Ok(());
        };
        // The folder's own name sorts before all that is in it.
        let after = ObjectKey::new(repository.layout.wal_folder(first));
        let scope = WalScope::Timeline(timeline);
        let mut pages = pin!(repository.wal_objects(scope, Some(&after)));
        while let Some(page) = pages.try_next().await? {
            for file in page.files {
                let Some(number) = file.name.segment().and_then(|name| name.number(self.size))
                else {
                    continue;
                };
                if last.is_some_and(|last| number > last) {
                    return Ok(());
                }
                if number >= from {
                    self.take(timeline, number, &file);
                }
            }
        }
        Ok(())
    }

    /// Takes note of a file. Those of one timeline come in order.
    fn take(&mut self, timeline: TimelineId, number: SegmentNumber, file: &StoredWal) {
        let is_partial = match file.name {
            WalFileName::Segment(_) => false,
            WalFileName::Partial(_) => true,
            WalFileName::BackupHistory(..) | WalFileName::TimelineHistory(_) => return,
        };
        let held = Held {
            timeline,
            codec: file.codec,
            is_partial,
        };
        if let Some(run) = self.runs.last_mut() {
            if run.last.next() == Some(number) && run.held == held {
                run.last = number;
                run.newest_put = run.newest_put.max(file.modified);
                return;
            }
            if run.last == number {
                // Of one timeline the whole file counts, and of two the later one's.
                let is_better =
                    run.held.timeline != timeline || (run.held.is_partial && !is_partial);
                if !is_better {
                    run.newest_put = run.newest_put.max(file.modified);
                    return;
                }
                self.drop_last();
                return self.take(timeline, number, file);
            }
        }
        self.runs.push(Run {
            first: number,
            last: number,
            held,
            newest_put: file.modified,
        });
    }

    fn drop_last(&mut self) {
        if let Some(run) = self.runs.last_mut() {
            match run.last.previous() {
                Some(previous) if run.first < run.last => run.last = previous,
                _ => drop(self.runs.pop()),
            }
        }
    }

    /// The line.
    pub fn line(&self) -> &TimelineHistory {
        &self.line
    }

    /// The size of its segments.
    pub fn size(&self) -> SegmentSize {
        self.size
    }

    /// When the newest file was put, by the store's clock, of those up to a segment.
    pub fn newest_put(&self, until: SegmentNumber) -> Option<DateTime<Utc>> {
        let runs = self.runs.iter().take_while(|run| run.first <= until);
        runs.map(|run| run.newest_put).max()
    }

    /// The file of a segment; `None` when it is not there.
    pub fn file(&self, number: SegmentNumber) -> Option<LineFile> {
        let index = self.runs.partition_point(|run| run.last < number);
        let run = self.runs.get(index).filter(|run| run.first <= number)?;
        let Held {
            timeline,
            codec,
            is_partial,
        } = run.held;
        let segment = SegmentName::new(timeline, number, self.size)?;
        Some(LineFile {
            segment,
            codec,
            is_partial,
        })
    }

    /// The last segment up to which none is missing, from `from` on; `None` when that is missing.
    pub fn last_without_gap(&self, from: SegmentNumber) -> Option<SegmentNumber> {
        let index = self.runs.partition_point(|run| run.last < from);
        let mut last: Option<SegmentNumber> = None;
        for run in &self.runs[index..] {
            let is_next = match last {
                None => run.first <= from,
                Some(last) => SegmentNumber::next(last) == Some(run.first),
            };
            if !is_next {
                break;
            }
            if let Some(cut) = self.cut_in(run).filter(|cut| *cut >= from) {
                return Some(cut);
            }
            last = Some(run.last);
        }
        last
    }

    /// The segment in which the line left the timeline of these, where no later timeline has it:
    /// recovery reads it up to there, and what follows is missing.
    fn cut_in(&self, run: &Run) -> Option<SegmentNumber> {
        let left = self.line.switched_at(run.held.timeline)?;
        let number = SegmentNumber::holding(left, self.size);
        let is_inside = number.start(self.size) < Some(left);
        (is_inside && run.first <= number && number <= run.last).then_some(number)
    }

    /// The gaps from the beginning on that have something behind them: first and last missing. A
    /// segment that is there only as a timeline that was left in it has it, is one.
    pub fn gaps(&self) -> Vec<(SegmentNumber, SegmentNumber)> {
        let mut gaps = Vec::new();
        let mut expected = self.begin;
        let newest = self.runs.last().map(|run| run.last);
        for run in &self.runs {
            if run.first > expected
                && let Some(last) = run.first.previous()
            {
                gaps.push((expected, last));
            }
            let cut = self.cut_in(run).filter(|cut| Some(*cut) < newest);
            gaps.extend(cut.map(|cut| (cut, cut)));
            expected = run.last.next().unwrap_or(SegmentNumber::MAX);
        }
        gaps
    }

    /// How many segments are missing in all gaps.
    pub fn missing(&self) -> u64 {
        let lengths = self.gaps().into_iter();
        lengths
            .map(|(first, last)| last.to_u64() - first.to_u64() + 1)
            .fold(0, u64::saturating_add)
    }

    /// The first segment that is there, from `from` on.
    pub fn first_from(&self, from: SegmentNumber) -> Option<SegmentNumber> {
        let index = self.runs.partition_point(|run| run.last < from);
        self.runs.get(index).map(|run| run.first.max(from))
    }

    /// The last segment that is there, up to `to`.
    pub fn last_to(&self, to: SegmentNumber) -> Option<SegmentNumber> {
        let index = self.runs.partition_point(|run| run.first <= to);
        let run = self.runs.get(index.checked_sub(1)?)?;
        Some(run.last.min(to))
    }

    /// The gaps by name.
    pub fn named_gaps(&self) -> Vec<(SegmentName, SegmentName)> {
        let gaps = self.gaps().into_iter();
        gaps.filter_map(|(first, last)| Some((self.name(first)?, self.name(last)?)))
            .collect()
    }

    /// Whether a segment is there: whole, or at least up to `end` where that is given and lies in it.
    ///
    /// An unfinished one is taken to reach there: how far it does, its name does not tell.
    pub fn has(&self, number: SegmentNumber, end: Option<Lsn>) -> bool {
        self.file(number).is_some_and(|file| {
            let is_finished = !file.is_partial && self.name(number) == Some(file.segment);
            let left = self.line.switched_at(file.segment.timeline());
            is_finished || end.is_some_and(|end| left.is_none_or(|left| end <= left))
        })
    }

    /// The last segment that is there.
    pub fn last(&self) -> Option<SegmentNumber> {
        self.runs.last().map(|run| run.last)
    }

    /// How many segments are there.
    pub fn count(&self) -> u64 {
        let lengths = self.runs.iter();
        lengths
            .map(|run| run.last.to_u64() - run.first.to_u64() + 1)
            .sum()
    }

    /// What a segment that is missing would be called.
    pub fn name(&self, number: SegmentNumber) -> Option<SegmentName> {
        let end = number.next().and_then(|next| next.start(self.size));
        let mut ancestors = self.line.ancestors().iter();
        let whole = ancestors.find(|left| end.is_some_and(|end| end <= left.switched_at));
        let timeline = whole.map_or(self.line.timeline(), |left| left.timeline);
        SegmentName::new(timeline, number, self.size)
    }
}
