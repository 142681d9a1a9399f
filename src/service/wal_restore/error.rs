//! How restoring a WAL file fails.

use std::io;
use std::path::PathBuf;

use crate::domain::wal_file::WalFileName;
use crate::fault::{Fault, Kind};
use crate::pgfile::wal::page::SegmentHeaderError;
use crate::store::ObjectKey;
use crate::store::error::StoreError;

/// A WAL file that was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store said that there is no such file, under any suffix. Nothing else becomes this.
    #[error("{name} is not in the archive")]
    NotInArchive {
        /// The file.
        name: WalFileName,
    },
    /// A file of this host cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object cannot be decompressed to its end.
    #[error("{key} is damaged")]
    Damaged {
        /// The object.
        key: ObjectKey,
        /// Why.
        source: io::Error,
    },
    /// The object is whole and not what its name says.
    #[error("{key} is not what its name says")]
    Misnamed {
        /// The object.
        key: ObjectKey,
        /// Why.
        source: ContentError,
    },
    /// The object appears and disappears under our hands.
    #[error("{name} is now in the archive and now not")]
    Unsteady {
        /// The file.
        name: WalFileName,
    },
    /// A request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Content that does not fit the name of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// No header of a segment.
    #[error(transparent)]
    Header(#[from] SegmentHeaderError),
    /// Not as long as its header says.
    #[error("it has {found} bytes and not the {expected} of a segment")]
    Size {
        /// The size found.
        found: u64,
        /// The size expected.
        expected: u64,
    },
    /// The pages of another segment.
    #[error("its first page is at {found}, where this segment does not begin")]
    Address {
        /// The address in the page.
        found: crate::domain::lsn::Lsn,
    },
}

impl Fault for RestoreError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotInArchive { .. } => Kind::NotFound,
            Self::Write { .. } => Kind::Local,
            Self::Damaged { .. } | Self::Misnamed { .. } => Kind::Corrupt,
            Self::Unsteady { .. } => Kind::Unreachable,
            // A store that is not there has not said that the file is not: never not-found.
            Self::Store(error) if error.is_not_found() => Kind::Unreachable,
            Self::Store(error) => error.kind(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Store(error) => error.hint(),
            other => other.kind().hint().to_owned(),
        }
    }
}
