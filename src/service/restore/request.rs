//! What a user asks a restore for, as values.
//!
//! Not here: reading their words (`words`), deciding anything by them (`plan`).

use std::path::PathBuf;

use crate::domain::recovery::Request;
use crate::service::restore::settings::{RestoreCommand, TargetAction};

/// What a user asks for.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// How far, along which timeline, from which backup.
    pub recovery: Request,
    /// What the server does at the target.
    pub action: TargetAction,
    /// Whether to restore although the archive lacks WAL on the way to the target.
    pub accepts_gap: bool,
    /// The data directory to make, absolute.
    pub pgdata: PathBuf,
    /// Tablespaces that are to lie elsewhere than they did.
    pub tablespaces: Vec<TablespaceMapping>,
    /// How the new server fetches WAL.
    pub restore_command: RestoreCommand,
    /// Who configures recovery.
    pub configuration: Configuration,
    /// Archives restored at a time; at least 1.
    pub jobs: usize,
}

/// Who sees to it that the new server recovers, and to the right place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Configuration {
    /// The restore: it leaves a data directory that needs only be started.
    Written,
    /// The caller, who also brings the server's configuration. What an earlier recovery of the
    /// source has left in `postgresql.auto.conf` becomes comments: it would override the caller.
    LeftToCaller,
}

/// A tablespace that is to lie elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceMapping {
    /// Its name, or where it lay.
    pub old: String,
    /// Where it shall lie, absolute.
    pub new: PathBuf,
}
