//! Which backups stay and which go.
//!
//! Not here: the WAL they need.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use crate::domain::backup::{Backup, BackupId, BackupKind, BackupStatus};
use crate::domain::retention::policy::RetentionPolicy;
use crate::domain::retention::reason::{DeleteReason, KeepReason};
use crate::domain::retention::{
    Activity, Archive, BackupVerdict, Candidate, Rules, SETTLED_AFTER, Verdict, told_lines,
};
use crate::domain::segment::SegmentName;
use crate::domain::timeline::{TimelineHistory, TimelineId};

type Judged = Verdict<KeepReason, DeleteReason>;

/// What becomes of each candidate, in their order.
pub(super) fn judge(archive: &Archive<'_>, rules: Rules, now: DateTime<Utc>) -> Vec<Judged> {
    let candidates = archive.candidates;
    let counted = Counted::of(candidates);
    let mut retained = counted.by_policy(rules, now);
    counted.add_timeline_bases(archive, rules, now, &mut retained);
    let oldest_end = retained
        .keys()
        .filter_map(|index| candidates[*index].backup.end_time)
        .min();
    let mut judged: Vec<Judged> = candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| match retained.remove(&index) {
            Some(reason) => Verdict::Keep(reason),
            None => judge_other(candidate, rules, oldest_end.map(|end| end.to_utc()), now),
        })
        .collect();
    keep_parents(candidates, &mut judged);
    judged
}

/// The backups that count: DONE, full, with a known end and their archives. Newest first.
struct Counted<'a> {
    newest_first: Vec<(usize, &'a Backup, DateTime<Utc>)>,
}

impl<'a> Counted<'a> {
    fn of(candidates: &[Candidate<'a>]) -> Self {
        let full = |(index, candidate): (usize, &Candidate<'a>)| {
            let backup = candidate.backup;
            let is_counted = backup.status == BackupStatus::Done
                && backup.kind == BackupKind::Full
                && !candidate.lacks_archives
                && candidate.activity != Activity::BeingDeleted;
            is_counted
                .then(|| Some((index, backup, backup.end_time?.to_utc())))
                .flatten()
        };
        let mut newest_first: Vec<_> = candidates.iter().enumerate().filter_map(full).collect();
        newest_first.sort_by_key(|(_, backup, end)| Reverse((*end, &backup.id)));
        Self { newest_first }
    }

    fn by_policy(&self, rules: Rules, now: DateTime<Utc>) -> BTreeMap<usize, KeepReason> {
        let window_start = rules.policy.window_start(now);
        let mut retained = BTreeMap::new();
        let mut has_base = window_start.is_none();
        for (place, (index, _, end)) in (0u32..).zip(&self.newest_first) {
            let is_counted_in = place < rules.count();
            let reason = match window_start {
                Some(start) if *end >= start => Some(KeepReason::WithinWindow),
                Some(_) if !has_base => {
                    has_base = true;
                    Some(KeepReason::WindowBase)
                }
                Some(_) => is_counted_in.then_some(KeepReason::MinimumRedundancy {
                    minimum: rules.minimum_redundancy,
                }),
                None => is_counted_in.then(|| count_reason(rules, place)),
            };
            if let Some(reason) = reason {
                retained.insert(*index, reason);
            }
        }
        retained
    }

    /// A backup for each timeline that is in use, where the newest lie on another branch.
    ///
    /// Only backups of the cluster that has the newest: one that had the name before shares no log
    /// with it.
    fn add_timeline_bases(
        &self,
        archive: &Archive<'_>,
        rules: Rules,
        now: DateTime<Utc>,
        retained: &mut BTreeMap<usize, KeepReason>,
    ) {
        let Some((_, newest, _)) = self.newest_first.first() else {
            return;
        };
        let window_start = rules.policy.window_start(now);
        let ends = self.newest_first.iter();
        let oldest_end = ends
            .filter(|(index, _, _)| retained.contains_key(index))
            .map(|(_, _, end)| *end)
            .min();
        let Some(since) = window_start.or(oldest_end) else {
            return;
        };
        let is_base = |backup: &Backup, end: DateTime<Utc>| {
            let is_same = match (backup.system_id, newest.system_id) {
                (Some(one), Some(other)) => one == other,
                _ => true,
            };
            // With a window, what ended within it stays anyway, and its beginning is what counts.
            is_same && window_start.is_none_or(|start| end < start)
        };
        let lines = told_lines(archive.histories);
        let mut bases = Vec::new();
        for timeline in self.timelines_in_use(archive, since) {
            let root = TimelineHistory::root(timeline);
            let line = lines.get(&timeline).unwrap_or(&root);
            let is_covered = window_start.is_none()
                && self.newest_first.iter().any(|(index, backup, _)| {
                    retained.contains_key(index) && ends_on(backup, line)
                });
            if is_covered {
                continue;
            }
            let mut counted = self.newest_first.iter();
            let base =
                counted.find(|(_, backup, end)| is_base(backup, *end) && ends_on(backup, line));
            if let Some((index, _, _)) = base {
                bases.push((*index, KeepReason::TimelineBase { timeline }));
            } else if !lines.contains_key(&timeline) {
                let ancestors = self.possible_bases(archive, timeline, is_base);
                let reason = KeepReason::PossibleBase { timeline };
                bases.extend(ancestors.map(|index| (index, reason.clone())));
            }
        }
        for (index, reason) in bases {
            retained.entry(index).or_insert(reason);
        }
    }

    /// The backups that a timeline may descend from whose line is not known: on each lower one, the
    /// newest that ended before the timeline's first file does.
    fn possible_bases(
        &self,
        archive: &Archive<'_>,
        timeline: TimelineId,
        is_base: impl Fn(&Backup, DateTime<Utc>) -> bool,
    ) -> impl Iterator<Item = usize> {
        let size = archive.wal.segment_size();
        // The line left its ancestor within the first segment, or before it if that was deleted.
        let first = archive.wal.first_segment(timeline);
        let latest = first.and_then(|first| first.next()?.start(size));
        let mut bases = BTreeMap::new();
        for (index, backup, end) in &self.newest_first {
            let ends_before = latest
                .zip(backup.end_lsn)
                .is_some_and(|(latest, lsn)| lsn <= latest);
            if let Some(ancestor) = end_timeline(backup)
                && ancestor < timeline
                && ends_before
                && is_base(backup, *end)
            {
                bases.entry(ancestor).or_insert(*index);
            }
        }
        bases.into_values()
    }

    /// Those on which a backup ended, or WAL was put, at or after `since`.
    fn timelines_in_use(
        &self,
        archive: &Archive<'_>,
        since: DateTime<Utc>,
    ) -> BTreeSet<TimelineId> {
        let newest_put = archive.wal.newest_put();
        let archived = newest_put.into_iter().filter(|(_, put)| *put >= since);
        let backups = self.newest_first.iter().filter(|(_, _, end)| *end >= since);
        archived
            .map(|(timeline, _)| timeline)
            .chain(backups.filter_map(|(_, backup, _)| end_timeline(backup)))
            .collect()
    }
}

fn count_reason(rules: Rules, place: u32) -> KeepReason {
    match rules.policy {
        RetentionPolicy::Redundancy(count) if place < count.get() => {
            KeepReason::WithinRedundancy { count: count.get() }
        }
        _ => KeepReason::MinimumRedundancy {
            minimum: rules.minimum_redundancy,
        },
    }
}

fn end_timeline(backup: &Backup) -> Option<TimelineId> {
    let end = backup.end_wal.map(SegmentName::timeline);
    end.or(backup.timeline)
}

/// Whether recovery along `line` can begin with this backup.
fn ends_on(backup: &Backup, line: &TimelineHistory) -> bool {
    end_timeline(backup)
        .zip(backup.end_lsn)
        .is_some_and(|(timeline, lsn)| line.holds(timeline, lsn))
}

/// What the policy does not keep.
fn judge_other(
    candidate: &Candidate<'_>,
    rules: Rules,
    oldest_end: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Judged {
    let backup = candidate.backup;
    if let Some(keep) = candidate.keep {
        return Verdict::Keep(KeepReason::Marked(keep));
    }
    match (candidate.activity, backup.status) {
        (Activity::BeingDeleted, _) => Verdict::Delete(DeleteReason::Unfinished),
        // Of one STARTED and quiet, nobody was seen to work on it, and nobody to give it up.
        (Activity::Running, _) | (Activity::QuietSince(_), BackupStatus::Started) => {
            Verdict::Keep(KeepReason::Running)
        }
        (Activity::Dead, _) => Verdict::Keep(KeepReason::Killed),
        (Activity::QuietSince(_), BackupStatus::Done) => judge_done(candidate, rules, oldest_end),
        (Activity::QuietSince(since), BackupStatus::Failed) => {
            if now.signed_duration_since(since) > SETTLED_AFTER {
                Verdict::Delete(DeleteReason::FailedRemains { since })
            } else {
                Verdict::Keep(KeepReason::FailedRecently { since })
            }
        }
        (Activity::QuietSince(_), status) => Verdict::Keep(KeepReason::OtherState(status)),
    }
}

fn judge_done(
    candidate: &Candidate<'_>,
    rules: Rules,
    oldest_end: Option<DateTime<Utc>>,
) -> Judged {
    let backup = candidate.backup;
    let Some(end) = backup.end_time else {
        return Verdict::Keep(KeepReason::NoEnd);
    };
    let is_newer = oldest_end.is_none_or(|oldest| end >= oldest);
    match backup.kind {
        BackupKind::Snapshot => return Verdict::Keep(KeepReason::Snapshots),
        BackupKind::Incremental { .. } if is_newer => {
            return Verdict::Keep(KeepReason::Incremental);
        }
        BackupKind::Full if candidate.lacks_archives && is_newer => {
            return Verdict::Keep(KeepReason::LacksArchives);
        }
        BackupKind::Incremental { .. } | BackupKind::Full => {}
    }
    Verdict::Delete(match rules.policy {
        RetentionPolicy::RecoveryWindow { .. } => DeleteReason::OlderThanWindow,
        RetentionPolicy::Redundancy(_) => DeleteReason::BeyondRedundancy {
            count: rules.count(),
        },
    })
}

/// The backup that an incremental one is built on.
fn parent(backup: &Backup) -> Option<&str> {
    match &backup.kind {
        BackupKind::Incremental { parent } => Some(parent),
        BackupKind::Full | BackupKind::Snapshot => None,
    }
}

/// What a backup that stays is built on stays, over any number of generations.
fn keep_parents(candidates: &[Candidate<'_>], judged: &mut [Judged]) {
    let by_id: BTreeMap<&str, usize> = candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| (candidate.backup.id.as_str(), index))
        .collect();
    let mut open: Vec<usize> = (0..candidates.len())
        .filter(|index| !judged[*index].is_delete())
        .collect();
    while let Some(child) = open.pop() {
        let backup = candidates[child].backup;
        let parent = parent(backup).and_then(|id| by_id.get(id).copied());
        if let Some(parent) = parent.filter(|index| judged[*index].is_delete()) {
            let child = backup.id.clone();
            judged[parent] = Verdict::Keep(KeepReason::NeededBy { child });
            open.push(parent);
        }
    }
}

/// Each backup with what becomes of it, by id.
pub(super) fn verdicts(archive: &Archive<'_>, judged: &[Judged]) -> Vec<BackupVerdict> {
    let readable = archive.candidates.iter().zip(judged);
    let readable = readable.map(|(candidate, verdict)| BackupVerdict {
        id: candidate.backup.id.clone(),
        status: Some(candidate.backup.status),
        verdict: verdict.clone(),
    });
    let unreadable = archive.unreadable.iter().map(|id| BackupVerdict {
        id: id.clone(),
        status: None,
        verdict: Verdict::Keep(KeepReason::Unreadable),
    });
    let mut verdicts: Vec<_> = readable.chain(unreadable).collect();
    verdicts.sort_by(|one, other| one.id.cmp(&other.id));
    verdicts
}

/// The backups that go: oldest first, but what is built on a backup before it.
pub(super) fn order(archive: &Archive<'_>, judged: &[Judged]) -> Vec<BackupId> {
    let mut going: Vec<&Backup> = archive
        .candidates
        .iter()
        .zip(judged)
        .filter(|(_, verdict)| verdict.is_delete())
        .map(|(candidate, _)| candidate.backup)
        .collect();
    going.sort_by(|one, other| one.id.cmp(&other.id));
    let mut children: BTreeMap<&str, Vec<&Backup>> = BTreeMap::new();
    for backup in &going {
        if let Some(parent) = parent(backup) {
            children.entry(parent).or_default().push(backup);
        }
    }
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for backup in going {
        // A parent is put off until all that is built on it has been named.
        let mut open = vec![(backup, false)];
        while let Some((backup, is_ready)) = open.pop() {
            if is_ready {
                order.push(backup.id.clone());
            } else if seen.insert(&backup.id) {
                open.push((backup, true));
                let built_on_it = children.get(backup.id.as_str()).into_iter().flatten();
                open.extend(built_on_it.map(|child| (*child, false)));
            }
        }
    }
    order
}
