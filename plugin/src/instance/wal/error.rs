//! How a call about WAL fails, in the words of a Cluster's user.

use std::time::Duration;

use cellarman::fault::{Fault, Kind};
use cellarman::service::wal_archive::error::ArchiveError;
use cellarman::service::wal_restore::error::RestoreError;
use tonic::Status;

use crate::archives::OpenError;
use crate::cluster::ClusterError;
use crate::grpc::status;
use crate::instance::choice::NoArchive;

/// A call about WAL that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WalError {
    /// A field of the request is missing.
    #[error("the request lacks {0}")]
    Missing(&'static str),
    /// The Cluster makes no sense.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A name that is none of a WAL file.
    #[error(transparent)]
    Name(#[from] cellarman::domain::wal_file::WalFileNameError),
    /// No archive is named.
    #[error(transparent)]
    NoArchive(#[from] NoArchive),
    /// The archive cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file was not archived.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The file was not restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The store cannot be looked at.
    #[error(transparent)]
    Store(#[from] cellarman::store::error::StoreError),
    /// The store did not answer while the server could wait.
    #[error("the store did not answer within {} s", .0.as_secs())]
    OutOfPatience(Duration),
    /// The sidecar ends.
    #[error("the sidecar was told to end")]
    Ending,
}

impl WalError {
    /// Whether it is the store's word that the file is not there.
    pub(super) fn is_not_in_archive(&self) -> bool {
        matches!(self, Self::Restore(RestoreError::NotInArchive { .. }))
    }

    /// Whether nothing but another request will do.
    pub(super) fn is_of_the_request(&self) -> bool {
        matches!(
            self,
            Self::Missing(_) | Self::Cluster(_) | Self::Name(_) | Self::NoArchive(_) | Self::Ending
        )
    }

    /// The answer to the call. `field` names the ObjectStore of the archive.
    pub(super) fn to_status(&self, field: &str) -> Status {
        match self {
            Self::Archive(ArchiveError::NotEmpty { .. } | ArchiveError::NotOwn { .. }) => {
                status::with_hint(self, &ownership_hint(field))
            }
            _ => status::of(self),
        }
    }
}

/// What to do about an archive that is another cluster's.
fn ownership_hint(field: &str) -> String {
    let server = field.replace("barmanObjectName", "serverName");
    format!(
        "Expected empty archive: set {server} to a name that no other cluster uses. If this archive \
         really is this Cluster's own, annotate the Cluster with \
         cnpg.io/skipEmptyWalArchiveCheck: enabled; an archive of another cluster is refused all \
         the same."
    )
}

impl Fault for WalError {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing(_) | Self::Cluster(_) | Self::Name(_) => Kind::Usage,
            Self::NoArchive(error) => error.kind(),
            Self::Open(error) => error.kind(),
            Self::Archive(error) => error.kind(),
            Self::Restore(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::OutOfPatience(_) | Self::Ending => Kind::Unreachable,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::NoArchive(error) => error.hint(),
            Self::Open(error) => error.hint(),
            Self::Archive(error) => error.hint(),
            Self::Restore(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Ending => "It can be asked for again as soon as the next one serves.".to_owned(),
            Self::Missing(_) | Self::Cluster(_) | Self::Name(_) | Self::OutOfPatience(_) => {
                self.kind().hint().to_owned()
            }
        }
    }
}
