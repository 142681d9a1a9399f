//! How expiring fails.

use crate::barman::repository::RepositoryError;
use crate::fault::{Fault, Kind};
use crate::service::catalog::CatalogError;
use crate::service::expire::run::Done;
use crate::store::error::StoreError;

/// How expiring fails.
#[derive(Debug, thiserror::Error)]
pub enum ExpireError {
    /// The archive cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// It failed half-way.
    #[error("stopped after deleting {done}")]
    Stopped {
        /// What had been done.
        done: Box<Done>,
        /// Why it stopped.
        source: Box<CatalogError>,
    },
    /// It was interrupted half-way.
    #[error("interrupted after deleting {done}")]
    Cancelled {
        /// What had been done.
        done: Box<Done>,
    },
}

impl From<StoreError> for ExpireError {
    fn from(error: StoreError) -> Self {
        Self::Repository(error.into())
    }
}

impl Fault for ExpireError {
    fn kind(&self) -> Kind {
        match self {
            Self::Repository(source) => source.kind(),
            Self::Stopped { source, .. } => source.kind(),
            Self::Cancelled { .. } => Kind::Cancelled,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Repository(source) => source.hint(),
            Self::Stopped { source, .. } => {
                format!("Run it again to go on where it stopped. {}", source.hint())
            }
            Self::Cancelled { .. } => "Run it again to go on where it stopped.".to_owned(),
        }
    }
}
