//! `backup_label`: where recovery of a base backup starts.
//!
//! Source: `build_backup_content`, PostgreSQL 18, src/backend/access/transam/xlogbackup.c; the
//! same lines since 13, and INCREMENTAL FROM since 17. Not here: writing it, which the server
//! does, byte by byte as it is stored.

use crate::domain::lsn::Lsn;
use crate::domain::segment::SegmentName;
use crate::domain::timeline::TimelineId;
use crate::fault::{Fault, Kind};

/// What a backup label says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLabel {
    /// The checkpoint's redo point: the first byte of log that recovery needs.
    pub start_lsn: Lsn,
    /// The segment that holds it.
    pub start_segment: SegmentName,
    /// The checkpoint's record.
    pub checkpoint_lsn: Lsn,
    /// Whether the backup was taken from a standby.
    pub from_standby: bool,
    /// The timeline it starts on.
    pub start_timeline: TimelineId,
    /// When it started, as the server wrote it, in the server's `log_timezone`.
    pub start_time: String,
    /// The name given to it.
    pub label: String,
    /// For an incremental backup, where the backup before it started.
    pub incremental_from: Option<Lsn>,
}

/// Text that is no backup label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupLabelError {
    /// A line is not there.
    #[error("the backup label has no line {key}")]
    Missing {
        /// What it begins with.
        key: &'static str,
    },
    /// A line holds what it cannot.
    #[error("the backup label says {value:?} as its {key}")]
    Value {
        /// What the line begins with.
        key: &'static str,
        /// What follows.
        value: String,
    },
}

impl Fault for BackupLabelError {
    fn kind(&self) -> Kind {
        Kind::Corrupt
    }
}

const START: &str = "START WAL LOCATION";
const CHECKPOINT: &str = "CHECKPOINT LOCATION";
const FROM: &str = "BACKUP FROM";
const START_TIME: &str = "START TIME";
const LABEL: &str = "LABEL";
const TIMELINE: &str = "START TIMELINE";
const INCREMENTAL: &str = "INCREMENTAL FROM LSN";

impl BackupLabel {
    /// Reads the text, whatever lines it has beside those known.
    pub fn parse(text: &str) -> Result<Self, BackupLabelError> {
        let start = required(text, START)?;
        let (start_lsn, start_segment) = parse_start(start).ok_or_else(|| wrong(START, start))?;
        let checkpoint = required(text, CHECKPOINT)?;
        let from = required(text, FROM)?;
        // The label is the user's: only the lines before it are safe from what it says, and
        // those after it are looked for from the end.
        let timeline = last(text, TIMELINE).ok_or(BackupLabelError::Missing { key: TIMELINE })?;
        Ok(Self {
            start_lsn,
            start_segment,
            checkpoint_lsn: checkpoint
                .parse()
                .map_err(|_| wrong(CHECKPOINT, checkpoint))?,
            from_standby: match from {
                "primary" => false,
                "standby" => true,
                _ => return Err(wrong(FROM, from)),
            },
            start_timeline: timeline.parse().map_err(|_| wrong(TIMELINE, timeline))?,
            start_time: required(text, START_TIME)?.to_owned(),
            label: required(text, LABEL)?.to_owned(),
            incremental_from: last(text, INCREMENTAL)
                .map(|value| value.parse().map_err(|_| wrong(INCREMENTAL, value)))
                .transpose()?,
        })
    }
}

fn wrong(key: &'static str, value: &str) -> BackupLabelError {
    BackupLabelError::Value {
        key,
        value: value.to_owned(),
    }
}

fn required<'a>(text: &'a str, key: &'static str) -> Result<&'a str, BackupLabelError> {
    text.lines()
        .find_map(|line| value_of(line, key))
        .ok_or(BackupLabelError::Missing { key })
}

fn last<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().rev().find_map(|line| value_of(line, key))
}

fn value_of<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_prefix(": ")
}

/// `0/2000028 (file 000000010000000000000002)`.
fn parse_start(value: &str) -> Option<(Lsn, SegmentName)> {
    let (lsn, rest) = value.split_once(" (file ")?;
    Some((lsn.parse().ok()?, rest.strip_suffix(')')?.parse().ok()?))
}
