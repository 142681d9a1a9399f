//! `cellarman backup show`.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::barman::repository::{BackupRecord, StoredArchive};
use crate::cli::backup_document::{BackupDocument, kind_word};
use crate::cli::{Context, text};
use crate::fault::AnyFault;

/// The arguments.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// The id or the name of the backup
    #[arg(value_name = "BACKUP")]
    backup: String,
}

/// The JSON document: a backup of the list, and more.
#[derive(Debug, Serialize)]
struct ShowDocument<'a> {
    server: String,
    #[serde(flatten)]
    backup: BackupDocument,
    data_directory: Option<&'a str>,
    data_checksums: Option<&'a str>,
    archives: Vec<ArchiveDocument>,
}

/// One tar.
#[derive(Debug, Serialize)]
struct ArchiveDocument {
    key: String,
    tablespace_oid: Option<u32>,
    piece: u32,
    compression: &'static str,
    stored_bytes: u64,
}

/// Runs it.
pub async fn run(arguments: ShowArguments, context: &Context) -> Result<ExitCode, AnyFault> {
    let (repository, output) = (&context.repository, context.output);
    let id = repository.resolve(&arguments.backup).await?;
    let record = repository.backup(&id).await?;
    let contents = repository.contents(&id).await?;
    let (backup, info, archives) = (&record.backup, &record.info, &contents.archives);
    output.json(&ShowDocument {
        server: repository.layout.server().to_string(),
        backup: BackupDocument::new(backup, record.keep, contents.bytes),
        data_directory: info.pgdata.as_deref(),
        data_checksums: info.data_checksums.as_deref(),
        archives: archives.iter().map(archive_document).collect(),
    });
    for (label, value) in lines(&record, contents.bytes) {
        output.line(format!("{label:<18} {value}"));
    }
    if !archives.is_empty() {
        output.line("");
        let header = ["ARCHIVE", "COMPRESSION", "STORED"];
        output.table(&header, archives.iter().map(row).collect());
    }
    Ok(ExitCode::SUCCESS)
}

/// What a person reads, what is not known left out.
fn lines(record: &BackupRecord, stored_bytes: u64) -> Vec<(&'static str, String)> {
    let (backup, info) = (&record.backup, &record.info);
    let keep = record.keep.map(|keep| keep.as_str().to_owned());
    let stored = Some(text::size(stored_bytes));
    let rows = [
        ("Backup", Some(backup.id.to_string())),
        ("Name", backup.name.clone()),
        ("Status", Some(backup.status.to_string())),
        ("Error", backup.error.clone()),
        ("Kept", keep),
        ("Kind", Some(kind_word(&backup.kind).to_owned())),
        ("Begin time", backup.begin_time.as_ref().map(text::time)),
        ("End time", backup.end_time.as_ref().map(text::time)),
        ("Begin LSN", backup.begin_lsn.map(|lsn| lsn.to_string())),
        ("End LSN", backup.end_lsn.map(|lsn| lsn.to_string())),
        ("Begin WAL", backup.begin_wal.map(|name| name.to_string())),
        ("End WAL", backup.end_wal.map(|name| name.to_string())),
        ("Timeline", backup.timeline.map(|number| number.to_string())),
        ("Database size", backup.cluster_size.map(text::size)),
        ("Stored", stored),
        ("PostgreSQL", backup.version.map(version)),
        (
            "System identifier",
            backup.system_id.map(|id| id.to_string()),
        ),
        (
            "WAL segment size",
            Some(text::size(backup.segment_size.bytes())),
        ),
        ("Data checksums", info.data_checksums.clone()),
        ("Data directory", info.pgdata.clone()),
    ];
    let rows = rows.into_iter();
    let mut lines: Vec<_> = rows
        .filter_map(|(label, value)| Some((label, value?)))
        .collect();
    let tablespaces = backup.tablespaces.iter().map(|t| {
        let place = format!("{} at {} (oid {})", t.name, t.location, t.oid);
        ("Tablespace", place)
    });
    lines.extend(tablespaces);
    lines
}

/// `150020` as `15.20`.
fn version(number: u32) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}

fn row(archive: &StoredArchive) -> Vec<String> {
    vec![
        archive.key.base_name().to_owned(),
        archive.codec.to_string(),
        text::size(archive.size),
    ]
}

fn archive_document(archive: &StoredArchive) -> ArchiveDocument {
    ArchiveDocument {
        key: archive.key.to_string(),
        tablespace_oid: archive.name.tablespace,
        piece: archive.name.piece,
        compression: archive.codec.as_str(),
        stored_bytes: archive.size,
    }
}
