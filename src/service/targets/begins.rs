//! The lines of an archive's cluster, each with the backups that recovery along it can begin at.
//!
//! Not here: the log behind them (`locate`), and choosing among them for a target.

use chrono::{DateTime, FixedOffset};

use crate::barman::repository::{Repository, RepositoryError};
use crate::domain::backup::{Backup, BackupId, BackupKind, BackupStatus};
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber};
use crate::domain::timeline::{KnownTimelines, TimelineHistory, TimelineId, known_lines};
use crate::service::targets::line_files::LineFiles;
use crate::service::targets::locate::LogStart;

/// A backup at which recovery can begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Its id.
    pub id: BackupId,
    /// The timeline that it ended on.
    pub timeline: TimelineId,
    /// Where it begins.
    pub begin: Lsn,
    /// Where it is consistent.
    pub end: Lsn,
    /// When.
    pub end_time: Option<DateTime<FixedOffset>>,
}

/// A timeline and its ancestors, with the backups on them.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// The line.
    pub(crate) history: TimelineHistory,
    /// The backups whose end lies on it, the one that ends first in front.
    pub(crate) backups: Vec<Begin>,
    /// Where the log that they need begins; `None` without backups.
    pub(crate) start: Option<LogStart>,
}

impl Line {
    /// The backups that can become consistent: the log from the beginning to the end of each is
    /// there.
    pub(crate) fn whole_backups(&self, files: &LineFiles) -> Vec<Begin> {
        let is_whole = |backup: &&Begin| {
            let begin = SegmentNumber::holding(backup.begin, files.size());
            let end = SegmentNumber::ending_at(backup.end.max(Lsn::new(1)), files.size());
            files.last_without_gap(begin) >= Some(end.max(begin))
        };
        self.backups.iter().filter(is_whole).cloned().collect()
    }
}

/// The lines of the cluster, oldest timeline first.
///
/// The cluster is that of the newest backup: others that once had the name share no log with it.
pub(crate) async fn lines(repository: &Repository) -> Result<Vec<Line>, RepositoryError> {
    let entries = repository
        .list_backups_to_restore()
        .await?
        .backups
        .into_iter();
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
    let histories = histories_of(&usable, &timelines).into_iter();
    Ok(histories.map(|history| line(history, &usable)).collect())
}

/// The line of each timeline that a history or a backup tells of, oldest first.
fn histories_of(backups: &[&Backup], timelines: &KnownTimelines) -> Vec<TimelineHistory> {
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

fn line(history: TimelineHistory, usable: &[&Backup]) -> Line {
    let on_line = usable.iter().filter_map(|backup| {
        let begin = Begin {
            id: backup.id.clone(),
            timeline: end_timeline(backup)?,
            begin: backup.begin_lsn?,
            end: backup.end_lsn?,
            end_time: backup.end_time,
        };
        let is_on = history.holds(begin.timeline, begin.end);
        is_on.then_some((begin, LogStart::of(backup)?))
    });
    let mut on_line: Vec<(Begin, LogStart)> = on_line.collect();
    on_line.sort_by(|(one, _), (other, _)| (one.end, &one.id).cmp(&(other.end, &other.id)));
    let starts = on_line.iter().map(|(_, start)| *start);
    Line {
        history,
        // A long backup begins before a short one that ends before it.
        start: starts.min_by_key(|start| start.segment),
        backups: on_line.into_iter().map(|(begin, _)| begin).collect(),
    }
}
