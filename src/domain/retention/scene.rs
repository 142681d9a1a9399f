//! Archives to be judged, made up for tests. Positions are segment numbers, times are days before now.

use super::*;
use crate::domain::backup::{BackupKind, SystemId};
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::Ancestor;

pub(super) const SIZE: SegmentSize = SegmentSize::DEFAULT;

pub(super) fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

pub(super) fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_240_000, 0).unwrap()
}

pub(super) fn days_ago(days: i64) -> DateTime<Utc> {
    now() - TimeDelta::days(days)
}

pub(super) fn segment(timeline: u32, number: u64) -> SegmentName {
    let number = SegmentNumber::holding(Lsn::new(number * SIZE.bytes()), SIZE);
    SegmentName::new(tli(timeline), number, SIZE).unwrap()
}

pub(super) fn history(timeline: u32, ancestors: &[(u32, u64)]) -> TimelineHistory {
    let ancestor = |(timeline, number): &(u32, u64)| Ancestor {
        timeline: tli(*timeline),
        switched_at: Lsn::new(*number * SIZE.bytes() + 100),
    };
    TimelineHistory::new(tli(timeline), ancestors.iter().map(ancestor).collect()).unwrap()
}

/// A DONE backup that ended so many days ago, from segment `begin` to the one after it.
pub(super) fn backup(name: &str, timeline: u32, begin: u64, days: i64) -> Backup {
    let end = days_ago(days).fixed_offset();
    Backup {
        id: name.parse().unwrap(),
        name: None,
        status: BackupStatus::Done,
        kind: BackupKind::Full,
        begin_time: Some(end - TimeDelta::hours(1)),
        end_time: Some(end),
        begin_lsn: Some(Lsn::new(begin * SIZE.bytes() + 40)),
        end_lsn: Some(Lsn::new((begin + 1) * SIZE.bytes() + 50)),
        begin_wal: Some(segment(timeline, begin)),
        end_wal: Some(segment(timeline, begin + 1)),
        timeline: Some(tli(timeline)),
        system_id: Some(SystemId(7)),
        version: Some(150_020),
        segment_size: SIZE,
        tablespaces: Vec::new(),
        cluster_size: None,
        error: None,
    }
}

pub(super) fn failed(name: &str, days: i64) -> Backup {
    Backup {
        status: BackupStatus::Failed,
        end_time: None,
        ..backup(name, 1, 1, days)
    }
}

/// An archive to be judged.
#[derive(Debug, Clone, Default)]
pub(super) struct Scene {
    pub(super) backups: Vec<(Backup, Option<Keep>, Option<Activity>)>,
    /// The backups of which an archive is not there.
    pub(super) lacking: Vec<BackupId>,
    pub(super) unreadable: Vec<BackupId>,
    pub(super) histories: Vec<TimelineHistory>,
    /// Timeline, first and last segment, and how many days ago they were put.
    pub(super) wal: Vec<(u32, u64, u64, i64)>,
}

impl Scene {
    pub(super) fn of(backups: Vec<Backup>) -> Self {
        Self {
            backups: backups.into_iter().map(|b| (b, None, None)).collect(),
            ..Self::default()
        }
    }

    pub(super) fn keeping(mut self, name: &str, keep: Keep) -> Self {
        for (backup, mark, _) in &mut self.backups {
            if backup.id.as_str() == name {
                *mark = Some(keep);
            }
        }
        self
    }

    pub(super) fn doing(mut self, name: &str, activity: Activity) -> Self {
        for (backup, _, doing) in &mut self.backups {
            if backup.id.as_str() == name {
                *doing = Some(activity);
            }
        }
        self
    }

    pub(super) fn lacking(mut self, name: &str) -> Self {
        self.lacking.push(name.parse().unwrap());
        self
    }

    pub(super) fn with_wal(mut self, wal: &[(u32, u64, u64, i64)]) -> Self {
        self.wal.extend_from_slice(wal);
        self
    }

    pub(super) fn with_histories(mut self, histories: &[TimelineHistory]) -> Self {
        self.histories.extend_from_slice(histories);
        self
    }

    pub(super) fn with<T>(&self, decide: impl FnOnce(&Archive<'_>) -> T) -> T {
        let backups = || self.backups.iter().map(|(backup, _, _)| backup);
        let mut wal = WalInventory::new(backups(), &self.histories);
        for (timeline, first, last, days) in &self.wal {
            for number in *first..=*last {
                wal.add(segment(*timeline, number), 10, days_ago(*days));
            }
        }
        let candidate = |(backup, keep, activity): &'_ (Backup, Option<Keep>, Option<Activity>)| {
            let quiet = backup.begin_time.map_or(now(), |time| time.to_utc());
            (*keep, activity.unwrap_or(Activity::QuietSince(quiet)))
        };
        let candidates: Vec<Candidate<'_>> = self
            .backups
            .iter()
            .map(|one| {
                let (keep, activity) = candidate(one);
                Candidate {
                    backup: &one.0,
                    keep,
                    activity,
                    lacks_archives: self.lacking.contains(&one.0.id),
                }
            })
            .collect();
        decide(&Archive {
            candidates: &candidates,
            unreadable: &self.unreadable,
            histories: &self.histories,
            wal: &wal,
        })
    }

    pub(super) fn plan(&self, policy: &str, minimum_redundancy: u32) -> Plan {
        let rules = rules(policy, minimum_redundancy);
        self.with(|archive| plan(archive, rules, now()))
    }
}

pub(super) fn rules(policy: &str, minimum_redundancy: u32) -> Rules {
    Rules {
        policy: policy.parse().unwrap(),
        minimum_redundancy,
    }
}
