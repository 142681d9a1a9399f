//! Which WAL stays and which goes, given what becomes of the backups.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};

use crate::domain::backup::{Backup, BackupId, BackupStatus, Keep, SystemId};
use crate::domain::retention::inventory::Stretch;
use crate::domain::retention::reason::{DeleteReason, KeepReason, WalDeleteReason, WalKeepReason};
use crate::domain::retention::{Archive, Candidate, SETTLED_AFTER, Verdict, WalRange, told_lines};
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::{TimelineHistory, TimelineId};

/// How far the time in an id may be from the moment in UTC: Barman's ids are local time, of a zone
/// up to 14 hours off, an hour more or less with the season, by a clock of its own.
const ID_TIME_OFF_MAX: TimeDelta = TimeDelta::days(1);

type WalVerdict = Verdict<WalKeepReason, WalDeleteReason>;

/// Where a backup begins.
#[derive(Debug, Clone, Copy)]
struct Begin<'a> {
    id: &'a BackupId,
    timeline: TimelineId,
    number: SegmentNumber,
    name: SegmentName,
}

impl<'a> Begin<'a> {
    fn of(backup: &'a Backup, size: SegmentSize) -> Option<Self> {
        let wal = backup.begin_wal;
        let timeline = wal.map(SegmentName::timeline).or(backup.timeline)?;
        let by_name = wal.and_then(|name| name.number(size));
        let by_lsn = backup
            .begin_lsn
            .map(|lsn| SegmentNumber::holding(lsn, size));
        // Where the two disagree, the earlier is taken.
        let number = by_name.into_iter().chain(by_lsn).min()?;
        Some(Self {
            id: &backup.id,
            timeline,
            number,
            name: SegmentName::new(timeline, number, size)?,
        })
    }
}

/// What the backups that stay need.
struct Needs<'a> {
    size: SegmentSize,
    lines: BTreeMap<TimelineId, TimelineHistory>,
    /// Backups that need all from their beginning on.
    open: Vec<Begin<'a>>,
    /// Those of them that are DONE and can be restored, whose beginnings tell what is before them.
    whole: Vec<Begin<'a>>,
    /// Standalone backups: the first and the last segment.
    standalone: Vec<(Begin<'a>, SegmentName, SegmentNumber)>,
    /// Backups whose beginning is not known, with where it is at the earliest on each timeline; on
    /// one that is not named, anywhere.
    uncertain: Vec<(&'a BackupId, BTreeMap<TimelineId, SegmentNumber>)>,
    /// When the oldest of `whole` began; `None` where that is not known of each.
    oldest_begin: Option<DateTime<Utc>>,
    /// What keeps all WAL, whatever else is needed.
    all: Option<WalKeepReason>,
}

/// What is needed of one timeline.
struct TimelineNeeds<'n, 'a> {
    /// From which segment on WAL stays, and for what; `None` where nothing needs any.
    limit: Option<(SegmentNumber, WalKeepReason)>,
    /// Before which segment WAL goes that nothing needs, for it lies before this backup.
    before: Option<(SegmentNumber, &'n Begin<'a>)>,
    /// When the newest of the files was put that do not go by `before`; no time ever while that is
    /// not known.
    newest_put: DateTime<Utc>,
}

/// All WAL with what becomes of it; neighbours with one fate and reason are one range.
pub(super) fn ranges(
    archive: &Archive<'_>,
    judged: &[Verdict<KeepReason, DeleteReason>],
    now: DateTime<Utc>,
) -> Vec<WalRange> {
    let needs = Needs::of(archive, judged);
    let of_timeline = |timeline| (timeline, needs.of_timeline(timeline));
    let mut timelines: BTreeMap<_, _> = archive
        .wal
        .timelines()
        .into_iter()
        .map(of_timeline)
        .collect();
    // Only then is it known which files of a branch are left.
    let mut newest_put = BTreeMap::new();
    for stretch in archive.wal.stretches() {
        let timeline = stretch.first.timeline();
        let one = timelines.get(&timeline);
        if one.is_some_and(|one| !needs.judge(stretch, one, now).is_delete()) {
            let newest = newest_put.entry(timeline).or_insert(stretch.newest_put);
            *newest = stretch.newest_put.max(*newest);
        }
    }
    for (timeline, newest) in newest_put {
        timelines
            .entry(timeline)
            .and_modify(|one| one.newest_put = newest);
    }
    let mut ranges: Vec<WalRange> = Vec::new();
    for stretch in archive.wal.stretches() {
        let timeline = stretch.first.timeline();
        let Some(one) = timelines.get(&timeline) else {
            continue;
        };
        let verdict = needs.judge(stretch, one, now);
        match ranges.last_mut() {
            Some(last) if last.timeline() == timeline && last.verdict == verdict => {
                last.files = last.files.join(*stretch);
            }
            _ => ranges.push(WalRange {
                files: *stretch,
                verdict,
            }),
        }
    }
    ranges
}

impl<'a> Needs<'a> {
    fn of(archive: &Archive<'a>, judged: &[Verdict<KeepReason, DeleteReason>]) -> Self {
        let size = archive.wal.segment_size();
        let mut needs = Self {
            size,
            lines: told_lines(archive.histories),
            open: Vec::new(),
            whole: Vec::new(),
            standalone: Vec::new(),
            uncertain: Vec::new(),
            oldest_begin: Some(DateTime::<Utc>::MAX_UTC),
            all: None,
        };
        for (candidate, verdict) in archive.candidates.iter().zip(judged) {
            if let Verdict::Keep(reason) = verdict {
                needs.add(archive, candidate, reason);
            }
        }
        for id in archive.unreadable {
            let floors = floors(archive, id, size);
            needs.uncertain.push((id, floors));
        }
        needs.all = needs.why_all(archive, judged);
        needs
    }

    fn add(&mut self, archive: &Archive<'a>, candidate: &Candidate<'a>, reason: &KeepReason) {
        let backup = candidate.backup;
        if is_given_up(candidate) || *reason == KeepReason::Killed {
            return;
        }
        let Some(begin) = Begin::of(backup, self.size) else {
            let floors = floors(archive, &backup.id, self.size);
            self.uncertain.push((&backup.id, floors));
            return;
        };
        let end = backup
            .end_wal
            .and_then(|name| Some((name, name.number(self.size)?)))
            .filter(|(last, end)| last.timeline() >= begin.timeline && *end >= begin.number);
        if let (KeepReason::Marked(Keep::Standalone), Some((last, end))) = (reason, end) {
            self.standalone.push((begin, last, end));
            return;
        }
        self.open.push(begin);
        if backup.status == BackupStatus::Done && !candidate.lacks_archives {
            self.whole.push(begin);
            let time = backup.begin_time.map(|time| time.to_utc());
            self.oldest_begin = self.oldest_begin.zip(time).map(|(a, b)| a.min(b));
        }
    }

    /// Why nothing can be said of any WAL.
    fn why_all(
        &self,
        archive: &Archive<'_>,
        judged: &[Verdict<KeepReason, DeleteReason>],
    ) -> Option<WalKeepReason> {
        if self.whole.is_empty() {
            return Some(WalKeepReason::NoBackup);
        }
        let is_uncertain = !self.uncertain.is_empty();
        let mut clusters: Vec<SystemId> = Vec::new();
        for (candidate, verdict) in archive.candidates.iter().zip(judged) {
            let backup = candidate.backup;
            let Verdict::Keep(reason) = verdict else {
                // What goes tells where an unreadable backup may begin, if it is of the same cluster.
                clusters.extend(backup.system_id.filter(|_| is_uncertain));
                continue;
            };
            if is_given_up(candidate) {
                continue;
            }
            if backup.segment_size != self.size && begins_somewhere(backup) {
                return Some(WalKeepReason::SeveralSizes);
            }
            if is_uncertain || *reason != KeepReason::Marked(Keep::Standalone) {
                clusters.extend(backup.system_id);
            }
        }
        clusters.sort_unstable();
        clusters.dedup();
        (clusters.len() > 1).then_some(WalKeepReason::SeveralClusters)
    }

    fn of_timeline(&self, timeline: TimelineId) -> TimelineNeeds<'_, 'a> {
        TimelineNeeds {
            limit: self.limit(timeline),
            before: self.before(timeline),
            newest_put: DateTime::<Utc>::MAX_UTC,
        }
    }

    /// From which segment of a timeline on WAL stays, and for what; `None` where nothing needs any.
    fn limit(&self, timeline: TimelineId) -> Option<(SegmentNumber, WalKeepReason)> {
        let by_open = self.open.iter().filter_map(|begin| {
            let backup = begin.id.clone();
            if timeline == begin.timeline {
                let name = begin.name;
                let reason = WalKeepReason::From {
                    backup,
                    begin: name,
                };
                return Some((begin.number, reason));
            }
            if timeline < begin.timeline {
                // Of its ancestors it needs none, but where it begins before the switch away from one.
                let switch = self.lines.get(&begin.timeline)?.switched_at(timeline)?;
                let name = begin.name;
                let reason = WalKeepReason::From {
                    backup,
                    begin: name,
                };
                return (SegmentNumber::holding(switch, self.size) > begin.number)
                    .then_some((begin.number, reason));
            }
            let start = SegmentNumber::default();
            match self.lines.get(&timeline) {
                None => Some((start, WalKeepReason::UnknownHistory { backup })),
                Some(line) => self
                    .leads_through(line, begin)
                    .then_some((start, WalKeepReason::LeadsOn { backup })),
            }
        });
        let by_uncertain = self.uncertain.iter().map(|(id, floors)| {
            let floor = floors.get(&timeline).copied().unwrap_or_default();
            let backup = (*id).clone();
            (floor, WalKeepReason::MayNeed { backup })
        });
        by_open
            .chain(by_uncertain)
            .min_by_key(|(number, _)| *number)
    }

    /// Whether a timeline's line holds the segment that a backup begins in.
    fn leads_through(&self, line: &TimelineHistory, begin: &Begin<'_>) -> bool {
        line.switched_at(begin.timeline)
            .is_some_and(|switch| SegmentNumber::holding(switch, self.size) >= begin.number)
    }

    /// The backup that stays whose line holds most of the timeline, and up to where before its
    /// beginning: of the backups on the timeline itself the first, for nothing before it is needed.
    fn before(&self, timeline: TimelineId) -> Option<(SegmentNumber, &Begin<'a>)> {
        let own = self.whole.iter().filter(|b| b.timeline == timeline);
        let own = own.min_by_key(|begin| begin.number);
        let of_descendants = self.whole.iter().filter_map(|begin| {
            let switch = self.lines.get(&begin.timeline)?.switched_at(timeline)?;
            let switch = SegmentNumber::holding(switch, self.size);
            Some((switch.min(begin.number), begin))
        });
        own.map(|begin| (begin.number, begin)).or_else(|| {
            of_descendants.max_by_key(|(cutoff, begin)| (*cutoff, Reverse(begin.number)))
        })
    }

    fn judge(
        &self,
        stretch: &Stretch,
        one: &TimelineNeeds<'_, '_>,
        now: DateTime<Utc>,
    ) -> WalVerdict {
        if let Some(reason) = &self.all {
            return Verdict::Keep(reason.clone());
        }
        // A backup that came after the stretches were counted may begin inside one: all of it stays.
        let numbers = [stretch.first, stretch.last].map(|name| name.number(self.size));
        let [Some(first), Some(last)] = numbers else {
            return Verdict::Keep(WalKeepReason::SeveralSizes);
        };
        if let Some((_, reason)) = one.limit.as_ref().filter(|(limit, _)| last >= *limit) {
            return Verdict::Keep(reason.clone());
        }
        if let Some(backup) = self.standalone_of(stretch.first.timeline(), first..=last) {
            let backup = backup.clone();
            return Verdict::Keep(WalKeepReason::Standalone { backup });
        }
        if let Some((_, begin)) = one.before.filter(|(cutoff, _)| last < *cutoff) {
            return Verdict::Delete(WalDeleteReason::Before {
                backup: begin.id.clone(),
                begin: begin.name,
            });
        }
        let newest_put = one.newest_put;
        let settled = now.checked_sub_signed(SETTLED_AFTER);
        let is_abandoned = self
            .oldest_begin
            .zip(settled)
            .is_some_and(|(begin, settled)| newest_put < begin && newest_put < settled);
        if is_abandoned {
            Verdict::Delete(WalDeleteReason::Abandoned { newest_put })
        } else {
            Verdict::Keep(WalKeepReason::InUse { newest_put })
        }
    }

    /// The standalone backup that needs one of these segments.
    fn standalone_of(
        &self,
        timeline: TimelineId,
        numbers: RangeInclusive<SegmentNumber>,
    ) -> Option<&'a BackupId> {
        let needs = |(begin, last, end): &&(Begin<'_>, SegmentName, SegmentNumber)| {
            (begin.timeline..=last.timeline()).contains(&timeline)
                && begin.number <= *numbers.end()
                && numbers.start() <= end
        };
        self.standalone
            .iter()
            .find(needs)
            .map(|(begin, _, _)| begin.id)
    }
}

/// Whether nobody wants the backup any more. One that is marked was whole: its deletion began in the
/// moment in which it was marked, and can be taken back.
fn is_given_up(candidate: &Candidate<'_>) -> bool {
    candidate.backup.status == BackupStatus::Failed && candidate.keep.is_none()
}

fn begins_somewhere(backup: &Backup) -> bool {
    backup.begin_wal.is_some() || backup.begin_lsn.is_some()
}

/// Where on each timeline a backup of this id begins at the earliest: where the newest backup
/// there begins that was certainly begun before it.
///
/// A timeline's log only grows, so that is certain; a branch may begin anywhere, so each timeline
/// counts for itself.
fn floors(
    archive: &Archive<'_>,
    id: &BackupId,
    size: SegmentSize,
) -> BTreeMap<TimelineId, SegmentNumber> {
    let mut floors = BTreeMap::new();
    let time = NaiveDateTime::parse_from_str(id.as_str(), "%Y%m%dT%H%M%S").ok();
    let Some(before) = time.and_then(|time| time.and_utc().checked_sub_signed(ID_TIME_OFF_MAX))
    else {
        return floors;
    };
    for backup in archive.candidates.iter().map(|candidate| candidate.backup) {
        let is_older = backup.begin_time.is_some_and(|time| time.to_utc() < before);
        if let Some(begin) = Begin::of(backup, size).filter(|_| is_older) {
            let floor = floors.entry(begin.timeline).or_insert(begin.number);
            *floor = begin.number.max(*floor);
        }
    }
    floors
}
