//! The marks that hold backups back from deletion.
//!
//! A mark may lie in two places, see [`crate::barman::layout::Layout::keep`]: both are read, both
//! are removed, and both are written where the store can hold them.

use bytes::Bytes;

use crate::barman::repository::{Repository, RepositoryError};
use crate::domain::backup::{BackupId, BackupStatus, Keep};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{ObjectKey, ObjectMeta, PutOptions};

impl Repository {
    /// The mark on one backup, wherever it lies.
    pub async fn keep(&self, id: &BackupId) -> Result<Option<Keep>, RepositoryError> {
        let [plain, doubled] = self.layout.keep(id);
        let keep = self.read_keep(&plain).await?;
        if keep != Some(Keep::Full) && self.has_doubled_keep(id).await? {
            let other = self.read_keep(&doubled).await?;
            return Ok(if other == Some(Keep::Full) {
                other
            } else {
                keep.or(other)
            });
        }
        Ok(keep)
    }

    /// Whether a mark lies in the place under the doubled slash.
    ///
    /// Found by a listing: a store that refuses such keys (`MinIO` does) cannot hold any.
    async fn has_doubled_keep(&self, id: &BackupId) -> Result<bool, RepositoryError> {
        let [plain, doubled] = self.layout.keep(id);
        if plain == doubled {
            return Ok(false);
        }
        let objects = self.list_doubled(doubled.as_str().to_owned()).await?;
        Ok(objects.iter().any(|object| object.key == doubled))
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

    /// Reads a mark, if it is there.
    async fn read_keep(&self, key: &ObjectKey) -> Result<Option<Keep>, RepositoryError> {
        match self.get_small(key).await {
            Ok(bytes) => Ok(Some(keep_of(&bytes))),
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
        // Its deletion may have begun before the mark was there to be seen.
        let status = match self.backup_info(id).await {
            Ok(info) if info.status == BackupStatus::Done => return Ok(()),
            Ok(info) => Ok(info.status),
            Err(error) => Err(error),
        };
        self.remove_keep(id).await?;
        Err(RepositoryError::NotDone {
            id: id.clone(),
            status: status?,
        })
    }

    /// Removes the mark from a backup; one that has none is left as it is.
    pub async fn release_keep(&self, id: &BackupId) -> Result<(), RepositoryError> {
        match self.backup_info(id).await {
            // Whatever the record says, there is one.
            Ok(_) | Err(RepositoryError::Record { .. } | RepositoryError::NotText { .. }) => {}
            Err(error) => return Err(error),
        }
        self.remove_keep(id).await
    }

    async fn remove_keep(&self, id: &BackupId) -> Result<(), RepositoryError> {
        let [plain, doubled] = self.layout.keep(id);
        let mut keys = vec![plain];
        if self.has_doubled_keep(id).await? {
            keys.push(doubled);
        }
        Ok(self.store.delete(&keys).await?)
    }
}

/// What a mark says in its first line. Words that are not known keep the backup in full, for what
/// is not understood must not be deleted.
pub(super) fn keep_of(bytes: &[u8]) -> Keep {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
    if line.trim_ascii() == Keep::Standalone.as_str().as_bytes() {
        Keep::Standalone
    } else {
        Keep::Full
    }
}

/// Whether the store can hold no such key at all: `MinIO` refuses doubled slashes.
pub(super) fn is_refused_key(error: &StoreError) -> bool {
    matches!(
        error.kind,
        StoreErrorKind::Unsupported | StoreErrorKind::NotFound
    )
}
