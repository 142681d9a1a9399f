//! What a server says of itself and of a backup's ends, as values.
//!
//! Not here: asking it (`postgres::client`).

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, FixedOffset};

use crate::domain::backup::SystemId;
use crate::domain::lsn::Lsn;
use crate::domain::segment::SegmentSize;
use crate::domain::timeline::TimelineId;
use crate::domain::version::ServerVersion;

/// Whether the server archives WAL, as `archive_mode` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveMode {
    /// Never.
    Off,
    /// While it is a primary.
    On,
    /// As a standby too.
    Always,
}

/// The settings that a backup needs.
///
/// A path is absent where the role may not see it.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// `server_version_num`, such as 150020.
    pub version_number: u32,
    /// What is known of that version.
    pub version: ServerVersion,
    /// `data_directory`.
    pub data_directory: Option<PathBuf>,
    /// `config_file`.
    pub config_file: Option<PathBuf>,
    /// `hba_file`.
    pub hba_file: Option<PathBuf>,
    /// `ident_file`.
    pub ident_file: Option<PathBuf>,
    /// `data_checksums`.
    pub has_data_checksums: bool,
    /// `block_size` in bytes.
    pub block_bytes: usize,
    /// `wal_segment_size`.
    pub segment_size: SegmentSize,
    /// `wal_level`.
    pub wal_level: String,
    /// `archive_mode`.
    pub archive_mode: ArchiveMode,
    /// `archive_command`; empty when none is set.
    pub archive_command: String,
    /// `archive_library` (15 and later); empty when none is set.
    pub archive_library: String,
    /// `archive_timeout`; zero when off.
    pub archive_timeout: Duration,
    /// `summarize_wal` (17 and later).
    pub summarize_wal: Option<bool>,
}

/// What the server's control file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlState {
    /// The cluster's identity.
    pub system_id: SystemId,
    /// Where the last checkpoint begins.
    pub redo_lsn: Lsn,
    /// The timeline of the last checkpoint.
    pub timeline: TimelineId,
    /// On a standby, the timeline of the point that replay must reach.
    pub min_recovery_timeline: Option<TimelineId>,
}

/// What the archiver has done, from `pg_stat_archiver`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiverState {
    /// The last file archived.
    pub last_archived: Option<String>,
    /// The last file that failed.
    pub last_failed: Option<String>,
    /// Whether the last attempt failed.
    pub is_failing: bool,
}

/// A backup that has begun on the server.
#[derive(Debug, Clone, Copy)]
pub struct BackupBegin {
    /// The redo point of its checkpoint.
    pub lsn: Lsn,
    /// When it was asked for, by the server's clock.
    pub time: DateTime<FixedOffset>,
}

/// A backup that has ended on the server.
#[derive(Debug, Clone)]
pub struct BackupEnd {
    /// Replay must pass this.
    pub lsn: Lsn,
    /// After this the copy is consistent, by the server's clock.
    pub time: DateTime<FixedOffset>,
    /// The text of `backup_label`.
    pub label: String,
}
