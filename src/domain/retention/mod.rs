//! What goes and what stays of an archive, backups and WAL, each with its reason: a decision over
//! values. Running it is another matter (`service::expire`).
//!
//! # Backups
//!
//! Barman's rules: with a window, each DONE backup that ended within it and the newest that ended
//! before it; with a redundancy, the newest so many; in either case as many as the minimum asks
//! for, and those that are marked. Beyond Barman: a timeline that is in use keeps a backup to
//! recover it from even where newer backups lie on another; only full backups count, and only those
//! whose archives are there; a backup that others build on stays while they do; FAILED remains go once
//! they have been left alone.
//!
//! # WAL
//!
//! A backup that stays needs, on its own timeline, the segment it begins in and all after it, and
//! all of each timeline whose history leads through that beginning. One that is kept as standalone,
//! and that the policy alone would not keep, needs only the segments from its begin to its end.
//! What no backup needs goes where it lies before the beginning of one that stays, on that backup's
//! timeline or, before the switch away, on one of its ancestors. The rest belongs to branches that
//! no backup leads to: it goes once nothing was archived there for a day and since before the oldest
//! backup that stays began.
//!
//! Whatever is not certain keeps WAL: a record that cannot be read may need all since the last
//! backup that certainly began before it, on each timeline; a timeline above a backup's without a
//! history that can be read may descend from it; backups of different clusters, or none at all, keep
//! everything.

pub mod inventory;
mod judge;
pub mod policy;
pub mod reason;
mod wal;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::backup::{Backup, BackupId, BackupStatus, Keep};
use crate::domain::retention::inventory::{Stretch, WalInventory};
use crate::domain::retention::policy::RetentionPolicy;
use crate::domain::retention::reason::{DeleteReason, KeepReason, WalDeleteReason, WalKeepReason};
use crate::domain::timeline::{TimelineHistory, TimelineId, known_lines};

/// What has not changed for so long is left alone by everybody: time enough for a person to look
/// at a failure, and for any two clocks to agree.
pub const SETTLED_AFTER: TimeDelta = TimeDelta::days(1);

/// What a user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The policy.
    pub policy: RetentionPolicy,
    /// At least so many DONE backups stay, whatever the policy says.
    pub minimum_redundancy: u32,
}

impl Rules {
    /// How many of the newest backups stay whatever their age.
    fn count(self) -> u32 {
        match self.policy {
            RetentionPolicy::RecoveryWindow { .. } => self.minimum_redundancy,
            RetentionPolicy::Redundancy(count) => {
                NonZeroU32::get(count).max(self.minimum_redundancy)
            }
        }
    }
}

/// Who works on a backup, beyond what its record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Nobody, since its objects were last put, by the store's clock.
    QuietSince(DateTime<Utc>),
    /// Its run lives, or may.
    Running,
    /// It was killed, and is marked FAILED before anything else is done.
    Dead,
    /// Its deletion was begun and not finished.
    BeingDeleted,
}

/// A backup as retention looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its record.
    pub backup: &'a Backup,
    /// The mark that keeps it.
    pub keep: Option<Keep>,
    /// Who works on it.
    pub activity: Activity,
    /// Whether it is certain that it cannot be restored: an archive of it is not there.
    pub lacks_archives: bool,
}

/// All that a decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct Archive<'a> {
    /// The backups whose record can be read, in any order.
    pub candidates: &'a [Candidate<'a>],
    /// The backups whose record cannot, and those that have none yet.
    pub unreadable: &'a [BackupId],
    /// The histories that can be read.
    pub histories: &'a [TimelineHistory],
    /// The WAL.
    pub wal: &'a WalInventory,
}

/// What becomes of a thing, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<Stays, Goes> {
    /// It stays.
    Keep(Stays),
    /// It goes.
    Delete(Goes),
}

impl<Stays, Goes> Verdict<Stays, Goes> {
    /// Whether it goes.
    pub fn is_delete(&self) -> bool {
        matches!(self, Self::Delete(_))
    }
}

/// What becomes of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupVerdict {
    /// The backup.
    pub id: BackupId,
    /// Its state; `None` where the record cannot be read.
    pub status: Option<BackupStatus>,
    /// What becomes of it.
    pub verdict: Verdict<KeepReason, DeleteReason>,
}

/// What becomes of some WAL of one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalRange {
    /// The files from the first to the last segment, both included.
    pub files: Stretch,
    /// What becomes of them.
    pub verdict: Verdict<WalKeepReason, WalDeleteReason>,
}

impl WalRange {
    /// Their timeline.
    pub fn timeline(&self) -> TimelineId {
        self.files.first.timeline()
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Every backup, by id.
    pub backups: Vec<BackupVerdict>,
    /// The backups that go, in the order in which they may: oldest first, but what is built on a
    /// backup before it.
    pub order: Vec<BackupId>,
    /// All WAL but histories, by timeline and position.
    pub wal: Vec<WalRange>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty() && !self.wal.iter().any(|range| range.verdict.is_delete())
    }
}

/// Decides.
pub fn plan(archive: &Archive<'_>, rules: Rules, now: DateTime<Utc>) -> Plan {
    let judged = judge::judge(archive, rules, now);
    let backups = judge::verdicts(archive, &judged);
    Plan {
        wal: wal::ranges(archive, &judged, now),
        order: judge::order(archive, &judged),
        backups,
    }
}

/// What becomes of the WAL while every backup that is there stays, whatever the rules say of it.
pub fn plan_wal(archive: &Archive<'_>, rules: Rules, now: DateTime<Utc>) -> Vec<WalRange> {
    let mut judged = judge::judge(archive, rules, now);
    for verdict in &mut judged {
        if verdict.is_delete() {
            *verdict = Verdict::Keep(KeepReason::StillThere);
        }
    }
    wal::ranges(archive, &judged, now)
}

/// The lines that are told of: the first timeline's, which has no history, and those with ancestors.
///
/// Every later one descends from another: a history that does not tell from which tells nothing.
fn told_lines(histories: &[TimelineHistory]) -> BTreeMap<TimelineId, TimelineHistory> {
    let mut lines = known_lines(histories);
    let first = TimelineId::FIRST;
    lines
        .entry(first)
        .or_insert_with(|| TimelineHistory::root(first));
    lines.retain(|timeline, line| *timeline == first || !line.ancestors().is_empty());
    lines
}

#[cfg(test)]
mod doubts;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod tests;
