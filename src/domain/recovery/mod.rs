//! Which backup a recovery starts from, and along which timeline: a decision over values.
//!
//! Not here: reading the catalog, fetching anything, the settings PostgreSQL is given.

mod search;

use std::fmt;

use chrono::{DateTime, FixedOffset, Utc};

use crate::domain::backup::{Backup, BackupId};
use crate::domain::lsn::Lsn;
use crate::domain::recovery::search::Search;
use crate::domain::timeline::{KnownTimelines, TimelineId};
use crate::fault::{Fault, Kind};

/// How many backups a refusal names with their reasons.
const PASSED_OVER_SHOWN_MAX: usize = 10;

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
    /// Whether the log is to tell that no transaction ended between a target in time and the end
    /// of the backup, which then may come later.
    pub may_end_later: bool,
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The backup.
    pub backup: BackupId,
    /// The line of recovery: this timeline and its ancestors.
    pub timeline: TimelineId,
    /// Whether the archive holds the history file of `timeline`.
    pub has_history: bool,
    /// Why, as sentences.
    pub reasons: Vec<String>,
    /// The other backups and why not they, in the order they were given.
    pub passed_over: Vec<(BackupId, String)>,
}

impl Choice {
    /// What PostgreSQL must be given as `recovery_target_timeline`.
    ///
    /// Not `latest`: PostgreSQL's own meaning of that counts up from the backup's timeline while
    /// history files exist, and stops dead at one that is no descendant (`findNewestTimeLine`,
    /// src/backend/access/transam/timeline.c). Nor a number without a history file, which it
    /// refuses for all but the first timeline; `current` is then the same line.
    pub fn recovery_target_timeline(&self) -> String {
        if self.has_history || self.timeline == TimelineId::FIRST {
            self.timeline.to_string()
        } else {
            "current".to_owned()
        }
    }
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
    #[error("timeline {timeline} is not in the archive, which holds {known}")]
    UnknownTimeline {
        /// The timeline.
        timeline: TimelineId,
        /// Those that are.
        known: String,
    },
    /// The archive has a history of the timeline to follow, and it makes no sense.
    #[error("the history of timeline {timeline} cannot be read, and {needed}")]
    UnreadableHistory {
        /// The timeline.
        timeline: TimelineId,
        /// What it is needed for.
        needed: String,
    },
    /// The target lies before the first backup was consistent.
    #[error("{target} lies before the earliest that can be recovered, which is {earliest}")]
    TooEarly {
        /// The target.
        target: String,
        /// The end of the first backup that can serve: a time, or an LSN for a target that is one.
        earliest: String,
        /// Each backup and why not.
        passed_over: Vec<(BackupId, String)>,
    },
    /// No backup can serve.
    #[error("no backup can be used for {target}: {}", listed(passed_over))]
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
        /// The line that they are on.
        timeline: TimelineId,
        /// The backups, oldest end first.
        candidates: Vec<BackupId>,
    },
}

impl Fault for Refusal {
    fn kind(&self) -> Kind {
        match self {
            Self::NoBackup | Self::UnknownBackup { .. } => Kind::NotFound,
            Self::UnreadableHistory { .. } => Kind::Corrupt,
            _ => Kind::Refused,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::NoBackup => "Take one with `cellarman backup create`, or check --server.",
            Self::Unfit { .. } => "Leave --backup-id out to have a backup chosen.",
            Self::UnknownTimeline { .. } => "Choose one of those, or `latest`.",
            Self::UnreadableHistory { .. } => {
                "Put the server's own copy of that .history file back into the archive, or choose another \
                 timeline with --target-timeline."
            }
            Self::TooEarly { .. } => "Choose a target at or after that.",
            Self::Ambiguous { .. } => {
                "Give the last backup that ended before the target with --backup-id."
            }
            Self::UnknownBackup { .. } | Self::NoCandidate { .. } => {
                "Look at the backups with `cellarman backup list`."
            }
        }
        .to_owned()
    }
}

fn joined(ids: &[BackupId]) -> String {
    let ids: Vec<&str> = ids.iter().map(BackupId::as_str).collect();
    ids.join(", ")
}

/// The newest of the backups with their reasons.
fn listed(passed_over: &[(BackupId, String)]) -> String {
    let newest = passed_over.iter().rev().take(PASSED_OVER_SHOWN_MAX);
    let mut text: Vec<String> = newest.map(|(id, why)| format!("{id}: {why}")).collect();
    let rest = passed_over.len().saturating_sub(PASSED_OVER_SHOWN_MAX);
    if rest > 0 {
        text.push(format!("and {rest} more"));
    }
    text.join("; ")
}

/// A moment in UTC, as it is shown to people.
pub(crate) fn utc(moment: DateTime<FixedOffset>) -> String {
    let moment = moment.with_timezone(&Utc);
    moment.format("%Y-%m-%d %H:%M:%S%.f+00").to_string()
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("the end of the archive"),
            Self::Immediate => f.write_str("the end of a backup"),
            Self::Time(time) => write!(f, "time {}", utc(*time)),
            Self::Xid(xid) => write!(f, "transaction {xid}"),
            Self::Lsn(lsn) => write!(f, "LSN {lsn}"),
            Self::Name(name) => write!(f, "restore point {name:?}"),
        }
    }
}

/// Chooses the backup and the timeline.
///
/// Only DONE backups serve, only where their end lies on the line of recovery, and only where they
/// end at or before the target. Of those the one that ends last is chosen.
///
/// A history that cannot be read stands in the way only of who asks for its timeline, of backups
/// that know no other line, and of `latest` where it might be the latest: not to be able to tell
/// which is the newest is no reason to go back to an older one.
///
/// A target exactly at a backup's end can be reached, exclusive or not: replay stops before or
/// after a record that begins there, and the record that makes the copy consistent came before.
pub fn choose(
    backups: &[Backup],
    timelines: &KnownTimelines,
    request: &Request,
) -> Result<Choice, Refusal> {
    choose_past(backups, timelines, request, &[])
}

/// Chooses as [`choose`] does, past backups that were found damaged, each with what is wrong.
///
/// They still tell which timelines there are and whose archive it is: what they are damaged in says
/// nothing of that.
pub fn choose_past(
    backups: &[Backup],
    timelines: &KnownTimelines,
    request: &Request,
    damaged: &[(BackupId, String)],
) -> Result<Choice, Refusal> {
    let mut search = Search::new(backups, timelines, request);
    search.go_past(damaged);
    search.check_timeline()?;
    let choice = match &request.backup {
        Some(id) => search.judge(id),
        None => search.find(),
    };
    search.check_newest(choice)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unreadable;
