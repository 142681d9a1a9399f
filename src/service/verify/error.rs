//! How a verification fails as a whole. What it finds is no failure.

use crate::barman::repository::RepositoryError;
use crate::fault::{Fault, Kind};
use crate::service::expire::error::ExpireError;
use crate::service::verify::deep::error::DeepError;

/// How a verification fails as a whole.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no such server.
    #[error(transparent)]
    Server(#[from] ExpireError),
    /// The archive cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// There is a backup of that id, and it is not whole.
    #[error("backup {id} is {status}: only DONE backups can be verified")]
    NotDone {
        /// The backup.
        id: String,
        /// Its state.
        status: String,
    },
    /// Nothing can be restored here.
    #[error(transparent)]
    Deep(#[from] DeepError),
    /// It was interrupted.
    #[error("the verification was interrupted")]
    Cancelled,
}

impl Fault for VerifyError {
    fn kind(&self) -> Kind {
        match self {
            Self::Server(source) => source.kind(),
            Self::Repository(source) => source.kind(),
            Self::NotDone { .. } => Kind::Refused,
            Self::Deep(source) => source.kind(),
            Self::Cancelled => Kind::Cancelled,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Server(_) => {
                "Check --server and the path; `cellarman check` tests the rest.".to_owned()
            }
            Self::Repository(source) => source.hint(),
            Self::NotDone { .. } => {
                "Choose another; `cellarman backup list` shows the state of each.".to_owned()
            }
            Self::Deep(source) => source.hint(),
            Self::Cancelled => {
                "Run it again: backups that were verified to the end are not read again.".to_owned()
            }
        }
    }
}
