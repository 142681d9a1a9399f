//! What can be gone back to, timeline by timeline.
//!
//! Not here: one target (`resolve`), and printing.

use std::collections::BTreeSet;

use chrono::{DateTime, FixedOffset};

use crate::barman::repository::{Repository, RepositoryError};
use crate::domain::backup::{Backup, BackupId, BackupKind, BackupStatus};
use crate::domain::log::reach::{Located, StopPoint};
use crate::domain::log::stop::Stop;
use crate::domain::lsn::Lsn;
use crate::domain::recovery::Request;
use crate::domain::segment::SegmentName;
use crate::domain::timeline::{KnownTimelines, TimelineHistory, TimelineId, known_lines};
use crate::fault::{Fault, Kind};
use crate::service::targets::line_files::LineFiles;
use crate::service::targets::locate::{LocateError, Log, LogStart};
use crate::service::targets::survey::Survey;

/// What can be recovered to along one timeline and its ancestors.
#[derive(Debug, Clone)]
pub struct Window {
    /// The timeline, with where its line left its ancestors.
    pub line: TimelineHistory,
    /// The backups that recovery along it can begin at, the one that ends first in front.
    pub backups: Vec<Begin>,
    /// What the log tells, from the first of them on; empty where there is none.
    pub survey: Survey,
}

/// A backup at which recovery can begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Its id.
    pub id: BackupId,
    /// Where it begins.
    pub begin: Lsn,
    /// Where it is consistent.
    pub end: Lsn,
    /// When.
    pub end_time: Option<DateTime<FixedOffset>>,
}

/// Why the windows cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// The archive cannot be looked at.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The log cannot be looked at.
    #[error(transparent)]
    Locate(#[from] LocateError),
}

impl Fault for WindowError {
    fn kind(&self) -> Kind {
        match self {
            Self::Repository(error) => error.kind(),
            Self::Locate(error) => error.kind(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Repository(error) => error.hint(),
            Self::Locate(error) => error.hint(),
        }
    }
}

/// The windows of all timelines, oldest first.
///
/// The cluster is that of the newest backup: others that once had the name share no log with it.
pub async fn windows(repository: &Repository) -> Result<Vec<Window>, WindowError> {
    let mut windows = Vec::new();
    for (line, backups) in begins(repository).await? {
        windows.push(window(repository, line, backups).await?);
    }
    Ok(windows)
}

/// The segments that are missing on a line behind its first backup and have others behind them:
/// the first and the last of each gap, once for all lines that share it.
pub async fn gaps(repository: &Repository) -> Result<Vec<(SegmentName, SegmentName)>, WindowError> {
    let mut gaps = BTreeSet::new();
    for (line, backups) in begins(repository).await? {
        let Some((_, start)) = backups.first() else {
            continue;
        };
        let files = LineFiles::list(repository, &line, (start.segment, start.size), None).await?;
        gaps.extend(files.named_gaps());
    }
    Ok(gaps.into_iter().collect())
}

/// The first record of any line, behind its first backup, at which recovery would stop.
pub(crate) async fn on_any_line(
    repository: &Repository,
    recovery: &Request,
) -> Result<Option<StopPoint>, WindowError> {
    let Some(stop) = Stop::of(&recovery.target, recovery.inclusive) else {
        return Ok(None);
    };
    for (line, backups) in begins(repository).await? {
        let Some((first, start)) = backups.first() else {
            continue;
        };
        let log = Log::open(repository, &line, *start).await?;
        if let Ok(Located::At(point)) = log.locate(first.begin, &stop).await {
            return Ok(Some(point));
        }
    }
    Ok(None)
}

/// Where recovery can begin, and the log that it needs; the one that ends first in front.
type Begins = Vec<(Begin, LogStart)>;

/// Each line with the backups on it.
async fn begins(repository: &Repository) -> Result<Vec<(TimelineHistory, Begins)>, WindowError> {
    let entries = repository.list_backups().await?.backups.into_iter();
    let all: Vec<Backup> = entries.map(|entry| entry.backup).collect();
    let histories = repository.read_histories().await?;
    let timelines = KnownTimelines {
        unreadable: histories.unreadable.iter().map(|h| h.timeline).collect(),
        histories: histories.read,
    };
    let is_usable =
        |backup: &&Backup| backup.status == BackupStatus::Done && backup.kind == BackupKind::Full;
    let usable: Vec<&Backup> = all.iter().filter(is_usable).collect();
    let newest = usable
        .iter()
        .max_by_key(|backup| (backup.end_time, &backup.id));
    let system_id = newest.and_then(|backup| backup.system_id);
    let of_cluster = |backup: &&&Backup| backup.system_id == system_id;
    let usable: Vec<&Backup> = usable.iter().filter(of_cluster).copied().collect();
    let lines = lines(&usable, &timelines).into_iter();
    Ok(lines.map(|line| begins_on(line, &usable)).collect())
}

/// The line of each timeline that a history or a backup tells of, oldest first.
fn lines(backups: &[&Backup], timelines: &KnownTimelines) -> Vec<TimelineHistory> {
    let mut lines = known_lines(&timelines.histories);
    for timeline in backups.iter().filter_map(|backup| end_timeline(backup)) {
        let root = || TimelineHistory::root(timeline);
        lines.entry(timeline).or_insert_with(root);
    }
    lines.into_values().collect()
}

/// The timeline that a backup ended on: a standby may follow its primary while it is copied.
fn end_timeline(backup: &Backup) -> Option<TimelineId> {
    let of_wal = backup.end_wal.map(SegmentName::timeline);
    of_wal.or(backup.timeline)
}

fn begins_on(line: TimelineHistory, usable: &[&Backup]) -> (TimelineHistory, Begins) {
    let on_line = usable.iter().filter_map(|backup| {
        let begin = Begin {
            id: backup.id.clone(),
            begin: backup.begin_lsn?,
            end: backup.end_lsn?,
            end_time: backup.end_time,
        };
        let is_on = line.holds(end_timeline(backup)?, begin.end);
        is_on.then_some((begin, LogStart::of(backup)?))
    });
    let mut begins: Begins = on_line.collect();
    begins.sort_by_key(|(begin, _)| begin.end);
    (line, begins)
}

async fn window(
    repository: &Repository,
    line: TimelineHistory,
    backups: Begins,
) -> Result<Window, WindowError> {
    let survey = match backups.first() {
        None => Survey::default(),
        Some((first, start)) => {
            let log = Log::open(repository, &line, *start).await?;
            log.survey(first.begin).await?
        }
    };
    Ok(Window {
        line,
        backups: backups.into_iter().map(|(begin, _)| begin).collect(),
        survey,
    })
}
