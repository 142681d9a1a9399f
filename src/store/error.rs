//! How a request to a store fails: which request, on which key, and what kind of failure.

use std::error::Error;

use crate::fault::{Fault, Kind};

/// A request to a store that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {subject}: {kind}")]
pub struct StoreError {
    /// The request, as a verb: `put`, `get`, `list`.
    pub operation: &'static str,
    /// The key, prefix or container, with the store's location. Never a secret, never a query.
    pub subject: String,
    /// What kind of failure it was.
    pub kind: StoreErrorKind,
    /// What the engine said.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kinds of failure that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreErrorKind {
    /// The store said that there is no such object. Nothing else may become this.
    #[error("no such object")]
    NotFound,
    /// The upload in parts is gone: somebody ended it, or dropped what was put of it.
    #[error("no such upload any more")]
    NoUpload,
    /// The bucket, container or directory is missing.
    #[error("no such bucket or directory")]
    NoContainer,
    /// Put if absent, and something is there.
    #[error("the object is there already")]
    Exists,
    /// The object changed while it was read.
    #[error("the object changed while it was read")]
    Changed,
    /// The range asked for begins after the end.
    #[error("the range is outside the object")]
    Range,
    /// The credentials are wrong, expired, or lack the right.
    #[error("access denied")]
    Denied,
    /// The credentials were good once.
    #[error("the credentials have expired")]
    Expired,
    /// The clock of this host is too far from the store's.
    #[error("the clock of this host is wrong")]
    ClockSkewed,
    /// The store asked for patience.
    #[error("the store asked to slow down")]
    Throttled,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// No connection, or it broke, or the store failed inside.
    #[error("the store cannot be reached")]
    Unreachable,
    /// The store, or what one may keep in it, is full.
    #[error("the store is full")]
    Full,
    /// The store does not know this request.
    #[error("the store does not support this")]
    Unsupported,
    /// The answer makes no sense.
    #[error("the answer makes no sense")]
    Corrupt,
    /// The store's configuration is wrong.
    #[error("the configuration is wrong")]
    Config,
    /// A local file system failed.
    #[error("the file system failed")]
    FileSystem,
    /// Anything else.
    #[error("unexpected answer")]
    Other,
}

impl StoreError {
    /// Whether the store itself said that there is no such object.
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }

    /// Whether there is no such upload in parts, or no object that it could be of.
    pub(super) fn is_no_upload(&self) -> bool {
        matches!(
            self.kind,
            StoreErrorKind::NoUpload | StoreErrorKind::NotFound
        )
    }

    /// Whether the same request can succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        self.kind().is_retryable()
    }
}

impl Fault for StoreError {
    fn kind(&self) -> Kind {
        match self.kind {
            StoreErrorKind::NotFound => Kind::NotFound,
            StoreErrorKind::NoContainer => Kind::NoContainer,
            StoreErrorKind::Exists | StoreErrorKind::Changed | StoreErrorKind::NoUpload => {
                Kind::Conflict
            }
            StoreErrorKind::Denied | StoreErrorKind::Expired | StoreErrorKind::ClockSkewed => {
                Kind::Denied
            }
            StoreErrorKind::Throttled => Kind::Throttled,
            StoreErrorKind::Timeout | StoreErrorKind::Unreachable => Kind::Unreachable,
            StoreErrorKind::Full => Kind::Full,
            StoreErrorKind::Unsupported => Kind::Unsupported,
            StoreErrorKind::Corrupt | StoreErrorKind::Range => Kind::Corrupt,
            StoreErrorKind::Config => Kind::Config,
            StoreErrorKind::FileSystem => Kind::Local,
            StoreErrorKind::Other => Kind::Internal,
        }
    }

    fn hint(&self) -> String {
        match self.kind {
            StoreErrorKind::NoUpload => "See that no other process writes with this --server, and \
                that no rule of the bucket ends uploads within hours; then run it again."
                .to_owned(),
            StoreErrorKind::Expired => {
                "Get new credentials where these came from, and run it again.".to_owned()
            }
            StoreErrorKind::ClockSkewed => {
                "Set the clock of this host right (by NTP, for one), and run it again.".to_owned()
            }
            _ => self.kind().hint().to_owned(),
        }
    }
}
