//! `cellarman backup list`.

use std::process::ExitCode;

use chrono::{DateTime, FixedOffset, Utc};
use clap::Args;
use serde::{Serialize, Serializer};

use crate::barman::repository::{CatalogEntry, Unreadable};
use crate::cli::backup_document::BackupDocument;
use crate::cli::{Context, text};
use crate::domain::backup::BackupStatus;
use crate::fault::AnyFault;

const HEADER: [&str; 11] = [
    "ID",
    "NAME",
    "STATUS",
    "BEGIN (UTC)",
    "END (UTC)",
    "SIZE",
    "STORED",
    "TIMELINE",
    "BEGIN WAL",
    "END WAL",
    "KEEP",
];

/// The arguments.
#[derive(Debug, Args)]
pub struct ListArguments {}

/// The JSON document.
#[derive(Debug, Serialize)]
struct ListDocument<'a> {
    server: String,
    backups: BackupDocuments<'a>,
    unreadable: Vec<UnreadableDocument>,
}

/// Made one by one as they are printed: there may be many.
#[derive(Debug)]
struct BackupDocuments<'a>(&'a [CatalogEntry]);

impl Serialize for BackupDocuments<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(BackupDocument::from))
    }
}

#[derive(Debug, Serialize)]
struct UnreadableDocument {
    id: String,
    reason: String,
}

/// Runs it: backups by rising id. Records that cannot be read do not stop it.
pub async fn run(_arguments: ListArguments, context: &Context) -> Result<ExitCode, AnyFault> {
    let (repository, output) = (&context.repository, context.output);
    let catalog = repository.list_backups().await?;
    let backups = &catalog.backups;
    output.json(&ListDocument {
        server: repository.layout.server().to_string(),
        backups: BackupDocuments(backups),
        unreadable: catalog.unreadable.iter().map(unreadable_document).collect(),
    });
    if backups.is_empty() {
        output.line(format!(
            "No backups of server {}.",
            repository.layout.server()
        ));
    } else {
        output.table(&HEADER, backups.iter().map(row).collect());
    }
    for entry in backups {
        let backup = &entry.backup;
        if backup.status == BackupStatus::Done && entry.stored.lacks_archives {
            output.line(format!(
                "{} cannot be restored: an archive of its data directory or of a tablespace is not there.",
                backup.id
            ));
        }
        if let Some(error) = backup.error.as_deref().filter(|error| !error.is_empty()) {
            output.line(format!("{} is {}: {error}", backup.id, backup.status));
        }
    }
    for unreadable in &catalog.unreadable {
        output.line(format!(
            "{} is unreadable: {}",
            unreadable.id, unreadable.reason
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn unreadable_document(unreadable: &Unreadable) -> UnreadableDocument {
    UnreadableDocument {
        id: unreadable.id.to_string(),
        reason: unreadable.reason.clone(),
    }
}

fn row(entry: &CatalogEntry) -> Vec<String> {
    let backup = &entry.backup;
    let dash = || "-".to_owned();
    vec![
        backup.id.to_string(),
        backup.name.clone().unwrap_or_else(dash),
        backup.status.to_string(),
        moment(backup.begin_time),
        moment(backup.end_time),
        backup.cluster_size.map_or_else(dash, text::size),
        text::size(entry.stored.bytes),
        backup.timeline.map_or_else(dash, |t| t.to_string()),
        backup.begin_wal.map_or_else(dash, |s| s.to_string()),
        backup.end_wal.map_or_else(dash, |s| s.to_string()),
        entry.keep.map_or_else(dash, |k| k.as_str().to_owned()),
    ]
}

/// A time under a header that names the zone.
fn moment(time: Option<DateTime<FixedOffset>>) -> String {
    time.map_or_else(
        || "-".to_owned(),
        |time| {
            time.with_timezone(&Utc)
                .format("%Y-%m-%d %H:%M:%S")
                .to_string()
        },
    )
}
