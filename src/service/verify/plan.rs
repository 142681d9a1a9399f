//! What a verification will look at: the backups, what is stored of each, and what is known already.
//!
//! Not here: looking (`run`).

use chrono::{DateTime, Utc};

use crate::barman::repository::stored_backups::StoredBackup;
use crate::barman::repository::{CatalogEntry, Repository, Unreadable};
use crate::clock;
use crate::domain::backup::{Backup, BackupId, BackupKind, BackupStatus, Keep};
use crate::service::expire;
use crate::service::verify::Request;
use crate::service::verify::error::VerifyError;
use crate::service::verify::results::{self, Kept};

/// A verification, to be looked at and then run.
#[derive(Debug)]
pub struct Verification {
    pub(super) repository: Repository,
    pub(super) request: Request,
    /// When it began.
    pub(super) time: DateTime<Utc>,
    /// The DONE backups, by rising id.
    pub(super) subjects: Vec<Subject>,
    /// Those whose record cannot be read.
    pub(super) unreadable: Vec<Unreadable>,
    /// Backups of which only our results are left.
    pub(super) gone: Vec<BackupId>,
}

/// A backup to be verified.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) backup: Backup,
    pub(super) keep: Option<Keep>,
    pub(super) stored: StoredBackup,
    /// What is known of these very objects.
    pub(super) kept: Kept,
    pub(super) wants_contents: bool,
    pub(super) wants_deep: bool,
}

impl Subject {
    /// Why it is not for this tool to verify.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.backup.kind == BackupKind::Snapshot
    }

    /// The size of its tars as stored.
    pub(super) fn bytes(&self) -> u64 {
        self.stored.archives.iter().map(|it| it.size).sum()
    }
}

impl Verification {
    /// The bytes that it will read of tars, restores left out.
    pub fn bytes(&self) -> u64 {
        let wanted = self.subjects.iter().filter(|it| it.wants_contents);
        wanted.map(Subject::bytes).sum()
    }

    /// The backups whose tars it will read.
    pub fn backups(&self) -> usize {
        let wanted = self.subjects.iter().filter(|it| it.wants_contents);
        wanted.count()
    }
}

/// Lists the archive and decides what is to be read. Changes nothing.
pub async fn plan(repository: &Repository, request: Request) -> Result<Verification, VerifyError> {
    expire::check_server(repository).await?;
    let time = clock::now();
    let mut catalog = repository.list_backups().await?;
    if let Some(id) = &request.backup {
        check_is_done(repository, id, &catalog.backups).await?;
        catalog.backups.retain(|entry| entry.backup.id == *id);
        catalog.unreadable.clear();
    }
    let mut stored = repository.stored_backups().await?;
    let mut results = results::read_all(repository).await?;
    let is_done = |entry: &CatalogEntry| entry.backup.status == BackupStatus::Done;
    let done = catalog.backups.into_iter().filter(is_done);
    let subjects = done
        .map(|entry| {
            let id = &entry.backup.id;
            let stored = stored.remove(id).unwrap_or_default();
            let kept = results.remove(id).unwrap_or_default();
            subject(&request, entry, (stored, kept))
        })
        .collect();
    // Another backup than the one asked for is still in what was listed.
    results.retain(|id, _| !stored.contains_key(id));
    Ok(Verification {
        repository: repository.clone(),
        request,
        time,
        subjects,
        unreadable: catalog.unreadable,
        gone: results.into_keys().collect(),
    })
}

fn subject(request: &Request, entry: CatalogEntry, found: (StoredBackup, Kept)) -> Subject {
    let (stored, kept) = found;
    let is_same = !stored.version.is_empty() && kept.version == stored.version;
    let kept = if is_same {
        kept
    } else {
        Kept {
            version: stored.version.clone(),
            ..Kept::default()
        }
    };
    let is_asked = request.is_all || request.backup.is_some();
    let is_known = |seen| !is_asked && Kept::sound_since(seen).is_some();
    let mut subject = Subject {
        wants_contents: !is_known(kept.contents.as_ref()),
        wants_deep: request.deep.is_some() && !is_known(kept.deep.as_ref()),
        backup: entry.backup,
        keep: entry.keep,
        stored,
        kept,
    };
    if subject.is_elsewhere() {
        (subject.wants_contents, subject.wants_deep) = (false, false);
    }
    subject
}

/// Fails for a backup that is not there, cannot be read or is not whole.
async fn check_is_done(
    repository: &Repository,
    id: &BackupId,
    backups: &[CatalogEntry],
) -> Result<(), VerifyError> {
    let mut backups = backups.iter().map(|entry| &entry.backup);
    let status = match backups.find(|backup| backup.id == *id) {
        Some(backup) => backup.status,
        // It tells what is the matter.
        None => repository.backup_info(id).await?.status,
    };
    if status == BackupStatus::Done {
        return Ok(());
    }
    Err(VerifyError::NotDone {
        id: id.to_string(),
        status: status.to_string(),
    })
}
