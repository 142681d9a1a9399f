//! What a restore would do, decided before anything is written: a value, with its reasons.
//!
//! Not here: doing it (`run`), choosing among backups (`chosen`).

use std::path::PathBuf;

use crate::barman::backup_info::BackupInfo;
use crate::barman::repository::Repository;
use crate::domain::backup::{Backup, BackupId};
use crate::domain::log::reach::{Reach, StopPoint};
use crate::domain::recovery::Target;
use crate::domain::timeline::{KnownTimelines, TimelineId};
use crate::fault;
use crate::service::restore::archives::PlannedArchive;
use crate::service::restore::chosen::{Chosen, Known};
use crate::service::restore::directories::DirectoryState;
use crate::service::restore::error::RestoreError;
use crate::service::restore::needed_wal::WalRange;
use crate::service::restore::places::{Places, PlannedTablespace};
use crate::service::restore::request::{Configuration, RestoreRequest};
use crate::service::restore::settings::{RestoreCommand, TargetAction, TimelineWord};
use crate::service::restore::source;
use crate::service::restore::space::{self, SpaceCheck};
use crate::service::restore::way::Way;

/// What a restore would do.
#[derive(Debug, Clone)]
pub struct RestorePlan {
    /// The backup restored from.
    pub backup: Backup,
    /// Its record, with the text of its `backup_label`.
    pub info: BackupInfo,
    /// How far recovery goes.
    pub target: Target,
    /// Whether the target itself is replayed.
    pub is_inclusive: bool,
    /// The record at which recovery stops, where the target has one and the log was looked at.
    pub stop: Option<StopPoint>,
    /// Along which timeline.
    pub timeline: TimelineId,
    /// What PostgreSQL is told of it.
    pub timeline_word: TimelineWord,
    /// What the server does at the target.
    pub action: TargetAction,
    /// Why this backup and timeline, as sentences.
    pub reasons: Vec<String>,
    /// The other backups and why not they.
    pub passed_over: Vec<(BackupId, String)>,
    /// What is odd without being in the way.
    pub warnings: Vec<String>,
    /// The data directory, resolved.
    pub pgdata: PathBuf,
    /// What it is now.
    pub pgdata_state: DirectoryState,
    /// The tablespaces, each with its archives' number and its place.
    pub tablespaces: Vec<PlannedTablespace>,
    /// What is fetched.
    pub archives: Vec<PlannedArchive>,
    /// The sum of their sizes as stored.
    pub fetch_bytes: u64,
    /// The segments without which the copy never becomes consistent; all are in the archive.
    pub wal: WalRange,
    /// The file systems written to.
    pub space: Vec<SpaceCheck>,
    /// How the new server fetches WAL.
    pub restore_command: RestoreCommand,
    /// Who configures recovery.
    pub configuration: Configuration,
    /// Archives restored at a time.
    pub jobs: usize,
}

/// Decides what a restore does. Reads the store and looks at the directories; changes nothing.
pub async fn plan(
    repository: &Repository,
    request: &RestoreRequest,
) -> Result<RestorePlan, RestoreError> {
    let catalog = repository.list_backups().await?;
    let (timelines, mut warnings) = known_timelines(repository).await?;
    warnings.extend(catalog.unreadable.iter().map(|unreadable| {
        let (id, reason) = (&unreadable.id, &unreadable.reason);
        format!("Backup {id} could not be considered, because its record cannot be read: {reason}.")
    }));
    let entries = catalog.backups.into_iter();
    let backups: Vec<Backup> = entries.map(|entry| entry.backup).collect();
    let known = Known {
        repository,
        backups: &backups,
        timelines: &timelines,
    };
    let mut chosen = known.choose_by_log(&request.recovery).await?;
    warnings.append(&mut chosen.warnings);
    let way = Way {
        repository,
        backup: &chosen.backup,
        backups: &backups,
        timeline: chosen.choice.timeline,
        timelines: &timelines,
    };
    let reach = match (way.reach_of(request).await, chosen.instead_of.take()) {
        (Err(error), _) if request.accepts_gap && error.is_gap() => {
            warnings.push(format!("Accepted as asked: {error}."));
            None
        }
        // It does not lead to the same end after all.
        (Err(error), Some(damage)) if error.is_gap() => {
            return Err(RestoreError::NoOtherBackup {
                damage: Box::new(damage),
                other: chosen.backup.id,
                gap: Box::new(error),
            });
        }
        (reached, _) => {
            let (reach, mut told) = reached?;
            warnings.append(&mut told);
            reach
        }
    };
    let places = Places::decide(request, &chosen.backup, &chosen.info)?;
    let space = space::check(&places, &chosen.archives, &chosen.backup, &mut warnings)?;
    let target = &request.recovery.target;
    warnings.extend(source::warning(target, &places, &chosen.info));
    let found = Found {
        reach,
        warnings,
        places,
        space,
    };
    Ok(assemble(request, chosen, found))
}

/// What the archive tells of its timelines, with a warning for each history that makes no sense.
async fn known_timelines(
    repository: &Repository,
) -> Result<(KnownTimelines, Vec<String>), RestoreError> {
    let histories = repository.read_histories().await?;
    let unreadable = histories.unreadable.iter();
    let warnings = unreadable
        .clone()
        .map(|history| {
            let (timeline, key) = (history.timeline, &history.key);
            let reason = fault::chain(&history.error);
            format!(
                "Timeline {timeline} could not be considered, because its history {key} cannot be read: {reason}."
            )
        })
        .collect();
    let timelines = KnownTimelines {
        unreadable: unreadable.map(|history| history.timeline).collect(),
        histories: histories.read,
    };
    Ok((timelines, warnings))
}

struct Found {
    reach: Option<Reach>,
    warnings: Vec<String>,
    places: Places,
    space: Vec<SpaceCheck>,
}

fn assemble(request: &RestoreRequest, chosen: Chosen, found: Found) -> RestorePlan {
    let mut choice = chosen.choice;
    let (mut target, mut is_inclusive) =
        (request.recovery.target.clone(), request.recovery.inclusive);
    let stop = match found.reach {
        Some(Reach::AsAsked(point)) => Some(point),
        Some(Reach::UpTo { lsn, reason }) => {
            (target, is_inclusive) = (Target::Lsn(lsn), false);
            choice.reasons.push(reason);
            None
        }
        None => None,
    };
    // Any number but 1 must have its history file in the archive.
    let is_number = choice.has_history || choice.timeline == TimelineId::FIRST;
    RestorePlan {
        target,
        is_inclusive,
        stop,
        timeline: choice.timeline,
        timeline_word: if is_number {
            TimelineWord::Number(choice.timeline)
        } else {
            TimelineWord::Current
        },
        action: request.action,
        reasons: choice.reasons,
        passed_over: choice.passed_over,
        warnings: found.warnings,
        pgdata: found.places.pgdata,
        pgdata_state: found.places.pgdata_state,
        tablespaces: found.places.tablespaces,
        fetch_bytes: chosen
            .archives
            .iter()
            .map(|archive| archive.stored.size)
            .sum(),
        archives: chosen.archives,
        wal: chosen.wal,
        space: found.space,
        restore_command: request.restore_command.clone(),
        configuration: request.configuration,
        jobs: request.jobs.max(1),
        backup: chosen.backup,
        info: chosen.info,
    }
}
