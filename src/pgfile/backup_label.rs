//! `backup_label`: where recovery of a base backup starts.
//!
//! Source: `build_backup_content`, PostgreSQL 18, src/backend/access/transam/xlogbackup.c; the
//! same lines since 13, and INCREMENTAL FROM since 17; 13 calls a primary a master. Not here: writing it, which the server
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
                "primary" | "master" => false,
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PRIMARY: &str = include_str!("../../tests/fixtures/postgresql/backup_label-15");
    const STANDBY: &str = include_str!("../../tests/fixtures/postgresql/backup_label-15-standby");
    const PRIMARY_18: &str = include_str!("../../tests/fixtures/postgresql/backup_label-18");
    const PRIMARY_13: &str = include_str!("../../tests/fixtures/postgresql/backup_label-13");
    const PRIMARY_17: &str = include_str!("../../tests/fixtures/postgresql/backup_label-17");
    const HISTORY: &str =
        include_str!("../../tests/fixtures/postgresql/000000010000000000000002.00000028.backup");

    fn primary() -> BackupLabel {
        BackupLabel {
            start_lsn: "0/2000028".parse().unwrap(),
            start_segment: "000000010000000000000002".parse().unwrap(),
            checkpoint_lsn: "0/2000060".parse().unwrap(),
            from_standby: false,
            start_timeline: TimelineId::FIRST,
            start_time: "2026-11-21 08:16:34 UTC".to_owned(),
            label: "a \"label\", Łódź".to_owned(),
            incremental_from: None,
        }
    }

    #[test]
    fn labels_of_real_backups_are_read() {
        assert_eq!(BackupLabel::parse(PRIMARY).unwrap(), primary());
        let standby = BackupLabel::parse(STANDBY).unwrap();
        assert!(standby.from_standby);
        assert_eq!(standby.start_lsn.to_string(), "0/30093F8");
        let newer = BackupLabel::parse(PRIMARY_18).unwrap();
        assert_eq!(newer.label, "v2");
    }

    #[test]
    fn labels_of_13_and_17_are_read() {
        let of_13 = BackupLabel {
            start_time: "2026-11-21 11:31:13 UTC".to_owned(),
            ..primary()
        };
        assert_eq!(BackupLabel::parse(PRIMARY_13).unwrap(), of_13);
        let of_17 = BackupLabel {
            start_time: "2026-11-21 11:31:19 UTC".to_owned(),
            checkpoint_lsn: "0/2000080".parse().unwrap(),
            ..primary()
        };
        assert_eq!(BackupLabel::parse(PRIMARY_17).unwrap(), of_17);
    }

    #[test]
    fn the_history_file_in_the_archive_reads_as_the_label() {
        assert_eq!(BackupLabel::parse(HISTORY).unwrap(), primary());
    }

    #[test]
    fn an_incremental_backup_says_what_it_builds_on() {
        let text = format!("{PRIMARY}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n");
        let label = BackupLabel::parse(&text).unwrap();
        assert_eq!(label.incremental_from, Some("0/1000028".parse().unwrap()));
    }

    #[test]
    fn a_label_cannot_pass_for_another_line() {
        let text = PRIMARY.replace("Łódź", "\nSTART TIMELINE: 7\nSTART WAL LOCATION: 9/9");
        let label = BackupLabel::parse(&text).unwrap();
        assert_eq!(label.start_timeline, TimelineId::FIRST);
        assert_eq!(label.start_lsn, primary().start_lsn);
    }

    #[test]
    fn a_label_without_a_line_or_with_a_wrong_one_is_refused() {
        for key in [START, CHECKPOINT, FROM, START_TIME, LABEL, TIMELINE] {
            let without = PRIMARY.replace(&format!("{key}:"), "X:");
            let expected = BackupLabelError::Missing { key };
            assert_eq!(BackupLabel::parse(&without).unwrap_err(), expected);
        }
        for (old, new, key) in [
            ("0/2000028 (file", "0/2000028 (pile", START),
            ("0/2000060", "2000060", CHECKPOINT),
            ("primary", "elsewhere", FROM),
            ("TIMELINE: 1", "TIMELINE: 0", TIMELINE),
        ] {
            let error = BackupLabel::parse(&PRIMARY.replace(old, new)).unwrap_err();
            assert!(matches!(error, BackupLabelError::Value { key: named, .. } if named == key));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(at in 0usize..200, noise in "\\PC{0,20}") {
            let at = (0..=at).rev().find(|at| PRIMARY.is_char_boundary(*at)).unwrap();
            let _ = BackupLabel::parse(&PRIMARY[..at]);
            let _ = BackupLabel::parse(&format!("{}{noise}{}", &PRIMARY[..at], &PRIMARY[at..]));
            let _ = BackupLabel::parse(&noise);
        }
    }
}
