//! Deleting a backup: a plan first, then a run that may be killed anywhere and run again.

use chrono::DateTime;

use crate::barman::backup_info::BackupInfo;
use crate::barman::repository::{DeletionPlan, Repository, RepositoryError};
use crate::barman::stored_objects::{StoredObject, StoredObjects};
use crate::domain::backup::{BackupId, BackupStatus};
use crate::store::{ObjectKey, ObjectMeta};

/// What a record says while the backup is being deleted.
const BEING_DELETED: &str = "being deleted by cellarman";
/// What follows on that where the backup was whole: when it had ended, which the record then leaves out.
const ENDED_AT: &str = "; it ended at ";

/// What was found of a backup that may be deleted.
#[derive(Debug)]
pub struct Remains {
    /// Its record, or why there is none to be read.
    pub record: Result<BackupInfo, RepositoryError>,
    /// Our own objects on it, its sign of life among them.
    pub private: Vec<ObjectMeta>,
}

impl DeletionPlan {
    /// The sum of the sizes, as stored, of what is to go.
    pub fn bytes(&self) -> u64 {
        let objects = self.files.iter().chain(&self.private);
        objects.map(|object| object.size).sum()
    }
}

impl Repository {
    /// Deletes a backup: [`Self::plan_deletion`] and [`Self::run_deletion`].
    pub async fn delete_backup(&self, id: &BackupId) -> Result<(), RepositoryError> {
        let plan = self.plan_deletion(id).await?;
        self.run_deletion(&plan).await
    }

    /// What would be deleted of a backup.
    ///
    /// # Errors
    /// As of [`Self::plan_deletion_of`].
    pub async fn plan_deletion(&self, id: &BackupId) -> Result<DeletionPlan, RepositoryError> {
        let remains = self.remains(id).await?;
        self.plan_deletion_of(id, remains).await
    }

    /// What is there of a backup, for [`Self::plan_deletion_of`]. The record is read first.
    pub async fn remains(&self, id: &BackupId) -> Result<Remains, RepositoryError> {
        let record = match self.backup_info(id).await {
            Err(error @ RepositoryError::Store(_)) => return Err(error),
            record => record,
        };
        let private = self.list_all(self.layout.private_backup_prefix(id)).await?;
        Ok(Remains { record, private })
    }

    /// What would be deleted of a backup of which this was just found.
    ///
    /// # Errors
    /// Refused for a backup that is kept, that incremental ones need, or that consists of
    /// snapshots. A backup whose record cannot be read may be deleted: it is asked for by its id.
    pub async fn plan_deletion_of(
        &self,
        id: &BackupId,
        remains: Remains,
    ) -> Result<DeletionPlan, RepositoryError> {
        let Remains { record, private } = remains;
        let record = match record {
            Ok(info) => Some(info),
            Err(RepositoryError::UnknownBackup { .. }) => None,
            Err(_) => Some(BackupInfo::default()),
        };
        let mut files = Vec::new();
        if let Some(info) = &record {
            files = self.list_all(self.layout.backup_prefix(id)).await?;
            let doubled = self.layout.doubled_base_prefix();
            if doubled != self.layout.base_prefix() {
                files.extend(self.list_doubled(format!("{doubled}{id}/")).await?);
            }
            self.check_may_go(id, info, &files).await?;
            let record_key = self.layout.backup_info(id);
            files.retain(|object| object.key != record_key);
        } else if private.is_empty() {
            return Err(self.unknown(id.as_str()));
        }
        Ok(DeletionPlan {
            id: id.clone(),
            record_key: record.is_some().then(|| self.layout.backup_info(id)),
            record,
            files,
            private,
        })
    }

    async fn check_may_go(
        &self,
        id: &BackupId,
        info: &BackupInfo,
        files: &[ObjectMeta],
    ) -> Result<(), RepositoryError> {
        let marks = self.layout.keep(id);
        let has_mark = files.iter().any(|object| marks.contains(&object.key));
        if has_mark && let Some(keep) = self.keep(id).await? {
            return Err(RepositoryError::Kept {
                id: id.clone(),
                keep,
            });
        }
        if info.snapshots_info.is_some() {
            return Err(RepositoryError::Snapshots { id: id.clone() });
        }
        let children = info.children_backup_ids.as_deref().unwrap_or("");
        for child in children.split(',').filter_map(|id| id.trim().parse().ok()) {
            match self.backup_info(&child).await {
                Err(RepositoryError::UnknownBackup { .. }) => {}
                _ => {
                    return Err(RepositoryError::HasChildren {
                        id: id.clone(),
                        children: children.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Deletes what the plan names.
    ///
    /// The record is first rewritten as FAILED without an end time, so that no reader takes the
    /// backup for good while it goes; then the tars, then the record, then our own objects. Killed
    /// between any two of these, the same deletion goes on where it was.
    ///
    /// # Errors
    /// Refused for a backup that was marked since the plan was made: it stays as it was.
    pub async fn run_deletion(&self, plan: &DeletionPlan) -> Result<(), RepositoryError> {
        if let Some(record) = &plan.record {
            self.put_backup_info(&plan.id, &doomed(record.clone()))
                .await?;
            // Who marks a backup reads the record once more after that: of two at the same moment, one
            // sees the other.
            if let Some(keep) = self.keep(&plan.id).await? {
                self.put_backup_info(&plan.id, record).await?;
                return Err(RepositoryError::Kept {
                    id: plan.id.clone(),
                    keep,
                });
            }
            self.store.delete(&keys(&plan.files)).await?;
            let record_key = self.layout.backup_info(&plan.id);
            self.store.delete(&[record_key]).await?;
        }
        Ok(self.store.delete(&keys(&plan.private)).await?)
    }

    /// Makes a backup whole again that was marked just before its deletion began, where that was
    /// killed before it saw the mark. Returns whether it is whole now.
    ///
    /// Only where our own record of its objects shows that all are there: one that was marked later
    /// may have lost some. Not for a deletion that may still be under way.
    pub async fn take_back_deletion(&self, id: &BackupId) -> Result<bool, RepositoryError> {
        let info = self.backup_info(id).await?;
        let Some(info) = spared(info) else {
            return Ok(false);
        };
        if self.keep(id).await?.is_none() || !self.has_all_objects(id).await? {
            return Ok(false);
        }
        self.put_backup_info(id, &info).await?;
        Ok(true)
    }

    async fn has_all_objects(&self, id: &BackupId) -> Result<bool, RepositoryError> {
        let key = StoredObjects::key(&self.layout, id);
        let bytes = match self.get_small(&key).await {
            Err(RepositoryError::Store(error)) if error.is_not_found() => return Ok(false),
            read => read?,
        };
        let Ok(recorded) = StoredObjects::parse(&bytes) else {
            return Ok(false);
        };
        let archives = self.archives(id).await?;
        let is_there = |object: &StoredObject| {
            let mut archives = archives.iter();
            archives.any(|one| one.key.base_name() == object.name && one.size == object.size)
        };
        Ok(!recorded.objects.is_empty() && recorded.objects.iter().all(is_there))
    }
}

/// The record as it stands while the rest is deleted. Why the backup had failed before is kept.
fn doomed(info: BackupInfo) -> BackupInfo {
    let end_time = info.end_time.filter(|_| info.status == BackupStatus::Done);
    let error = match info.error.as_deref() {
        None | Some("") => match end_time {
            Some(end) => format!("{BEING_DELETED}{ENDED_AT}{}", end.to_rfc3339()),
            None => BEING_DELETED.to_owned(),
        },
        Some(error) if is_deletion_begun(Some(error)) => error.to_owned(),
        Some(error) => format!("{BEING_DELETED}: {error}"),
    };
    BackupInfo {
        status: BackupStatus::Failed,
        end_time: None,
        error: Some(error),
        ..info
    }
}

/// The record as it was before the deletion of a backup that was whole.
fn spared(info: BackupInfo) -> Option<BackupInfo> {
    let error = info.error.as_deref()?.strip_prefix(BEING_DELETED)?;
    let end_time = DateTime::parse_from_rfc3339(error.strip_prefix(ENDED_AT)?).ok()?;
    (info.status == BackupStatus::Failed).then_some(BackupInfo {
        status: BackupStatus::Done,
        end_time: Some(end_time),
        error: None,
        ..info
    })
}

/// Whether a record with this error is of a backup whose deletion was begun, and should go on.
pub fn is_deletion_begun(error: Option<&str>) -> bool {
    error.is_some_and(|error| error.starts_with(BEING_DELETED))
}

fn keys(objects: &[ObjectMeta]) -> Vec<ObjectKey> {
    objects.iter().map(|object| object.key.clone()).collect()
}
