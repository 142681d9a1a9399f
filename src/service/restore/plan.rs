//! What a restore would do, decided before anything is written: a value, with its reasons.
//!
//! Not here: doing it (`run`), choosing among backups (`chosen`).

use std::path::PathBuf;

use crate::barman::backup_info::BackupInfo;
use crate::barman::repository::Repository;
use crate::domain::backup::{Backup, BackupId};
use crate::domain::log::reach::StopPoint;
use crate::domain::recovery::Target;
use crate::domain::timeline::TimelineId;
use crate::service::restore::archives::PlannedArchive;
use crate::service::restore::directories::DirectoryState;
use crate::service::restore::error::RestoreError;
use crate::service::restore::needed_wal::WalRange;
use crate::service::restore::places::{Places, PlannedTablespace};
use crate::service::restore::recovery_plan::{self, RecoveryPlan, RecoveryRequest};
use crate::service::restore::request::{Configuration, RestoreRequest};
use crate::service::restore::settings::{RestoreCommand, TargetAction, TimelineWord};
use crate::service::restore::source;
use crate::service::restore::space::{self, SpaceCheck};

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
    let asked = RecoveryRequest {
        recovery: &request.recovery,
        accepts_gap: request.accepts_gap,
        may_reword: request.configuration == Configuration::Written,
    };
    let mut recovery = recovery_plan::plan(repository, &asked).await?;
    let (chosen, warnings) = (&recovery.chosen, &mut recovery.warnings);
    let places = Places::decide(request, &chosen.backup, &chosen.info)?;
    let space = space::check(&places, &chosen.archives, &chosen.backup, warnings)?;
    let target = &request.recovery.target;
    warnings.extend(source::warning(target, &places, &chosen.info));
    Ok(assemble(request, recovery, (places, space)))
}

fn assemble(
    request: &RestoreRequest,
    recovery: RecoveryPlan,
    (places, space): (Places, Vec<SpaceCheck>),
) -> RestorePlan {
    let fetch_bytes = recovery.fetch_bytes();
    let chosen = recovery.chosen;
    let choice = chosen.choice;
    // Any number but 1 must have its history file in the archive.
    let is_number = choice.has_history || choice.timeline == TimelineId::FIRST;
    RestorePlan {
        target: recovery.target,
        is_inclusive: recovery.is_inclusive,
        stop: recovery.stop,
        timeline: choice.timeline,
        timeline_word: if is_number {
            TimelineWord::Number(choice.timeline)
        } else {
            TimelineWord::Current
        },
        action: request.action,
        reasons: choice.reasons,
        passed_over: choice.passed_over,
        warnings: recovery.warnings,
        pgdata: places.pgdata,
        pgdata_state: places.pgdata_state,
        tablespaces: places.tablespaces,
        fetch_bytes,
        archives: chosen.archives,
        wal: chosen.wal,
        space,
        restore_command: request.restore_command.clone(),
        configuration: request.configuration,
        jobs: request.jobs.max(1),
        backup: chosen.backup,
        info: chosen.info,
    }
}
