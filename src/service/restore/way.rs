//! The log after a backup on the way to the target, looked at before anything is restored.
//!
//! A server that meets a gap has recovered for hours. With a target it stops there; without one, or
//! before PostgreSQL 13, it takes the gap for the end of the log and promotes, and all that lies
//! behind is lost to it. Not here: the log that makes the backup consistent (`needed_wal`).

use std::iter::successors;

use chrono::{DateTime, TimeDelta, Utc};

use crate::barman::repository::Repository;
use crate::domain::backup::{Backup, BackupStatus};
use crate::domain::log::reach::{self, Reach};
use crate::domain::lsn::Lsn;
use crate::domain::recovery::Target;
use crate::domain::segment::{SegmentName, SegmentNumber};
use crate::domain::timeline::{KnownTimelines, TimelineId, known_lines};
use crate::fault::chain;
use crate::service::restore::error::RestoreError;
use crate::service::restore::needed_wal::{MISSING_NAMED_MAX, missing};
use crate::service::restore::recovery_plan::RecoveryRequest;
use crate::service::targets::line_files::LineFiles;
use crate::service::targets::resolve;

/// How far the clocks of a server and of its store may be apart without a target being misjudged.
const CLOCKS_APART_MAX: TimeDelta = TimeDelta::hours(1);

/// So many segments may be sent ahead of one that is still on its way: what a server that died has
/// left behind such a gap it had not handed over.
const SENT_AHEAD_MAX: u64 = 64;

/// The first version that fails where recovery ends short of its target.
const TARGET_BINDS_MIN: u32 = 130_000;

/// Where recovery begins, and along which line it goes.
pub(crate) struct Way<'a> {
    /// The archive.
    pub(crate) repository: &'a Repository,
    /// The backup.
    pub(crate) backup: &'a Backup,
    /// All that there are.
    pub(crate) backups: &'a [Backup],
    /// The line's timeline.
    pub(crate) timeline: TimelineId,
    /// What is known of timelines.
    pub(crate) timelines: &'a KnownTimelines,
    /// What there is of the line, from the backup's begin on.
    pub(crate) files: &'a LineFiles,
}

/// A gap with something behind it.
#[derive(Debug)]
struct Gap {
    /// The first segments that are missing.
    missing: Vec<SegmentName>,
    /// When the newest file before it was put.
    newest_put: Option<DateTime<Utc>>,
    /// Whether what is behind may have been sent ahead.
    is_at_end: bool,
}

impl Way<'_> {
    /// Where in the log recovery stops, and what the user should know.
    ///
    /// # Errors
    /// Where recovery would certainly not reach its target. Where the index lacks what would tell,
    /// that is judged by the names of files alone.
    pub(crate) async fn reach_of(
        &self,
        request: &RecoveryRequest<'_>,
    ) -> Result<(Option<Reach>, Vec<String>), RestoreError> {
        let recovery = request.recovery;
        let asked = (self.files, request.may_reword);
        let reach = resolve::reach(self.repository, self.backup, asked, recovery);
        match reach.await {
            Ok(None) => {
                let warning = self.check(&recovery.target)?;
                Ok((None, Vec::from_iter(warning)))
            }
            Ok(Some(reach)) => {
                let remark = match &reach {
                    Reach::AsAsked(point) => reach::remark(point),
                    Reach::UpTo { .. } => None,
                };
                Ok((Some(reach), Vec::from_iter(remark)))
            }
            Err(error) if error.is_unknown() => {
                let warning = self.check(&recovery.target)?;
                let unsure = format!("Where recovery stops is not known: {}.", chain(&error));
                Ok((None, [unsure].into_iter().chain(warning).collect()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sees how far the archive reaches on the way to `target`. Returns what the user should know.
    ///
    /// # Errors
    /// Where recovery would certainly not reach it: as far as that can be told without reading
    /// the log.
    fn check(&self, target: &Target) -> Result<Option<String>, RestoreError> {
        match target {
            Target::Immediate => Ok(None),
            Target::Lsn(lsn) => self.check_to(*lsn).map(|()| None),
            Target::Time(_) | Target::Latest | Target::Xid(_) | Target::Name(_) => {
                self.judge(target)
            }
        }
    }

    /// What the extent of the archive means for a target.
    fn judge(&self, target: &Target) -> Result<Option<String>, RestoreError> {
        let gap = self.gap();
        let newest_put = match &gap {
            Some(gap) => gap.newest_put,
            None => self.files.newest_put(SegmentNumber::MAX),
        };
        let time = match target {
            Target::Time(time) => Some(time.to_utc()),
            _ => None,
        };
        let ahead = time.zip(newest_put).map(|(time, put)| time - put);
        if ahead.is_some_and(|ahead| ahead < -CLOCKS_APART_MAX) {
            // What was put later says nothing any more.
            return Ok(None);
        }
        // What is in a file of the log was written before the file was put.
        let behind = newest_put.filter(|_| ahead.is_some_and(|ahead| ahead > CLOCKS_APART_MAX));
        match (target, &gap, behind) {
            (Target::Latest, Some(gap), _) if !gap.is_at_end => {
                Err(behind_gap(target, &gap.missing))
            }
            (_, Some(gap), Some(_)) => Err(behind_gap(target, &gap.missing)),
            (Target::Latest, Some(gap), _) => Ok(Some(format!(
                "Recovery ends before {}, which the archive lacks: what is there behind it may have been sent ahead.",
                named(&gap.missing)
            ))),
            (_, Some(gap), None) => Ok(Some(format!(
                "The archive lacks {}: should the target lie behind that, recovery does not reach it{}.",
                named(&gap.missing),
                self.and_then()
            ))),
            (_, None, Some(newest_put)) => Err(RestoreError::TargetAfterArchive {
                target: target.clone(),
                timeline: self.timeline,
                others: self.other_timelines(),
                newest_put,
            }),
            (_, None, None) => Ok(None),
        }
    }

    /// What a server does, beyond not reaching its target: those of 12 take any end for the target.
    fn and_then(&self) -> &'static str {
        match self.backup.version {
            Some(version) if version < TARGET_BINDS_MIN => {
                ", and the server promotes before the gap as if it had"
            }
            _ => "",
        }
    }

    /// The other timelines along which the backup could be recovered.
    fn other_timelines(&self) -> Vec<TimelineId> {
        let backup = self.backup;
        let begin_timeline = backup.begin_wal.map(SegmentName::timeline);
        let ended_on = backup.end_wal.map(SegmentName::timeline).or(begin_timeline);
        let (Some(ended_on), Some(end)) = (ended_on, backup.end_lsn) else {
            return Vec::new();
        };
        known_lines(&self.timelines.histories)
            .into_values()
            .filter(|line| line.holds(ended_on, end) && line.timeline() != self.timeline)
            .map(|line| line.timeline())
            .collect()
    }

    /// The segment that the backup ends in.
    fn begin(&self) -> SegmentNumber {
        let end = self.backup.end_lsn.unwrap_or(Lsn::new(1)).max(Lsn::new(1));
        SegmentNumber::ending_at(end, self.backup.segment_size)
    }

    /// Sees that a target which says where in the log it lies is not behind a gap, or behind the
    /// end of the archive.
    ///
    /// The last segment may be there unfinished, as a failover leaves it.
    fn check_to(&self, target: Lsn) -> Result<(), RestoreError> {
        // Where the line is not known, nor is what lies on it.
        let line = self.files.line();
        let is_known = !line.ancestors().is_empty() || self.timeline == TimelineId::FIRST;
        let last = SegmentNumber::holding(target, self.backup.segment_size);
        let Some(next) = self.begin().next().filter(|_| is_known) else {
            return Ok(());
        };
        // A record begins at the target: of the segment that much is needed.
        let end = Lsn::new(target.to_u64().saturating_add(1));
        let name_of = |number| self.files.name(number);
        let segments = missing(self.files, (next, last), end, name_of);
        if segments.is_empty() {
            return Ok(());
        }
        Err(behind_gap(&Target::Lsn(target), &segments))
    }

    /// The first gap behind the backup.
    fn gap(&self) -> Option<Gap> {
        let begin = self.begin();
        let mut gaps = self.files.gaps().into_iter();
        let (first, last) = gaps.find(|(_, last)| *last >= begin)?;
        let first = first.max(begin);
        let numbers = successors(Some(first), |number| number.next());
        let missing = numbers
            .take_while(|number| *number <= last)
            .take(MISSING_NAMED_MAX)
            .map_while(|number| self.files.name(number));
        let before = first.previous().filter(|before| *before >= begin);
        Some(Gap {
            missing: missing.collect(),
            newest_put: before.and_then(|before| self.files.newest_put(before)),
            is_at_end: self.is_at_end(first),
        })
    }

    /// Whether what lies behind a gap that begins here may have been sent ahead.
    fn is_at_end(&self, gap: SegmentNumber) -> bool {
        let size = self.backup.segment_size;
        let line = self.files.line();
        let left = line.ancestors().last();
        let is_on_last =
            left.is_none_or(|left| gap >= SegmentNumber::holding(left.switched_at, size));
        let behind = self
            .files
            .last()
            .map_or(0, |last| last.to_u64() - gap.to_u64());
        is_on_last && behind < SENT_AHEAD_MAX && !self.has_backup_behind(line.timeline(), gap)
    }

    /// Whether a backup ended in or behind a gap: then what is missing had been archived.
    fn has_backup_behind(&self, timeline: TimelineId, gap: SegmentNumber) -> bool {
        let size = self.backup.segment_size;
        self.backups.iter().any(|backup| {
            // Of an end on a boundary the name may tell the next segment, which need not be there.
            let end = backup.end_lsn.or(backup.begin_lsn);
            let end = end.map(|lsn| SegmentNumber::ending_at(lsn, size));
            let last = backup.end_wal.or(backup.begin_wal);
            backup.status == BackupStatus::Done
                && backup.system_id == self.backup.system_id
                && last.is_some_and(|name| name.timeline() == timeline)
                && end.is_some_and(|end| end >= gap)
        })
    }
}

fn behind_gap(target: &Target, missing: &[SegmentName]) -> RestoreError {
    RestoreError::TargetWalMissing {
        target: target.clone(),
        segments: missing.iter().map(ToString::to_string).collect(),
    }
}

fn named(segments: &[SegmentName]) -> String {
    let names: Vec<String> = segments.iter().map(ToString::to_string).collect();
    names.join(", ")
}
