//! What is known of a server's backups, and the changes a person makes to them.
//!
//! Not here: taking and restoring backups, retention.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::barman::repository::delete::Remains;
use crate::barman::repository::{
    Catalog, CatalogEntry, DeletionPlan, Repository, RepositoryError, Stored,
};
use crate::domain::backup::{BackupId, BackupKind, BackupStatus};
use crate::fault::{Fault, Kind};
use crate::service::maintenance::{self, Leftover};
use crate::service::running;
use crate::store::error::StoreError;

/// How far the clock gone by may be ahead of the store's without a living run being taken for dead:
/// a dry run goes by this host's.
pub(super) const CLOCK_AHEAD_MAX: TimeDelta = TimeDelta::minutes(10);

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

/// The deletion of a backup, to be looked at and then run.
#[derive(Debug)]
pub struct Deletion {
    /// What is to go.
    pub plan: DeletionPlan,
    /// What a killed run of the backup left, to be cleared first: its uploads.
    leftovers: Vec<Leftover>,
}

/// What would be deleted of a backup.
///
/// # Errors
/// Besides what [`Repository::plan_deletion`] refuses: a backup that is under way at `now`, by
/// `store_clock::now`. Its run would go on and end with a record of a backup that is not there.
pub async fn plan_deletion(
    repository: &Repository,
    id: &BackupId,
    now: DateTime<Utc>,
) -> Result<Deletion, CatalogError> {
    let remains = repository.remains(id).await?;
    plan_deletion_of(repository, id, remains, now).await
}

/// The same for a backup of which this was just found.
pub(super) async fn plan_deletion_of(
    repository: &Repository,
    id: &BackupId,
    remains: Remains,
    now: DateTime<Utc>,
) -> Result<Deletion, CatalogError> {
    let leftovers = leftovers(repository, id, &remains, now - CLOCK_AHEAD_MAX).await?;
    let plan = repository.plan_deletion_of(id, remains).await?;
    Ok(Deletion { plan, leftovers })
}

/// Fails for a backup that another is built on by that other's own record: the parent's need not
/// tell of it.
pub async fn check_is_no_parent(
    repository: &Repository,
    id: &BackupId,
) -> Result<(), CatalogError> {
    let catalog = repository.list_backups().await?;
    let backups = catalog.backups.iter().map(|entry| &entry.backup);
    let built_on_it = backups.filter(|backup| {
        matches!(&backup.kind, BackupKind::Incremental { parent } if parent == id.as_str())
    });
    let children: Vec<&str> = built_on_it.map(|backup| backup.id.as_str()).collect();
    if children.is_empty() {
        return Ok(());
    }
    Err(CatalogError::Repository(RepositoryError::HasChildren {
        id: id.clone(),
        children: children.join(", "),
    }))
}

/// Runs it. Killed anywhere, the same deletion planned anew goes on where it was.
pub async fn run_deletion(
    repository: &Repository,
    deletion: &Deletion,
) -> Result<(), CatalogError> {
    let swept = maintenance::run(repository, &deletion.leftovers).await?;
    if let Some(id) = swept.alive.into_iter().next() {
        let reason = "it was taken for killed, and its sign of life has changed since".to_owned();
        return Err(CatalogError::Running { id, reason });
    }
    Ok(repository.run_deletion(&deletion.plan).await?)
}

/// What a killed run of the backup left; fails for a run that lives.
async fn leftovers(
    repository: &Repository,
    id: &BackupId,
    remains: &Remains,
    now: DateTime<Utc>,
) -> Result<Vec<Leftover>, CatalogError> {
    let mut catalog = Catalog::default();
    // No record yet, or one that says nothing: the sign of life alone tells.
    if let Ok(info) = &remains.record {
        catalog.backups.push(CatalogEntry {
            backup: info.to_backup(id),
            keep: None,
            stored: Stored::default(),
        });
    }
    let is_started = |entry: &CatalogEntry| entry.backup.status == BackupStatus::Started;
    let is_started = catalog.backups.iter().any(is_started);
    let key = running::key(&repository.layout, id);
    let sign = remains.private.iter().find(|object| object.key == key);
    let sign: BTreeMap<_, _> = sign
        .map(|sign| (id.clone(), sign.modified))
        .into_iter()
        .collect();
    // Another tool's backup tells of itself by its archives alone, for days.
    let mut last_put = BTreeMap::new();
    if is_started && sign.is_empty() {
        let put = repository.last_put(id).await?;
        last_put.extend(put.map(|put| (id.clone(), put)));
    }
    let leftovers = maintenance::plan(&catalog, &last_put, &sign, now);
    if leftovers.is_empty() && (is_started || !sign.is_empty()) {
        let reason = match sign.get(id) {
            Some(put) => format!("its last sign of life is of {}", put.format("%H:%M:%S UTC")),
            None => "another tool began it, and may still be at it".to_owned(),
        };
        return Err(CatalogError::Running {
            id: id.clone(),
            reason,
        });
    }
    Ok(leftovers)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::barman::backup_info::BackupInfo;
    use crate::barman::layout::Layout;
    use crate::clock;
    use crate::store::memory::MemoryStore;
    use crate::store::{ListRequest, ObjectKey, PutOptions};

    fn id() -> BackupId {
        "20261121T054347".parse().unwrap()
    }

    /// A backup in this state, with or without a sign of life.
    async fn repository(status: BackupStatus, has_sign: bool) -> Repository {
        let layout = Layout::new("p", &"srv".parse().unwrap());
        let repository = Repository::new(Arc::new(MemoryStore::new()), layout);
        let info = BackupInfo {
            status,
            ..BackupInfo::default()
        };
        repository.put_backup_info(&id(), &info).await.unwrap();
        let mut keys = vec![ObjectKey::new(format!("p/srv/base/{}/data.tar", id()))];
        if has_sign {
            keys.push(running::key(&repository.layout, &id()));
        }
        for key in keys {
            let body = Bytes::from_static(b"{}");
            let options = PutOptions::default();
            repository.store.put(&key, body, &options).await.unwrap();
        }
        repository
    }

    #[tokio::test]
    async fn a_backup_of_another_tool_is_under_way_while_its_archives_come() {
        let repository = repository(BackupStatus::Started, false).await;
        let put_at = async |name: &str| {
            let key = ObjectKey::new(format!("p/srv/base/{}/{name}", id()));
            let store = &repository.store;
            if name != "backup.info" {
                let body = Bytes::from_static(b"x");
                store.put(&key, body, &PutOptions::default()).await.unwrap();
            }
            store.head(&key).await.unwrap().modified
        };
        let begun = put_at("backup.info").await;
        let mut last = begun;
        while last <= begun {
            last = put_at("data_0001.tar").await;
        }
        let now = last + TimeDelta::hours(24) + CLOCK_AHEAD_MAX;
        let error = plan_deletion(&repository, &id(), now).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
    }

    #[tokio::test]
    async fn a_parent_is_known_by_the_records_of_its_children() {
        let repository = repository(BackupStatus::Done, false).await;
        check_is_no_parent(&repository, &id()).await.unwrap();
        let child = BackupInfo {
            status: BackupStatus::Done,
            parent_backup_id: Some(id().to_string()),
            ..BackupInfo::default()
        };
        let child_id: BackupId = "20261122T000000".parse().unwrap();
        repository.put_backup_info(&child_id, &child).await.unwrap();
        let refused = check_is_no_parent(&repository, &id()).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused);
        assert!(refused.to_string().contains(child_id.as_str()));
        check_is_no_parent(&repository, &child_id).await.unwrap();
    }

    #[tokio::test]
    async fn a_backup_that_shows_life_again_is_not_deleted() {
        let repository = repository(BackupStatus::Started, true).await;
        let now = clock::now() + TimeDelta::minutes(13);
        let deletion = plan_deletion(&repository, &id(), now).await.unwrap();
        let sign = running::key(&repository.layout, &id());
        let begun = repository.store.head(&sign).await.unwrap().modified;
        while repository.store.head(&sign).await.unwrap().modified <= begun {
            let body = Bytes::from_static(b"{}");
            let options = PutOptions::default();
            repository.store.put(&sign, body, &options).await.unwrap();
        }
        let error = run_deletion(&repository, &deletion).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        let left = repository.store.list(&ListRequest::default()).await;
        assert_eq!(left.unwrap().objects.len(), 3);
    }

    #[tokio::test]
    async fn a_backup_is_deleted_unless_it_is_under_way() {
        let after = |minutes| clock::now() + TimeDelta::minutes(minutes);
        for (status, has_sign, now, is_deleted) in [
            (BackupStatus::Done, false, after(0), true),
            (BackupStatus::Failed, false, after(0), true),
            (BackupStatus::Started, true, after(0), false),
            (BackupStatus::Started, true, after(11), false),
            (BackupStatus::Started, true, after(13), true),
            (BackupStatus::Done, true, after(0), false),
            (BackupStatus::Done, true, after(13), true),
            (BackupStatus::Started, false, after(23 * 60), false),
            (BackupStatus::Started, false, after(25 * 60), true),
        ] {
            let case = format!("{status} {has_sign} {now}");
            let repository = repository(status, has_sign).await;
            match plan_deletion(&repository, &id(), now).await {
                Ok(deletion) => {
                    assert!(is_deleted, "{case}");
                    run_deletion(&repository, &deletion).await.unwrap();
                    let left = repository.store.list(&ListRequest::default()).await;
                    assert!(left.unwrap().objects.is_empty(), "{case}");
                }
                Err(error) => {
                    assert!(!is_deleted, "{case}");
                    assert_eq!(error.kind(), Kind::Refused);
                }
            }
        }
    }
}
