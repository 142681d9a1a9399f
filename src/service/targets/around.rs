//! The records near a point of the log that recovery can stop at: for somebody who knows about when
//! it happened, and looks for the transaction.
//!
//! Not here: whether recovery gets there (`resolve`).

use std::collections::VecDeque;
use std::ops::{ControlFlow, RangeInclusive};

use chrono::{DateTime, Utc};

use crate::barman::repository::{Repository, RepositoryError};
use crate::domain::log::reach::Located;
use crate::domain::log::stop::{Stop, StopRecord, What};
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber};
use crate::domain::timeline::TimelineId;
use crate::fault::{Fault, Kind};
use crate::pgfile::wal::reader::Carry;
use crate::pgfile::wal::record::Record;
use crate::pgfile::wal::summary::stop_record;
use crate::service::targets::begins::{self, Begin, Line};
use crate::service::targets::line_files::LineFile;
use crate::service::targets::locate::{LocateError, Log};
use crate::service::targets::scan::{self, Visitor};

/// How many segments of each side are read at a time, until there are enough records.
const BATCHES: [usize; 3] = [1, 3, 12];

/// A point of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before the first transaction that ended at this time or later.
    Time(DateTime<Utc>),
    /// This position.
    Lsn(Lsn),
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The point.
    pub point: Point,
    /// Along which timeline; the newest with a backup where it is not given.
    pub timeline: Option<TimelineId>,
    /// How many records on each side.
    pub count_max: usize,
}

/// The records on each side of a point, in the order of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Around {
    /// The timeline whose line it is.
    pub timeline: TimelineId,
    /// Those before it: ends of transactions, and restore points.
    pub before: Side,
    /// Those behind it.
    pub after: Side,
}

/// One side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Side {
    /// The records.
    pub records: Vec<StopRecord>,
    /// Why there are not as many as were asked for.
    pub cut: Option<Cut>,
}

/// Why a side is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The log begins or ends there.
    Edge,
    /// These segments, the first to the last, are missing.
    Gap(SegmentName, SegmentName),
    /// This segment cannot be read.
    Unreadable(SegmentName),
    /// Too many segments would have to be read.
    Far,
}

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum AroundError {
    /// The archive cannot be looked at.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The log cannot be looked at.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// No backup leads to the log in question.
    #[error("no backup is on the line of {}", timeline.map_or("any timeline".to_owned(), |t| format!("timeline {t}")))]
    NoBackup {
        /// The timeline that was asked for.
        timeline: Option<TimelineId>,
    },
}

impl Fault for AroundError {
    fn kind(&self) -> Kind {
        match self {
            Self::Repository(error) => error.kind(),
            Self::Locate(error) => error.kind(),
            Self::NoBackup { .. } => Kind::NotFound,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Repository(error) => error.hint(),
            Self::Locate(error) => error.hint(),
            Self::NoBackup { .. } => "Look at what there is with `cellarman targets`.".to_owned(),
        }
    }
}

/// The records around a point of a line.
pub async fn around(repository: &Repository, question: Question) -> Result<Around, AroundError> {
    let is_wanted = |line: &Line| match question.timeline {
        Some(timeline) => line.history.timeline() == timeline,
        None => true,
    };
    let lines = begins::lines(repository).await?.into_iter();
    let wanted = lines.filter(is_wanted);
    let mut wanted = wanted.filter_map(|line| Some((line.start?, line)));
    let Some((start, line)) = wanted.next_back() else {
        let timeline = question.timeline;
        return Err(AroundError::NoBackup { timeline });
    };
    let log = Log::open(repository, &line.history, start).await?;
    let mut look = Look {
        repository,
        log: &log,
        pivot: pivot(&log, &line, question.point).await?,
        count_max: question.count_max,
        before: VecDeque::new(),
        after: Vec::new(),
    };
    let number = SegmentNumber::holding(look.pivot, start.size);
    let cut_before = look.backward(number).await?;
    let cut_after = match cut_before {
        // What lies behind the point in that segment is not known.
        Some(Cut::Unreadable(name)) if name.number(start.size) == Some(number) => cut_before,
        _ => look.forward(number).await?,
    };
    Ok(Around {
        timeline: line.history.timeline(),
        before: Side {
            records: look.before.into(),
            cut: cut_before,
        },
        after: Side {
            records: look.after,
            cut: cut_after,
        },
    })
}

/// Where the point lies.
async fn pivot(log: &Log<'_>, line: &Line, point: Point) -> Result<Lsn, LocateError> {
    let time = match point {
        Point::Lsn(lsn) => return Ok(lsn),
        Point::Time(time) => time,
    };
    let is_before = |backup: &&Begin| backup.end_time.is_some_and(|end| end <= time);
    let start = line.backups.iter().rfind(is_before);
    let from = start.or(line.backups.first());
    let from = from.map_or(Lsn::new(0), |backup| backup.begin);
    let stop = Stop::Time {
        time,
        is_inclusive: false,
    };
    match log.locate(from, &stop).await? {
        Located::At(point) => Ok(point.record.begin),
        Located::Nowhere(_) => {
            let begin = SegmentNumber::holding(from, log.files().size());
            let last = log.files().last_without_gap(begin).unwrap_or(begin);
            let behind = last.next().and_then(|next| next.start(log.files().size()));
            Ok(behind.unwrap_or(Lsn::new(u64::MAX)))
        }
    }
}

/// A look at both sides.
struct Look<'a> {
    repository: &'a Repository,
    log: &'a Log<'a>,
    pivot: Lsn,
    count_max: usize,
    before: VecDeque<StopRecord>,
    after: Vec<StopRecord>,
}

impl Look<'_> {
    /// Reads the segment of the point and those before it until there are enough records; returns
    /// why there are not.
    async fn backward(&mut self, number: SegmentNumber) -> Result<Option<Cut>, LocateError> {
        let mut next = self.log.files().last_to(number);
        for count in BATCHES {
            let mut numbers = Vec::new();
            let mut cut = None;
            while numbers.len() < count && cut.is_none() {
                match next.filter(|number| self.log.files().file(*number).is_some()) {
                    None => cut = Some(self.cut_at(next)),
                    Some(number) => {
                        let quiet = self
                            .quiet(number)
                            .filter(|quiet| self.is_whole(*quiet.start(), number));
                        numbers.extend(quiet.is_none().then_some(number));
                        next = quiet.map_or(number, |quiet| *quiet.start()).previous();
                    }
                }
            }
            numbers.reverse();
            let (found, broken) = self.read(&numbers, true).await?;
            for record in found.before.into_iter().rev() {
                self.before.push_front(record);
            }
            self.after.extend(found.after);
            self.trim();
            let cut = broken.or(cut);
            if self.before.len() >= self.count_max {
                return Ok(None);
            }
            if cut.is_some() {
                return Ok(cut);
            }
        }
        Ok(Some(Cut::Far))
    }

    /// The same for those behind it.
    async fn forward(&mut self, number: SegmentNumber) -> Result<Option<Cut>, LocateError> {
        let is_there = self.log.files().file(number).is_some();
        let mut next = if is_there {
            number.next()
        } else {
            Some(number)
        };
        for count in BATCHES {
            if self.after.len() >= self.count_max {
                return Ok(None);
            }
            let mut numbers = Vec::new();
            let mut cut = None;
            while numbers.len() < count && cut.is_none() {
                match next.filter(|number| self.log.files().file(*number).is_some()) {
                    None => cut = Some(self.cut_at(next)),
                    Some(number) => {
                        let quiet = self
                            .quiet(number)
                            .filter(|quiet| self.is_whole(number, *quiet.end()));
                        numbers.extend(quiet.is_none().then_some(number));
                        next = quiet.map_or(number, |quiet| *quiet.end()).next();
                    }
                }
            }
            let (found, broken) = self.read(&numbers, false).await?;
            // One that began before the point and goes over the edge of its segment.
            self.before.extend(found.before);
            self.after.extend(found.after);
            self.trim();
            let cut = broken.or(cut).filter(|_| self.after.len() < self.count_max);
            if cut.is_some() {
                return Ok(cut);
            }
        }
        let is_short = self.after.len() < self.count_max;
        Ok(is_short.then_some(Cut::Far))
    }

    fn trim(&mut self) {
        let excess = self.before.len().saturating_sub(self.count_max);
        self.before.drain(..excess);
        self.after.truncate(self.count_max);
    }

    /// The segments around this one in which nothing ended, as the index tells.
    fn quiet(&self, number: SegmentNumber) -> Option<RangeInclusive<SegmentNumber>> {
        let (outline, until) = self.log.indexed(number)?;
        let is_quiet =
            outline.ends.is_none() && outline.restore_points == 0 && outline.unread_records == 0;
        let first = outline.first.number(self.log.files().size())?;
        is_quiet.then_some(first..=until)
    }

    /// Whether none of these is missing.
    fn is_whole(&self, first: SegmentNumber, last: SegmentNumber) -> bool {
        self.log.files().last_without_gap(first) >= Some(last)
    }

    /// What is there in the place of a segment that is not.
    fn cut_at(&self, number: Option<SegmentNumber>) -> Cut {
        let files = self.log.files();
        let gaps = files.gaps().into_iter();
        let mut around = gaps.filter(|(first, last)| {
            number.is_some_and(|number| (*first..=*last).contains(&number))
        });
        let named = around
            .next()
            .and_then(|(first, last)| Some((files.name(first)?, files.name(last)?)));
        named.map_or(Cut::Edge, |(first, last)| Cut::Gap(first, last))
    }

    /// Reads segments in order. Where one cannot be read, what was found behind it, when the reading
    /// `goes_on`, or else before.
    async fn read(
        &self,
        numbers: &[SegmentNumber],
        goes_on: bool,
    ) -> Result<(Found, Option<Cut>), LocateError> {
        let mut cut = None;
        let mut found = Found::new(self.pivot, self.count_max);
        let mut carry: Option<(SegmentNumber, Carry)> = None;
        for number in numbers.iter().copied() {
            let files = self.log.files();
            let Some(file) = files.file(number) else {
                continue;
            };
            let known = carry.take().filter(|(wanted, _)| *wanted == number);
            let before = number.previous().and_then(|before| files.file(before));
            let lead = match (known, before) {
                (Some((_, carry)), _) => Some(carry),
                (None, Some(before)) => self.lead(before).await?,
                (None, None) => None,
            };
            if let Some((more, left)) = self.visit(file, lead, found.clone()).await? {
                found = more;
                carry = number.next().zip(left);
                continue;
            }
            cut = Some(Cut::Unreadable(file.segment));
            if !goes_on {
                break;
            }
            found = Found::new(self.pivot, self.count_max);
        }
        Ok((found, cut))
    }

    /// What a segment leaves to the next; nothing where it cannot be read.
    async fn lead(&self, file: LineFile) -> Result<Option<Carry>, LocateError> {
        let nothing = Found::new(Lsn::new(0), 0);
        let visited = self.visit(file, None, nothing).await?;
        Ok(visited.and_then(|(_, carry)| carry))
    }

    /// Reads a segment; `None` where that is at fault, and not the store.
    async fn visit(
        &self,
        file: LineFile,
        carry: Option<Carry>,
        found: Found,
    ) -> Result<Option<(Found, Option<Carry>)>, LocateError> {
        let source = self.log.source(file, carry);
        match scan::visit(self.repository, source, found).await {
            Ok(visited) if visited.mistaken.is_none() => {
                Ok(Some((visited.visitor, visited.finished.carry)))
            }
            Ok(_) => Ok(None),
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Unsupported) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// What was found: of those before the point the last, of those behind it the first.
#[derive(Debug, Clone)]
struct Found {
    pivot: Lsn,
    count_max: usize,
    before: VecDeque<StopRecord>,
    after: Vec<StopRecord>,
}

impl Found {
    fn new(pivot: Lsn, count_max: usize) -> Self {
        Self {
            pivot,
            count_max,
            before: VecDeque::new(),
            after: Vec::new(),
        }
    }
}

impl Visitor for Found {
    fn visit(&mut self, record: &Record<'_>) -> ControlFlow<()> {
        let is_wanted = |record: &StopRecord| {
            matches!(
                record.what,
                What::TransactionEnd(_) | What::RestorePoint { .. }
            )
        };
        if self.count_max == 0 || !scan::may_matter(record) {
            return ControlFlow::Continue(());
        }
        let Some(record) = Some(stop_record(record)).filter(is_wanted) else {
            return ControlFlow::Continue(());
        };
        if record.begin >= self.pivot {
            self.after.push(record);
            if self.after.len() >= self.count_max {
                return ControlFlow::Break(());
            }
            return ControlFlow::Continue(());
        }
        self.before.push_back(record);
        if self.before.len() > self.count_max {
            self.before.pop_front();
        }
        ControlFlow::Continue(())
    }
}
