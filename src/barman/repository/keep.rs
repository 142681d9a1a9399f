//! The marks that hold backups back from deletion.
//!
//! A mark may lie in two places, see [`crate::barman::layout::Layout::keep`]: both are read, both
//! are removed, and both are written where the store can hold them.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::barman::repository::{Repository, RepositoryError};
use crate::domain::backup::{BackupId, BackupStatus, Keep};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{ObjectKey, ObjectMeta, PutOptions};

impl Repository {
    /// The mark on one backup, wherever it lies.
    pub async fn keep(&self, id: &BackupId) -> Result<Option<Keep>, RepositoryError> {
        let doubled = self.doubled_keeps().await?.contains(id);
        self.keep_given(id, doubled).await
    }

    pub(super) async fn keep_given(
        &self,
        id: &BackupId,
        is_doubled: bool,
    ) -> Result<Option<Keep>, RepositoryError> {
        let [plain, doubled] = self.layout.keep(id);
        let keep = self.read_keep(&plain).await?;
        if keep != Some(Keep::Full) && is_doubled && doubled != plain {
            let other = self.read_keep(&doubled).await?;
            return Ok(if other == Some(Keep::Full) {
                other
            } else {
                keep.or(other)
            });
        }
        Ok(keep)
    }

    /// The backups with something in the place under the doubled slash.
    ///
    /// One listing in place of a request per backup: there is hardly ever anything. A store that
    /// refuses such keys (`MinIO` does) cannot hold any.
    pub(super) async fn doubled_keeps(&self) -> Result<BTreeSet<BackupId>, RepositoryError> {
        let prefix = self.layout.doubled_base_prefix();
        if prefix == self.layout.base_prefix() {
            return Ok(BTreeSet::new());
        }
        let objects = self.list_doubled(prefix.clone()).await?;
        let id = |key: &ObjectKey| {
            let (id, rest) = key.as_str().strip_prefix(&prefix)?.split_once('/')?;
            (rest == "annotations/keep")
                .then(|| id.parse().ok())
                .flatten()
        };
        Ok(objects
            .iter()
            .filter_map(|object| id(&object.key))
            .collect())
    }

    /// A listing below the doubled slash.
    pub(super) async fn list_doubled(
        &self,
        prefix: String,
    ) -> Result<Vec<ObjectMeta>, RepositoryError> {
        match self.list_all(prefix).await {
            Err(RepositoryError::Store(error)) if is_refused_key(&error) => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// Reads a mark: its first line. Words that are not known keep the backup in full, for what is
    /// not understood must not be deleted.
    async fn read_keep(&self, key: &ObjectKey) -> Result<Option<Keep>, RepositoryError> {
        match self.get_small(key).await {
            Ok(bytes) => {
                let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
                let is_standalone = line.trim_ascii() == Keep::Standalone.as_str().as_bytes();
                Ok(Some(if is_standalone {
                    Keep::Standalone
                } else {
                    Keep::Full
                }))
            }
            Err(RepositoryError::Store(error)) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Marks a backup. Only DONE backups can be kept.
    pub async fn set_keep(&self, id: &BackupId, keep: Keep) -> Result<(), RepositoryError> {
        let status = self.backup_info(id).await?.status;
        if status != BackupStatus::Done {
            return Err(RepositoryError::NotDone {
                id: id.clone(),
                status,
            });
        }
        let [plain, doubled] = self.layout.keep(id);
        let body = Bytes::from_static(keep.as_str().as_bytes());
        let options = PutOptions::default();
        self.store.put(&plain, body.clone(), &options).await?;
        if doubled != plain {
            match self.store.put(&doubled, body, &options).await {
                Err(error) if is_refused_key(&error) => {}
                put => put?,
            }
        }
        Ok(())
    }

    /// Removes the mark from a backup; one that has none is left as it is.
    pub async fn release_keep(&self, id: &BackupId) -> Result<(), RepositoryError> {
        match self.backup_info(id).await {
            // Whatever the record says, there is one.
            Ok(_) | Err(RepositoryError::Record { .. } | RepositoryError::NotText { .. }) => {}
            Err(error) => return Err(error),
        }
        let [plain, doubled] = self.layout.keep(id);
        let mut keys = vec![plain];
        if self.doubled_keeps().await?.contains(id) {
            keys.push(doubled);
        }
        Ok(self.store.delete(&keys).await?)
    }
}

/// Whether the store can hold no such key at all: `MinIO` refuses doubled slashes.
fn is_refused_key(error: &StoreError) -> bool {
    matches!(
        error.kind,
        StoreErrorKind::Unsupported | StoreErrorKind::NotFound
    )
}
