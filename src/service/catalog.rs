//! What is known of a server's backups, and the changes a person makes to them.
//!
//! Not here: taking and restoring backups, retention.

use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt, stream};

use crate::barman::repository::{Catalog, CatalogEntry, DeletionPlan, Repository, RepositoryError};
use crate::domain::backup::{BackupId, BackupStatus};
use crate::fault::{Fault, Kind};
use crate::store::error::StoreError;

/// Listings under way at a time.
const LISTINGS_IN_FLIGHT: usize = 8;

/// A backup whose heartbeat is younger than this is running.
const HEARTBEAT_AGE_MAX: TimeDelta = TimeDelta::minutes(10);

/// A backup by another tool, which has no heartbeat, may run for as long as this.
const FOREIGN_AGE_MAX: TimeDelta = TimeDelta::hours(24);

/// A backup and the bytes it takes in the store.
#[derive(Debug, Clone)]
pub struct SizedEntry {
    /// The backup.
    pub entry: CatalogEntry,
    /// All its objects together, as stored.
    pub stored_bytes: u64,
}

/// How work on the catalog fails.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The archive failed or refused.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The backup is under way.
    #[error("backup {id} is running: {reason}")]
    Running {
        /// The backup.
        id: BackupId,
        /// How that is known.
        reason: String,
    },
}

impl Fault for CatalogError {
    fn kind(&self) -> Kind {
        match self {
            Self::Repository(source) => source.kind(),
            Self::Running { .. } => Kind::Refused,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Repository(source) => source.hint(),
            Self::Running { .. } => "Stop it or wait for its end, then run this again.".to_owned(),
        }
    }
}

impl From<StoreError> for CatalogError {
    fn from(error: StoreError) -> Self {
        Self::Repository(error.into())
    }
}

/// The bytes in the store of each backup of the catalog, in its order.
pub async fn with_sizes(
    repository: &Repository,
    catalog: &Catalog,
) -> Result<Vec<SizedEntry>, CatalogError> {
    let sized = stream::iter(&catalog.backups).map(async |entry| {
        let stored_bytes = repository.stored_bytes(&entry.backup.id).await?;
        Ok(SizedEntry {
            entry: entry.clone(),
            stored_bytes,
        })
    });
    sized.buffered(LISTINGS_IN_FLIGHT).try_collect().await
}

/// What would be deleted of a backup. A run of the plan is [`Repository::run_deletion`].
///
/// # Errors
/// Besides what [`Repository::plan_deletion`] refuses: a backup that is under way by `now`. Its run
/// would go on and end with a record of a backup that is not there.
pub async fn plan_deletion(
    repository: &Repository,
    id: &BackupId,
    now: DateTime<Utc>,
) -> Result<DeletionPlan, CatalogError> {
    if let Some(reason) = reason_to_be_running(repository, id, now).await? {
        return Err(CatalogError::Running {
            id: id.clone(),
            reason,
        });
    }
    Ok(repository.plan_deletion(id).await?)
}

async fn reason_to_be_running(
    repository: &Repository,
    id: &BackupId,
    now: DateTime<Utc>,
) -> Result<Option<String>, CatalogError> {
    let begun = match repository.backup_info(id).await {
        Ok(info) if info.status == BackupStatus::Started => info.begin_time,
        Err(error @ RepositoryError::Store(_)) => return Err(error.into()),
        // A record that is not there yet may have its heartbeat already.
        Err(RepositoryError::UnknownBackup { .. }) => None,
        Ok(_) | Err(_) => return Ok(None),
    };
    let heartbeat = repository
        .layout
        .private(&format!("backups/{id}/running.json"));
    match repository.store.head(&heartbeat).await {
        Ok(meta) => {
            let age = now.signed_duration_since(meta.modified);
            let is_fresh = age < HEARTBEAT_AGE_MAX;
            let seconds = age.num_seconds().max(0);
            Ok(is_fresh.then(|| format!("its last sign of life is {seconds} s old")))
        }
        Err(error) if error.is_not_found() => {
            let age = begun.map(|begun| now.signed_duration_since(begun));
            let is_recent = age.is_some_and(|age| age < FOREIGN_AGE_MAX);
            Ok(is_recent.then(|| {
                "another tool began it less than 24 hours ago, and has not ended it".to_owned()
            }))
        }
        Err(error) => Err(error.into()),
    }
}
