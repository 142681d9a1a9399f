//! How expiring fails.

use crate::barman::repository::RepositoryError;
use crate::fault::{Fault, Kind};
use crate::service::catalog::CatalogError;
use crate::service::expire::run::Done;
use crate::store::error::StoreError;

/// So many of the servers that there are get named.
const NAMED_MAX: usize = 10;

/// How expiring fails.
#[derive(Debug, thiserror::Error)]
pub enum ExpireError {
    /// There is no such server.
    #[error("the archive has no backup and no WAL of server {server}{}", there_is(.beside))]
    UnknownServer {
        /// Its name.
        server: String,
        /// What lies beside it.
        beside: Vec<String>,
    },
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

/// The first few of the names.
fn there_is(beside: &[String]) -> String {
    match beside.split_at_checked(NAMED_MAX) {
        _ if beside.is_empty() => String::new(),
        None | Some((_, [])) => format!(": there is {}", beside.join(", ")),
        Some((named, more)) => format!(": there is {} and {} more", named.join(", "), more.len()),
    }
}

impl From<StoreError> for ExpireError {
    fn from(error: StoreError) -> Self {
        Self::Repository(error.into())
    }
}

impl Fault for ExpireError {
    fn kind(&self) -> Kind {
        match self {
            Self::UnknownServer { .. } => Kind::NotFound,
            Self::Repository(source) => source.kind(),
            Self::Stopped { source, .. } => source.kind(),
            Self::Cancelled { .. } => Kind::Cancelled,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::UnknownServer { .. } => {
                "Check --server and the path; before the first backup or WAL file there is nothing to expire."
                    .to_owned()
            }
            Self::Repository(source) => source.hint(),
            Self::Stopped { source, .. } => {
                format!("Run it again to go on where it stopped. {}", source.hint())
            }
            Self::Cancelled { .. } => "Run it again to go on where it stopped.".to_owned(),
        }
    }
}
