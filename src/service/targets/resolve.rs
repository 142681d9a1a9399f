//! From a target to the record at which recovery from a backup stops.
//!
//! Not here: choosing by records of backups alone (`domain::recovery`), and reading the log
//! (`locate`).

use crate::barman::repository::Repository;
use crate::domain::backup::{Backup, BackupId};
use crate::domain::log::reach::{Located, Reach, Start, StopPoint, Unreachable, judge, reached};
use crate::domain::log::stop::{Stop, What};
use crate::domain::lsn::Lsn;
use crate::domain::recovery::{Request, Target, utc};
use crate::domain::segment::SegmentNumber;
use crate::domain::timeline::{KnownTimelines, TimelineHistory, TimelineId, known_lines};
use crate::fault::{Fault, Kind};
use crate::service::targets::locate::{LocateError, Log};
use crate::service::targets::names;

/// How many times one name is looked for.
const OCCURRENCES_MAX: usize = 20;

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

/// Where recovery from this backup along this line stops; `None` for targets that no record
/// decides, and for backups whose records do not tell where they begin or end. `may_reword` says
/// whether PostgreSQL can be given another target than was asked for.
pub(crate) async fn reach(
    repository: &Repository,
    backup: &Backup,
    (line, may_reword): (&TimelineHistory, bool),
    request: &Request,
) -> Result<Option<Reach>, ResolveError> {
    let stop = Stop::of(&request.target, request.inclusive);
    let (Some(stop), Some(begin), Some(end)) = (stop, backup.begin_lsn, backup.end_lsn) else {
        return Ok(None);
    };
    let log = open(repository, line, begin, backup).await?;
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
    begin: Lsn,
    backup: &Backup,
) -> Result<Log<'a>, ResolveError> {
    let size = backup.segment_size;
    let number = SegmentNumber::holding(begin, size);
    let log = Log::open(repository, line, (number, size)).await;
    Ok(log.map_err(LocateError::from)?)
}

/// Of backups that could all come before a transaction or a restore point, the one to begin at:
/// the last that ends before it.
///
/// `candidates` end on `line`.
pub(crate) async fn choose(
    repository: &Repository,
    candidates: &[&Backup],
    line: &TimelineHistory,
    request: &Request,
) -> Result<BackupId, ResolveError> {
    let target = &request.target;
    let begins = candidates
        .iter()
        .filter_map(|backup| Some((backup.begin_lsn?, *backup)));
    let stop = Stop::of(target, request.inclusive);
    let (Some((begin, first)), Some(stop)) = (begins.min_by_key(|(lsn, _)| *lsn), stop) else {
        return Err(unknown(target, candidates).into());
    };
    let log = open(repository, line, begin, first).await?;
    let mut places: Vec<(BackupId, StopPoint)> = Vec::new();
    let mut from = begin;
    for _ in 0..OCCURRENCES_MAX {
        let Located::At(point) = log.locate(from, &stop).await? else {
            break;
        };
        // From a backup before an earlier one, recovery would stop at that.
        let fits = |backup: &&&Backup| {
            backup.begin_lsn.is_some_and(|begin| from <= begin)
                && backup.end_lsn.is_some_and(|end| end <= reached(&point))
        };
        let best = candidates.iter().filter(fits).max_by_key(|b| b.end_lsn);
        from = point.record.end;
        places.extend(best.map(|backup| (backup.id.clone(), point)));
    }
    match &places[..] {
        [] => Err(match log.locate(begin, &stop).await? {
            Located::Nowhere(end) => {
                unknown_with(target, first, &names::note(&log, &stop, &end).await)
            }
            located @ Located::At(_) => {
                let start = Start {
                    backup: &first.id,
                    end: first.end_lsn.unwrap_or(begin),
                    may_reword: false,
                };
                match judge(target, start, located, "") {
                    Err(error) => error,
                    Ok(_) => unknown(target, candidates),
                }
            }
        }
        .into()),
        [(backup, _)] => Ok(backup.clone()),
        several => Err(ResolveError::Several {
            target: target.to_string(),
            places: several.iter().map(place).collect(),
        }),
    }
}

fn unknown(target: &Target, candidates: &[&Backup]) -> Unreachable {
    match candidates.first() {
        Some(backup) => unknown_with(target, backup, ""),
        None => Unreachable::AfterEnd {
            target: target.to_string(),
            end: String::new(),
        },
    }
}

fn unknown_with(target: &Target, backup: &Backup, note: &str) -> Unreachable {
    Unreachable::Unknown {
        target: target.to_string(),
        backup: backup.id.clone(),
        note: note.to_owned(),
    }
}

fn place((backup, point): &(BackupId, StopPoint)) -> String {
    let time = match &point.record.what {
        What::TransactionEnd(end) => Some(end.time),
        What::RestorePoint { time, .. } | What::Checkpoint { time } => Some(*time),
        What::Other => None,
    };
    let at = time.map_or_else(String::new, |time| {
        format!(" of {}", utc(time.fixed_offset()))
    });
    format!("{}{at}, from backup {backup}", point.record.begin)
}
