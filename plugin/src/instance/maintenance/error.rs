//! How a round fails.

use cellarman::barman::repository::RepositoryError;
use cellarman::fault::{Fault, Kind};
use cellarman::service::expire::error::ExpireError;
use cellarman::service::targets::window::WindowError;

use crate::archives::OpenError;
use crate::cluster::ClusterError;
use crate::resources::ResourceError;

/// A round that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoundError {
    /// An object cannot be had.
    #[error(transparent)]
    Resource(#[from] ResourceError),
    /// The Cluster makes no sense.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The plugin is in use without an archive.
    #[error("the Cluster names no ObjectStore for this plugin")]
    NoStore,
    /// The archive cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The archive cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// How far it can be recovered cannot be told.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// Retention failed.
    #[error(transparent)]
    Expire(#[from] ExpireError),
    /// Retention could not delete everything.
    #[error("retention could not delete {what}: {reason}; such failures: {count}")]
    LeftBehind {
        /// How many.
        count: usize,
        /// The first.
        what: String,
        /// Why.
        reason: String,
        /// What kind of failure that is.
        kind: Kind,
    },
}

impl Fault for RoundError {
    fn kind(&self) -> Kind {
        match self {
            Self::Resource(error) => error.kind(),
            Self::Cluster(_) => Kind::Corrupt,
            Self::NoStore => Kind::Config,
            Self::Open(error) => error.kind(),
            Self::Repository(error) => error.kind(),
            Self::Window(error) => error.kind(),
            Self::Expire(error) => error.kind(),
            Self::LeftBehind { kind, .. } => *kind,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Resource(error) => error.hint(),
            Self::Cluster(_) => "See what has changed the Cluster last.".to_owned(),
            Self::NoStore => {
                "Set barmanObjectName in spec.plugins[].parameters of the Cluster.".to_owned()
            }
            Self::Open(error) => error.hint(),
            Self::Repository(error) => error.hint(),
            Self::Window(error) => error.hint(),
            Self::Expire(error) => error.hint(),
            Self::LeftBehind { .. } => {
                "Check that the credentials may delete, and that no lock holds the objects."
                    .to_owned()
            }
        }
    }
}
