//! The log after a backup on the way to the target, looked at before anything is restored.
//!
//! A server that meets a gap has recovered for hours. With a target it stops there; without one, or
//! before PostgreSQL 13, it takes the gap for the end of the log and promotes, and all that lies
//! behind is lost to it. Not here: the log that makes the backup consistent (`needed_wal`).

use std::iter::successors;
use std::pin::pin;

use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;

use crate::barman::repository::Repository;
use crate::barman::repository::wal_listing::WalScope;
use crate::domain::backup::{Backup, BackupStatus};
use crate::domain::log::reach::{self, Reach};
use crate::domain::lsn::Lsn;
use crate::domain::recovery::Target;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::{KnownTimelines, TimelineHistory, TimelineId, known_lines};
use crate::domain::wal_file::WalFileName;
use crate::fault::chain;
use crate::service::restore::error::RestoreError;
use crate::service::restore::needed_wal::{MISSING_NAMED_MAX, has_up_to, holder, missing};
use crate::service::restore::recovery_plan::RecoveryRequest;
use crate::service::targets::resolve;
use crate::store::ObjectKey;

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
    /// The line.
    pub(crate) timeline: TimelineId,
    /// What is known of it.
    pub(crate) timelines: &'a KnownTimelines,
}

/// What the archive holds of a way.
#[derive(Debug, Default)]
struct Extent {
    /// When the newest file was put of those that come before a gap.
    newest_put: Option<DateTime<Utc>>,
    gap: Option<Gap>,
}

/// A gap with something behind it.
#[derive(Debug)]
struct Gap {
    /// The first segments that are missing.
    missing: Vec<SegmentName>,
    /// Whether what is behind may have been sent ahead.
    is_at_end: bool,
}

/// The segments that a line has on one of its timelines: before `end`, or all.
struct Span {
    timeline: TimelineId,
    begin: SegmentNumber,
    end: Option<SegmentNumber>,
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
        let (line, recovery) = (self.line(), request.recovery);
        let asked = (&line, request.may_reword);
        let reach = resolve::reach(self.repository, self.backup, asked, recovery);
        match reach.await {
            Ok(None) => {
                let warning = self.check(&recovery.target).await?;
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
                let warning = self.check(&recovery.target).await?;
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
    pub(crate) async fn check(&self, target: &Target) -> Result<Option<String>, RestoreError> {
        match target {
            Target::Immediate => Ok(None),
            Target::Lsn(lsn) => self.check_to(*lsn).await.map(|()| None),
            Target::Time(time) => {
                // What was put later says nothing any more.
                let until = time.to_utc().checked_add_signed(CLOCKS_APART_MAX);
                let extent = self.extent(until).await?;
                self.judge(target, &extent)
            }
            Target::Latest | Target::Xid(_) | Target::Name(_) => {
                let extent = self.extent(None).await?;
                self.judge(target, &extent)
            }
        }
    }

    /// What the extent of the archive means for a target.
    fn judge(&self, target: &Target, extent: &Extent) -> Result<Option<String>, RestoreError> {
        // What is in a file of the log was written before the file was put.
        let behind = extent.newest_put.filter(|put| match target {
            Target::Time(time) => time.signed_duration_since(*put) > CLOCKS_APART_MAX,
            _ => false,
        });
        match (target, &extent.gap, behind) {
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

    fn line(&self) -> TimelineHistory {
        let known = known_lines(&self.timelines.histories).remove(&self.timeline);
        known.unwrap_or(TimelineHistory::root(self.timeline))
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
    async fn check_to(&self, target: Lsn) -> Result<(), RestoreError> {
        let (line, size) = (self.line(), self.backup.segment_size);
        // Where the line is not known, nor is what lies on it.
        let is_known = !line.ancestors().is_empty() || self.timeline == TimelineId::FIRST;
        let last = SegmentNumber::holding(target, size);
        let Some(next) = self.begin().next().filter(|_| is_known) else {
            return Ok(());
        };
        let name_of = |number| SegmentName::new(holder(&line, number, size), number, size);
        let segments = missing(self.repository, next..=last, size, &name_of).await?;
        let is_there = match segments.first() {
            Some(first) if name_of(last) == Some(*first) => {
                // A record begins at the target: of the segment that much is needed.
                let end = Lsn::new(target.to_u64().saturating_add(1));
                has_up_to(self.repository, &line, end, *first, size).await?
            }
            first => first.is_none(),
        };
        if is_there {
            return Ok(());
        }
        Err(behind_gap(&Target::Lsn(target), &segments))
    }

    /// Walks along the line, file by file, to its end or until a file was put later than `until`.
    async fn extent(&self, until: Option<DateTime<Utc>>) -> Result<Extent, RestoreError> {
        let line = self.line();
        let mut walk = Walk {
            way: self,
            line: &line,
            expected: self.begin(),
            extent: Extent::default(),
        };
        for span in spans(&line, self.begin(), self.backup.segment_size) {
            let is_over = walk.along(&span, until).await?;
            if is_over {
                break;
            }
        }
        Ok(walk.extent)
    }
}

/// A look along a line.
struct Walk<'a> {
    way: &'a Way<'a>,
    line: &'a TimelineHistory,
    /// The first segment that was not seen.
    expected: SegmentNumber,
    extent: Extent,
}

impl Walk<'_> {
    /// Looks at one timeline's part. Returns whether all is known that matters.
    async fn along(
        &mut self,
        span: &Span,
        until: Option<DateTime<Utc>>,
    ) -> Result<bool, RestoreError> {
        let (repository, size) = (self.way.repository, self.way.backup.segment_size);
        let Some(first) = SegmentName::new(span.timeline, span.begin, size) else {
            return Ok(true);
        };
        // The folder's own name sorts before all that is in it.
        let after = ObjectKey::new(repository.layout.wal_folder(first));
        let scope = WalScope::Timeline(span.timeline);
        let mut pages = pin!(repository.wal_objects(scope, Some(&after)));
        while let Some(page) = pages.try_next().await? {
            for file in page.files {
                let Some(number) = file.name.segment().and_then(|name| name.number(size)) else {
                    continue;
                };
                match span.end {
                    Some(end) if number > end => return Ok(false),
                    // Where no later timeline has it, PostgreSQL takes what this one has of it.
                    Some(end) if number == end => {
                        if self.expected == end && self.meet_put(file.modified, until) {
                            return Ok(true);
                        }
                        continue;
                    }
                    _ => {}
                }
                let is_whole = matches!(file.name, WalFileName::Segment(_));
                if number < span.begin || (number > self.expected && !is_whole) {
                    continue;
                }
                if number > self.expected {
                    if self.meet_gap(span, number) {
                        return Ok(true);
                    }
                    continue;
                }
                if self.meet_put(file.modified, until) {
                    return Ok(true);
                }
                if is_whole && let Some(next) = number.next() {
                    self.expected = self.expected.max(next);
                }
            }
        }
        Ok(false)
    }

    /// Takes note of when a file was put. Returns whether one was put later than `until`.
    fn meet_put(&mut self, put_at: DateTime<Utc>, until: Option<DateTime<Utc>>) -> bool {
        let newest = self.extent.newest_put.get_or_insert(put_at);
        *newest = put_at.max(*newest);
        until.is_some_and(|until| *newest > until)
    }

    /// Takes note of a segment behind a gap. Returns whether there is no doubt about the gap.
    fn meet_gap(&mut self, span: &Span, behind: SegmentNumber) -> bool {
        let size = self.way.backup.segment_size;
        let begin = self.expected;
        let name_of = |number| SegmentName::new(holder(self.line, number, size), number, size);
        let is_at_end = span.end.is_none()
            && span.begin <= begin
            && behind.to_u64() - begin.to_u64() < SENT_AHEAD_MAX
            && !self.has_backup_behind(span.timeline, begin);
        let gap = self.extent.gap.get_or_insert_with(|| Gap {
            missing: successors(Some(begin), |number| number.next())
                .take_while(|number| *number < behind)
                .take(MISSING_NAMED_MAX)
                .map_while(name_of)
                .collect(),
            is_at_end,
        });
        gap.is_at_end = is_at_end;
        !is_at_end
    }

    /// Whether a backup ended in or behind a gap: then what is missing had been archived.
    fn has_backup_behind(&self, timeline: TimelineId, gap: SegmentNumber) -> bool {
        let size = self.way.backup.segment_size;
        self.way.backups.iter().any(|backup| {
            // Of an end on a boundary the name may tell the next segment, which need not be there.
            let end = backup.end_lsn.or(backup.begin_lsn);
            let end = end.map(|lsn| SegmentNumber::ending_at(lsn, size));
            let last = backup.end_wal.or(backup.begin_wal);
            backup.status == BackupStatus::Done
                && backup.system_id == self.way.backup.system_id
                && last.is_some_and(|name| name.timeline() == timeline)
                && end.is_some_and(|end| end >= gap)
        })
    }
}

/// The parts of a line from a segment on, oldest first.
fn spans(line: &TimelineHistory, from: SegmentNumber, size: SegmentSize) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut begin = from;
    for left in line.ancestors() {
        // A segment in which the line left a timeline was finished on a later one.
        let end = SegmentNumber::holding(left.switched_at, size);
        if begin <= end {
            spans.push(Span {
                timeline: left.timeline,
                begin,
                end: Some(end),
            });
            begin = end;
        }
    }
    spans.push(Span {
        timeline: line.timeline(),
        begin,
        end: None,
    });
    spans
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
