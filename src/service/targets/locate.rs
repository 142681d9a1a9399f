//! The first record of a line at which recovery stops, found through the index.
//!
//! The names of index objects narrow the search to one of them, that to one segment, and the
//! segment is read. Segments that are not in the index are read themselves, up to a number. Not
//! here: which backup gets there (`resolve`).

use std::cmp::Reverse;

use tracing::warn;

use crate::barman::repository::{Repository, RepositoryError};
use crate::domain::backup::{Backup, SystemId};
use crate::domain::log::outline::Outline;
use crate::domain::log::reach::{Located, LogEnd, StopPoint};
use crate::domain::log::stop::Stop;
use crate::domain::log::summary::{RestorePoint, SegmentSummary};
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::TimelineHistory;
use crate::fault::{Fault, Kind, chain};
use crate::pgfile::wal::reader::Carry;
use crate::pgfile::wal::stop::SegmentEnd;
use crate::service::targets::line_files::{LineFile, LineFiles};
use crate::service::targets::scan::{self, ScanError, Scanned, Source};

/// How many segments are read because the index lacks them: what an archiver has not indexed yet,
/// and up to two objects that were lost, as a failover loses what was not put yet.
pub(super) const READ_MAX: u64 = 48;

/// How many names of restore points are kept, to tell those that are near to the one asked for.
const NAMES_MAX: usize = 200;

/// The log of a line from a segment on: its files, and what the index tells of them.
pub struct Log<'a> {
    repository: &'a Repository,
    files: LineFiles,
    /// In the order of the log.
    outlines: Vec<Outline>,
    start: LogStart,
    /// How many segments one search reads itself.
    pub(super) read_max: u64,
}

/// Why it cannot be told where recovery stops.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// The archive cannot be looked at.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A segment cannot be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The index tells too little: too many segments would have to be read.
    #[error(
        "the index tells too little: more than {READ_MAX} segments would have to be read, of which {next} is the next"
    )]
    NotIndexed {
        /// The first that was not read.
        next: SegmentName,
    },
}

impl Fault for LocateError {
    fn kind(&self) -> Kind {
        match self {
            Self::Repository(error) => error.kind(),
            Self::Scan(error) => error.kind(),
            Self::NotIndexed { .. } => Kind::NotFound,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::NotIndexed { .. } => "Run `cellarman index build`, which makes it.".to_owned(),
            _ => self.kind().hint().to_owned(),
        }
    }
}

/// Where a log begins that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStart {
    /// The first segment.
    pub segment: SegmentNumber,
    /// The size of segments.
    pub size: SegmentSize,
    /// The cluster whose log it is, where that is known: other clusters' WAL ends it.
    pub system_id: Option<SystemId>,
}

impl LogStart {
    /// Where the log that this backup needs begins; `None` where its record does not tell.
    pub fn of(backup: &Backup) -> Option<Self> {
        let size = backup.segment_size;
        Some(Self {
            segment: SegmentNumber::holding(backup.begin_lsn?, size),
            size,
            system_id: backup.system_id,
        })
    }
}

/// A search under way.
struct Walk {
    from: Lsn,
    stop: Stop,
    end: LogEnd,
    /// What the segment that was read last has left, and the one that it is for.
    carry: Option<(SegmentNumber, Carry)>,
    may_read: u64,
    /// Summaries of the object that was fetched last.
    fetched: Option<(Outline, Vec<SegmentSummary>)>,
}

/// One step's outcome.
enum Step {
    Stop(StopPoint),
    /// The log cannot be read beyond.
    End,
    GoOn,
}

impl<'a> Log<'a> {
    /// The log of `line` from `start` on. One request for each 1,000 segments, and for each 1,000
    /// index objects.
    pub async fn open(
        repository: &'a Repository,
        line: &TimelineHistory,
        start: LogStart,
    ) -> Result<Self, RepositoryError> {
        let begin = (start.segment, start.size);
        let files = LineFiles::list(repository, line, begin, None).await?;
        Self::of(repository, files, start).await
    }

    /// The log in these files. One request for each 1,000 index objects.
    pub async fn of(
        repository: &'a Repository,
        files: LineFiles,
        start: LogStart,
    ) -> Result<Self, RepositoryError> {
        let line = files.line();
        let mut outlines = Vec::new();
        let timelines = line.ancestors().iter().map(|left| left.timeline);
        for timeline in timelines.chain([line.timeline()]) {
            outlines.extend(repository.index_outlines(Some(timeline)).await?);
        }
        // What an earlier cluster of that name has left tells nothing of this one's log.
        let is_ours =
            |outline: &Outline| start.system_id.is_none() || outline.system_id == start.system_id;
        outlines.retain(is_ours);
        Ok(Self {
            repository,
            files,
            outlines,
            start,
            read_max: READ_MAX,
        })
    }

    /// The files of the line.
    pub fn files(&self) -> &LineFiles {
        &self.files
    }

    /// The first record from `from` on at which recovery stops.
    pub async fn locate(&self, from: Lsn, stop: &Stop) -> Result<Located, LocateError> {
        let size = self.files.size();
        let begin = SegmentNumber::holding(from, size).max(self.start.segment);
        let mut walk = Walk {
            from,
            stop: stop.clone(),
            end: LogEnd::default(),
            carry: None,
            may_read: self.read_max,
            fetched: None,
        };
        let Some(last) = self.files.last_without_gap(begin) else {
            walk.end.gap = self.gap_from(begin);
            return Ok(Located::Nowhere(walk.end));
        };
        // A position tells where it is.
        let mut next = match stop {
            Stop::Lsn { lsn, .. } => SegmentNumber::holding(*lsn, size).clamp(begin, last),
            _ => begin,
        };
        loop {
            let (outcome, behind) = self.step(&mut walk, next, last).await?;
            match outcome {
                Step::Stop(point) => return Ok(Located::At(point)),
                Step::End => return Ok(Located::Nowhere(walk.end)),
                Step::GoOn => {}
            }
            match behind.next() {
                Some(number) if behind < last => next = number,
                _ => break,
            }
        }
        walk.end.gap = self.gap_from(last);
        Ok(Located::Nowhere(walk.end))
    }

    /// The summaries in index objects that `may` be of interest, of so many objects. What cannot
    /// be had is left out.
    pub(crate) async fn summaries(
        &self,
        count_max: usize,
        may: impl Fn(&Outline) -> bool,
    ) -> Vec<SegmentSummary> {
        let mut segments = Vec::new();
        let outlines = self.outlines.iter().filter(|outline| may(outline));
        for outline in outlines.take(count_max) {
            segments.append(&mut self.object(outline).await);
        }
        segments
    }

    /// The summaries in an index object; none where it is of no use, which is told.
    pub(super) async fn object(&self, outline: &Outline) -> Vec<SegmentSummary> {
        match self.repository.index_object(outline).await {
            Ok(object) => object.segments,
            Err(error) => {
                warn!(error = chain(&error), "passing over an index object");
                Vec::new()
            }
        }
    }

    /// The named points in an index object, each with the segment that its record ends in.
    pub(super) async fn restore_points_of(
        &self,
        outline: &Outline,
    ) -> Vec<(SegmentNumber, RestorePoint)> {
        let size = self.files.size();
        let segments = self.object(outline).await.into_iter();
        let numbered = segments.filter_map(|segment| Some((segment.name.number(size)?, segment)));
        numbered
            .flat_map(|(number, segment)| {
                let points = segment.restore_points.into_iter();
                points.map(move |point| (number, point))
            })
            .collect()
    }

    /// The last index object with an end of a transaction.
    pub(super) fn last_with_ends(&self) -> Option<&Outline> {
        self.outlines
            .iter()
            .rev()
            .find(|outline| outline.ends.is_some())
    }

    /// All that a segment holds from a position on; `None` when it is not there.
    ///
    /// A record that began in the segment before it is known by `lead`: what that has left, and the
    /// segment that it is for. Where it has not been read, it is.
    pub(super) async fn scan_whole(
        &self,
        number: SegmentNumber,
        from: Lsn,
        lead: &mut Option<(SegmentNumber, Carry)>,
    ) -> Result<Option<Scanned>, LocateError> {
        let Some(file) = self.files.file(number) else {
            return Ok(None);
        };
        let known = lead.take().filter(|(wanted, _)| *wanted == number);
        let begins_inside = number
            .start(self.files.size())
            .is_some_and(|start| from >= start);
        let before = number.previous().and_then(|before| self.files.file(before));
        let carry = match (known, before.filter(|_| !begins_inside)) {
            (Some((_, carry)), _) => Some(carry),
            (None, Some(before)) => {
                let source = self.source(before, None);
                let scanned = scan::scan(self.repository, source, from, None).await?;
                scanned.carry.filter(|_| scanned.mistaken.is_none())
            }
            (None, None) => None,
        };
        let source = self.source(file, carry);
        let mut scanned = scan::scan(self.repository, source, from, None).await?;
        *lead = number.next().zip(scanned.carry.take());
        Ok(Some(scanned))
    }

    /// Deals with `number` and perhaps some behind it, and says which was the last.
    async fn step(
        &self,
        walk: &mut Walk,
        number: SegmentNumber,
        last: SegmentNumber,
    ) -> Result<(Step, SegmentNumber), LocateError> {
        let is_position = matches!(walk.stop, Stop::Lsn { .. });
        let Some((outline, until)) = self.indexed(number).filter(|_| !is_position) else {
            return Ok((self.read(walk, number).await?, number));
        };
        let until = until.min(last);
        // Where the log ends, the last summaries tell what came last.
        let is_end = until == last;
        if !outline.may_stop(&walk.stop) && !is_end {
            if outline.ends.is_some() {
                walk.end = LogEnd::default();
            }
            return Ok((Step::GoOn, until));
        }
        let Some(summary) = self.summary(walk, outline, number).await else {
            return Ok((self.read(walk, number).await?, number));
        };
        if summary.may_stop(&walk.stop) || !summary.is_whole {
            return Ok((self.read(walk, number).await?, number));
        }
        note_summary(&mut walk.end, &summary);
        Ok((Step::GoOn, number))
    }

    /// The best index object with this segment, and its last segment.
    pub(super) fn indexed(&self, number: SegmentNumber) -> Option<(&Outline, SegmentNumber)> {
        let file = self.files.file(number).filter(|file| !file.is_partial)?;
        let size = self.files.size();
        let timeline = file.segment.timeline();
        let outlines = self.outlines.iter();
        let of_timeline = outlines.filter(|outline| outline.first.timeline() == timeline);
        let covering = of_timeline.filter_map(|outline| {
            let numbers = outline.numbers(size)?;
            numbers
                .contains(&number)
                .then_some((outline, *numbers.end()))
        });
        // Of two, the one that knows more.
        covering.min_by_key(|(outline, end)| (outline.unread_records, Reverse(*end)))
    }

    /// The summary of a segment; `None` where the object is of no use.
    async fn summary(
        &self,
        walk: &mut Walk,
        outline: &Outline,
        number: SegmentNumber,
    ) -> Option<SegmentSummary> {
        if walk.fetched.as_ref().is_none_or(|(o, _)| o != outline) {
            walk.fetched = Some((outline.clone(), self.object(outline).await));
        }
        let (_, segments) = walk.fetched.as_ref()?;
        let size = self.files.size();
        let mut segments = segments.iter();
        segments
            .find(|segment| segment.name.number(size) == Some(number))
            .cloned()
    }

    /// Reads a segment itself.
    async fn read(&self, walk: &mut Walk, number: SegmentNumber) -> Result<Step, LocateError> {
        let Some(file) = self.files.file(number) else {
            return Ok(Step::End);
        };
        if walk.may_read == 0 {
            return Err(LocateError::NotIndexed { next: file.segment });
        }
        walk.may_read -= 1;
        let carry = walk.carry.take().filter(|(wanted, _)| *wanted == number);
        let carry = carry.map(|(_, carry)| carry);
        let is_first = carry.is_none();
        let mut scanned = self.scan(walk, file, carry).await?;
        let before = number.previous().and_then(|before| self.files.file(before));
        if let Some(before) = before.filter(|_| is_first && scanned.head_skipped_bytes > 0) {
            // The record at its head may be the one, and is known with the segment before it.
            let carry = self.scan(walk, before, None).await?.carry;
            scanned = self.scan(walk, file, carry).await?;
        }
        if let Some(mistaken) = scanned.mistaken {
            walk.end.broken = Some((file.segment, mistaken.to_string()));
            return Ok(Step::End);
        }
        if let Some((record, side)) = scanned.stop {
            let segment = file.segment;
            return Ok(Step::Stop(StopPoint {
                record,
                side,
                segment,
            }));
        }
        note_scanned(&mut walk.end, &scanned);
        walk.carry = number.next().zip(scanned.carry);
        match scanned.end {
            SegmentEnd::Whole => Ok(Step::GoOn),
            SegmentEnd::Ends(_) => Ok(Step::End),
            SegmentEnd::Broken(stop) => {
                walk.end.broken = Some((file.segment, stop.to_string()));
                Ok(Step::End)
            }
        }
    }

    pub(super) fn source(&self, file: LineFile, carry: Option<Carry>) -> Source {
        Source {
            name: file.name(),
            codec: file.codec,
            carry,
            size: self.start.size,
            system_id: self.start.system_id,
        }
    }

    async fn scan(
        &self,
        walk: &Walk,
        file: LineFile,
        carry: Option<Carry>,
    ) -> Result<Scanned, ScanError> {
        let source = self.source(file, carry);
        scan::scan(self.repository, source, walk.from, Some(walk.stop.clone())).await
    }

    /// The first gap that ends at this segment or behind it.
    fn gap_from(&self, number: SegmentNumber) -> Option<(SegmentName, SegmentName)> {
        let gaps = self.files.gaps();
        let (first, last) = gaps.into_iter().find(|(_, last)| *last >= number)?;
        Some((self.files.name(first)?, self.files.name(last)?))
    }
}

/// Takes note of a segment without a stop, the next one of the log.
pub(super) fn note_summary(end: &mut LogEnd, segment: &SegmentSummary) {
    let points = segment.restore_points.iter().map(|p| (p.lsn, p.time));
    let checkpoints = segment.checkpoints.iter().map(|c| (c.lsn, c.time));
    end.note(segment.last_end, points.chain(checkpoints));
    note_names(end, &segment.restore_points);
    end.last_record_end = segment.last_record_end.or(end.last_record_end);
}

pub(super) fn note_scanned(end: &mut LogEnd, segment: &Scanned) {
    end.note(segment.last_end, segment.times.iter().copied());
    note_names(end, &segment.restore_points);
    end.last_record_end = segment.last_record_end.or(end.last_record_end);
}

fn note_names(end: &mut LogEnd, points: &[RestorePoint]) {
    let room = NAMES_MAX.saturating_sub(end.names.len());
    let names = points.iter().take(room);
    end.names.extend(names.map(|point| point.name.clone()));
}
