//! Expiring what retention no longer wants: the plan, with all it was made from.
//!
//! What the index tells of WAL goes when all of that WAL is gone.
//! The decision is `domain::retention`; here the archive is read for it, WAL page by page into
//! counted stretches. Not here: carrying the plan out (`run`).

pub mod error;
pub mod failures;
mod index;
pub mod run;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;

use crate::barman::repository::delete::is_deletion_begun;
use crate::barman::repository::wal::Histories;
use crate::barman::repository::wal_listing::WalScope;
use crate::barman::repository::{Catalog, CatalogEntry, Repository, RepositoryError, Unreadable};
use crate::domain::backup::{Backup, BackupId, BackupKind, BackupStatus};
use crate::domain::log::outline::Outline;
use crate::domain::retention::inventory::WalInventory;
use crate::domain::retention::{
    self, Activity, Archive, Candidate, Plan, Rules, SETTLED_AFTER, WalRange,
};
use crate::domain::timeline::TimelineId;
use crate::fault;
use crate::service::catalog::CLOCK_AHEAD_MAX;
use crate::service::expire::error::ExpireError;
use crate::service::maintenance::{self, Leftover};
use crate::store::ListRequest;
use crate::store::error::StoreError;

/// What is to be done, and what was found beside.
#[derive(Debug)]
pub struct ExpirePlan {
    /// The rules it was made by.
    pub rules: Rules,
    /// The moment it was made for.
    pub now: DateTime<Utc>,
    /// What becomes of each backup and of all WAL.
    pub plan: Plan,
    /// The backups whose record cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// The timelines whose history cannot be read, and why.
    pub unreadable_histories: Vec<(TimelineId, String)>,
    /// Objects below `wals/` that are no WAL, or lie where no reader looks. They stay.
    pub foreign_objects: u64,
    /// Killed backups, marked FAILED before anything else is done.
    pub killed: Vec<Leftover>,
    /// Marked backups whose deletion was begun and never went on, to be made whole again.
    pub taken_back: Vec<BackupId>,
    /// Backups whose deletion was killed after their record had gone: our own objects are left.
    pub orphans: Vec<BackupId>,
    /// The index objects of which no segment is left then.
    pub index: Vec<Outline>,
    /// What each incremental backup is built on.
    parents: BTreeMap<BackupId, BackupId>,
    /// When the newest object of a backup was put.
    newest_backup: Option<DateTime<Utc>>,
    wal: WalInventory,
}

impl ExpirePlan {
    /// When the newest object that was looked at was put, by the store's clock.
    pub fn newest_put(&self) -> Option<DateTime<Utc>> {
        let ranges = self.plan.wal.iter().map(|range| range.files.newest_put);
        ranges.chain(self.newest_backup).max()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let is_clear = self.killed.is_empty() && self.taken_back.is_empty();
        let is_empty = self.plan.is_empty() && self.index.is_empty();
        is_empty && is_clear && self.orphans.is_empty()
    }
}

/// Sees that there is anything of the server: a name that was mistyped has nothing to expire, ever.
pub async fn check_server(repository: &Repository) -> Result<(), ExpireError> {
    if repository.has_server().await? {
        return Ok(());
    }
    Err(ExpireError::UnknownServer {
        server: repository.layout.server().to_string(),
        // Not everybody may look there.
        beside: repository.names_beside().await.unwrap_or_default(),
    })
}

/// Reads the archive and decides, for the moment `now`: for a run, that is `store_clock::now`.
/// Changes nothing.
pub async fn plan(
    repository: &Repository,
    rules: Rules,
    now: DateTime<Utc>,
) -> Result<ExpirePlan, ExpireError> {
    let found = Found::read(repository, now).await?;
    // Before the WAL, which has all of what is indexed then.
    let outlines = repository.index_outlines(None).await?;
    let mut wal = WalInventory::new(found.backups(), &found.histories.read);
    let foreign_objects = count_wal(repository, &mut wal).await?;
    let plan = found.decide(&wal, |archive| retention::plan(archive, rules, now));
    Ok(ExpirePlan {
        rules,
        now,
        index: index::expired(outlines, &plan.wal, wal.segment_size()),
        plan,
        taken_back: found.taken_back(now),
        orphans: found.orphans(),
        parents: found.parents(),
        newest_backup: found.newest_put(),
        unreadable: found.catalog.unreadable,
        unreadable_histories: found
            .histories
            .unreadable
            .iter()
            .map(|one| (one.timeline, fault::chain(&one.error)))
            .collect(),
        foreign_objects,
        killed: found.killed,
        wal,
    })
}

/// What becomes of the WAL that the plan counted, given the backups that are there now.
async fn wal_now(
    repository: &Repository,
    planned: &ExpirePlan,
) -> Result<Vec<WalRange>, RepositoryError> {
    let found = Found::read(repository, planned.now).await?;
    let (rules, now) = (planned.rules, planned.now);
    Ok(found.decide(&planned.wal, |archive| {
        retention::plan_wal(archive, rules, now)
    }))
}

/// Counts all WAL, one page in memory at a time; returns how many objects are something else.
async fn count_wal(
    repository: &Repository,
    wal: &mut WalInventory,
) -> Result<u64, RepositoryError> {
    let mut foreign = 0;
    let mut pages = std::pin::pin!(repository.wal_objects(WalScope::All, None));
    while let Some(page) = pages.try_next().await? {
        for file in page.files {
            if let Some(segment) = file.name.segment() {
                wal.add(segment, file.size, file.modified);
            }
        }
        foreign += u64::try_from(page.foreign.len()).unwrap_or(u64::MAX);
    }
    Ok(foreign)
}

/// Our own objects on backups.
#[derive(Debug, Default)]
struct Private {
    /// The backups that have any.
    ids: BTreeSet<BackupId>,
    /// When each sign of life was last put.
    signs: BTreeMap<BackupId, DateTime<Utc>>,
}

impl Private {
    async fn list(repository: &Repository) -> Result<Self, StoreError> {
        let prefix = repository.layout.private("backups/").as_str().to_owned();
        let mut request = ListRequest {
            prefix: prefix.clone(),
            ..ListRequest::default()
        };
        let mut private = Self::default();
        loop {
            let page = repository.store.list(&request).await?;
            for object in page.objects {
                let inside = object.key.as_str().strip_prefix(&prefix);
                let Some((id, name)) = inside.and_then(|inside| inside.split_once('/')) else {
                    continue;
                };
                let Ok(id) = id.parse::<BackupId>() else {
                    continue;
                };
                if name == "running.json" {
                    private.signs.insert(id.clone(), object.modified);
                }
                private.ids.insert(id);
            }
            request.token = page.next;
            if request.token.is_none() {
                return Ok(private);
            }
        }
    }
}

/// All of an archive but its WAL.
struct Found {
    private: Private,
    catalog: Catalog,
    histories: Histories,
    killed: Vec<Leftover>,
}

impl Found {
    /// Signs of life are read first: a backup that begins meanwhile is then STARTED without one,
    /// and left alone, and one that ends meanwhile still has its own.
    async fn read(repository: &Repository, now: DateTime<Utc>) -> Result<Self, RepositoryError> {
        let private = Private::list(repository).await?;
        let catalog = repository.list_backups().await?;
        let histories = repository.read_histories().await?;
        let last_put = maintenance::last_puts(&catalog);
        let then = now - CLOCK_AHEAD_MAX;
        let killed = maintenance::plan(&catalog, &last_put, &private.signs, then);
        Ok(Self {
            private,
            catalog,
            histories,
            killed,
        })
    }

    fn backups(&self) -> impl Iterator<Item = &Backup> + Clone {
        self.catalog.backups.iter().map(|entry| &entry.backup)
    }

    fn newest_put(&self) -> Option<DateTime<Utc>> {
        let backups = self.catalog.backups.iter();
        backups.map(|entry| entry.stored.last_put).max()
    }

    fn parents(&self) -> BTreeMap<BackupId, BackupId> {
        let incremental = |backup: &Backup| match &backup.kind {
            BackupKind::Incremental { parent } => Some((backup.id.clone(), parent.parse().ok()?)),
            BackupKind::Full | BackupKind::Snapshot => None,
        };
        self.backups().filter_map(incremental).collect()
    }

    fn decide<T>(&self, wal: &WalInventory, decide: impl FnOnce(&Archive<'_>) -> T) -> T {
        let killed: BTreeSet<&BackupId> = self.killed.iter().map(|one| &one.id).collect();
        let candidates: Vec<Candidate<'_>> = self
            .catalog
            .backups
            .iter()
            .map(|entry| Candidate {
                backup: &entry.backup,
                keep: entry.keep,
                activity: self.activity(entry, killed.contains(&entry.backup.id)),
                lacks_archives: entry.stored.lacks_archives,
            })
            .collect();
        let unreadable = self.catalog.unreadable.iter().map(|one| one.id.clone());
        let unreadable: Vec<BackupId> = unreadable.chain(self.beginning(&killed)).collect();
        decide(&Archive {
            candidates: &candidates,
            unreadable: &unreadable,
            histories: &self.histories.read,
            wal,
        })
    }

    fn activity(&self, entry: &CatalogEntry, is_killed: bool) -> Activity {
        let backup = &entry.backup;
        let has_sign = self.private.signs.contains_key(&backup.id);
        match backup.status {
            BackupStatus::Started if is_killed => Activity::Dead,
            BackupStatus::Failed if is_deletion_begun(backup.error.as_deref()) => {
                Activity::BeingDeleted
            }
            _ if has_sign && !is_killed => Activity::Running,
            _ => Activity::QuietSince(entry.stored.last_put),
        }
    }

    /// Marked backups whose deletion was begun and has been left alone since: with the mark in place
    /// no deletion goes on.
    fn taken_back(&self, now: DateTime<Utc>) -> Vec<BackupId> {
        let entries = self.catalog.backups.iter().filter(|entry| {
            let idle = now.signed_duration_since(entry.stored.last_put);
            entry.keep.is_some()
                && self.activity(entry, false) == Activity::BeingDeleted
                && idle > SETTLED_AFTER
                && !entry.stored.lacks_archives
        });
        entries.map(|entry| entry.backup.id.clone()).collect()
    }

    fn has_folder(&self, id: &BackupId) -> bool {
        let backups = &self.catalog.backups;
        let is_readable = backups.binary_search_by(|entry| entry.backup.id.cmp(id));
        is_readable.is_ok() || self.catalog.unreadable.iter().any(|one| one.id == *id)
    }

    /// Backups that have a sign of life and no record yet.
    fn beginning(&self, killed: &BTreeSet<&BackupId>) -> Vec<BackupId> {
        let signs = self.private.signs.keys();
        let alive = signs.filter(|id| !killed.contains(id) && !self.has_folder(id));
        alive.cloned().collect()
    }

    /// Backups of which nothing but our own objects is left, and no sign of life.
    fn orphans(&self) -> Vec<BackupId> {
        let ids = self.private.ids.iter();
        let without = ids.filter(|id| !self.private.signs.contains_key(id) && !self.has_folder(id));
        without.cloned().collect()
    }
}

#[cfg(test)]
mod tests;
