//! Carrying an expiry plan out: killed backups first, then backups, oldest first, WAL last.
//!
//! WAL goes only after the backups that needed it, and only what neither the plan nor a new look
//! at the archive wants kept. Killed anywhere, a new plan goes on where this one was.

use std::fmt;

use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::barman::repository::wal_listing::{StoredWal, WalScope};
use crate::barman::repository::{Repository, RepositoryError};
use crate::domain::backup::{BackupId, BackupStatus};
use crate::domain::retention::WalRange;
use crate::domain::segment::SegmentName;
use crate::fault::{Fault, Kind, chain};
use crate::service::catalog::{self, CatalogError};
use crate::service::expire::error::ExpireError;
use crate::service::expire::{ExpirePlan, wal_now};
use crate::service::maintenance;
use crate::store::ObjectKey;

/// How many files are deleted at a time: what a store takes in one request.
const BATCH_FILES: usize = 1000;

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// The killed backups that are FAILED now.
    pub marked_failed: Vec<BackupId>,
    /// The backups that are gone.
    pub backups: Vec<BackupId>,
    /// The backups that should have gone and did not, and why.
    pub spared: Vec<(BackupId, String)>,
    /// How many files of WAL are gone.
    pub wal_files: u64,
    /// Their sizes together, as stored.
    pub wal_bytes: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backups = self.backups.len();
        let s = |count| if count == 1 { "" } else { "s" };
        write!(
            f,
            "{backups} backup{} and {} WAL file{}",
            s(u64::try_from(backups).unwrap_or(u64::MAX)),
            self.wal_files,
            s(self.wal_files)
        )
    }
}

/// Carries the plan out.
///
/// # Errors
/// Tells with the failure what had been done before it. Nothing is undone: what the plan deletes
/// is not wanted, and a new run goes on.
pub async fn run(
    repository: &Repository,
    plan: &ExpirePlan,
    cancel: &CancellationToken,
) -> Result<Done, ExpireError> {
    let mut run = Run {
        repository,
        plan,
        cancel,
        done: Done::default(),
    };
    match run.all().await {
        Ok(()) => Ok(run.done),
        Err(Stop::Cancelled) => Err(ExpireError::Cancelled {
            done: Box::new(run.done),
        }),
        Err(Stop::Failed(source)) => Err(ExpireError::Stopped {
            done: Box::new(run.done),
            source: Box::new(source),
        }),
    }
}

enum Stop {
    Cancelled,
    Failed(CatalogError),
}

impl<E: Into<CatalogError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

struct Run<'a> {
    repository: &'a Repository,
    plan: &'a ExpirePlan,
    cancel: &'a CancellationToken,
    done: Done,
}

impl Run<'_> {
    async fn all(&mut self) -> Result<(), Stop> {
        let swept = maintenance::run(self.repository, &self.plan.killed).await?;
        self.done.marked_failed = swept.failed;
        for id in self.plan.plan.order.iter().chain(&self.plan.orphans) {
            self.check_cancel()?;
            self.delete_backup(id).await?;
        }
        self.check_cancel()?;
        self.delete_wal().await
    }

    fn check_cancel(&self) -> Result<(), Stop> {
        if self.cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        Ok(())
    }

    /// Deletes one backup, unless it has been marked, taken up or finished since the plan was made.
    async fn delete_backup(&mut self, id: &BackupId) -> Result<(), Stop> {
        let objection = match self.spared_child(id) {
            Some(child) => Some(format!("backup {child}, which is spared, is built on it")),
            None => self.objection(id).await?,
        };
        let deleted = match objection {
            Some(reason) => Err(reason),
            None => match self.plan_and_delete(id).await {
                Ok(()) | Err(CatalogError::Repository(RepositoryError::UnknownBackup { .. })) => {
                    Ok(())
                }
                Err(error) if error.kind() == Kind::Refused => Err(chain(&error)),
                Err(error) => return Err(error.into()),
            },
        };
        match deleted {
            Ok(()) => {
                info!(%id, "deleted a backup");
                self.done.backups.push(id.clone());
            }
            Err(reason) => {
                info!(%id, reason, "spared a backup");
                self.done.spared.push((id.clone(), reason));
            }
        }
        Ok(())
    }

    async fn plan_and_delete(&self, id: &BackupId) -> Result<(), CatalogError> {
        let deletion = catalog::plan_deletion(self.repository, id, self.plan.now).await?;
        catalog::run_deletion(self.repository, &deletion).await
    }

    /// A backup that is built on this one and should have gone before it. A parent's own record need
    /// not tell of it.
    fn spared_child(&self, id: &BackupId) -> Option<&BackupId> {
        let mut spared = self.done.spared.iter().map(|(child, _)| child);
        spared.find(|child| {
            self.plan
                .parents
                .get(child)
                .is_some_and(|parent| parent == id)
        })
    }

    /// Why a backup is no longer what the plan took it for.
    async fn objection(&self, id: &BackupId) -> Result<Option<String>, RepositoryError> {
        let planned = &self.plan.plan.backups;
        let planned = planned.iter().find(|one| one.id == *id);
        let status = match self.repository.backup_info(id).await {
            Ok(info) => Some(info.status),
            Err(RepositoryError::UnknownBackup { .. }) => None,
            Err(error @ RepositoryError::Store(_)) => return Err(error),
            Err(error) => return Ok(Some(chain(&error))),
        };
        // A deletion of its own may be under way beside this one.
        let is_expected = status.is_none()
            || status == Some(BackupStatus::Failed)
            || status == planned.and_then(|one| one.status);
        Ok((!is_expected).then(|| {
            let status = status.map_or("", BackupStatus::as_str);
            format!("it is {status} now")
        }))
    }

    async fn delete_wal(&mut self) -> Result<(), Stop> {
        let is_doomed = |range: &&WalRange| range.verdict.is_delete();
        let planned: Vec<&WalRange> = self.plan.plan.wal.iter().filter(is_doomed).collect();
        if planned.is_empty() {
            return Ok(());
        }
        let now = match wal_now(self.repository, self.plan).await {
            Ok(now) => now,
            Err(ExpireError::Repository(error)) => return Err(error.into()),
            Err(ExpireError::Stopped { source, .. }) => return Err(Stop::Failed(*source)),
            Err(ExpireError::Cancelled { .. }) => return Err(Stop::Cancelled),
        };
        let now: Vec<&WalRange> = now.iter().filter(is_doomed).collect();
        for range in planned {
            self.delete_range(range, &now).await?;
        }
        Ok(())
    }

    /// Lists the range anew and deletes what is in one of `now` as well.
    async fn delete_range(&mut self, range: &WalRange, now: &[&WalRange]) -> Result<(), Stop> {
        let layout = &self.repository.layout;
        // The folder's own name sorts before all that is in it.
        let after = ObjectKey::new(layout.wal_folder(range.files.first));
        let scope = WalScope::Timeline(range.timeline());
        let pages = self.repository.wal_objects(scope, Some(&after));
        let mut pages = std::pin::pin!(pages);
        let size = self.plan.wal.segment_size();
        let mut batch: Vec<StoredWal> = Vec::new();
        'pages: while let Some(page) = pages.try_next().await? {
            for file in page.files {
                let Some(segment) = file.name.segment() else {
                    continue;
                };
                if segment > range.files.last {
                    break 'pages;
                }
                let is_doomed = holds(range, segment)
                    // Names of another size were not counted.
                    && segment.number(size).is_some()
                    && now.iter().any(|now| holds(now, segment))
                    // What came since the plan was made is not what it was made for.
                    && file.modified <= range.files.newest_put;
                if is_doomed {
                    batch.push(file);
                }
                if batch.len() == BATCH_FILES {
                    self.delete_files(&mut batch).await?;
                }
            }
        }
        self.delete_files(&mut batch).await
    }

    async fn delete_files(&mut self, batch: &mut Vec<StoredWal>) -> Result<(), Stop> {
        self.check_cancel()?;
        let keys: Vec<ObjectKey> = batch.iter().map(|file| file.key.clone()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        self.repository.store.delete(&keys).await?;
        self.done.wal_files += u64::try_from(keys.len()).unwrap_or(u64::MAX);
        self.done.wal_bytes += batch.iter().map(|file| file.size).sum::<u64>();
        batch.clear();
        Ok(())
    }
}

fn holds(range: &WalRange, segment: SegmentName) -> bool {
    (range.files.first..=range.files.last).contains(&segment)
}
