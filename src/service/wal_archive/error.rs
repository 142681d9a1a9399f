//! How archiving a WAL file fails, and what its user should do next.

use std::io;
use std::path::PathBuf;

use crate::barman::repository::RepositoryError;
use crate::domain::wal_file::{WalFileName, WalFileNameError};
use crate::fault::{Fault, Kind};
use crate::service::wal_archive::check::CheckError;
use crate::service::wal_archive::ownership::Stranger;
use crate::store::ObjectKey;
use crate::store::error::StoreError;
use crate::store::upload::UploadError;

/// A WAL file that was not archived.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The path does not end in the name of a WAL file.
    #[error(transparent)]
    Name(#[from] WalFileNameError),
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what its name says.
    #[error("{} is not what its name says", path.display())]
    Check {
        /// The file.
        path: PathBuf,
        /// Why.
        source: CheckError,
    },
    /// What is remembered beside the WAL cannot be written, where that must be durable.
    #[error("cannot write below {}", path.display())]
    State {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A cluster just recovered meets an archive that holds WAL.
    #[error(
        "the WAL archive {archive} must be empty for a cluster just recovered, and holds {found}"
    )]
    NotEmpty {
        /// The archive.
        archive: String,
        /// The file found.
        found: ObjectKey,
    },
    /// The archive is another server's.
    #[error("the WAL archive {archive} is not this server's own: {reason}")]
    NotOwn {
        /// The archive.
        archive: String,
        /// Why.
        reason: String,
    },
    /// The same name with other bytes is there.
    #[error("{name} is already in the archive with other contents, as {key}")]
    Conflict {
        /// The file.
        name: WalFileName,
        /// What is there, and stays.
        key: ObjectKey,
    },
    /// What is in the archive under this name cannot be read, so that nothing is known of it.
    #[error("{name} is already in the archive as {key}, which cannot be read")]
    Unreadable {
        /// The file.
        name: WalFileName,
        /// What is there, and stays.
        key: ObjectKey,
        /// Why.
        source: io::Error,
    },
    /// The object appears and disappears under our hands.
    #[error("{key} is now there and now not")]
    Unsteady {
        /// The object.
        key: ObjectKey,
    },
    /// A request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An upload in parts failed.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The catalog cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl ArchiveError {
    pub(super) fn not_own(archive: String, stranger: &Stranger) -> Self {
        Self::NotOwn {
            archive,
            reason: stranger.to_string(),
        }
    }
}

impl Fault for ArchiveError {
    fn kind(&self) -> Kind {
        match self {
            Self::Name(_) => Kind::Usage,
            Self::Read { .. } | Self::State { .. } => Kind::Local,
            Self::Check {
                source: CheckError::OtherCluster { .. },
                ..
            }
            | Self::NotEmpty { .. }
            | Self::NotOwn { .. }
            | Self::Conflict { .. } => Kind::Conflict,
            Self::Check { .. } | Self::Unreadable { .. } => Kind::Corrupt,
            Self::Unsteady { .. } => Kind::Unreachable,
            Self::Store(error) => error.kind(),
            Self::Upload(error) => error.kind(),
            Self::Repository(error) => error.kind(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Name(_) => {
                "Give the path of a WAL file, as in `cellarman wal archive %p`.".to_owned()
            }
            Self::Check {
                source: CheckError::OtherCluster { .. },
                ..
            } => "Nothing was archived: find out how another cluster's file came into this \
                  server's pg_wal, and take it away if nobody needs it."
                .to_owned(),
            Self::Check { .. } => {
                "Nothing was archived: compare the file with the server's own data directory and \
                 look for a disk or copy that failed."
                    .to_owned()
            }
            Self::NotEmpty { .. } => {
                "Give the new cluster a --server name of its own. If this archive really is this \
                 cluster's own, say so with --allow-own-archive."
                    .to_owned()
            }
            Self::NotOwn { .. } => {
                "Give this cluster a --server name of its own. If the archive really is its own, \
                 and a failover has left more of the old timeline there than this server ever had, \
                 say so with --allow-own-archive."
                    .to_owned()
            }
            Self::Unreadable { .. } => {
                "Nothing was overwritten: look at the object named, and move it away if it is broken."
                    .to_owned()
            }
            Self::Store(error) => error.hint(),
            Self::Upload(error) => error.hint(),
            Self::Repository(error) => error.hint(),
            other => other.kind().hint().to_owned(),
        }
    }
}
