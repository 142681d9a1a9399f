//! The restore points and the backups of an archive one after another, from a place on.
//!
//! In one order whatever is asked: by timeline, then along its log; what is archived later comes
//! later. Not here: whether recovery gets to them (`resolve`), and what a place looks like outside.

use tracing::warn;

use crate::barman::repository::Repository;
use crate::domain::log::summary::RestorePoint;
use crate::domain::lsn::Lsn;
use crate::domain::segment::SegmentNumber;
use crate::domain::timeline::{TimelineHistory, TimelineId};
use crate::fault::{Fault, Kind, chain};
use crate::pgfile::wal::reader::Carry;
use crate::service::targets::begins::{self, Begin, Line};
use crate::service::targets::locate::{LocateError, Log, LogStart};
use crate::service::targets::window::WindowError;

/// How many segments are read for one page because the index lacks them.
const READ_MAX: u64 = 16;

/// One thing that can be gone back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// A backup, on the timeline that it ended on.
    Backup(Begin),
    /// A restore point.
    RestorePoint {
        /// The timeline that it was made on.
        timeline: TimelineId,
        /// The point.
        point: RestorePoint,
    },
}

/// Where in the list to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The timeline.
    pub timeline: TimelineId,
    /// The first of its segments that has not been looked at to the end.
    pub segment: SegmentNumber,
    /// The last thing of this timeline that was given.
    pub after: Option<Key>,
}

/// What tells the things of one timeline apart and puts them in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Where the log is when it is there: the end of a backup, the beginning of a point's record.
    pub lsn: Lsn,
    /// The backup's id; empty for a restore point.
    pub backup: String,
}

/// A part of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The things, in order. There may be fewer than asked for with more behind them.
    pub listed: Vec<Listed>,
    /// Where to go on; `None` at the end.
    pub next: Option<Place>,
}

impl Listed {
    /// Its key.
    pub fn key(&self) -> Key {
        match self {
            Self::Backup(backup) => Key {
                lsn: backup.end,
                backup: backup.id.to_string(),
            },
            Self::RestorePoint { point, .. } => Key {
                lsn: point.lsn,
                backup: String::new(),
            },
        }
    }
}

/// At most `count_max` things, at least 1, from `place` or from the beginning on. Behind the first
/// backup of each line, and no segment is read of more than a few that are not in the index.
pub async fn list(
    repository: &Repository,
    place: Option<Place>,
    count_max: usize,
) -> Result<Page, WindowError> {
    let mut filling = Filling {
        listed: Vec::new(),
        after: None,
        count_max: count_max.max(1),
        may_read: READ_MAX,
        lead: None,
    };
    for line in begins::lines(repository).await? {
        let timeline = line.history.timeline();
        let from = place.as_ref().filter(|place| place.timeline == timeline);
        if place
            .as_ref()
            .is_some_and(|place| timeline < place.timeline)
        {
            continue;
        }
        filling.lead = None;
        filling.after = from.and_then(|place| place.after.clone());
        let segment = from.map(|place| place.segment);
        if let Some(segment) = filling.walk(repository, &line, segment).await? {
            let next = Place {
                timeline,
                segment,
                after: filling.after,
            };
            return Ok(Page {
                listed: filling.listed,
                next: Some(next),
            });
        }
    }
    Ok(Page {
        listed: filling.listed,
        next: None,
    })
}

/// A page while it is filled.
struct Filling {
    listed: Vec<Listed>,
    /// The last thing of the timeline that was given, on this page or before.
    after: Option<Key>,
    count_max: usize,
    may_read: u64,
    /// What the segment that was read last has left, and the one that it is for.
    lead: Option<(SegmentNumber, Carry)>,
}

/// The page is full, and there is more.
struct Full;

impl Filling {
    /// Adds what a timeline itself has. Returns the segment to go on with where the page ends.
    async fn walk(
        &mut self,
        repository: &Repository,
        line: &Line,
        segment: Option<SegmentNumber>,
    ) -> Result<Option<SegmentNumber>, WindowError> {
        let (Some(from), Some(start)) = (first_of(line), line.start) else {
            return Ok(None);
        };
        let timeline = line.history.timeline();
        let own = line.backups.iter();
        let mut backups: Vec<Listed> = own
            .filter(|backup| backup.timeline == timeline)
            .map(|backup| Listed::Backup(backup.clone()))
            .collect();
        backups.sort_by_key(Listed::key);
        let mut backups = backups.into_iter().peekable();
        let begin = SegmentNumber::holding(from, start.size);
        let begin = segment.unwrap_or(begin).max(begin);
        // A record at its head began in the one before.
        let start = LogStart {
            segment: begin.previous().unwrap_or(begin),
            ..start
        };
        let alone = TimelineHistory::root(timeline);
        let log = Log::open(repository, &alone, start).await?;
        let mut next = log.files().first_from(begin);
        while let Some(number) = next {
            let Some((points, done)) = self.points_from(&log, number, from).await? else {
                return Ok(Some(number));
            };
            for point in points {
                let point = Listed::RestorePoint { timeline, point };
                while let Some(backup) = backups.next_if(|backup| backup.key() < point.key()) {
                    if self.add(backup).is_err() {
                        return Ok(Some(number));
                    }
                }
                if self.add(point).is_err() {
                    return Ok(Some(number));
                }
            }
            next = done.next().and_then(|next| log.files().first_from(next));
        }
        for backup in backups {
            if self.add(backup).is_err() {
                return Ok(Some(SegmentNumber::MAX));
            }
        }
        Ok(None)
    }

    /// The points of a segment and perhaps some behind it, and the last of these; `None` where no
    /// more are to be read now.
    async fn points_from(
        &mut self,
        log: &Log<'_>,
        number: SegmentNumber,
        from: Lsn,
    ) -> Result<Option<(Vec<RestorePoint>, SegmentNumber)>, LocateError> {
        if let Some((outline, until)) = log.indexed(number) {
            if outline.restore_points == 0 {
                return Ok(Some((Vec::new(), until)));
            }
            let points = log.restore_points_of(outline).await.into_iter();
            // Segments may have been lost since.
            let is_there = |number: SegmentNumber| log.files().file(number).is_some();
            let whole = points.filter(|(number, point)| {
                let begin = SegmentNumber::holding(point.lsn, log.files().size());
                point.lsn >= from && is_there(begin) && is_there(*number)
            });
            return Ok(Some((whole.map(|(_, point)| point).collect(), until)));
        }
        if self.may_read == 0 {
            return Ok(None);
        }
        self.may_read -= 1;
        match log.scan_whole(number, from, &mut self.lead).await {
            Ok(Some(scanned)) if scanned.mistaken.is_none() => {
                Ok(Some((scanned.restore_points, number)))
            }
            Ok(_) => Ok(Some((Vec::new(), number))),
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Unsupported) => {
                warn!(error = chain(&error), "passing over a segment of the log");
                Ok(Some((Vec::new(), number)))
            }
            Err(error) => Err(error),
        }
    }

    /// Adds what was not given yet.
    fn add(&mut self, one: Listed) -> Result<(), Full> {
        let key = one.key();
        if self.after.as_ref().is_some_and(|after| key <= *after) {
            return Ok(());
        }
        if self.listed.len() >= self.count_max {
            return Err(Full);
        }
        self.after = Some(key);
        self.listed.push(one);
        Ok(())
    }
}

/// Where what belongs to a timeline itself, behind the first backup of its line, begins.
fn first_of(line: &Line) -> Option<Lsn> {
    let first = line.backups.first()?;
    let left = line.history.ancestors().last();
    Some(left.map_or(first.begin, |left| first.begin.max(left.switched_at)))
}
