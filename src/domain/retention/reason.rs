//! Why a backup or some WAL stays or goes, in words for people.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::domain::backup::{BackupId, BackupStatus, Keep};
use crate::domain::segment::SegmentName;
use crate::domain::timeline::TimelineId;

/// Why a backup stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepReason {
    /// It ended within the recovery window.
    WithinWindow,
    /// The beginning of the window is recovered from it.
    WindowBase,
    /// It is one of the newest so many.
    WithinRedundancy {
        /// How many.
        count: u32,
    },
    /// It is needed for the minimum redundancy.
    MinimumRedundancy {
        /// The minimum.
        minimum: u32,
    },
    /// A timeline in use is recovered from it.
    TimelineBase {
        /// The timeline.
        timeline: TimelineId,
    },
    /// A timeline in use, whose history cannot be read, may be recovered from it.
    PossibleBase {
        /// The timeline.
        timeline: TimelineId,
    },
    /// It is marked.
    Marked(Keep),
    /// A backup that stays is built on it.
    NeededBy {
        /// That backup.
        child: BackupId,
    },
    /// It is incremental, and newer than the oldest full backup that stays.
    Incremental,
    /// It cannot be restored, for an archive of it is not there, and is newer than the oldest backup
    /// that stays.
    LacksArchives,
    /// It is under way.
    Running,
    /// It was killed, and is only now marked FAILED.
    Killed,
    /// It failed a short while ago.
    FailedRecently {
        /// When its objects were last put.
        since: DateTime<Utc>,
    },
    /// It is in a state that another tool deals with.
    OtherState(BackupStatus),
    /// Its record does not tell when it ended.
    NoEnd,
    /// It consists of volume snapshots.
    Snapshots,
    /// Its record cannot be read, or is not there yet.
    Unreadable,
    /// It was to go, and is still there.
    StillThere,
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WithinWindow => f.write_str("ended within the recovery window"),
            Self::WindowBase => f.write_str("the window's beginning is recovered from it"),
            Self::WithinRedundancy { count: 1 } => f.write_str("the newest backup"),
            Self::WithinRedundancy { count } => write!(f, "one of the newest {count}"),
            Self::MinimumRedundancy { minimum } => {
                write!(f, "needed for the minimum redundancy of {minimum}")
            }
            Self::TimelineBase { timeline } => {
                write!(
                    f,
                    "timeline {timeline}, which is in use, is recovered from it"
                )
            }
            Self::PossibleBase { timeline } => {
                write!(
                    f,
                    "timeline {timeline}, which is in use, may be recovered from it: its history is not to be had"
                )
            }
            Self::Marked(keep) => write!(f, "marked keep {}", keep.as_str()),
            Self::NeededBy { child } => write!(f, "backup {child} is built on it"),
            Self::Incremental => {
                f.write_str("incremental, newer than the oldest backup that stays")
            }
            Self::LacksArchives => f.write_str(
                "does not count: an archive without which it cannot be restored is not there",
            ),
            Self::Running => f.write_str("under way"),
            Self::Killed => f.write_str("killed: marked FAILED first, its remains go a day later"),
            Self::FailedRecently { since } => {
                write!(
                    f,
                    "failed; goes a day after its last object was put on {}",
                    utc(*since)
                )
            }
            Self::OtherState(status) => {
                write!(f, "{status}, which the tool that made it deals with")
            }
            Self::NoEnd => f.write_str("its record does not tell when it ended"),
            Self::Snapshots => {
                f.write_str("consists of volume snapshots, which only Barman can delete")
            }
            Self::Unreadable => f.write_str("its record cannot be read, or is not there yet"),
            Self::StillThere => f.write_str("still there"),
        }
    }
}

/// Why a backup goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteReason {
    /// A newer backup covers the beginning of the window.
    OlderThanWindow,
    /// There are enough newer ones.
    BeyondRedundancy {
        /// How many stay.
        count: u32,
    },
    /// What a failed backup left.
    FailedRemains {
        /// When its objects were last put.
        since: DateTime<Utc>,
    },
    /// Its deletion was begun.
    Unfinished,
}

impl fmt::Display for DeleteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OlderThanWindow => {
                f.write_str("older than the newest backup from before the recovery window")
            }
            Self::BeyondRedundancy { count: 1 } => f.write_str("older than the newest backup"),
            Self::BeyondRedundancy { count } => write!(f, "older than the newest {count}"),
            Self::FailedRemains { since } => {
                write!(
                    f,
                    "remains of a failed backup, untouched since {}",
                    utc(*since)
                )
            }
            Self::Unfinished => f.write_str("its deletion was begun and not finished"),
        }
    }
}

/// Why WAL stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalKeepReason {
    /// A backup needs all from its beginning on.
    From {
        /// The oldest such backup.
        backup: BackupId,
        /// Where it begins.
        begin: SegmentName,
    },
    /// The timeline leads on from a backup.
    LeadsOn {
        /// The backup.
        backup: BackupId,
    },
    /// Nothing tells that the timeline does not lead on from a backup.
    UnknownHistory {
        /// The backup.
        backup: BackupId,
    },
    /// A backup kept as standalone needs it to be consistent.
    Standalone {
        /// The backup.
        backup: BackupId,
    },
    /// A backup may need it: where that begins is not known.
    MayNeed {
        /// The backup.
        backup: BackupId,
    },
    /// Something was archived on this branch of late.
    InUse {
        /// When.
        newest_put: DateTime<Utc>,
    },
    /// There is no backup to tell what is needed.
    NoBackup,
    /// The backups are of several clusters.
    SeveralClusters,
    /// The backups have segments of several sizes.
    SeveralSizes,
}

impl fmt::Display for WalKeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From { backup, begin } => write!(f, "backup {backup} needs all from {begin} on"),
            Self::LeadsOn { backup } => write!(f, "the timeline leads on from backup {backup}"),
            Self::UnknownHistory { backup } => write!(
                f,
                "no readable history tells whether the timeline leads on from backup {backup}"
            ),
            Self::Standalone { backup } => {
                write!(f, "standalone backup {backup} needs it to be consistent")
            }
            Self::MayNeed { backup } => {
                write!(
                    f,
                    "backup {backup} may need it, whose beginning is not known"
                )
            }
            Self::InUse { newest_put } => write!(
                f,
                "a branch without a backup, in use until {}",
                utc(*newest_put)
            ),
            Self::NoBackup => f.write_str("no DONE backup stays that could tell what is needed"),
            Self::SeveralClusters => {
                f.write_str("backups of several clusters stay: their WAL cannot be told apart")
            }
            Self::SeveralSizes => f.write_str("backups with several WAL segment sizes stay"),
        }
    }
}

/// Why WAL goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalDeleteReason {
    /// It lies before the beginning of the oldest backup on its line.
    Before {
        /// That backup.
        backup: BackupId,
        /// Where it begins.
        begin: SegmentName,
    },
    /// No backup that stays leads to it.
    Abandoned {
        /// When the newest of its timeline was put.
        newest_put: DateTime<Utc>,
    },
}

impl fmt::Display for WalDeleteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before { backup, begin } => {
                write!(f, "before {begin}, where backup {backup} begins")
            }
            Self::Abandoned { newest_put } => write!(
                f,
                "a branch that no backup leads to, unused since {}",
                utc(*newest_put)
            ),
        }
    }
}

fn utc(time: DateTime<Utc>) -> impl fmt::Display {
    time.format("%Y-%m-%d %H:%M:%S UTC")
}
