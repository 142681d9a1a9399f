//! Whether recovery from a backup reaches its target, and why not.
//!
//! PostgreSQL itself tells it after hours: it fails where the log ends short of the target, and
//! where the target comes before the backup is consistent. Not here: looking into the log.

use chrono::{DateTime, Utc};

use crate::domain::backup::BackupId;
use crate::domain::log::stop::{Side, StopRecord, TransactionEnd, What};
use crate::domain::lsn::Lsn;
use crate::domain::recovery::{Target, utc};
use crate::domain::segment::SegmentName;
use crate::domain::timeline::TimelineId;
use crate::fault::{Fault, Kind};

/// Where recovery stops in the log, or why it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    /// At this record.
    At(StopPoint),
    /// Nowhere before the log's end.
    Nowhere(LogEnd),
}

/// The record at which recovery stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopPoint {
    /// The record.
    pub record: StopRecord,
    /// Whether it is replayed.
    pub side: Side,
    /// The last segment that recovery needs.
    pub segment: SegmentName,
}

/// The end of what can be replayed of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// The last end of a transaction, with the first byte of its record.
    pub last_end: Option<(Lsn, TransactionEnd)>,
    /// The end of the last record.
    pub last_record_end: Option<Lsn>,
    /// The newest time that the log tells behind that transaction, with the record that tells it:
    /// up to then no other transaction ended.
    pub quiet_until: Option<(Lsn, DateTime<Utc>)>,
    /// The names of restore points on the way, some of them.
    pub names: Vec<Vec<u8>>,
    /// The segments that are missing where it ends, when there are others behind them.
    pub gap: Option<(SegmentName, SegmentName)>,
    /// The segment in which the log cannot be read on, and the reason.
    pub broken: Option<(SegmentName, String)>,
}

impl Located {
    /// Where the log ends; nothing of that where recovery stops before.
    pub fn end(self) -> LogEnd {
        match self {
            Self::Nowhere(end) => end,
            Self::At(_) => LogEnd::default(),
        }
    }
}

/// A backup from which recovery is to begin.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The backup.
    pub backup: &'a BackupId,
    /// Where it is consistent.
    pub end: Lsn,
    /// Whether PostgreSQL can be given another target than was asked for.
    pub may_reword: bool,
}

/// How recovery gets to its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// As asked: it stops at this record.
    AsAsked(StopPoint),
    /// Nothing ended between the last transaction and the target, so that recovery up to this
    /// record, exclusively, is the same; asked by time PostgreSQL would fail.
    UpTo {
        /// The record's first byte.
        lsn: Lsn,
        /// Why, as a sentence.
        reason: String,
    },
}

/// Why recovery does not get to its target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// The stop comes before the backup is consistent.
    #[error(
        "{target} comes before backup {backup} is consistent: recovery would stop at {stop}, and the backup ends at {end}"
    )]
    BeforeBackupEnd {
        /// The target.
        target: String,
        /// The backup.
        backup: BackupId,
        /// Where recovery would stop.
        stop: Lsn,
        /// Where the backup ends.
        end: Lsn,
    },
    /// The archive has a gap before the target.
    #[error(
        "{target} is not in the log before a gap: the archive lacks {}",
        range(first, last)
    )]
    Gap {
        /// The target.
        target: String,
        /// The first segment that is missing.
        first: SegmentName,
        /// The last.
        last: SegmentName,
    },
    /// The log cannot be read up to the target.
    #[error("{target} is not in the log before segment {segment}, which is damaged: {reason}")]
    Broken {
        /// The target.
        target: String,
        /// The segment.
        segment: SegmentName,
        /// What is wrong with it.
        reason: String,
    },
    /// No transaction ended after the target.
    #[error("{target} lies after the last transaction in the archive{last}{quiet}")]
    AfterLastEnd {
        /// The target.
        target: String,
        /// Which transaction that was, or nothing.
        last: String,
        /// Up to when no other ended, or nothing.
        quiet: String,
    },
    /// The log ends before the position.
    #[error("{target} lies behind the end of the archive{end}")]
    AfterEnd {
        /// The target.
        target: String,
        /// Where the log ends, or nothing.
        end: String,
    },
    /// It is on a timeline that recovery does not come to.
    #[error(
        "{target} is on timeline {timeline}, at {lsn}, and not on the line that recovery follows"
    )]
    OtherTimeline {
        /// The target.
        target: String,
        /// The timeline.
        timeline: TimelineId,
        /// The first byte of its record.
        lsn: Lsn,
    },
    /// No record of that transaction or name.
    #[error("{target} is nowhere in the log behind backup {backup}{note}")]
    Unknown {
        /// The target.
        target: String,
        /// The backup.
        backup: BackupId,
        /// What there is instead, or nothing.
        note: String,
    },
}

impl Fault for Unreachable {
    fn kind(&self) -> Kind {
        Kind::Refused
    }

    fn hint(&self) -> String {
        match self {
            Self::OtherTimeline { timeline, .. } => {
                return format!("Follow it with --target-timeline {timeline}.");
            }
            Self::BeforeBackupEnd { .. } => {
                "Choose a later target, or an earlier backup with --backup-id."
            }
            Self::Gap { .. } | Self::Broken { .. } => {
                "Choose a target before that, or begin at a backup behind it."
            }
            Self::AfterLastEnd { .. } => {
                "Choose an earlier time, or recover to the end of the archive by giving no target."
            }
            Self::AfterEnd { .. } => {
                "Choose an earlier position, or recover to the end of the archive by giving no target."
            }
            Self::Unknown { .. } => "Look at what there is with `cellarman targets`.",
        }
        .to_owned()
    }
}

impl LogEnd {
    /// The last moment that the log is known to reach: when a transaction ended last, or that of a
    /// later record which shows that none has since.
    pub fn moment(&self) -> Option<DateTime<Utc>> {
        let last = self.last_end.map(|(_, end)| end.time);
        last.max(self.quiet_until.map(|(_, time)| time))
    }

    /// Takes note of the next stretch of the log: the last end of a transaction in it, and the
    /// times that other records tell, each with the first byte of the record.
    pub fn note(
        &mut self,
        last_end: Option<(Lsn, TransactionEnd)>,
        times: impl Iterator<Item = (Lsn, DateTime<Utc>)>,
    ) {
        if last_end.is_some() {
            self.last_end = last_end;
            self.quiet_until = None;
        }
        let behind = self.last_end.map(|(lsn, _)| lsn);
        for (lsn, time) in times {
            let is_behind = behind.is_none_or(|last| lsn > last);
            if is_behind && self.quiet_until.is_none_or(|(_, known)| time > known) {
                self.quiet_until = Some((lsn, time));
            }
        }
    }
}

/// Judges where recovery from `start` to `target` stops.
///
/// `note` says of an unknown transaction or name what there is instead.
pub fn judge(
    target: &Target,
    start: Start<'_>,
    located: Located,
    note: &str,
) -> Result<Reach, Unreachable> {
    match located {
        Located::At(point) => {
            let reached = reached(&point);
            if reached < start.end {
                return Err(Unreachable::BeforeBackupEnd {
                    target: target.to_string(),
                    backup: start.backup.clone(),
                    stop: reached,
                    end: start.end,
                });
            }
            Ok(Reach::AsAsked(point))
        }
        Located::Nowhere(end) => beyond(target, start, &end, note),
    }
}

/// How far the log is replayed when recovery stops.
pub fn reached(point: &StopPoint) -> Lsn {
    match point.side {
        Side::Before => point.record.begin,
        Side::After => point.record.end,
    }
}

fn beyond(
    target: &Target,
    start: Start<'_>,
    end: &LogEnd,
    note: &str,
) -> Result<Reach, Unreachable> {
    if let (Target::Time(time), Some((lsn, quiet_until))) = (target, end.quiet_until)
        && quiet_until > *time
        && lsn >= start.end
        && start.may_reword
    {
        let last = end.last_end.as_ref().map_or_else(String::new, last_words);
        let reason = format!(
            "No transaction ended between the last one{last} and {}, which the record at {lsn} tells: recovery up \
             to that record is recovery to {target}.",
            utc(quiet_until.fixed_offset())
        );
        return Ok(Reach::UpTo { lsn, reason });
    }
    let target_text = target.to_string();
    if let Some((segment, reason)) = &end.broken {
        return Err(Unreachable::Broken {
            target: target_text,
            segment: *segment,
            reason: reason.clone(),
        });
    }
    if let Some((first, last)) = end.gap {
        return Err(Unreachable::Gap {
            target: target_text,
            first,
            last,
        });
    }
    Err(match target {
        Target::Time(_) => Unreachable::AfterLastEnd {
            target: target_text,
            last: end.last_end.as_ref().map_or_else(String::new, last_words),
            quiet: end.quiet_until.map_or_else(String::new, |(_, time)| {
                let until = utc(time.fixed_offset());
                format!(", and up to {until} no other is known to have ended")
            }),
        },
        Target::Lsn(_) => Unreachable::AfterEnd {
            target: target_text,
            end: end
                .last_record_end
                .map_or_else(String::new, |lsn| format!(", which is {lsn}")),
        },
        _ => Unreachable::Unknown {
            target: target_text,
            backup: start.backup.clone(),
            note: note.to_owned(),
        },
    })
}

/// The words for the last transaction.
fn last_words((lsn, end): &(Lsn, TransactionEnd)) -> String {
    let how = if end.is_commit {
        "committed"
    } else {
        "was rolled back"
    };
    let at = utc(end.time.fixed_offset());
    format!(", {} at {lsn}, which {how} at {at}", end.xid)
}

/// What to know of a stop that is none of the usual ones.
pub fn remark(point: &StopPoint) -> Option<String> {
    match &point.record.what {
        What::TransactionEnd(end) if !end.is_commit && point.side == Side::After => Some(format!(
            "Transaction {} was rolled back: recovery stops there, and nothing of it is to be seen.",
            end.xid
        )),
        _ => None,
    }
}

fn range(first: &SegmentName, last: &SegmentName) -> String {
    if first == last {
        format!("segment {first}")
    } else {
        format!("segments {first} to {last}")
    }
}
