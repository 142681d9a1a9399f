//! What a restore would do, decided before anything is written: a value, with its reasons.
//!
//! Not here: doing it (`run`), choosing among backups (`domain::recovery`).

use std::path::PathBuf;

use crate::barman::backup_info::BackupInfo;
use crate::barman::repository::{Repository, StoredArchive};
use crate::barman::stored_objects::StoredObjects;
use crate::domain::backup::{Backup, BackupId};
use crate::domain::lsn::Lsn;
use crate::domain::recovery::{self, Choice, Request, Target};
use crate::domain::segment::{SegmentName, SegmentNumber};
use crate::domain::timeline::TimelineId;
use crate::service::restore::directories::DirectoryState;
use crate::service::restore::error::RestoreError;
use crate::service::restore::places::{Places, PlannedTablespace, TablespaceMapping};
use crate::service::restore::settings::{RestoreCommand, TargetAction, TimelineWord};
use crate::service::restore::space::{self, SpaceCheck};

/// The first version whose recovery is configured as this module does it.
const VERSION_MIN: u32 = 120_000;

/// Missing segments named in an error.
const MISSING_NAMED_MAX: usize = 5;

/// What a user asks for.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// How far, along which timeline, from which backup.
    pub recovery: Request,
    /// What the server does at the target.
    pub action: TargetAction,
    /// The data directory to make, absolute.
    pub pgdata: PathBuf,
    /// Tablespaces that are to lie elsewhere than they did.
    pub tablespaces: Vec<TablespaceMapping>,
    /// How the new server fetches WAL.
    pub restore_command: RestoreCommand,
    /// Archives restored at a time; at least 1.
    pub jobs: usize,
}

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

/// An archive to restore.
#[derive(Debug, Clone)]
pub struct PlannedArchive {
    /// Where it lies and how it is compressed.
    pub stored: StoredArchive,
    /// The blake3 recorded when it was stored, in hexadecimal. Backups by other tools have none.
    pub blake3: Option<String>,
    /// What it will take on disk at least.
    pub bytes_min: u64,
}

/// Segments in a row on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// The first.
    pub begin: SegmentName,
    /// The last.
    pub end: SegmentName,
    /// How many.
    pub count: u64,
}

/// Decides what a restore does. Reads the store and looks at the directories; changes nothing.
pub async fn plan(
    repository: &Repository,
    request: &RestoreRequest,
) -> Result<RestorePlan, RestoreError> {
    let catalog = repository.list_backups().await?;
    let histories = repository.histories().await?;
    let backups: Vec<Backup> = catalog
        .backups
        .iter()
        .map(|entry| entry.backup.clone())
        .collect();
    let choice = recovery::choose(&backups, &histories, &request.recovery)?;
    let mut warnings: Vec<String> = catalog
        .unreadable
        .iter()
        .map(|unreadable| {
            let (id, reason) = (&unreadable.id, &unreadable.reason);
            format!(
                "Backup {id} could not be considered, because its record cannot be read: {reason}."
            )
        })
        .collect();
    let entry = catalog
        .backups
        .into_iter()
        .find(|entry| entry.backup.id == choice.backup)
        .ok_or_else(|| {
            RestoreError::Choice(recovery::Refusal::UnknownBackup {
                id: choice.backup.clone(),
            })
        })?;
    check_kind(&entry.backup, &entry.info)?;
    let objects = stored_objects(repository, &entry.backup.id, &mut warnings).await?;
    let stored = repository.archives(&entry.backup.id).await?;
    let archives = planned_archives(&entry.backup, stored, objects.as_ref())?;
    let wal = needed_wal(repository, &entry.backup).await?;
    let places = Places::decide(request, &entry.backup, &entry.info)?;
    let space = space::check(&places, &archives, &entry.backup, &mut warnings)?;
    Ok(assemble(
        request,
        choice,
        (entry.backup, entry.info),
        Found {
            warnings,
            archives,
            wal,
            places,
            space,
        },
    ))
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

async fn stored_objects(
    repository: &Repository,
    id: &BackupId,
    warnings: &mut Vec<String>,
) -> Result<Option<StoredObjects>, RestoreError> {
    let key = StoredObjects::key(&repository.layout, id);
    let bytes = match repository.get_small(&key).await {
        Err(crate::barman::repository::RepositoryError::Store(error)) if error.is_not_found() => {
            return Ok(None);
        }
        read => read?,
    };
    let objects = StoredObjects::parse(&bytes)
        .map_err(|source| RestoreError::ObjectsRecord { key, source })?;
    for file in &objects.damaged {
        warnings.push(format!(
            "{} had damaged pages already when it was backed up: blocks {:?}.",
            file.path, file.blocks
        ));
    }
    Ok(Some(objects))
}

/// The archives, checked to be all there: no tablespace, no piece and no recorded object missing.
fn planned_archives(
    backup: &Backup,
    stored: Vec<StoredArchive>,
    objects: Option<&StoredObjects>,
) -> Result<Vec<PlannedArchive>, RestoreError> {
    let missing = |missing: String| RestoreError::ArchiveMissing {
        backup: backup.id.clone(),
        missing,
    };
    let wanted = std::iter::once(None).chain(
        backup
            .tablespaces
            .iter()
            .map(|tablespace| Some(tablespace.oid)),
    );
    for tablespace in wanted {
        let owner = tablespace.map_or_else(
            || "the data directory".to_owned(),
            |oid| format!("tablespace {oid}"),
        );
        let mut pieces: Vec<u32> = stored
            .iter()
            .filter(|archive| archive.name.tablespace == tablespace)
            .map(|archive| archive.name.piece)
            .collect();
        pieces.sort_unstable();
        if pieces.is_empty() {
            return Err(missing(owner));
        }
        for (expected, piece) in (0..).zip(pieces) {
            match piece.cmp(&expected) {
                std::cmp::Ordering::Less => {
                    return Err(RestoreError::NotADatabase {
                        backup: backup.id.clone(),
                        reason: format!("piece {piece} of {owner} is there twice"),
                    });
                }
                std::cmp::Ordering::Greater => {
                    return Err(missing(format!("piece {expected} of {owner}")));
                }
                std::cmp::Ordering::Equal => {}
            }
        }
    }
    for object in objects.iter().flat_map(|objects| &objects.objects) {
        let found = stored
            .iter()
            .find(|archive| archive.key.base_name() == object.name);
        if found.is_none_or(|archive| archive.size != object.size) {
            return Err(missing(format!(
                "{} with {} bytes",
                object.name, object.size
            )));
        }
    }
    let plan = |archive: StoredArchive| {
        let recorded = objects.and_then(|objects| objects.get(archive.key.base_name()));
        PlannedArchive {
            blake3: recorded.map(|object| object.blake3.clone()),
            bytes_min: recorded
                .and_then(|object| object.tar_bytes)
                .unwrap_or(archive.size),
            stored: archive,
        }
    };
    Ok(stored.into_iter().map(plan).collect())
}

/// The segments from the backup's begin to its end, each seen in the archive.
async fn needed_wal(repository: &Repository, backup: &Backup) -> Result<WalRange, RestoreError> {
    let record = |missing| RestoreError::Record {
        backup: backup.id.clone(),
        missing,
    };
    let begin = backup.begin_wal.ok_or_else(|| record("begin_wal"))?;
    let end_lsn = backup.end_lsn.ok_or_else(|| record("end_xlog"))?;
    let size = backup.segment_size;
    let begin_number = begin.number(size).ok_or_else(|| record("begin_wal"))?;
    let end_number = SegmentNumber::ending_at(end_lsn.max(Lsn::new(1)), size).max(begin_number);
    let end =
        SegmentName::new(begin.timeline(), end_number, size).ok_or_else(|| record("end_xlog"))?;
    let archived = repository.archived_segments(begin, end, size).await?;
    let mut missing = std::iter::successors(Some(begin), |segment| segment.next(size))
        .take_while(|segment| *segment <= end)
        .filter(|segment| !archived.contains(segment))
        .take(MISSING_NAMED_MAX)
        .map(|segment| segment.to_string())
        .peekable();
    if missing.peek().is_some() {
        return Err(RestoreError::WalMissing {
            backup: backup.id.clone(),
            segments: missing.collect(),
        });
    }
    let count = end_number.to_u64() - begin_number.to_u64() + 1;
    Ok(WalRange { begin, end, count })
}
