//! Which backup a recovery starts from, and along which timeline: a decision over values.
//!
//! Not here: reading the catalog, fetching anything, the settings PostgreSQL is given.

use chrono::{DateTime, FixedOffset, Utc};

use crate::domain::backup::{Backup, BackupId};
use crate::domain::lsn::Lsn;
use crate::domain::timeline::{TimelineHistory, TimelineId};

/// How far recovery goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// As far as the archive reaches.
    Latest,
    /// Until the backup is consistent, and no further.
    Immediate,
    /// Up to the commits of this moment.
    Time(DateTime<FixedOffset>),
    /// Up to the commit of this transaction.
    Xid(u32),
    /// Up to this position.
    Lsn(Lsn),
    /// Up to this restore point.
    Name(String),
}

/// Along which line of descent recovery goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimelineWish {
    /// The newest: the highest timeline whose line holds a backup that can serve.
    Latest,
    /// This one and its ancestors.
    Number(TimelineId),
    /// The timeline that the backup ended on.
    Current,
}

/// What a user asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// How far.
    pub target: Target,
    /// Whether what lies exactly at the target is replayed.
    pub inclusive: bool,
    /// Along which line.
    pub timeline: TimelineWish,
    /// From this backup and no other.
    pub backup: Option<BackupId>,
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The backup.
    pub backup: BackupId,
    /// The line of recovery.
    ///
    /// PostgreSQL must be given this number, not `latest`: its own `latest` counts up from the
    /// backup's timeline while history files exist, whether or not those are its descendants.
    pub timeline: TimelineId,
    /// Whether the archive holds the history file of `timeline`. Where it does not, PostgreSQL
    /// refuses any number but 1, and must be told `current`.
    pub has_history: bool,
    /// Why, as sentences.
    pub reasons: Vec<String>,
    /// The other backups and why not they.
    pub passed_over: Vec<(BackupId, String)>,
}

/// Why nothing could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The server has no backup at all.
    #[error("there is no backup to recover from")]
    NoBackup,
    /// No backup of the id asked for.
    #[error("there is no backup {id}")]
    UnknownBackup {
        /// The id.
        id: BackupId,
    },
    /// The backup asked for cannot serve.
    #[error("backup {id} cannot be used: {reason}")]
    Unfit {
        /// The id.
        id: BackupId,
        /// Why not.
        reason: String,
    },
    /// The timeline asked for is not in the archive.
    #[error("timeline {timeline} is not in the archive, which knows {known}")]
    UnknownTimeline {
        /// The timeline.
        timeline: TimelineId,
        /// Those that are.
        known: String,
    },
    /// The target lies before the first backup was consistent.
    #[error(
        "{target} cannot be reached: the earliest time that can be recovered is {}",
        utc(*earliest)
    )]
    TooEarly {
        /// The target.
        target: String,
        /// The end of the first backup that can serve.
        earliest: DateTime<FixedOffset>,
        /// Each backup and why not.
        passed_over: Vec<(BackupId, String)>,
    },
    /// No backup can serve.
    #[error("no backup can be used for {target}")]
    NoCandidate {
        /// The target.
        target: String,
        /// Each backup and why not.
        passed_over: Vec<(BackupId, String)>,
    },
    /// Several could serve, and nothing tells which lies before the target.
    #[error(
        "{target} does not tell where in the log it lies, and {} backups could come before it: {}",
        candidates.len(), joined(candidates)
    )]
    Ambiguous {
        /// The target.
        target: String,
        /// The backups.
        candidates: Vec<BackupId>,
    },
}

fn joined(ids: &[BackupId]) -> String {
    let ids: Vec<&str> = ids.iter().map(BackupId::as_str).collect();
    ids.join(", ")
}

/// A moment in UTC, as it is shown to people.
fn utc(moment: DateTime<FixedOffset>) -> String {
    moment
        .with_timezone(&Utc)
        .format("%Y-%m-%d %H:%M:%S%.f+00")
        .to_string()
}

/// Chooses the backup and the timeline.
///
/// Only DONE backups serve, only where their end lies on the line of recovery, and only where they
/// end at or before the target. Of those the one that ends last is chosen.
pub fn choose(
    _backups: &[Backup],
    _histories: &[TimelineHistory],
    _request: &Request,
) -> Result<Choice, Refusal> {
    Err(Refusal::NoBackup)
}
