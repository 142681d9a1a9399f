//! The record of one backup: reading it, writing it, and the tars that it speaks of.

use chrono::{DateTime, Utc};

use crate::barman::backup_info::BackupInfo;
use crate::barman::layout::ArchiveName;
use crate::barman::repository::{BackupRecord, Repository, RepositoryError, StoredArchive};
use crate::domain::backup::BackupId;
use crate::store::PutOptions;
use crate::store::error::{StoreError, StoreErrorKind};

/// What lies in a backup's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupContents {
    /// The tars: the data directory's first, then each tablespace's, pieces in order.
    pub archives: Vec<StoredArchive>,
    /// The bytes of all objects, tars or not, as stored.
    pub bytes: u64,
}

impl Repository {
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
    pub async fn backup(&self, id: &BackupId) -> Result<BackupRecord, RepositoryError> {
        let info = self.backup_info(id).await?;
        Ok(BackupRecord {
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

    /// Writes the record of a backup over the one that is there, with the tags of the backup.
    pub async fn put_tagged_backup_info(
        &self,
        id: &BackupId,
        info: &BackupInfo,
        tags: &[(String, String)],
    ) -> Result<(), RepositoryError> {
        let options = PutOptions {
            tags: tags.to_vec(),
            ..PutOptions::default()
        };
        self.put_record(id, info, &options).await
    }

    /// Writes the first record of a backup, with the tags of the backup.
    ///
    /// # Errors
    /// [`RepositoryError::Taken`] where a record is there already. A store that ignores the
    /// condition is caught by a look beforehand, but for two that begin in the same instant.
    pub async fn create_backup_info(
        &self,
        id: &BackupId,
        info: &BackupInfo,
        tags: &[(String, String)],
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
            tags: tags.to_vec(),
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

    /// When the last object in a backup's folder was put, by the store's clock.
    pub async fn last_put(&self, id: &BackupId) -> Result<Option<DateTime<Utc>>, RepositoryError> {
        let objects = self.list_all(self.layout.backup_prefix(id)).await?;
        Ok(objects.iter().map(|object| object.modified).max())
    }

    /// The tars of a backup: the data directory's first, then each tablespace's, pieces in order.
    ///
    /// # Errors
    /// As of [`Self::contents`].
    pub async fn archives(&self, id: &BackupId) -> Result<Vec<StoredArchive>, RepositoryError> {
        Ok(self.contents(id).await?.archives)
    }

    /// What lies in a backup's folder, by one listing of it.
    ///
    /// # Errors
    /// An object that is a tar by its name, in a kind not known here, is
    /// [`RepositoryError::Archive`]: without it the backup is not whole.
    pub async fn contents(&self, id: &BackupId) -> Result<BackupContents, RepositoryError> {
        let prefix = self.layout.backup_prefix(id);
        let mut contents = BackupContents::default();
        for object in self.list_all(prefix.clone()).await? {
            contents.bytes += object.size;
            let name = object.key.as_str().strip_prefix(&prefix).unwrap_or("");
            if name.contains('/') {
                continue;
            }
            let parsed = ArchiveName::parse(name).map_err(|source| RepositoryError::Archive {
                id: id.clone(),
                source,
            })?;
            if let Some((name, codec)) = parsed {
                contents.archives.push(StoredArchive {
                    key: object.key,
                    name,
                    codec,
                    size: object.size,
                });
            }
        }
        let archives = &mut contents.archives;
        archives.sort_by(|a, b| (a.name, &a.key).cmp(&(b.name, &b.key)));
        Ok(contents)
    }
}
