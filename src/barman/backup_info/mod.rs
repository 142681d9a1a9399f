//! `backup.info`, the record of a backup: its text as Barman Cloud 3.19 writes and reads it.
//!
//! One `key=value` per line, ordered by key. Barman refuses the records of a whole server for one
//! key it does not know: only the keys below are ever written. Missing ones, unknown ones and lines
//! that begin with `#` are tolerated on reading.
//!
//! Not here: where the record lies and when it is written.

mod field;

use std::fmt::Write;

use chrono::{DateTime, FixedOffset};

use crate::barman::backup_info::field::Field;
use crate::barman::literal::{Literal, LiteralError};
use crate::barman::timestamp;
use crate::domain::backup::{Backup, BackupId, BackupKind, BackupStatus, SystemId, Tablespace};
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::domain::timeline::TimelineId;

/// The value that stands for nothing, for every key.
const NULL: &str = "None";

/// Every key of a record, with the type of its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupInfo {
    /// The text of the file `backup_label`, known once the backup has ended.
    pub backup_label: Option<String>,
    /// The name a user gave.
    pub backup_name: Option<String>,
    /// Where in `begin_wal` the backup begins, in bytes.
    pub begin_offset: Option<u64>,
    /// When it began.
    pub begin_time: Option<DateTime<FixedOffset>>,
    /// The segment that holds `begin_xlog`.
    pub begin_wal: Option<SegmentName>,
    /// The redo point.
    pub begin_xlog: Option<Lsn>,
    /// Ids of incremental backups on this one, with commas. Written by a Barman server.
    pub children_backup_ids: Option<String>,
    /// The size of all tablespaces in bytes.
    pub cluster_size: Option<u64>,
    /// Null in Barman Cloud, even of compressed tars: the suffix tells.
    pub compression: Option<String>,
    /// The server's `config_file`.
    pub config_file: Option<String>,
    /// How long it took: a dictionary.
    pub copy_stats: Option<Literal>,
    /// The server's `data_checksums`, `on` or `off`.
    pub data_checksums: Option<String>,
    /// Written by a Barman server.
    pub deduplicated_size: Option<u64>,
    /// Null in Barman Cloud.
    pub encryption: Option<String>,
    /// Where in `end_wal` the backup ends, in bytes.
    pub end_offset: Option<u64>,
    /// When it ended. Never written for a FAILED backup: CloudNativePG would take it for good.
    pub end_time: Option<DateTime<FixedOffset>>,
    /// The segment that holds `end_xlog`, by plain division.
    pub end_wal: Option<SegmentName>,
    /// Where replay makes the copy consistent.
    pub end_xlog: Option<Lsn>,
    /// Why it failed, on one line.
    pub error: Option<String>,
    /// The server's `hba_file`.
    pub hba_file: Option<String>,
    /// The server's `ident_file`.
    pub ident_file: Option<String>,
    /// Further files that hold settings.
    pub included_files: Option<Vec<String>>,
    /// Null in Barman Cloud; how a Barman server took the backup.
    pub mode: Option<String>,
    /// The backup that an incremental one needs. Written by a Barman server.
    pub parent_backup_id: Option<String>,
    /// The server's `data_directory`.
    pub pgdata: Option<String>,
    /// The literal `cloud` for a backup in an object store: CloudNativePG looks for that word.
    pub server_name: Option<String>,
    /// Written by a Barman server.
    pub size: Option<u64>,
    /// Of a backup made of volume snapshots: a dictionary.
    pub snapshots_info: Option<Literal>,
    /// Its state.
    pub status: BackupStatus,
    /// The server's `summarize_wal`, PostgreSQL 17 and later.
    pub summarize_wal: Option<String>,
    /// The cluster's system identifier.
    pub systemid: Option<SystemId>,
    /// The tablespaces, one set of tars each.
    pub tablespaces: Option<Vec<Tablespace>>,
    /// The timeline it began on.
    pub timeline: Option<TimelineId>,
    /// `server_version_num`.
    pub version: Option<u32>,
    /// The size of WAL segments.
    pub xlog_segment_size: SegmentSize,
}

/// A text that is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupInfoError {
    /// A line that is neither `key=value` nor a comment.
    #[error("line {line} has no '='")]
    Line {
        /// The line, from 1.
        line: usize,
    },
    /// A value that its key cannot have.
    #[error("{key}={value:?} is not {expected}")]
    Value {
        /// The key.
        key: String,
        /// What stands there, cut after 80 characters.
        value: String,
        /// What should.
        expected: &'static str,
    },
    /// A value that is no Python literal.
    #[error("{key} is not readable")]
    Literal {
        /// The key.
        key: String,
        /// Where it fails.
        source: LiteralError,
    },
}

impl Default for BackupInfo {
    fn default() -> Self {
        Self {
            backup_label: None,
            backup_name: None,
            begin_offset: None,
            begin_time: None,
            begin_wal: None,
            begin_xlog: None,
            children_backup_ids: None,
            cluster_size: None,
            compression: None,
            config_file: None,
            copy_stats: None,
            data_checksums: None,
            deduplicated_size: None,
            encryption: None,
            end_offset: None,
            end_time: None,
            end_wal: None,
            end_xlog: None,
            error: None,
            hba_file: None,
            ident_file: None,
            included_files: None,
            mode: None,
            parent_backup_id: None,
            pgdata: None,
            server_name: None,
            size: None,
            snapshots_info: None,
            status: BackupStatus::Empty,
            summarize_wal: None,
            systemid: None,
            tablespaces: None,
            timeline: None,
            version: None,
            xlog_segment_size: SegmentSize::DEFAULT,
        }
    }
}

impl BackupInfo {
    /// Reads a record.
    pub fn parse(text: &str) -> Result<Self, BackupInfoError> {
        let mut info = Self::default();
        for (index, line) in text.split('\n').enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line
                .split_once('=')
                .ok_or(BackupInfoError::Line { line: index + 1 })?;
            let (key, value) = (key.trim(), value.trim());
            if value != NULL {
                info.set(&Field { key, value })?;
            }
        }
        Ok(info)
    }

    fn set(&mut self, field: &Field<'_>) -> Result<(), BackupInfoError> {
        match field.key {
            "backup_label" => self.backup_label = Some(field.label()?),
            "backup_name" => self.backup_name = Some(field.text()),
            "begin_offset" => self.begin_offset = Some(field.number()?),
            "begin_time" => self.begin_time = Some(field.time()?),
            "begin_wal" => self.begin_wal = Some(field.segment()?),
            "begin_xlog" => self.begin_xlog = Some(field.lsn()?),
            "children_backup_ids" => self.children_backup_ids = Some(field.text()),
            "cluster_size" => self.cluster_size = Some(field.number()?),
            "compression" => self.compression = Some(field.text()),
            "config_file" => self.config_file = Some(field.text()),
            "copy_stats" => self.copy_stats = Some(field.literal()?),
            "data_checksums" => self.data_checksums = Some(field.text()),
            "deduplicated_size" => self.deduplicated_size = Some(field.number()?),
            "encryption" => self.encryption = Some(field.text()),
            "end_offset" => self.end_offset = Some(field.number()?),
            "end_time" => self.end_time = Some(field.time()?),
            "end_wal" => self.end_wal = Some(field.segment()?),
            "end_xlog" => self.end_xlog = Some(field.lsn()?),
            "error" => self.error = Some(field.text()),
            "hba_file" => self.hba_file = Some(field.text()),
            "ident_file" => self.ident_file = Some(field.text()),
            "included_files" => self.included_files = Some(field.texts()?),
            "mode" => self.mode = Some(field.text()),
            "parent_backup_id" => self.parent_backup_id = Some(field.text()),
            "pgdata" => self.pgdata = Some(field.text()),
            "server_name" => self.server_name = Some(field.text()),
            "size" => self.size = Some(field.number()?),
            "snapshots_info" => self.snapshots_info = Some(field.literal()?),
            "status" => self.status = field.status()?,
            "summarize_wal" => self.summarize_wal = Some(field.text()),
            "systemid" => self.systemid = Some(SystemId(field.number()?)),
            "tablespaces" => self.tablespaces = Some(field.tablespaces()?),
            "timeline" => self.timeline = Some(field.parsed("a timeline")?),
            "version" => self.version = Some(field.number()?),
            "xlog_segment_size" => self.xlog_segment_size = field.segment_size()?,
            _ => {}
        }
        Ok(())
    }

    /// The record as Barman writes it.
    ///
    /// A FAILED backup loses its `end_time` here, whatever the value holds: a reader that looks at
    /// the times alone must not take it for good. Text that would not stand on one line is put on one.
    pub fn to_text(&self) -> String {
        let is_failed = self.status == BackupStatus::Failed;
        let end_time = self.end_time.filter(|_| !is_failed);
        let lines = [
            ("backup_label", self.backup_label.as_deref().map(quoted)),
            ("backup_name", one_line(self.backup_name.as_ref())),
            ("begin_offset", shown(self.begin_offset)),
            ("begin_time", self.begin_time.map(timestamp::print)),
            ("begin_wal", shown(self.begin_wal)),
            ("begin_xlog", shown(self.begin_xlog)),
            (
                "children_backup_ids",
                one_line(self.children_backup_ids.as_ref()),
            ),
            ("cluster_size", shown(self.cluster_size)),
            ("compression", one_line(self.compression.as_ref())),
            ("config_file", one_line(self.config_file.as_ref())),
            ("copy_stats", shown(self.copy_stats.as_ref())),
            ("data_checksums", one_line(self.data_checksums.as_ref())),
            ("deduplicated_size", shown(self.deduplicated_size)),
            ("encryption", one_line(self.encryption.as_ref())),
            ("end_offset", shown(self.end_offset)),
            ("end_time", end_time.map(timestamp::print)),
            ("end_wal", shown(self.end_wal)),
            ("end_xlog", shown(self.end_xlog)),
            ("error", one_line(self.error.as_ref())),
            ("hba_file", one_line(self.hba_file.as_ref())),
            ("ident_file", one_line(self.ident_file.as_ref())),
            ("included_files", self.included_files.as_deref().map(list)),
            ("mode", one_line(self.mode.as_ref())),
            ("parent_backup_id", one_line(self.parent_backup_id.as_ref())),
            ("pgdata", one_line(self.pgdata.as_ref())),
            ("server_name", one_line(self.server_name.as_ref())),
            ("size", shown(self.size)),
            ("snapshots_info", shown(self.snapshots_info.as_ref())),
            ("status", shown(Some(self.status))),
            ("summarize_wal", one_line(self.summarize_wal.as_ref())),
            ("systemid", shown(self.systemid)),
            ("tablespaces", self.tablespaces.as_deref().map(tuples)),
            ("timeline", shown(self.timeline)),
            ("version", shown(self.version)),
            (
                "xlog_segment_size",
                shown(Some(self.xlog_segment_size.bytes())),
            ),
        ];
        let mut text = String::new();
        for (key, value) in lines {
            let is_hidden_when_null = matches!(key, "backup_name" | "snapshots_info");
            let value = match &value {
                Some(value) => value,
                None if is_hidden_when_null => continue,
                None => NULL,
            };
            writeln!(text, "{key}={value}").expect("writing to a string cannot fail");
        }
        text
    }

    /// The backup as decisions need it.
    pub fn to_backup(&self, id: &BackupId) -> Backup {
        Backup {
            id: id.clone(),
            name: self.backup_name.clone(),
            status: self.status,
            kind: self.kind(),
            begin_time: self.begin_time,
            end_time: self.end_time,
            begin_lsn: self.begin_xlog,
            end_lsn: self.end_xlog,
            begin_wal: self.begin_wal,
            end_wal: self.end_wal,
            timeline: self.timeline,
            system_id: self.systemid,
            version: self.version,
            segment_size: self.xlog_segment_size,
            tablespaces: self.tablespaces.clone().unwrap_or_default(),
            cluster_size: self.cluster_size,
            error: self.error.clone(),
        }
    }

    fn kind(&self) -> BackupKind {
        match &self.parent_backup_id {
            Some(parent) => BackupKind::Incremental {
                parent: parent.clone(),
            },
            None if self.snapshots_info.is_some() => BackupKind::Snapshot,
            None => BackupKind::Full,
        }
    }
}

fn shown<T: ToString>(value: Option<T>) -> Option<String> {
    value.map(|value| value.to_string())
}

fn quoted(text: &str) -> String {
    Literal::text(text).to_string()
}

fn one_line(text: Option<&String>) -> Option<String> {
    text.map(|text| text.replace(['\n', '\r'], " ").trim().to_owned())
}

fn list(texts: &[String]) -> String {
    Literal::List(texts.iter().map(Literal::text).collect()).to_string()
}

fn tuples(tablespaces: &[Tablespace]) -> String {
    let tuple = |tablespace: &Tablespace| {
        Literal::Tuple(vec![
            Literal::text(&tablespace.name),
            Literal::integer(tablespace.oid.into()),
            Literal::text(&tablespace.location),
        ])
    };
    Literal::List(tablespaces.iter().map(tuple).collect()).to_string()
}

#[cfg(test)]
mod tests;
