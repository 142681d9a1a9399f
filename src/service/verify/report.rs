//! What a verification found, as values.
//!
//! Not here: how it is shown (`cli`) and kept (`results`).

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::domain::backup::BackupId;
use crate::fault::Kind;
use crate::service::verify::wal::WalFound;

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing, and nothing is lost.
    Note,
    /// Nobody knows: the check could not be made.
    NotVerified,
    /// Something is damaged or missing.
    Damaged,
}

impl Severity {
    /// Its stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::NotVerified => "not-verified",
            Self::Damaged => "damaged",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it means.
    pub severity: Severity,
    /// The backups concerned; none for the archive as a whole.
    pub backups: BTreeSet<BackupId>,
    /// What was found: a claim without a full stop.
    pub text: String,
    /// What to do next, as full sentences; empty for a note.
    pub hint: String,
}

impl Finding {
    /// A finding on one backup.
    pub(super) fn of(
        backup: &BackupId,
        severity: Severity,
        (text, hint): (impl Into<String>, &str),
    ) -> Self {
        Self {
            severity,
            backups: BTreeSet::from([backup.clone()]),
            text: text.into(),
            hint: hint.to_owned(),
        }
    }
}

/// How far a backup is verified, at one depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is well, seen at this time: in this run, or in an earlier one of the same objects.
    Sound(DateTime<Utc>),
    /// Something is damaged or missing.
    Damaged,
    /// It could not be verified.
    NotVerified,
    /// It was not asked for, or is not to be verified by this tool.
    NotAsked,
}

impl Outcome {
    /// What findings make of a check that was made at `now`.
    pub(super) fn judged<'a>(
        findings: impl IntoIterator<Item = &'a Finding>,
        now: DateTime<Utc>,
    ) -> Self {
        match findings.into_iter().map(|finding| finding.severity).max() {
            Some(Severity::Damaged) => Self::Damaged,
            Some(Severity::NotVerified) => Self::NotVerified,
            Some(Severity::Note) | None => Self::Sound(now),
        }
    }
}

/// One backup, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// The backup.
    pub id: BackupId,
    /// When the copy was consistent.
    pub end_time: Option<DateTime<Utc>>,
    /// The size of its tars as stored.
    pub bytes: u64,
    /// Whether its tars are there, each with the bytes that were stored.
    pub contents: Outcome,
    /// Whether it was restored, and the server on it found no fault.
    pub deep: Outcome,
    /// Whether it was verified in this run, and not in an earlier one.
    pub is_new: bool,
}

/// What a verification found.
#[derive(Debug)]
pub struct Report {
    /// When it began.
    pub time: DateTime<Utc>,
    /// Each DONE backup, by rising id.
    pub backups: Vec<BackupReport>,
    /// The log.
    pub wal: WalFound,
    /// All that was found, the worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How the command ends: `None` where all that was asked for is sound.
    pub fn kind(&self) -> Option<Kind> {
        match self.findings.iter().map(|finding| finding.severity).max() {
            Some(Severity::Damaged) => Some(Kind::Corrupt),
            Some(Severity::NotVerified) => Some(Kind::NotVerified),
            Some(Severity::Note) | None => None,
        }
    }

    /// How many backups came out so.
    pub fn count(&self, is_meant: impl Fn(&BackupReport) -> bool) -> u64 {
        let meant = self.backups.iter().filter(|backup| is_meant(backup));
        u64::try_from(meant.count()).unwrap_or(u64::MAX)
    }
}
