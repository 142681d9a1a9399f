//! One server's archive on a store: its backups' records, their tars, the marks that keep them,
//! and the names of its WAL.
//!
//! Not here: what is in the tars, and how WAL is put and fetched.

mod catalog;
mod catalog_cache;
pub mod delete;
mod folders;
mod keep;
pub mod record;
mod servers;
pub mod stored_backups;
pub mod wal;
pub mod wal_index;
pub mod wal_listing;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures::StreamExt;

use crate::barman::backup_info::{BackupInfo, BackupInfoError};
use crate::barman::layout::{ArchiveName, Layout, UnknownArchive};
use crate::codec::Codec;
use crate::domain::backup::{Backup, BackupId, BackupStatus, Keep};
use crate::fault::{Fault, Kind};
use crate::pgfile::history::HistoryError;
use crate::store::error::StoreError;
use crate::store::{ListRequest, ObjectKey, ObjectMeta, ObjectStore};

/// Requests under way at a time, when many records are read.
const REQUESTS_IN_FLIGHT: usize = 16;

/// What a record or a mark may measure: far more than any does, and little to hold in memory.
const SMALL_BYTES_MAX: u64 = 16 << 20;

/// One server's archive.
#[derive(Debug, Clone)]
pub struct Repository {
    /// The store it lies on.
    pub store: Arc<dyn ObjectStore>,
    /// Where in the store each object lies.
    pub layout: Layout,
}

/// All backups of a server.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Those whose record could be read, ordered by id.
    pub backups: Vec<CatalogEntry>,
    /// Those whose record could not, ordered by id.
    pub unreadable: Vec<Unreadable>,
}

/// One backup of many: what decisions need of it, its whole record left out.
#[derive(Debug, Clone)]
pub struct CatalogEntry {
    /// The backup.
    pub backup: Backup,
    /// The mark that keeps it.
    pub keep: Option<Keep>,
    /// What is stored of it.
    pub stored: Stored,
}

/// One backup with all that its record says.
#[derive(Debug, Clone)]
pub struct BackupRecord {
    /// The backup as decisions need it.
    pub backup: Backup,
    /// Its record.
    pub info: BackupInfo,
    /// The mark that keeps it.
    pub keep: Option<Keep>,
}

/// All objects in a backup's folder together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stored {
    /// Their bytes, as stored.
    pub bytes: u64,
    /// How many they are, the record among them.
    pub objects: u64,
    /// When the last of them was put, by the store's clock.
    pub last_put: DateTime<Utc>,
    /// Whether an archive is not among them without which the backup cannot be restored: that of the
    /// data directory, or that of a tablespace in its record.
    pub lacks_archives: bool,
}

impl Stored {
    fn add(&mut self, object: &ObjectMeta) {
        self.bytes += object.size;
        self.objects += 1;
        self.last_put = self.last_put.max(object.modified);
    }
}

/// A backup whose record cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The backup.
    pub id: BackupId,
    /// Why.
    pub reason: String,
    /// The mark that keeps it.
    pub keep: Option<Keep>,
    /// What is stored of it.
    pub stored: Stored,
}

/// A tar of a backup, as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredArchive {
    /// Its key.
    pub key: ObjectKey,
    /// What it holds.
    pub name: ArchiveName,
    /// How it is compressed.
    pub codec: Codec,
    /// Its size as stored.
    pub size: u64,
}

/// What is to be deleted of one backup, and why it may be.
#[derive(Debug)]
pub struct DeletionPlan {
    /// The backup.
    pub id: BackupId,
    /// Its record; `None` when that is gone already.
    record: Option<BackupInfo>,
    /// The key of its record, if it is there still.
    pub record_key: Option<ObjectKey>,
    /// Tars and all else below the backup's folder, but for its record.
    pub files: Vec<ObjectMeta>,
    /// Our own objects on this backup.
    pub private: Vec<ObjectMeta>,
}

/// How work on the archive fails.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// A request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No backup of that id or name.
    #[error("there is no backup {wanted:?} of server {server}")]
    UnknownBackup {
        /// What was asked for.
        wanted: String,
        /// The server.
        server: String,
    },
    /// Several backups of that name.
    #[error("{name:?} is the name of {} backups: {}", ids.len(), join(ids))]
    AmbiguousName {
        /// The name.
        name: String,
        /// The backups.
        ids: Vec<BackupId>,
    },
    /// No backup of that name among those whose record can be read.
    #[error(
        "no readable backup is named {name:?}, and the records of {} cannot be read",
        join(ids)
    )]
    NameNotCertain {
        /// The name.
        name: String,
        /// The backups whose names are not known.
        ids: Vec<BackupId>,
    },
    /// Another backup has this id.
    #[error("there is already a backup {id}")]
    Taken {
        /// The id.
        id: BackupId,
        /// What the store said.
        source: StoreError,
    },
    /// The record makes no sense.
    #[error("the record {key} cannot be read")]
    Record {
        /// Its key.
        key: ObjectKey,
        /// Where it fails.
        source: BackupInfoError,
    },
    /// An object that should be text is not.
    #[error("{key} is not UTF-8 text")]
    NotText {
        /// Its key.
        key: ObjectKey,
    },
    /// An object that should be small is not.
    #[error("{key} has {size} bytes, far too many for what it should be")]
    TooLarge {
        /// Its key.
        key: ObjectKey,
        /// Its size.
        size: u64,
    },
    /// A tar that cannot be read.
    #[error("backup {id} has an object that this release cannot read")]
    Archive {
        /// The backup.
        id: BackupId,
        /// The object.
        source: UnknownArchive,
    },
    /// A history file cannot be decompressed.
    #[error("cannot decompress {key}")]
    Decompress {
        /// Its key.
        key: ObjectKey,
        /// Why.
        source: std::io::Error,
    },
    /// A history file makes no sense.
    #[error("the timeline history {key} cannot be read")]
    History {
        /// Its key.
        key: ObjectKey,
        /// Where it fails.
        source: HistoryError,
    },
    /// The backup is kept.
    #[error("backup {id} is kept ({})", keep.as_str())]
    Kept {
        /// The backup.
        id: BackupId,
        /// How.
        keep: Keep,
    },
    /// Only whole backups can be kept.
    #[error("backup {id} is {status} and cannot be kept: only DONE backups can")]
    NotDone {
        /// The backup.
        id: BackupId,
        /// Its state.
        status: BackupStatus,
    },
    /// Other backups need it.
    #[error("incremental backups need backup {id}: {children}")]
    HasChildren {
        /// The backup.
        id: BackupId,
        /// Those that need it.
        children: String,
    },
    /// Its bytes lie with the cloud provider.
    #[error("backup {id} consists of volume snapshots, which only Barman can delete")]
    Snapshots {
        /// The backup.
        id: BackupId,
    },
}

fn join(ids: &[BackupId]) -> String {
    let ids: Vec<&str> = ids.iter().map(BackupId::as_str).collect();
    ids.join(", ")
}

impl Fault for RepositoryError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(source) => source.kind(),
            Self::UnknownBackup { .. } => Kind::NotFound,
            Self::Taken { .. } => Kind::Conflict,
            Self::AmbiguousName { .. }
            | Self::Kept { .. }
            | Self::NotDone { .. }
            | Self::HasChildren { .. }
            | Self::Snapshots { .. } => Kind::Refused,
            Self::NameNotCertain { .. }
            | Self::Record { .. }
            | Self::NotText { .. }
            | Self::TooLarge { .. }
            | Self::Archive { .. }
            | Self::Decompress { .. }
            | Self::History { .. } => Kind::Corrupt,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Store(source) => source.hint(),
            Self::AmbiguousName { .. } => "Give the id instead of the name.".to_owned(),
            Self::NameNotCertain { .. } => {
                "Give the id instead of the name; `cellarman backup list` shows all ids.".to_owned()
            }
            Self::Taken { .. } => "Run it again: ids have a resolution of one second.".to_owned(),
            Self::Kept { id, .. } => {
                format!("Run `cellarman backup release {id}` first if it may go.")
            }
            Self::HasChildren { .. } => "Delete those first.".to_owned(),
            Self::Snapshots { .. } => "Delete it with barman-cloud-backup-delete.".to_owned(),
            _ => self.kind().hint().to_owned(),
        }
    }
}

impl Repository {
    /// The archive at `layout` on `store`.
    pub fn new(store: Arc<dyn ObjectStore>, layout: Layout) -> Self {
        Self { store, layout }
    }

    /// A whole small object in memory: a record, a mark, a history.
    ///
    /// # Errors
    /// More than 16 MiB is [`RepositoryError::TooLarge`].
    pub async fn get_small(&self, key: &ObjectKey) -> Result<Bytes, RepositoryError> {
        Ok(self.get_small_object(key).await?.1)
    }

    async fn get_small_object(
        &self,
        key: &ObjectKey,
    ) -> Result<(ObjectMeta, Bytes), RepositoryError> {
        let mut body = self.store.get(key, None).await?;
        let size = body.meta.size;
        let too_large = |size| RepositoryError::TooLarge {
            key: key.clone(),
            size,
        };
        if size > SMALL_BYTES_MAX {
            return Err(too_large(size));
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.chunks.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok((body.meta, bytes.freeze()))
    }

    async fn get_text(&self, key: &ObjectKey) -> Result<String, RepositoryError> {
        let bytes = self.get_small(key).await?;
        String::from_utf8(bytes.into()).map_err(|_| RepositoryError::NotText { key: key.clone() })
    }

    /// All objects whose key begins with `prefix`.
    ///
    /// For prefixes below which the number of objects is bounded, such as one backup's.
    async fn list_all(&self, prefix: String) -> Result<Vec<ObjectMeta>, RepositoryError> {
        let mut request = ListRequest {
            prefix,
            ..ListRequest::default()
        };
        let mut objects = Vec::new();
        loop {
            let page = self.store.list(&request).await?;
            objects.extend(page.objects);
            request.token = page.next;
            if request.token.is_none() {
                return Ok(objects);
            }
        }
    }
}

#[cfg(test)]
mod catalog_tests;
#[cfg(test)]
mod counting_store;
#[cfg(test)]
mod tests;
