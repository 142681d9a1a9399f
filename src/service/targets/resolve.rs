//! From a target to the record at which recovery from a backup stops.
//!
//! Not here: choosing by records of backups alone (`domain::recovery`), and reading the log
//! (`locate`).

use std::cmp::Reverse;

use crate::barman::repository::Repository;
use crate::domain::backup::{Backup, BackupId};
use crate::domain::log::reach::{Located, Reach, Start, StopPoint, Unreachable, judge};
use crate::domain::log::stop::Stop;
use crate::domain::lsn::Lsn;
use crate::domain::recovery::{Request, Target, utc};
use crate::domain::timeline::{KnownTimelines, TimelineHistory, TimelineId, known_lines};
use crate::fault::{Fault, Kind};
use crate::service::targets::line_files::LineFiles;
use crate::service::targets::locate::{LocateError, Log, LogStart};
use crate::service::targets::names;

/// From how many backups one name is looked for, the newest first.
const CANDIDATES_MAX: usize = 50;

/// Why a target has no place in the log.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Recovery does not get there.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// It cannot be told.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// The target is in several places.
    #[error("{target} is in several places: {}", places.join("; "))]
    Several {
        /// The target.
        target: String,
        /// Where, when, and from which backup recovery gets there.
        places: Vec<String>,
    },
}

impl ResolveError {
    /// Whether nothing is known against the target but that it cannot be looked for: too much of
    /// the log is not in the index, or the server is of a version that is not known here.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Locate(LocateError::NotIndexed { .. }) => true,
            Self::Locate(LocateError::Scan(error)) => error.kind() == Kind::Unsupported,
            _ => false,
        }
    }
}

impl Fault for ResolveError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreachable(error) => error.kind(),
            Self::Locate(error) => error.kind(),
            Self::Several { .. } => Kind::Refused,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Unreachable(error) => error.hint(),
            Self::Locate(error) => error.hint(),
            Self::Several { .. } => {
                "Give the backup of the one that is meant with --backup-id, or its LSN as the target."
                    .to_owned()
            }
        }
    }
}

/// The line of a timeline, as far as the archive tells.
pub(crate) fn line_of(timelines: &KnownTimelines, timeline: TimelineId) -> TimelineHistory {
    let known = known_lines(&timelines.histories).remove(&timeline);
    known.unwrap_or(TimelineHistory::root(timeline))
}

/// Where recovery from this backup along the line of these files stops; `None` for targets that no record
/// decides, and for backups whose records do not tell where they begin or end. `may_reword` says
/// whether PostgreSQL can be given another target than was asked for.
pub(crate) async fn reach(
    repository: &Repository,
    backup: &Backup,
    (files, may_reword): (&LineFiles, bool),
    request: &Request,
) -> Result<Option<Reach>, ResolveError> {
    let stop = Stop::of(&request.target, request.inclusive);
    let (Some(stop), Some(begin), Some(end)) = (stop, backup.begin_lsn, backup.end_lsn) else {
        return Ok(None);
    };
    let Some(log_start) = LogStart::of(backup) else {
        return Ok(None);
    };
    let log = Log::of(repository, files.clone(), log_start).await;
    let log = log.map_err(LocateError::from)?;
    let located = log.locate(begin, &stop).await?;
    let note = match &located {
        Located::Nowhere(end) => names::note(&log, &stop, end).await,
        Located::At(_) => String::new(),
    };
    let start = Start {
        backup: &backup.id,
        end,
        may_reword,
    };
    Ok(Some(judge(&request.target, start, located, &note)?))
}

async fn open<'a>(
    repository: &'a Repository,
    line: &TimelineHistory,
    start: LogStart,
) -> Result<Log<'a>, ResolveError> {
    let log = Log::open(repository, line, start).await;
    Ok(log.map_err(LocateError::from)?)
}

/// Of backups that could all come before a transaction or a restore point, the one to begin at:
/// the last that ends before it.
///
/// From each backup recovery stops at the first that it meets, and a gap behind one is none behind
/// a later one. `candidates` end on `line`.
pub(crate) async fn choose(
    repository: &Repository,
    candidates: &[&Backup],
    line: &TimelineHistory,
    request: &Request,
) -> Result<BackupId, ResolveError> {
    let target = &request.target;
    let mut begins: Vec<(Lsn, Lsn, &Backup)> = candidates
        .iter()
        .filter_map(|backup| Some((backup.begin_lsn?, backup.end_lsn?, *backup)))
        .collect();
    begins.sort_by_key(|(begin, ..)| Reverse(*begin));
    let stop = Stop::of(target, request.inclusive);
    let (Some((_, _, oldest)), Some(stop)) = (begins.last().copied(), stop) else {
        return Err(unknown(target, candidates).into());
    };
    let Some(log_start) = LogStart::of(oldest) else {
        return Err(unknown(target, candidates).into());
    };
    let log = open(repository, line, log_start).await?;
    let mut places: Vec<(BackupId, StopPoint)> = Vec::new();
    let mut refusal = None;
    // One refusal is told, that of the newest, with the names behind all of them.
    let (mut nowhere, mut names_met) = (None, Vec::new());
    for (begin, end, backup) in begins.into_iter().take(CANDIDATES_MAX) {
        let start = Start {
            backup: &backup.id,
            end,
            may_reword: false,
        };
        let located = log.locate(begin, &stop).await?;
        if let Located::Nowhere(end) = &located {
            names_met.extend_from_slice(&end.names);
            if refusal.is_none() {
                nowhere = Some((start, end.clone()));
            }
        }
        match judge(target, start, located, "") {
            Ok(Reach::AsAsked(point)) => {
                let is_new = places.iter().all(|(_, known)| *known != point);
                places.extend(is_new.then(|| (backup.id.clone(), point)));
                // One transaction ends once.
                if matches!(stop, Stop::Xid { .. }) {
                    break;
                }
            }
            Ok(Reach::UpTo { .. }) => {}
            // What the newest says is nearest to what was meant.
            Err(error) => drop(refusal.get_or_insert(error)),
        }
    }
    if let Some((start, mut end)) = nowhere.filter(|_| places.is_empty()) {
        end.names = names_met;
        let note = names::note(&log, &stop, &end).await;
        refusal = judge(target, start, Located::Nowhere(end), &note).err();
    }
    match (&places[..], refusal) {
        ([], Some(refusal)) => Err(refusal.into()),
        ([], None) => Err(unknown(target, candidates).into()),
        ([(backup, _)], _) => Ok(backup.clone()),
        (several, _) => Err(ResolveError::Several {
            target: target.to_string(),
            places: several.iter().map(place).collect(),
        }),
    }
}

fn unknown(target: &Target, candidates: &[&Backup]) -> Unreachable {
    match candidates.first() {
        Some(backup) => Unreachable::Unknown {
            target: target.to_string(),
            backup: backup.id.clone(),
            note: String::new(),
        },
        None => Unreachable::AfterEnd {
            target: target.to_string(),
            end: String::new(),
        },
    }
}

fn place((backup, point): &(BackupId, StopPoint)) -> String {
    let at = point.record.what.time().map_or_else(String::new, |time| {
        format!(" of {}", utc(time.fixed_offset()))
    });
    format!("{}{at}, from backup {backup}", point.record.begin)
}
