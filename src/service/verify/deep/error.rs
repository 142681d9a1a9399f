//! Why nothing can be restored and started on this host.

use std::path::PathBuf;

use crate::fault::{Fault, Kind};

/// Why nothing can be restored and started on this host.
#[derive(Debug, thiserror::Error)]
pub enum DeepError {
    /// PostgreSQL does not run as root, and there is nobody else to run it as.
    #[error("PostgreSQL does not run as root, and nobody else is known to run it as")]
    Root,
    /// The scratch directory cannot be used.
    #[error("cannot {action} {}", .path.display())]
    Scratch {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Another run is at work there.
    #[error("another verification is at work in {}", .path.display())]
    Taken {
        /// The directory.
        path: PathBuf,
    },
    /// A thread of ours ended before its work did.
    #[error("a thread ended: {0}")]
    Thread(String),
    /// No socket can be made below so long a path.
    #[error("{} is too long a path for a socket below it", .path.display())]
    LongPath {
        /// The directory.
        path: PathBuf,
    },
}

impl Fault for DeepError {
    fn kind(&self) -> Kind {
        match self {
            Self::Root => Kind::NotVerified,
            Self::Thread(_) => Kind::Internal,
            Self::Scratch { .. } | Self::Taken { .. } | Self::LongPath { .. } => Kind::Local,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Root => {
                "Run it as the user that runs PostgreSQL, or give that user the scratch directory: its \
                 owner runs the server."
            }
            Self::Scratch { .. } => {
                "Give --scratch a directory that this user may write to, with room for the largest backup."
            }
            Self::Taken { .. } => "Wait for its end, or give another --scratch.",
            Self::Thread(_) => return self.kind().hint().to_owned(),
            Self::LongPath { .. } => "Give --scratch a directory with a path of at most 60 letters.",
        }
        .to_owned()
    }
}
