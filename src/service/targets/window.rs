//! What can be gone back to, timeline by timeline.
//!
//! Not here: one target (`resolve`), and printing.

use std::collections::BTreeSet;

use crate::barman::repository::{Repository, RepositoryError};
use crate::domain::log::chart::{self, Chart};
use crate::domain::log::reach::{Located, StopPoint};
use crate::domain::log::stop::Stop;
use crate::domain::lsn::Lsn;
use crate::domain::recovery::Request;
use crate::domain::segment::SegmentName;
use crate::domain::timeline::TimelineHistory;
use crate::fault::{Fault, Kind};
use crate::service::targets::begins::{self, Begin, Line};
use crate::service::targets::line_files::LineFiles;
use crate::service::targets::locate::{LocateError, Log};
use crate::service::targets::survey::Survey;

/// The steps of the chart.
const COLUMNS_MAX: usize = 60;

/// What can be recovered to along one timeline and its ancestors.
#[derive(Debug, Clone)]
pub struct Window {
    /// The timeline, with where its line left its ancestors.
    pub line: TimelineHistory,
    /// The backups that recovery along it can begin at, the one that ends first in front. Those
    /// whose own log has a gap are left out.
    pub backups: Vec<Begin>,
    /// What the log tells of where recovery gets to from any of them; without backups nothing but
    /// the gaps.
    pub survey: Survey,
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

impl Window {
    /// How busy it was over time; `None` when no transaction is known to have ended.
    pub fn chart(&self) -> Option<Chart> {
        chart::chart(&self.survey.stretches, COLUMNS_MAX)
    }
}

/// The windows of all timelines, oldest first.
///
/// The cluster is that of the newest backup: others that once had the name share no log with it.
pub async fn windows(repository: &Repository) -> Result<Vec<Window>, WindowError> {
    let mut windows = Vec::new();
    for line in begins::lines(repository).await? {
        windows.push(window(repository, line).await?);
    }
    Ok(windows)
}

/// The segments that are missing on a line behind its first backup and have others behind them:
/// the first and the last of each gap, once for all lines that share it.
pub async fn gaps(repository: &Repository) -> Result<Vec<(SegmentName, SegmentName)>, WindowError> {
    let mut gaps = BTreeSet::new();
    for line in begins::lines(repository).await? {
        let Some(start) = line.start else {
            continue;
        };
        let begin = (start.segment, start.size);
        let files = LineFiles::list(repository, &line.history, begin, None).await?;
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
    for line in begins::lines(repository).await? {
        let (Some(start), Some(first)) = (line.start, line.backups.first()) else {
            continue;
        };
        let log = Log::open(repository, &line.history, start).await?;
        if let Ok(Located::At(point)) = log.locate(first.begin, &stop).await {
            return Ok(Some(point));
        }
    }
    Ok(None)
}

async fn window(repository: &Repository, line: Line) -> Result<Window, WindowError> {
    let (backups, survey) = match line.start {
        None => (Vec::new(), Survey::default()),
        Some(start) => {
            let log = Log::open(repository, &line.history, start).await?;
            let backups = line.whole_backups(log.files());
            let begins: Vec<Lsn> = backups.iter().map(|backup| backup.begin).collect();
            let survey = log.survey(&begins).await?;
            (backups, survey)
        }
    };
    Ok(Window {
        line: line.history,
        backups,
        survey,
    })
}
