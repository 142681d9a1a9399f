//! The records of backups: reading all of them, one of them, and writing.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};

use crate::barman::backup_info::BackupInfo;
use crate::barman::layout::ArchiveName;
use crate::barman::repository::{
    Catalog, CatalogEntry, REQUESTS_IN_FLIGHT, Repository, RepositoryError, StoredArchive,
    Unreadable,
};
use crate::domain::backup::BackupId;
use crate::fault;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{ListRequest, PutOptions};

/// What became of one folder below `base/`.
enum Folder {
    Backup(Box<CatalogEntry>),
    Unreadable(Unreadable),
    /// No record lies in it: no backup, as Barman sees it too.
    Empty,
}

impl Repository {
    /// All backups, each record read, a bounded number of them at a time.
    ///
    /// A record that makes no sense does not stop the rest; a store that fails does.
    pub async fn list_backups(&self) -> Result<Catalog, RepositoryError> {
        let ids = self.backup_ids().await?;
        let doubled = self.doubled_keeps().await?;
        let mut folders = stream::iter(ids)
            .map(|id| self.read_folder(id, &doubled))
            .buffered(REQUESTS_IN_FLIGHT);
        let mut catalog = Catalog::default();
        while let Some(folder) = folders.try_next().await? {
            match folder {
                Folder::Backup(entry) => catalog.backups.push(*entry),
                Folder::Unreadable(unreadable) => catalog.unreadable.push(unreadable),
                Folder::Empty => {}
            }
        }
        Ok(catalog)
    }

    async fn read_folder(
        &self,
        id: BackupId,
        doubled: &BTreeSet<BackupId>,
    ) -> Result<Folder, RepositoryError> {
        let info = match self.backup_info(&id).await {
            Ok(info) => info,
            Err(RepositoryError::UnknownBackup { .. }) => return Ok(Folder::Empty),
            Err(error @ RepositoryError::Store(_)) => return Err(error),
            Err(error) => {
                let reason = fault::chain(&error);
                return Ok(Folder::Unreadable(Unreadable { id, reason }));
            }
        };
        let keep = self.keep_given(&id, doubled.contains(&id)).await?;
        Ok(Folder::Backup(Box::new(CatalogEntry {
            backup: info.to_backup(&id),
            info,
            keep,
        })))
    }

    /// The folders below `base/`, whether or not a record lies in them, in order.
    pub async fn backup_ids(&self) -> Result<Vec<BackupId>, RepositoryError> {
        let base = self.layout.base_prefix();
        let mut request = ListRequest {
            prefix: base.clone(),
            is_delimited: true,
            ..ListRequest::default()
        };
        let mut ids = Vec::new();
        loop {
            let page = self.store.list(&request).await?;
            let names = page.prefixes.iter().filter_map(|prefix| {
                let name = prefix.strip_prefix(&base)?.strip_suffix('/')?;
                name.parse::<BackupId>().ok()
            });
            ids.extend(names);
            request.token = page.next;
            if request.token.is_none() {
                ids.sort();
                return Ok(ids);
            }
        }
    }

    /// The record of one backup.
    ///
    /// # Errors
    /// [`RepositoryError::UnknownBackup`] only where the store said that it is not there.
    pub async fn backup_info(&self, id: &BackupId) -> Result<BackupInfo, RepositoryError> {
        let key = self.layout.backup_info(id);
        let text = match self.get_text(&key).await {
            Err(RepositoryError::Store(error)) if error.is_not_found() => {
                return Err(self.unknown(id.as_str()));
            }
            read => read?,
        };
        BackupInfo::parse(&text).map_err(|source| RepositoryError::Record { key, source })
    }

    /// One backup with its record and its mark.
    pub async fn backup(&self, id: &BackupId) -> Result<CatalogEntry, RepositoryError> {
        let info = self.backup_info(id).await?;
        Ok(CatalogEntry {
            backup: info.to_backup(id),
            info,
            keep: self.keep(id).await?,
        })
    }

    pub(super) fn unknown(&self, wanted: &str) -> RepositoryError {
        RepositoryError::UnknownBackup {
            wanted: wanted.to_owned(),
            server: self.layout.server().to_string(),
        }
    }

    /// Writes the record of a backup over the one that is there.
    pub async fn put_backup_info(
        &self,
        id: &BackupId,
        info: &BackupInfo,
    ) -> Result<(), RepositoryError> {
        self.put_record(id, info, &PutOptions::default()).await
    }

    /// Writes the first record of a backup, tags included.
    ///
    /// # Errors
    /// [`RepositoryError::Taken`] where a record is there already. A store that ignores the
    /// condition is caught by a look beforehand, but for two that begin in the same instant.
    pub async fn create_backup_info(
        &self,
        id: &BackupId,
        info: &BackupInfo,
    ) -> Result<(), RepositoryError> {
        let key = self.layout.backup_info(id);
        match self.store.head(&key).await {
            Ok(_) => {
                return Err(RepositoryError::Taken {
                    id: id.clone(),
                    source: StoreError {
                        operation: "put",
                        subject: key.to_string(),
                        kind: StoreErrorKind::Exists,
                        source: None,
                    },
                });
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        let options = PutOptions {
            if_absent: true,
            ..PutOptions::default()
        };
        match self.put_record(id, info, &options).await {
            Err(RepositoryError::Store(source)) if source.kind == StoreErrorKind::Exists => {
                Err(RepositoryError::Taken {
                    id: id.clone(),
                    source,
                })
            }
            put => put,
        }
    }

    async fn put_record(
        &self,
        id: &BackupId,
        info: &BackupInfo,
        options: &PutOptions,
    ) -> Result<(), RepositoryError> {
        let key = self.layout.backup_info(id);
        let text = info.to_text();
        Ok(self.store.put(&key, text.into(), options).await?)
    }

    /// The bytes of all objects of a backup, as stored.
    pub async fn stored_bytes(&self, id: &BackupId) -> Result<u64, RepositoryError> {
        let objects = self.list_all(self.layout.backup_prefix(id)).await?;
        Ok(objects.iter().map(|object| object.size).sum())
    }

    /// The tars of a backup: the data directory's first, then each tablespace's, pieces in order.
    ///
    /// # Errors
    /// An object that is a tar by its name, in a kind not known here, is
    /// [`RepositoryError::Archive`]: without it the backup is not whole.
    pub async fn archives(&self, id: &BackupId) -> Result<Vec<StoredArchive>, RepositoryError> {
        let prefix = self.layout.backup_prefix(id);
        let mut archives = Vec::new();
        for object in self.list_all(prefix.clone()).await? {
            let name = object.key.as_str().strip_prefix(&prefix).unwrap_or("");
            if name.contains('/') {
                continue;
            }
            let parsed = ArchiveName::parse(name).map_err(|source| RepositoryError::Archive {
                id: id.clone(),
                source,
            })?;
            if let Some((name, codec)) = parsed {
                archives.push(StoredArchive {
                    key: object.key,
                    name,
                    codec,
                    size: object.size,
                });
            }
        }
        archives.sort_by(|a, b| (a.name, &a.key).cmp(&(b.name, &b.key)));
        Ok(archives)
    }

    /// The backup that a user means: by its id, else by its name.
    ///
    /// An id is taken as it is where it has the shape of one; it need not exist.
    pub async fn resolve(&self, wanted: &str) -> Result<BackupId, RepositoryError> {
        if BackupId::is_shape_of_id(wanted) {
            return wanted.parse().map_err(|_| self.unknown(wanted));
        }
        let catalog = self.list_backups().await?;
        let is_wanted = |id: &BackupId| id.as_str() == wanted;
        let readable = catalog.backups.iter().map(|entry| &entry.backup.id);
        let unreadable = catalog.unreadable.iter().map(|entry| &entry.id);
        if let Some(id) = readable.chain(unreadable).find(|id| is_wanted(id)) {
            return Ok(id.clone());
        }
        let named = |entry: CatalogEntry| {
            (entry.backup.name.as_deref() == Some(wanted)).then_some(entry.backup.id)
        };
        let mut ids: Vec<BackupId> = catalog.backups.into_iter().filter_map(named).collect();
        let unreadable = catalog.unreadable.into_iter().map(|entry| entry.id);
        match ids.len() {
            0 if unreadable.len() > 0 => Err(RepositoryError::NameNotCertain {
                name: wanted.to_owned(),
                ids: unreadable.collect(),
            }),
            0 => Err(self.unknown(wanted)),
            1 => Ok(ids.remove(0)),
            _ => Err(RepositoryError::AmbiguousName {
                name: wanted.to_owned(),
                ids,
            }),
        }
    }
}
