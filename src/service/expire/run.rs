//! Carrying an expiry plan out: killed backups first, then backups, oldest first, then WAL, and last
//! what the index tells of it.
//!
//! WAL goes only after the backups that needed it, and only what neither the plan nor a new look
//! at the archive wants kept. Killed anywhere, a new plan goes on where this one was.

use std::{fmt, mem, slice};

use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::barman::index_object;
use crate::barman::repository::delete::Remains;
use crate::barman::repository::wal_listing::{StoredWal, WalScope};
use crate::barman::repository::{Repository, RepositoryError};
use crate::domain::backup::{BackupId, BackupStatus};
use crate::domain::retention::WalRange;
use crate::domain::segment::SegmentName;
use crate::fault::{Fault, Kind, chain};
use crate::service::catalog::{self, CatalogError};
use crate::service::expire::error::ExpireError;
use crate::service::expire::failures::{Failure, Row, Tried};
use crate::service::expire::{ExpirePlan, index, wal_now};
use crate::service::maintenance;
use crate::store::ObjectKey;

/// How many files are deleted at a time: what a store takes in one request.
const BATCH_FILES: usize = 1000;

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// The killed backups that are FAILED now.
    pub marked_failed: Vec<BackupId>,
    /// The marked backups whose deletion had begun and that are whole again.
    pub taken_back: Vec<BackupId>,
    /// The backups that are gone.
    pub backups: Vec<BackupId>,
    /// The backups that should have gone and did not, and why.
    pub spared: Vec<(BackupId, String)>,
    /// What could not be deleted.
    pub failed: Vec<Failure>,
    /// How many files of WAL are gone.
    pub wal_files: u64,
    /// Their sizes together, as stored.
    pub wal_bytes: u64,
    /// How many index objects of such WAL are gone.
    pub index_objects: u64,
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

/// Carries the plan out. What cannot be deleted is told, and does not hold up the rest.
///
/// # Errors
/// Where all else would fail as well. Tells with the failure what had been done before it. Nothing
/// is undone: what the plan deletes is not wanted, and a new run goes on.
pub async fn run(
    repository: &Repository,
    plan: &ExpirePlan,
    cancel: &CancellationToken,
) -> Result<Done, ExpireError> {
    let mut run = Run {
        repository,
        plan,
        cancel,
        row: Row::default(),
        left: Vec::new(),
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
    row: Row,
    /// The backups that should have gone and are there still.
    left: Vec<BackupId>,
    done: Done,
}

impl Run<'_> {
    async fn all(&mut self) -> Result<(), Stop> {
        let are_all_marked = self.mark_killed().await?;
        for id in &self.plan.taken_back {
            self.take_back(id).await?;
        }
        for id in self.plan.plan.order.iter().chain(&self.plan.orphans) {
            self.check_cancel()?;
            self.delete_backup(id).await?;
        }
        self.check_cancel()?;
        if are_all_marked {
            self.delete_wal().await?;
            self.delete_index().await?;
        }
        Ok(())
    }

    async fn take_back(&mut self, id: &BackupId) -> Result<(), Stop> {
        match self.repository.take_back_deletion(id).await {
            Ok(true) => {
                info!(%id, "took the deletion of a marked backup back");
                self.done.taken_back.push(id.clone());
            }
            Ok(false) => info!(%id, "a marked backup cannot be made whole again"),
            Err(error) => {
                let what = format!("the record of backup {id}, which is marked");
                self.note(&what, Tried::GivenUp, error.into())?;
            }
        }
        Ok(())
    }

    /// Marks killed backups FAILED. Whether none is left that says otherwise: its run might still
    /// come back to life, and would want its WAL.
    async fn mark_killed(&mut self) -> Result<bool, Stop> {
        let mut are_all_marked = true;
        for leftover in &self.plan.killed {
            let id = &leftover.id;
            match maintenance::run(self.repository, slice::from_ref(leftover)).await {
                Ok(swept) => self.done.marked_failed.extend(swept.failed),
                Err(error) => {
                    let what = format!("what the killed run of backup {id} left");
                    self.note(&what, Tried::GivenUp, error.into())?;
                    let is_marked = match self.repository.backup_info(id).await {
                        Ok(info) => info.status != BackupStatus::Started,
                        Err(error) => matches!(error, RepositoryError::UnknownBackup { .. }),
                    };
                    are_all_marked &= is_marked;
                }
            }
        }
        Ok(are_all_marked)
    }

    /// Takes note of a failure; fails where all else would fail as well.
    fn note(&mut self, what: &str, tried: Tried, error: CatalogError) -> Result<(), Stop> {
        let failure = self.row.go_on(what, tried, error).map_err(Stop::Failed)?;
        self.done.failed.push(failure);
        Ok(())
    }

    fn check_cancel(&self) -> Result<(), Stop> {
        if self.cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        Ok(())
    }

    /// Deletes one backup, unless it has been marked, taken up or finished since the plan was made.
    async fn delete_backup(&mut self, id: &BackupId) -> Result<(), Stop> {
        let deleted = match self.left_child(id) {
            Some(child) => Ok(Some(format!("backup {child}, which stays, is built on it"))),
            None => self.delete_unless_objected(id).await,
        };
        match deleted {
            Ok(None) => {
                info!(%id, "deleted a backup");
                self.row.end();
                self.done.backups.push(id.clone());
            }
            Ok(Some(reason)) => {
                info!(%id, reason, "spared a backup");
                self.left.push(id.clone());
                self.done.spared.push((id.clone(), reason));
            }
            Err(error) => {
                self.left.push(id.clone());
                let tried = match self.planned_status(id) {
                    None | Some(BackupStatus::Failed) => Tried::GivenUp,
                    Some(_) => Tried::New,
                };
                self.note(&format!("backup {id}"), tried, error)?;
            }
        }
        Ok(())
    }

    /// Deletes it, or tells why not.
    async fn delete_unless_objected(&self, id: &BackupId) -> Result<Option<String>, CatalogError> {
        let remains = self.repository.remains(id).await?;
        if let Some(reason) = self.objection(id, &remains) {
            return Ok(Some(reason));
        }
        match self.plan_and_delete(id, remains).await {
            Ok(()) | Err(CatalogError::Repository(RepositoryError::UnknownBackup { .. })) => {
                Ok(None)
            }
            Err(error) if error.kind() == Kind::Refused => Ok(Some(chain(&error))),
            Err(error) => Err(error),
        }
    }

    async fn plan_and_delete(&self, id: &BackupId, remains: Remains) -> Result<(), CatalogError> {
        let now = self.plan.now;
        let deletion = catalog::plan_deletion_of(self.repository, id, remains, now).await?;
        catalog::run_deletion(self.repository, &deletion).await
    }

    /// A backup that is built on this one and should have gone before it. A parent's own record need
    /// not tell of it.
    fn left_child(&self, id: &BackupId) -> Option<&BackupId> {
        let is_built_on_it = |child: &&BackupId| self.plan.parents.get(*child) == Some(id);
        self.left.iter().find(is_built_on_it)
    }

    fn planned_status(&self, id: &BackupId) -> Option<BackupStatus> {
        let planned = &self.plan.plan.backups;
        planned.iter().find(|one| one.id == *id)?.status
    }

    /// Why a backup is no longer what the plan took it for.
    fn objection(&self, id: &BackupId, remains: &Remains) -> Option<String> {
        let status = match &remains.record {
            Ok(info) => Some(info.status),
            Err(RepositoryError::UnknownBackup { .. }) => None,
            Err(error) => return Some(chain(error)),
        };
        // A deletion of its own may be under way beside this one.
        let is_expected = status.is_none()
            || status == Some(BackupStatus::Failed)
            || status == self.planned_status(id);
        (!is_expected).then(|| {
            let status = status.map_or("", BackupStatus::as_str);
            format!("it is {status} now")
        })
    }

    async fn delete_wal(&mut self) -> Result<(), Stop> {
        let is_doomed = |range: &&WalRange| range.verdict.is_delete();
        let planned: Vec<&WalRange> = self.plan.plan.wal.iter().filter(is_doomed).collect();
        if planned.is_empty() {
            return Ok(());
        }
        let now = wal_now(self.repository, self.plan).await?;
        let now: Vec<&WalRange> = now.iter().filter(is_doomed).collect();
        for range in planned {
            self.delete_range(range, &now).await?;
        }
        Ok(())
    }

    /// Deletes what the index tells of WAL that is gone.
    async fn delete_index(&mut self) -> Result<(), Stop> {
        let (repository, size) = (self.repository, self.plan.wal.segment_size());
        let outlines = index::without_wal(repository, &self.plan.index, size).await?;
        for outlines in outlines.chunks(BATCH_FILES) {
            self.check_cancel()?;
            let outlines = outlines.iter();
            let keys = outlines.map(|outline| index_object::key(&repository.layout, outline));
            let keys: Vec<ObjectKey> = keys.collect();
            match repository.store.delete(&keys).await {
                Ok(()) => {
                    self.row.end();
                    self.done.index_objects += u64::try_from(keys.len()).unwrap_or(u64::MAX);
                }
                Err(error) if error.is_retryable() => return Err(error.into()),
                Err(error) => {
                    self.note("the index of deleted WAL", Tried::New, error.into())?;
                }
            }
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

    /// Deletes a batch, and where one cannot be deleted all but that: by halves.
    async fn delete_files(&mut self, batch: &mut Vec<StoredWal>) -> Result<(), Stop> {
        let files = mem::take(batch);
        if files.is_empty() {
            return Ok(());
        }
        let mut parts: Vec<&[StoredWal]> = vec![&files];
        while let Some(part) = parts.pop() {
            self.check_cancel()?;
            let keys: Vec<ObjectKey> = part.iter().map(|file| file.key.clone()).collect();
            match (self.repository.store.delete(&keys).await, part) {
                (Ok(()), _) => {
                    self.row.end();
                    self.done.wal_files += u64::try_from(part.len()).unwrap_or(u64::MAX);
                    self.done.wal_bytes += part.iter().map(|file| file.size).sum::<u64>();
                }
                (Err(error), [_]) => {
                    let what = keys[0].as_str();
                    self.note(what, Tried::New, error.into())?;
                }
                (Err(error), _) if error.is_retryable() => return Err(error.into()),
                (Err(_), _) => {
                    let (first, last) = part.split_at(part.len() / 2);
                    parts.extend([last, first]);
                }
            }
        }
        Ok(())
    }
}

fn holds(range: &WalRange, segment: SegmentName) -> bool {
    (range.files.first..=range.files.last).contains(&segment)
}
