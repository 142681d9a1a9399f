//! Clears what killed backups left: records STARTED that nobody works on, and their uploads.
//!
//! A plan first, with reasons, then a run. The archives of such a backup stay until it is
//! deleted: nothing here takes bytes that somebody may still want to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tracing::{info, warn};

use crate::barman::backup_info::BackupInfo;
use crate::barman::repository::{Catalog, CatalogEntry, Repository, RepositoryError};
use crate::domain::backup::{BackupId, BackupStatus};
use crate::fault::chain;
use crate::service::running::{self, Running};
use crate::service::store_clock::store_now;
use crate::store::error::StoreError;
use crate::store::{ListRequest, ObjectKey, UploadId};

/// A sign of life older than this is of a dead run: eight renewals were missed.
pub const STALE_AFTER: Duration = Duration::from_mins(2);
/// A backup without a sign of life is another tool's, and left alone so long.
pub const FOREIGN_STALE_AFTER: Duration = Duration::from_hours(24);

/// What is to be cleared of one backup, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The backup.
    pub id: BackupId,
    /// Why nobody works on it.
    pub reason: String,
    /// Whether its record still says STARTED, and is to say FAILED.
    pub is_started: bool,
    /// When its sign of life was last put, which is taken away at last; `None` without one.
    sign_put: Option<DateTime<Utc>>,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// The backups that are FAILED now.
    pub failed: Vec<BackupId>,
    /// How many uploads were aborted.
    pub uploads_aborted: usize,
    /// The backups left alone, that were taken for killed and are at work again, or have ended.
    pub alive: Vec<BackupId>,
}

/// Plans and runs.
pub async fn sweep(repository: &Repository) -> Result<Swept, RepositoryError> {
    let signs = signs_of_life(repository).await?;
    let catalog = repository.list_backups().await?;
    let may_be_needed = !signs.is_empty() || started(&catalog).next().is_some();
    if !may_be_needed {
        return Ok(Swept::default());
    }
    let now = store_now(repository).await?;
    let leftovers = plan(&catalog, &last_puts(&catalog), &signs, now);
    run(repository, &leftovers).await
}

/// What nobody works on at `now`, by the store's clock.
///
/// `signs` and `records` are when each sign of life and each record STARTED was last put, by
/// the same clock.
pub fn plan(
    catalog: &Catalog,
    records: &BTreeMap<BackupId, DateTime<Utc>>,
    signs: &BTreeMap<BackupId, DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Vec<Leftover> {
    let is_older = |time: DateTime<Utc>, limit: Duration| {
        TimeDelta::from_std(limit).is_ok_and(|limit| now.signed_duration_since(time) > limit)
    };
    let is_started: BTreeSet<&BackupId> = started(catalog).map(|entry| &entry.backup.id).collect();
    let unreadable: BTreeSet<&BackupId> = catalog.unreadable.iter().map(|one| &one.id).collect();
    let mut leftovers = Vec::new();
    for (id, put) in signs {
        if is_older(*put, STALE_AFTER) && !unreadable.contains(id) {
            leftovers.push(Leftover {
                id: id.clone(),
                reason: format!(
                    "no sign of life since {}",
                    put.format("%Y-%m-%d %H:%M:%S UTC")
                ),
                is_started: is_started.contains(id),
                sign_put: Some(*put),
            });
        }
    }
    for id in is_started {
        if let Some(put) = records.get(id)
            && !signs.contains_key(id)
            && is_older(*put, FOREIGN_STALE_AFTER)
        {
            leftovers.push(Leftover {
                id: id.clone(),
                reason: format!("not finished since {}", put.format("%Y-%m-%d %H:%M:%S UTC")),
                is_started: true,
                sign_put: None,
            });
        }
    }
    leftovers
}

/// Carries the plan out. Uploads go first, the record then, the sign of life last: killed in
/// between, the next run finds the rest.
pub async fn run(
    repository: &Repository,
    leftovers: &[Leftover],
) -> Result<Swept, RepositoryError> {
    let mut swept = Swept::default();
    for leftover in leftovers {
        let id = &leftover.id;
        if !is_dead_still(repository, leftover).await? {
            info!(%id, "a backup that was taken for killed is at work, or has ended");
            swept.alive.push(id.clone());
            continue;
        }
        swept.uploads_aborted += abort_uploads(repository, leftover).await?;
        if leftover.is_started && fail_record(repository, leftover).await? {
            info!(%id, reason = leftover.reason, "a killed backup is FAILED now");
            swept.failed.push(id.clone());
        }
        if leftover.sign_put.is_some() {
            let key = running::key(&repository.layout, id);
            repository.store.delete(&[key]).await?;
        }
    }
    Ok(swept)
}

/// Whether its sign of life is as it was planned with: its host may have been suspended, or cut off,
/// and be back since.
async fn is_dead_still(
    repository: &Repository,
    leftover: &Leftover,
) -> Result<bool, RepositoryError> {
    let Some(planned) = leftover.sign_put else {
        return Ok(true);
    };
    let key = running::key(&repository.layout, &leftover.id);
    match repository.store.head(&key).await {
        Ok(sign) => Ok(sign.modified <= planned),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn started(catalog: &Catalog) -> impl Iterator<Item = &CatalogEntry> {
    let backups = catalog.backups.iter();
    backups.filter(|entry| entry.backup.status == BackupStatus::Started)
}

/// When each sign of life was last put.
async fn signs_of_life(
    repository: &Repository,
) -> Result<BTreeMap<BackupId, DateTime<Utc>>, StoreError> {
    let prefix = repository.layout.private("backups/").as_str().to_owned();
    let mut request = ListRequest {
        prefix: prefix.clone(),
        ..ListRequest::default()
    };
    let mut signs = BTreeMap::new();
    loop {
        let page = repository.store.list(&request).await?;
        for object in page.objects {
            let id = object
                .key
                .as_str()
                .strip_prefix(&prefix)
                .and_then(|rest| rest.strip_suffix("/running.json"))
                .and_then(|id| id.parse().ok());
            if let Some(id) = id {
                signs.insert(id, object.modified);
            }
        }
        request.token = page.next;
        if request.token.is_none() {
            return Ok(signs);
        }
    }
}

/// When each backup STARTED was last worked on: its record, or an archive of it, put.
///
/// Of a large backup by another tool an archive is put every hour or so, for days.
pub(super) fn last_puts(catalog: &Catalog) -> BTreeMap<BackupId, DateTime<Utc>> {
    let started = started(catalog);
    started
        .map(|entry| (entry.backup.id.clone(), entry.stored.last_put))
        .collect()
}

/// Aborts the uploads that the sign of life names, and those that the store lists for the backup.
async fn abort_uploads(
    repository: &Repository,
    leftover: &Leftover,
) -> Result<usize, RepositoryError> {
    let store = &repository.store;
    let mut uploads: BTreeSet<(ObjectKey, String)> = BTreeSet::new();
    // Some stores list uploads for whole keys alone.
    let mut prefixes = vec![repository.layout.backup_prefix(&leftover.id)];
    for upload in recorded_uploads(repository, leftover).await? {
        if let Some(id) = upload.upload_id {
            uploads.insert((ObjectKey::new(upload.key.clone()), id));
        }
        prefixes.push(upload.key);
    }
    let own = prefixes[0].clone();
    for prefix in prefixes {
        match store.list_uploads(&prefix).await {
            Ok(listed) => uploads.extend(
                listed
                    .into_iter()
                    .filter(|(key, _)| key.as_str().starts_with(&own))
                    .map(|(key, upload)| (key, upload.0)),
            ),
            // Those that are recorded are aborted all the same.
            Err(error) => warn!(prefix, error = chain(&error), "cannot list uploads"),
        }
    }
    let mut aborted = 0;
    for (key, upload) in uploads {
        store.abort_upload(&key, &UploadId(upload)).await?;
        aborted += 1;
    }
    Ok(aborted)
}

async fn recorded_uploads(
    repository: &Repository,
    leftover: &Leftover,
) -> Result<Vec<running::RunningUpload>, RepositoryError> {
    if leftover.sign_put.is_none() {
        return Ok(Vec::new());
    }
    let key = running::key(&repository.layout, &leftover.id);
    match repository.get_small(&key).await {
        Ok(text) => Ok(serde_json::from_slice::<Running>(&text)
            .map(|running| running.uploads)
            .unwrap_or_default()),
        Err(RepositoryError::Store(error)) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Rewrites the record, unless it has been finished or deleted meanwhile.
async fn fail_record(
    repository: &Repository,
    leftover: &Leftover,
) -> Result<bool, RepositoryError> {
    let mut info: BackupInfo = match repository.backup_info(&leftover.id).await {
        Ok(info) => info,
        Err(RepositoryError::UnknownBackup { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    if info.status != BackupStatus::Started {
        return Ok(false);
    }
    info.status = BackupStatus::Failed;
    info.end_time = None;
    info.error = Some(format!("the run was killed: {}", leftover.reason));
    repository.put_backup_info(&leftover.id, &info).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::barman::layout::{ArchiveName, Layout};
    use crate::clock;
    use crate::codec::Codec;
    use crate::service::running::Heartbeat;
    use crate::store::PutOptions;
    use crate::store::memory::MemoryStore;
    use crate::store::upload::UploadObserver;
    use bytes::Bytes;
    use std::sync::Arc;

    fn id(text: &str) -> BackupId {
        text.parse().unwrap()
    }

    fn repository() -> Repository {
        let layout = Layout::new("p", &"srv".parse().unwrap());
        Repository::new(Arc::new(MemoryStore::new()), layout)
    }

    async fn put_record(repository: &Repository, id: &BackupId, status: BackupStatus) {
        let info = BackupInfo {
            status,
            ..BackupInfo::default()
        };
        repository.put_backup_info(id, &info).await.unwrap();
    }

    async fn status(repository: &Repository, id: &BackupId) -> (BackupStatus, Option<String>) {
        let info = repository.backup_info(id).await.unwrap();
        assert_eq!(info.end_time, None);
        (info.status, info.error)
    }

    #[tokio::test]
    async fn only_what_nobody_works_on_is_planned() {
        let repository = repository();
        let now = clock::now();
        let ago = |minutes| now - TimeDelta::minutes(minutes);
        let day = 24 * 60;
        let cases = [
            // id, state, sign of life, record, is planned
            ("alive", BackupStatus::Started, Some(1), 300, false),
            ("dead", BackupStatus::Started, Some(3), 300, true),
            ("ahead", BackupStatus::Started, Some(-5), 300, false),
            ("barman", BackupStatus::Started, None, day - 1, false),
            ("barman-old", BackupStatus::Started, None, day + 1, true),
            ("done", BackupStatus::Done, None, 2 * day, false),
            ("done-signed", BackupStatus::Done, Some(5), 5, true),
            ("failed", BackupStatus::Failed, None, 2 * day, false),
        ];
        let (mut signs, mut records) = (BTreeMap::new(), BTreeMap::new());
        for (name, status, sign, record, _) in cases {
            put_record(&repository, &id(name), status).await;
            records.insert(id(name), ago(record));
            signs.extend(sign.map(|minutes| (id(name), ago(minutes))));
        }
        // A run that died between its sign of life and its record.
        signs.insert(id("orphan"), ago(5));
        let catalog = repository.list_backups().await.unwrap();
        let planned = plan(&catalog, &records, &signs, now);
        let is_planned = |name: &str| planned.iter().any(|leftover| leftover.id == id(name));
        for (name, status, _, _, expected) in cases {
            assert_eq!(is_planned(name), expected, "{name}");
            let is_started = status == BackupStatus::Started;
            let leftover = planned.iter().find(|leftover| leftover.id == id(name));
            assert!(leftover.is_none_or(|leftover| leftover.is_started == is_started));
        }
        assert!(is_planned("orphan"));
    }

    #[tokio::test]
    async fn a_killed_backup_becomes_failed_and_loses_its_uploads() {
        let repository = repository();
        let store = Arc::clone(&repository.store);
        let id = id("20261121T054347");
        let heartbeat = Heartbeat::start(&repository, &id).await.unwrap();
        put_record(&repository, &id, BackupStatus::Started).await;
        let record = heartbeat.record();
        let mut keys = Vec::new();
        for piece in 0..2 {
            let name = ArchiveName {
                tablespace: None,
                piece,
            };
            let key = repository.layout.archive(&id, &name, Codec::None);
            record.beginning(&key).await.unwrap();
            let upload = store
                .begin_upload(&key, &PutOptions::default())
                .await
                .unwrap();
            // The second was killed before it could tell the id.
            if piece == 0 {
                record.begun(&key, &upload).await.unwrap();
            }
            keys.push(key);
        }
        drop((heartbeat, record));
        assert_eq!(sweep(&repository).await.unwrap(), Swept::default());

        let catalog = repository.list_backups().await.unwrap();
        let signs = signs_of_life(&repository).await.unwrap();
        let later = clock::now() + TimeDelta::minutes(3);
        let leftovers = plan(&catalog, &BTreeMap::new(), &signs, later);
        let swept = run(&repository, &leftovers).await.unwrap();
        assert_eq!((swept.failed, swept.uploads_aborted), (vec![id.clone()], 2));
        let (status, error) = status(&repository, &id).await;
        assert_eq!(status, BackupStatus::Failed);
        assert!(error.unwrap().contains("no sign of life since"));
        for key in keys {
            assert_eq!(store.list_uploads(key.as_str()).await.unwrap(), []);
        }
        assert!(signs_of_life(&repository).await.unwrap().is_empty());
        assert_eq!(sweep(&repository).await.unwrap(), Swept::default());
    }

    #[tokio::test]
    async fn an_archive_put_lately_is_work_on_its_backup() {
        let repository = repository();
        let id = id("20261121T054347");
        put_record(&repository, &id, BackupStatus::Started).await;
        let put = |repository: &Repository| {
            let (store, layout) = (Arc::clone(&repository.store), repository.layout.clone());
            let name = ArchiveName {
                tablespace: None,
                piece: 0,
            };
            let key = layout.archive(&id, &name, Codec::None);
            async move {
                store
                    .put(&key, Bytes::new(), &PutOptions::default())
                    .await
                    .unwrap();
                store.head(&key).await.unwrap().modified
            }
        };
        tokio::time::sleep(Duration::from_millis(5)).await;
        let modified = put(&repository).await;
        let catalog = repository.list_backups().await.unwrap();
        let records = last_puts(&catalog);
        assert_eq!(records.get(&id), Some(&modified));
    }

    #[tokio::test]
    async fn a_backup_finished_meanwhile_stays_as_it_is() {
        let repository = repository();
        let id = id("20261121T054347");
        put_record(&repository, &id, BackupStatus::Done).await;
        let leftover = Leftover {
            id: id.clone(),
            reason: String::new(),
            is_started: true,
            sign_put: None,
        };
        let swept = run(&repository, &[leftover]).await.unwrap();
        assert_eq!(swept, Swept::default());
        assert_eq!(status(&repository, &id).await.0, BackupStatus::Done);
    }

    #[tokio::test]
    async fn a_backup_that_shows_life_again_is_left_alone() {
        let repository = repository();
        let id = id("20261121T054347");
        let heartbeat = Heartbeat::start(&repository, &id).await.unwrap();
        put_record(&repository, &id, BackupStatus::Started).await;
        let catalog = repository.list_backups().await.unwrap();
        let signs = signs_of_life(&repository).await.unwrap();
        let later = clock::now() + TimeDelta::minutes(3);
        let leftovers = plan(&catalog, &BTreeMap::new(), &signs, later);
        assert_eq!(leftovers.len(), 1);
        // It tells of an upload, and so puts its sign anew.
        let key = repository.layout.backup_info(&id);
        let alive = Swept {
            alive: vec![id.clone()],
            ..Swept::default()
        };
        heartbeat.record().beginning(&key).await.unwrap();
        let swept = run(&repository, &leftovers).await.unwrap();
        assert_eq!(swept, alive);
        assert_eq!(status(&repository, &id).await.0, BackupStatus::Started);
        heartbeat.stop().await;
        // And one that has ended since has nothing to be cleared.
        let swept = run(&repository, &leftovers).await.unwrap();
        assert_eq!(swept, alive);
    }

    #[tokio::test]
    async fn two_runs_do_not_share_an_id() {
        let repository = repository();
        let id = id("20261121T054347");
        let first = Heartbeat::start(&repository, &id).await.unwrap();
        Heartbeat::start(&repository, &id).await.unwrap_err();
        first.stop().await;
        let key = running::key(&repository.layout, &id);
        assert!(
            repository
                .store
                .head(&key)
                .await
                .unwrap_err()
                .is_not_found()
        );
    }
}
