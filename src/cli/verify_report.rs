//! What `cellarman verify` found: tables for people, one document for programs.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::cli::{Context, text};
use crate::domain::backup::BackupId;
use crate::fault::Kind;
use crate::service::verify::line::{Line, MissingWal};
use crate::service::verify::report::{BackupReport, Finding, Outcome, Report};

const BACKUPS_HEADER: [&str; 6] = [
    "BACKUP",
    "END (UTC)",
    "STORED",
    "TARS",
    "RESTORED",
    "VERIFIED",
];
const LINES_HEADER: [&str; 4] = ["TIMELINE", "FIRST WAL", "LAST WAL", "MISSING"];
/// Backups named in one line.
const BACKUPS_NAMED_MAX: usize = 3;

/// The JSON document.
#[derive(Debug, Serialize)]
struct VerifyDocument {
    server: String,
    time: String,
    is_ok: bool,
    /// How it ends: null where all is well, else `corrupt` or `not-verified`.
    kind: Option<&'static str>,
    backups: Vec<BackupDocument>,
    wal: WalDocument,
    findings: Vec<FindingDocument>,
}

#[derive(Debug, Serialize)]
struct BackupDocument {
    id: String,
    end_time: Option<String>,
    stored_bytes: u64,
    tars: OutcomeDocument,
    restored: OutcomeDocument,
    /// Whether it was looked at in this run.
    is_new: bool,
}

#[derive(Debug, Serialize)]
struct OutcomeDocument {
    /// `sound`, `damaged`, `not-verified` or `not-asked`.
    outcome: &'static str,
    /// When it was found sound.
    time: Option<String>,
}

#[derive(Debug, Serialize)]
struct WalDocument {
    segments_missing: u64,
    lines: Vec<LineDocument>,
    missing: Vec<MissingDocument>,
}

#[derive(Debug, Serialize)]
struct LineDocument {
    timeline: u32,
    first: String,
    last: Option<String>,
    segments_missing: u64,
}

#[derive(Debug, Serialize)]
struct MissingDocument {
    first: String,
    last: String,
    segments: u64,
    is_on_its_way: bool,
    backups: Vec<String>,
}

#[derive(Debug, Serialize)]
struct FindingDocument {
    /// `damaged`, `not-verified` or `note`.
    severity: &'static str,
    backups: Vec<String>,
    text: String,
    hint: Option<String>,
}

/// Prints it.
pub(super) fn print(context: &Context, report: &Report) {
    let output = context.output;
    output.json(&document(context, report));
    let server = context.repository.layout.server();
    if report.backups.is_empty() {
        output.line(format!("No whole backups of server {server}."));
    } else {
        let rows = report.backups.iter().map(backup_row);
        output.table(&BACKUPS_HEADER, rows.collect());
    }
    let lines = &report.wal.lines.lines;
    if !lines.is_empty() {
        output.line("");
        output.table(&LINES_HEADER, lines.iter().map(line_row).collect());
    }
    if !report.findings.is_empty() {
        output.line("");
    }
    for finding in &report.findings {
        output.line(said(finding));
    }
    output.line(conclusion(report));
}

fn backup_row(backup: &BackupReport) -> Vec<String> {
    let verified = match (backup.deep, backup.contents) {
        (Outcome::Sound(time), _) | (_, Outcome::Sound(time)) if !backup.is_new => moment(time),
        _ if backup.is_new => "now".to_owned(),
        _ => "-".to_owned(),
    };
    vec![
        backup.id.to_string(),
        backup.end_time.map_or_else(|| "-".to_owned(), moment),
        text::size(backup.bytes),
        word(backup.contents).to_owned(),
        word(backup.deep).to_owned(),
        verified,
    ]
}

fn line_row(line: &Line) -> Vec<String> {
    vec![
        line.timeline.to_string(),
        line.begin.to_string(),
        line.head
            .map_or_else(|| "-".to_owned(), |it| it.to_string()),
        line.missing.to_string(),
    ]
}

/// A finding as a line, with what to do.
fn said(finding: &Finding) -> String {
    let ids: Vec<&str> = finding.backups.iter().map(BackupId::as_str).collect();
    let named = match ids.split_at_checked(BACKUPS_NAMED_MAX) {
        _ if ids.is_empty() => String::new(),
        None | Some((_, [])) => format!("{}: ", ids.join(", ")),
        Some((named, more)) => format!("{} and {} more: ", named.join(", "), more.len()),
    };
    let severity = finding.severity.as_str();
    let space = if finding.hint.is_empty() { "" } else { " " };
    format!(
        "{severity}: {named}{}.{space}{}",
        finding.text, finding.hint
    )
}

fn conclusion(report: &Report) -> String {
    let is_sound = |it: &BackupReport| matches!(it.contents, Outcome::Sound(_));
    let sound = text::count(report.count(is_sound), "backup");
    let read = text::count(report.count(|it| it.is_new), "backup");
    let ended = match report.kind() {
        None => "All is well",
        Some(Kind::Corrupt) => "Something is damaged or missing",
        Some(_) => "Not everything could be verified",
    };
    format!("{ended}: {sound} sound, {read} looked at in this run.")
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Sound(_) => "sound",
        Outcome::Damaged => "DAMAGED",
        Outcome::NotVerified => "not verified",
        Outcome::NotAsked => "-",
    }
}

/// A time under a header that names the zone, or alone.
fn moment(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S").to_string()
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn document(context: &Context, report: &Report) -> VerifyDocument {
    let kind = report.kind();
    let lines = &report.wal.lines;
    VerifyDocument {
        server: context.repository.layout.server().to_string(),
        time: rfc3339(report.time),
        is_ok: kind.is_none(),
        kind: kind.map(Kind::name),
        backups: report.backups.iter().map(BackupDocument::from).collect(),
        wal: WalDocument {
            segments_missing: report.wal.missing(),
            lines: lines.lines.iter().map(LineDocument::from).collect(),
            missing: lines.missing.iter().map(MissingDocument::from).collect(),
        },
        findings: report.findings.iter().map(FindingDocument::from).collect(),
    }
}

impl From<&BackupReport> for BackupDocument {
    fn from(backup: &BackupReport) -> Self {
        Self {
            id: backup.id.to_string(),
            end_time: backup.end_time.map(rfc3339),
            stored_bytes: backup.bytes,
            tars: backup.contents.into(),
            restored: backup.deep.into(),
            is_new: backup.is_new,
        }
    }
}

impl From<Outcome> for OutcomeDocument {
    fn from(outcome: Outcome) -> Self {
        let (outcome, time) = match outcome {
            Outcome::Sound(time) => ("sound", Some(rfc3339(time))),
            Outcome::Damaged => ("damaged", None),
            Outcome::NotVerified => ("not-verified", None),
            Outcome::NotAsked => ("not-asked", None),
        };
        Self { outcome, time }
    }
}

impl From<&Line> for LineDocument {
    fn from(line: &Line) -> Self {
        Self {
            timeline: line.timeline.to_u32(),
            first: line.begin.to_string(),
            last: line.head.map(|it| it.to_string()),
            segments_missing: line.missing,
        }
    }
}

impl From<&MissingWal> for MissingDocument {
    fn from(missing: &MissingWal) -> Self {
        Self {
            first: missing.first.to_string(),
            last: missing.last.to_string(),
            segments: missing.count,
            is_on_its_way: missing.is_on_its_way,
            backups: missing.backups.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<&Finding> for FindingDocument {
    fn from(finding: &Finding) -> Self {
        Self {
            severity: finding.severity.as_str(),
            backups: finding.backups.iter().map(ToString::to_string).collect(),
            text: finding.text.clone(),
            hint: Some(finding.hint.clone()).filter(|hint| !hint.is_empty()),
        }
    }
}
