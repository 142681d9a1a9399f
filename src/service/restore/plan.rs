//! What a restore would do, decided before anything is written: a value, with its reasons.
//!
//! Not here: doing it (`run`), choosing among backups (`domain::recovery`).

use std::path::PathBuf;

use crate::barman::backup_info::BackupInfo;
use crate::barman::repository::Repository;
use crate::domain::backup::{Backup, BackupId, Keep};
use crate::domain::recovery::{self, Choice, Target};
use crate::domain::timeline::{KnownTimelines, TimelineId};
use crate::fault;
use crate::service::restore::archives::{PlannedArchive, planned_archives, stored_objects};
use crate::service::restore::directories::DirectoryState;
use crate::service::restore::error::RestoreError;
use crate::service::restore::needed_wal::{WalRange, check_wal_to_target, needed_wal};
use crate::service::restore::places::{Places, PlannedTablespace};
use crate::service::restore::request::RestoreRequest;
use crate::service::restore::settings::{RestoreCommand, TargetAction, TimelineWord};
use crate::service::restore::source;
use crate::service::restore::space::{self, SpaceCheck};

/// The first version whose recovery is configured as this module does it.
const VERSION_MIN: u32 = 120_000;

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
    let entries = catalog.backups.iter();
    let standalone: Vec<BackupId> = entries
        .filter(|entry| entry.keep == Some(Keep::Standalone))
        .map(|entry| entry.backup.id.clone())
        .collect();
    let entries = catalog.backups.into_iter();
    let backups: Vec<Backup> = entries.map(|entry| entry.backup).collect();
    let choice = recovery::choose(&backups, &timelines, &request.recovery)?;
    warnings.extend(catalog.unreadable.iter().map(|unreadable| {
        let (id, reason) = (&unreadable.id, &unreadable.reason);
        format!("Backup {id} could not be considered, because its record cannot be read: {reason}.")
    }));
    if standalone.contains(&choice.backup) && request.recovery.target != Target::Immediate {
        warnings.push(format!(
            "Backup {} is kept as standalone: expiring leaves it only the WAL that makes it \
             consistent, and recovery ends where the archive has its first gap. --target-immediate \
             asks for what is certain.",
            choice.backup
        ));
    }
    let info = repository.backup_info(&choice.backup).await?;
    let backup = info.to_backup(&choice.backup);
    if !backups.contains(&backup) {
        let id = choice.backup;
        let reason = "its record has changed meanwhile".to_owned();
        return Err(RestoreError::Choice(recovery::Refusal::Unfit {
            id,
            reason,
        }));
    }
    check_kind(&backup, &info)?;
    let objects = stored_objects(repository, &backup.id, &mut warnings).await?;
    let stored = repository.archives(&backup.id).await?;
    let archives = planned_archives(&backup, stored, objects.as_ref())?;
    let wal = needed_wal(repository, &backup, &timelines).await?;
    if let Target::Lsn(target) = request.recovery.target {
        let line = (choice.timeline, &timelines);
        check_wal_to_target(repository, &backup, target, line).await?;
    }
    let places = Places::decide(request, &backup, &info)?;
    let space = space::check(&places, &archives, &backup, &mut warnings)?;
    warnings.extend(source::warning(&request.recovery.target, &places, &info));
    Ok(assemble(
        request,
        choice,
        (backup, info),
        Found {
            warnings,
            archives,
            wal,
            places,
            space,
        },
    ))
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
    warnings: Vec<String>,
    archives: Vec<PlannedArchive>,
    wal: WalRange,
    places: Places,
    space: Vec<SpaceCheck>,
}

fn assemble(
    request: &RestoreRequest,
    choice: Choice,
    (backup, info): (Backup, BackupInfo),
    found: Found,
) -> RestorePlan {
    // Any number but 1 must have its history file in the archive.
    let is_number = choice.has_history || choice.timeline == TimelineId::FIRST;
    RestorePlan {
        target: request.recovery.target.clone(),
        is_inclusive: request.recovery.inclusive,
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
        fetch_bytes: found
            .archives
            .iter()
            .map(|archive| archive.stored.size)
            .sum(),
        archives: found.archives,
        wal: found.wal,
        space: found.space,
        restore_command: request.restore_command.clone(),
        jobs: request.jobs.max(1),
        backup,
        info,
    }
}

/// Refuses backups that are no plain copy, or of servers that recover in another way.
fn check_kind(backup: &Backup, info: &BackupInfo) -> Result<(), RestoreError> {
    let unsupported = |reason: &'static str| {
        Err(RestoreError::Unsupported {
            backup: backup.id.clone(),
            reason,
        })
    };
    if info.snapshots_info.is_some() {
        return unsupported("it consists of volume snapshots");
    }
    if info
        .parent_backup_id
        .as_deref()
        .is_some_and(|parent| !parent.is_empty())
    {
        return unsupported("it is incremental and needs its parent combined with it");
    }
    match backup.version {
        Some(version) if version < VERSION_MIN => {
            unsupported("its server is older than PostgreSQL 12")
        }
        _ => Ok(()),
    }
}
