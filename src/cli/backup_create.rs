//! `cellarman backup create`.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are the help that people read"
)]

use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tracing::{error, info, warn};

use crate::barman::stored_objects::{DamagedFile, StoredObject};
use crate::cli::backup_document::BackupDocument;
use crate::cli::progress::Progress;
use crate::cli::{Context, text};
use crate::codec::Compression;
use crate::config::bandwidth;
use crate::domain::backup::BackupId;
use crate::domain::segment::SegmentName;
use crate::domain::timeline::TimelineId;
use crate::fault::{AnyFault, Kind};
use crate::postgres::connect::ConnectOptions;
use crate::service::base_backup::{BackupReport, BackupRequest, BaseBackup, Stage, Watcher};
use crate::store::PutOptions;

/// Names that Barman takes for something else.
const RESERVED_NAMES: [&str; 6] = ["auto", "first", "oldest", "last", "latest", "last-failed"];
/// How many damaged files are shown; the record has more.
const DAMAGED_SHOWN_MAX: usize = 20;

/// The arguments.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// How to reach PostgreSQL: a URL or key=value words; else PGHOST, PGPORT, PGUSER and so on,
    /// else the unix socket. The command must run on the server's host, as the server's user
    #[arg(long, value_name = "DSN")]
    dsn: Option<String>,
    /// A name for the backup, beside its id
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: Option<String>,
    /// Begin with a checkpoint at full speed instead of a spread one
    #[arg(long)]
    immediate_checkpoint: bool,
    /// How many files are read, compressed and sent at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    /// none, gzip, bzip2, snappy, lz4, zstd or xz, with a level if wanted, as in gzip:6. Barman
    /// reads base backups in all but zstd and xz
    #[arg(long, value_name = "CODEC[:LEVEL]")]
    compression: Option<Compression>,
    /// Send at most so many bytes a second, all jobs together, as in 50M (K, M and G are of 1024)
    #[arg(long, value_name = "BYTES", value_parser = bandwidth::parse)]
    max_bandwidth: Option<NonZeroU64>,
    /// How long to wait for the backup's last WAL to be in the archive, as in 300, 5min or 1h
    /// [default: twice archive_timeout, taken as 1 min at least, and 1 min more]
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    archive_timeout: Option<Duration>,
}

/// The JSON document: the backup, and how it was taken.
#[derive(Debug, Serialize)]
struct CreateDocument {
    #[serde(flatten)]
    backup: BackupDocument,
    copied_bytes: u64,
    copied_files: u64,
    seconds: f64,
    objects: Vec<StoredObject>,
    damaged_blocks: u64,
    damaged: Vec<DamagedFile>,
}

/// Runs it. A backup of damaged pages is DONE, and the command ends as for what is corrupt.
pub async fn run(arguments: CreateArguments, context: &Context) -> Result<ExitCode, AnyFault> {
    let settings = &context.settings;
    let compression = arguments.compression.unwrap_or(settings.data.compression);
    if !compression.codec.is_read_by_barman_in_base_backups() {
        warn!(%compression, "Barman cannot restore this backup: it reads no such base backups");
    }
    let backup = BaseBackup {
        repository: context.repository.clone(),
        connection: ConnectOptions::resolve(arguments.dsn.as_deref(), &|name| {
            std::env::var(name).ok()
        })?,
        request: BackupRequest {
            name: arguments.name,
            jobs: arguments.jobs.map_or(settings.data.jobs, usize::from),
            compression,
            is_immediate: arguments.immediate_checkpoint || settings.data.immediate_checkpoint,
            bandwidth_max: arguments.max_bandwidth.or(settings.data.bandwidth_max),
            archive_timeout: arguments.archive_timeout,
            waits_for_wal: true,
            put: PutOptions {
                tags: settings.tags.clone(),
                ..PutOptions::default()
            },
        },
        supply: None,
        watcher: Arc::new(Bar::default()),
        cancel: context.cancel.clone(),
    };
    let report = backup.take().await?;
    show(&report, context);
    if report.damaged_count > 0 {
        error!(
            pages = report.damaged_count,
            "the database has damaged pages: the backup is DONE and holds them as they are"
        );
        return Ok(ExitCode::from(Kind::Corrupt.exit_code()));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(report: &BackupReport, context: &Context) {
    let output = context.output;
    let stored_bytes = report.objects.iter().map(|object| object.size).sum();
    let backup = report.info.to_backup(&report.id);
    let wal =
        |segment: Option<SegmentName>| segment.map_or_else(String::new, |name| name.to_string());
    output.line(format!(
        "Backup {} is DONE: {} in {} files, stored as {} in {} archives, in {}.",
        report.id,
        text::size(report.copied_bytes),
        report.copied_files,
        text::size(stored_bytes),
        report.objects.len(),
        text::duration(report.took),
    ));
    output.line(format!(
        "WAL {} to {}, timeline {}.",
        wal(backup.begin_wal),
        wal(backup.end_wal),
        backup.timeline.map_or(0, TimelineId::to_u32),
    ));
    if let Some(end) = &backup.end_time {
        output.line(format!(
            "Recovery is possible to any time after {}.",
            text::time(end)
        ));
    }
    for line in damaged_lines(report) {
        output.line(line);
    }
    output.json(&CreateDocument {
        backup: BackupDocument::new(&backup, None, stored_bytes),
        copied_bytes: report.copied_bytes,
        copied_files: report.copied_files,
        seconds: report.took.as_secs_f64(),
        objects: report.objects.clone(),
        damaged_blocks: report.damaged_count,
        damaged: report.damaged.clone(),
    });
}

/// `base/5/16384: blocks 3, 9`, and how many more there are.
fn damaged_lines(report: &BackupReport) -> Vec<String> {
    let mut lines: Vec<String> = report
        .damaged
        .iter()
        .take(DAMAGED_SHOWN_MAX)
        .map(|file| {
            let blocks: Vec<String> = file.blocks.iter().map(ToString::to_string).collect();
            format!("DAMAGED {}: blocks {}", file.path, blocks.join(", "))
        })
        .collect();
    if report.damaged.len() > DAMAGED_SHOWN_MAX {
        let more = report.damaged.len() - DAMAGED_SHOWN_MAX;
        lines.push(format!("DAMAGED in {more} more files"));
    }
    lines
}

/// Shows the copying, and says what else is waited for.
#[derive(Default)]
struct Bar {
    progress: OnceLock<Progress>,
}

impl Watcher for Bar {
    fn enter(&self, stage: Stage) {
        match stage {
            Stage::Checkpoint => info!("waiting for the server's checkpoint"),
            Stage::Copy { bytes } => {
                self.progress
                    .get_or_init(|| Progress::begin("copying", bytes));
            }
            Stage::WaitForWal => self.end(),
        }
    }

    fn copied(&self, bytes: u64) {
        if let Some(progress) = self.progress.get() {
            progress.add(bytes);
        }
    }
}

impl Bar {
    fn end(&self) {
        if let Some(progress) = self.progress.get() {
            progress.end();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end();
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err("a name is one line of text".to_owned());
    }
    if BackupId::is_shape_of_id(name) {
        return Err("this has the shape of an id: choose another name".to_owned());
    }
    if RESERVED_NAMES.contains(&name) || name == "None" {
        return Err("this word means something else to Barman: choose another name".to_owned());
    }
    Ok(name.to_owned())
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let at = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    let factor = match unit {
        "" | "s" => Some(1),
        "min" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    factor
        .and_then(|factor| digits.parse::<u64>().ok()?.checked_mul(factor))
        .map(Duration::from_secs)
        .ok_or_else(|| "expected a time, as in 300, 5min or 1h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_units() {
        for (text, seconds) in [
            ("300", Some(300)),
            ("5min", Some(300)),
            ("1h", Some(3600)),
            ("9s", Some(9)),
            ("5 min", None),
            ("", None),
        ] {
            assert_eq!(
                parse_timeout(text).ok().map(|timeout| timeout.as_secs()),
                seconds,
                "{text}"
            );
        }
    }

    #[test]
    fn names_that_mean_something_else_are_refused() {
        for (name, is_good) in [
            ("before the upgrade", true),
            ("latest", false),
            ("20261121T054347", false),
            ("a\nstatus=DONE", false),
            (" ", false),
        ] {
            assert_eq!(parse_name(name).is_ok(), is_good, "{name:?}");
        }
    }
}
