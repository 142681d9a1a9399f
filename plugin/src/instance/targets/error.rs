//! How a call about recovery targets fails: with what cannot be told.

use cellarman::barman::repository::RepositoryError;
use cellarman::fault::{Fault, Kind};
use cellarman::service::restore::error::RestoreError;
use cellarman::service::restore::words::WordError;
use cellarman::service::targets::window::WindowError;

use crate::archives::OpenError;
use crate::cluster::ClusterError;
use crate::instance::choice::NoArchive;
use crate::recovery::hints;
use crate::resources::ResourceError;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetsError {
    /// A field of the request is missing.
    #[error("the request lacks {0}")]
    Missing(&'static str),
    /// A field has something that cannot be.
    #[error("{field} of the request cannot be read")]
    Word {
        /// The field.
        field: &'static str,
        /// Why.
        source: WordError,
    },
    /// A position that is none.
    #[error("lsn of the request is {0:?}, and an LSN looks like 0/3000060")]
    Lsn(String),
    /// A moment that no clock shows.
    #[error("time of the request is out of range")]
    Time,
    /// A target that is reached whole.
    #[error("exclusive of the request is only for time, xid and lsn")]
    Exclusive,
    /// A token that was not given out for this list.
    #[error("page_token of the request is none of this archive's list")]
    PageToken,
    /// The Cluster cannot be had.
    #[error(transparent)]
    Resource(#[from] ResourceError),
    /// The Cluster makes no sense.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The Cluster names no archive.
    #[error(transparent)]
    NoArchive(#[from] NoArchive),
    /// The archive cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The archive cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The log cannot be read.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// No plan can be made, whether or not the target can be reached.
    #[error(transparent)]
    Plan(#[from] RestoreError),
}

impl Fault for TargetsError {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing(_)
            | Self::Word { .. }
            | Self::Lsn(_)
            | Self::Time
            | Self::Exclusive
            | Self::PageToken => Kind::Usage,
            Self::Resource(error) => error.kind(),
            Self::Cluster(_) => Kind::Config,
            Self::NoArchive(error) => error.kind(),
            Self::Open(error) => error.kind(),
            Self::Repository(error) => error.kind(),
            Self::Window(error) => error.kind(),
            Self::Plan(error) => error.kind(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Resource(error) => error.hint(),
            Self::NoArchive(error) => error.hint(),
            Self::Open(error) => error.hint(),
            Self::Repository(error) => hints::of_repository(error),
            Self::Window(error) => error.hint(),
            Self::Plan(error) => hints::of(error),
            Self::PageToken => {
                "Begin again without a page_token, and pass on what next_page_token says."
                    .to_owned()
            }
            _ => self.kind().hint().to_owned(),
        }
    }
}
