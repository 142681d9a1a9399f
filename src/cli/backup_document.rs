//! A backup as `--json` prints it. Keys are stable: new ones may come, none goes or changes.
//!
//! Not here: Barman's own JSON, which has other keys.

use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use serde::Serialize;

use crate::barman::repository::CatalogEntry;
use crate::domain::backup::{Backup, BackupKind, Keep};
use crate::domain::timeline::TimelineId;

/// One backup. What is not known is null.
#[derive(Debug, Serialize)]
pub struct BackupDocument {
    /// The id.
    pub id: String,
    /// The name a user gave.
    pub name: Option<String>,
    /// `DONE`, `FAILED`, `STARTED`, `WAITING_FOR_WALS`, `SYNCING` or `EMPTY`.
    pub status: &'static str,
    /// `full`, `incremental` or `snapshot`. Only full ones can be restored.
    pub kind: &'static str,
    /// When it began: RFC 3339 in UTC.
    pub begin_time: Option<String>,
    /// When it ended, which is the earliest time it can be recovered to: RFC 3339 in UTC.
    pub end_time: Option<String>,
    /// The redo point.
    pub begin_lsn: Option<String>,
    /// Where it is consistent.
    pub end_lsn: Option<String>,
    /// The segment of `begin_lsn`.
    pub begin_wal: Option<String>,
    /// The segment of `end_lsn`.
    pub end_wal: Option<String>,
    /// The timeline it began on.
    pub timeline: Option<u32>,
    /// The system identifier: text, for it is too large for a number in some readers.
    pub system_id: Option<String>,
    /// `server_version_num`, such as 150020.
    pub postgres_version: Option<u32>,
    /// The size of WAL segments.
    pub segment_bytes: u64,
    /// The size of the databases.
    pub cluster_bytes: Option<u64>,
    /// What it takes in the store.
    pub stored_bytes: u64,
    /// `full` or `standalone` for a backup that is kept, else null.
    pub keep: Option<&'static str>,
    /// Why it failed.
    pub error: Option<String>,
    /// Its tablespaces.
    pub tablespaces: Vec<TablespaceDocument>,
}

/// One tablespace.
#[derive(Debug, Serialize)]
pub struct TablespaceDocument {
    /// Its name in SQL.
    pub name: String,
    /// Its object id.
    pub oid: u32,
    /// Where it was.
    pub location: String,
}

impl From<&CatalogEntry> for BackupDocument {
    fn from(entry: &CatalogEntry) -> Self {
        Self::new(&entry.backup, entry.keep, entry.stored.bytes)
    }
}

impl BackupDocument {
    /// What a backup says of itself, with what keeps it and what it takes in the store.
    pub fn new(backup: &Backup, keep: Option<Keep>, stored_bytes: u64) -> Self {
        let tablespaces = backup
            .tablespaces
            .iter()
            .map(|tablespace| TablespaceDocument {
                name: tablespace.name.clone(),
                oid: tablespace.oid,
                location: tablespace.location.clone(),
            });
        Self {
            id: backup.id.to_string(),
            name: backup.name.clone(),
            status: backup.status.as_str(),
            kind: kind_word(&backup.kind),
            begin_time: backup.begin_time.as_ref().map(rfc3339),
            end_time: backup.end_time.as_ref().map(rfc3339),
            begin_lsn: backup.begin_lsn.map(|lsn| lsn.to_string()),
            end_lsn: backup.end_lsn.map(|lsn| lsn.to_string()),
            begin_wal: backup.begin_wal.map(|segment| segment.to_string()),
            end_wal: backup.end_wal.map(|segment| segment.to_string()),
            timeline: backup.timeline.map(TimelineId::to_u32),
            system_id: backup.system_id.map(|id| id.to_string()),
            postgres_version: backup.version,
            segment_bytes: backup.segment_size.bytes(),
            cluster_bytes: backup.cluster_size,
            stored_bytes,
            keep: keep.map(Keep::as_str),
            error: backup.error.clone(),
            tablespaces: tablespaces.collect(),
        }
    }
}

/// The word for what a backup consists of.
pub fn kind_word(kind: &BackupKind) -> &'static str {
    match kind {
        BackupKind::Full => "full",
        BackupKind::Incremental { .. } => "incremental",
        BackupKind::Snapshot => "snapshot",
    }
}

fn rfc3339(time: &DateTime<FixedOffset>) -> String {
    time.with_timezone(&Utc)
        .to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
