//! How restoring a Cluster fails, in the words of its user.

use cellarman::barman::repository::RepositoryError;
use cellarman::fault::{Fault, Kind};
use cellarman::service::restore::error::RestoreError;
use cellarman::store::ObjectKey;
use cellarman::store::error::StoreError;

use crate::archives::OpenError;
use crate::cluster::ClusterError;
use crate::instance::choice::NoArchive;
use crate::instance::restore::wal_storage::MoveError;
use crate::recovery::hints;
use crate::recovery::target::TargetError;

/// A Cluster that was not restored. What was written is gone again.
#[derive(Debug, thiserror::Error)]
pub(super) enum HookError {
    /// A field of the request is missing.
    #[error("the request lacks {0}")]
    Missing(&'static str),
    /// The Cluster makes no sense.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The target makes no sense.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// No archive is named.
    #[error(transparent)]
    NoArchive(#[from] NoArchive),
    /// An archive cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What the new Cluster will archive to holds WAL already.
    #[error("expected empty archive: {archive} holds {found}")]
    NotEmpty {
        /// The archive.
        archive: String,
        /// A file in it.
        found: ObjectKey,
        /// The field that names its ObjectStore.
        field: String,
    },
    /// The store cannot be looked at.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalog cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The restore failed.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The WAL could not be moved to its volume.
    #[error(transparent)]
    WalStorage(#[from] MoveError),
    /// The restore broke off in a way that should not happen.
    #[error("the restore ended abnormally: {0}")]
    Task(String),
}

impl HookError {
    /// Whether it may be otherwise in a moment, with nothing done about it.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Open(error) => error.may_pass() || error.kind().is_retryable(),
            _ => self.kind().is_retryable(),
        }
    }
}

impl Fault for HookError {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing(_) | Self::Cluster(_) => Kind::Usage,
            Self::Target(error) => error.kind(),
            Self::NoArchive(error) => error.kind(),
            Self::Open(error) => error.kind(),
            Self::NotEmpty { .. } => Kind::Conflict,
            Self::Store(error) => error.kind(),
            Self::Repository(error) => error.kind(),
            Self::Restore(error) => error.kind(),
            Self::WalStorage(_) => Kind::Local,
            Self::Task(_) => Kind::Internal,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Target(error) => error.hint(),
            Self::NoArchive(error) => error.hint(),
            Self::Open(error) => error.hint(),
            Self::NotEmpty { field, .. } => format!(
                "Set {} to a name that no other cluster uses, or annotate the Cluster with \
                 cnpg.io/skipEmptyWalArchiveCheck: enabled if what is there may be added to.",
                field.replace("barmanObjectName", "serverName")
            ),
            Self::Store(error) => error.hint(),
            Self::Repository(error) => hints::of_repository(error),
            Self::Restore(error) => hints::of(error),
            Self::Missing(_) | Self::Cluster(_) | Self::WalStorage(_) | Self::Task(_) => {
                self.kind().hint().to_owned()
            }
        }
    }
}
