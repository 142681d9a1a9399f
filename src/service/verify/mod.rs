//! Verifying an archive: that a recovery would find what it needs, before one is needed.
//!
//! Three questions, each deeper than the one before: whether the log is there without a gap from each
//! backup's begin to the head of its lines; whether each backup's tars are there with the bytes that
//! were stored; and, where that is asked, whether a server can be started on them and finds no fault.
//! What was found of a backup is kept beside it ([`results`]) and not looked at again while its objects
//! are the same. Nothing else of the archive is changed.
//!
//! Not here: repairing anything.

mod archived;
mod contents;
pub mod deep;
pub mod error;
pub mod line;
mod plan;
mod presence;
pub mod report;
pub mod results;
mod run;
pub mod wal;

use std::sync::Arc;

use crate::domain::backup::BackupId;
use crate::service::verify::deep::DeepRequest;

pub use crate::service::verify::plan::{Verification, plan};

/// Told of each stretch of stored bytes that has been read, from several threads.
pub type OnBytes = Arc<dyn Fn(u64) + Send + Sync>;

/// What is to be verified.
#[derive(Debug, Clone)]
pub struct Request {
    /// This backup alone, whatever is known of it; else all.
    pub backup: Option<BackupId>,
    /// Also what an earlier run found sound.
    pub is_all: bool,
    /// Tars read at a time; at least 1.
    pub jobs: usize,
    /// How backups are restored and started; `None` where they are not.
    pub deep: Option<DeepRequest>,
}

#[cfg(test)]
mod tests;
