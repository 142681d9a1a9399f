//! The archives that are open: each one's settings, store, and what works on it.
//!
//! An ObjectStore and its Secrets are looked at again when they are used and the last look is
//! older than 10 s; what changed is opened anew. While the API is away, what is known goes on.
//! Not here: reading the two (`documents`), and which archive a call is about.

pub mod documents;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cellarman::barman::layout::{Layout, ServerName, ServerNameError};
use cellarman::barman::repository::Repository;
use cellarman::config::Settings;
use cellarman::config::error::ConfigError;
use cellarman::fault::{Fault, Kind, chain};
use cellarman::service::wal_archive::{ArchiveOptions, Archiver};
use cellarman::service::wal_restore::{RestoreOptions, Restorer};
use cellarman::store::error::StoreError;
use cellarman::store::open;
use serde_json::Value;
use tokio::time;
use tracing::{info, warn};

use crate::archives::documents::{Documents, Reader};
use crate::cluster::ArchiveRef;
use crate::resources::{ObjectKind, ObjectRef, ResourceError, Resources};

/// How long a look at the ObjectStore and its Secrets serves.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// How long the API may take where something is known already.
const PATIENCE_WITH_KNOWN: Duration = Duration::from_secs(2);

/// How many archives are kept open: a cluster names three, and backups may name others.
const OPEN_MAX: usize = 16;

/// Where the certificates of ObjectStores are mounted.
const CERTIFICATES: &str = "/barman-certificates";

/// An archive that is open.
#[derive(Debug)]
pub struct OpenArchive {
    /// Which one.
    pub reference: ArchiveRef,
    /// The ObjectStore as it was read, without its status.
    pub object_store: Value,
    /// Its settings.
    pub settings: Settings,
    /// The server's part of the store.
    pub repository: Repository,
    /// Archives WAL there.
    pub archiver: Archiver,
    /// Restores WAL from there.
    pub restorer: Restorer,
}

/// An archive that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An object cannot be had. The cause is in the text, for it goes first.
    #[error("{cause} ({named_by} names it)")]
    Object {
        /// The field that names the object.
        named_by: String,
        /// Why.
        cause: ResourceError,
    },
    /// The settings are wrong.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The server's name cannot be one.
    #[error("serverName {name:?} cannot be used")]
    Server {
        /// The name.
        name: String,
        /// Why.
        source: ServerNameError,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// Whether it may be otherwise in a moment, without anybody's doing: the rights of a new
    /// cluster's account come a little later than its Pods.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Object { .. } | Self::Settings(ConfigError::SecretMissing { .. })
        )
    }
}

impl Fault for OpenError {
    fn kind(&self) -> Kind {
        match self {
            // A right that is missing here is a Role that is not there yet.
            Self::Object {
                cause: ResourceError::Denied { .. },
                ..
            }
            | Self::Server { .. } => Kind::Config,
            Self::Object { cause, .. } => cause.kind(),
            Self::Settings(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Object { cause, .. } => cause.hint(),
            Self::Settings(ConfigError::SecretMissing { secret, .. }) => {
                format!("Create the Secret {secret} in the Cluster's namespace.")
            }
            Self::Settings(error) => error.hint(),
            Self::Server { .. } => "Correct the parameter serverName of the plugin.".to_owned(),
            Self::Store(error) => error.hint(),
        }
    }
}

/// The archives that are open. Clones share them.
#[derive(Clone)]
pub struct ArchiveCache {
    resources: Arc<dyn Resources>,
    certificates: PathBuf,
    look_again_after: Duration,
    entries: Arc<Mutex<HashMap<ArchiveRef, Entry>>>,
}

struct Entry {
    archive: Arc<OpenArchive>,
    /// Of the documents it was opened from.
    digest: blake3::Hash,
    looked_at: Instant,
    /// Whether it was told that the API is away.
    is_absence_told: bool,
}

impl fmt::Debug for ArchiveCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("ArchiveCache");
        shown.field("resources", &self.resources);
        shown.finish_non_exhaustive()
    }
}

impl ArchiveCache {
    /// Nothing is open yet.
    pub fn new(resources: Arc<dyn Resources>) -> Self {
        Self {
            resources,
            certificates: PathBuf::from(CERTIFICATES),
            look_again_after: LOOK_AGAIN_AFTER,
            entries: Arc::default(),
        }
    }

    /// The archive, opened if need be. `named_by` is the field that names its ObjectStore.
    pub async fn open(
        &self,
        archive: &ArchiveRef,
        named_by: &str,
    ) -> Result<Arc<OpenArchive>, OpenError> {
        let known = match self.known(archive) {
            Some((known, looked_at)) if looked_at.elapsed() < self.look_again_after => {
                return Ok(known);
            }
            other => other.map(|(known, _)| known),
        };
        let reader = Reader {
            resources: &*self.resources,
            certificates: Some(&self.certificates),
        };
        let documents = reader.read(&archive.object_store, named_by);
        let documents = match &known {
            Some(_) => time::timeout(PATIENCE_WITH_KNOWN, documents)
                .await
                .unwrap_or_else(|_| Err(no_answer(archive, named_by))),
            None => documents.await,
        };
        let documents = match (documents, known) {
            (Ok(documents), _) => documents,
            (Err(error), Some(known)) if error.kind() == Kind::Unreachable => {
                self.keep_known(archive, &error);
                return Ok(known);
            }
            (Err(error), _) => return Err(error),
        };
        let digest = documents.digest();
        if let Some(known) = self.confirm(archive, digest) {
            return Ok(known);
        }
        let opened = Arc::new(self.open_documents(archive, documents).await?);
        self.keep(archive, &opened, digest);
        Ok(opened)
    }

    fn known(&self, archive: &ArchiveRef) -> Option<(Arc<OpenArchive>, Instant)> {
        self.with_entries(|entries| {
            let entry = entries.get(archive)?;
            Some((Arc::clone(&entry.archive), entry.looked_at))
        })
    }

    /// The known archive, when it was opened from the same documents.
    fn confirm(&self, archive: &ArchiveRef, digest: blake3::Hash) -> Option<Arc<OpenArchive>> {
        self.with_entries(|entries| {
            let entry = entries.get_mut(archive)?;
            if entry.digest != digest {
                return None;
            }
            entry.looked_at = Instant::now();
            entry.is_absence_told = false;
            Some(Arc::clone(&entry.archive))
        })
    }

    fn keep(&self, archive: &ArchiveRef, opened: &Arc<OpenArchive>, digest: blake3::Hash) {
        info!(
            object_store = archive.object_store,
            server = archive.server,
            url = opened.settings.destination.url,
            "opened the archive"
        );
        for warning in &opened.settings.warnings {
            warn!(object_store = archive.object_store, "{warning}");
        }
        self.with_entries(|entries| {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.looked_at);
            if entries.len() >= OPEN_MAX
                && let Some(oldest) = oldest.map(|(reference, _)| reference.clone())
            {
                entries.remove(&oldest);
            }
            let entry = Entry {
                archive: Arc::clone(opened),
                digest,
                looked_at: Instant::now(),
                is_absence_told: false,
            };
            entries.insert(archive.clone(), entry);
        });
    }

    /// Goes on with what is known until the next look.
    fn keep_known(&self, archive: &ArchiveRef, error: &OpenError) {
        let is_news = self.with_entries(|entries| {
            let entry = entries.get_mut(archive)?;
            entry.looked_at = Instant::now();
            let is_news = !entry.is_absence_told;
            entry.is_absence_told = true;
            Some(is_news)
        });
        if is_news == Some(true) {
            warn!(
                object_store = archive.object_store,
                error = chain(error),
                "going on with the ObjectStore as it was known"
            );
        }
    }

    fn with_entries<T>(&self, work: impl FnOnce(&mut HashMap<ArchiveRef, Entry>) -> T) -> T {
        work(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn open_documents(
        &self,
        archive: &ArchiveRef,
        documents: Documents,
    ) -> Result<OpenArchive, OpenError> {
        let server = server_name(archive)?;
        let env = |name: &str| std::env::var(name).ok();
        let settings = documents.settings(&env)?;
        let store = open::open(&settings.destination.store).await?;
        let layout = Layout::new(&settings.destination.path, &server);
        let repository = Repository::new(store, layout);
        let archiver = Archiver::new(
            repository.clone(),
            &settings.destination.store,
            ArchiveOptions {
                compression: settings.wal.compression,
                jobs: settings.wal.jobs,
                is_resident: true,
                allows_own_archive: false,
                tags: settings.tags.clone(),
                history_tags: settings.history_tags.clone(),
                encryption: settings.wal.encryption.clone(),
            },
        );
        let restorer = Restorer::new(
            repository.clone(),
            &settings.destination.store,
            RestoreOptions {
                takes_partial: true,
                jobs: settings.wal.jobs,
                codec_first: settings.wal.compression.codec,
            },
        );
        Ok(OpenArchive {
            reference: archive.clone(),
            object_store: documents.object_store,
            settings,
            repository,
            archiver,
            restorer,
        })
    }
}

/// The server's name, if it can be one.
pub fn server_name(archive: &ArchiveRef) -> Result<ServerName, OpenError> {
    archive.server.parse().map_err(|source| OpenError::Server {
        name: archive.server.clone(),
        source,
    })
}

fn no_answer(archive: &ArchiveRef, named_by: &str) -> OpenError {
    let object = ObjectRef::new(ObjectKind::ObjectStore, &archive.object_store);
    OpenError::Object {
        named_by: named_by.to_owned(),
        cause: ResourceError::Unreachable {
            object: object.to_string(),
            reason: "it did not answer in time".to_owned(),
        },
    }
}
