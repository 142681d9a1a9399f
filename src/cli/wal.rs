//! `cellarman wal`: what `archive_command` and `restore_command` call.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::Context;
use crate::codec::Compression;
use crate::fault::{AnyFault, Fault, Kind};
use crate::service::wal_archive::{ArchiveOptions, Archived, Archiver};

/// The commands on WAL files.
#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// Archive a WAL file: archive_command = 'cellarman … wal archive %p'
    Archive(ArchiveArguments),
}

/// What `wal archive` takes.
#[derive(Debug, Args)]
pub struct ArchiveArguments {
    /// The file, relative to the data directory as PostgreSQL gives it
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// How the file is compressed: none, gzip, bzip2, xz, snappy, zstd or lz4, with :LEVEL if wanted
    #[arg(long, value_name = "CODEC[:LEVEL]")]
    compression: Option<Compression>,
    /// How many waiting files are archived at once
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Go on in an archive that is not empty although this cluster was just recovered
    #[arg(long)]
    allow_own_archive: bool,
}

#[derive(Serialize)]
struct ArchivedDocument {
    archived: &'static str,
    key: Option<String>,
}

/// The run was interrupted.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

impl Fault for Interrupted {
    fn kind(&self) -> Kind {
        Kind::Cancelled
    }
}

/// Runs one of them.
pub async fn run(command: WalCommand, context: &Context) -> Result<ExitCode, AnyFault> {
    match command {
        WalCommand::Archive(arguments) => archive(&arguments, context).await,
    }
}

async fn archive(arguments: &ArchiveArguments, context: &Context) -> Result<ExitCode, AnyFault> {
    let settings = &context.settings;
    let options = ArchiveOptions {
        compression: arguments.compression.unwrap_or(settings.wal.compression),
        jobs: arguments.jobs.unwrap_or(settings.wal.jobs).max(1),
        allows_own_archive: arguments.allow_own_archive,
        tags: settings.tags.clone(),
        history_tags: settings.history_tags.clone(),
        encryption: settings.wal.encryption.clone(),
    };
    let service = Archiver::new(context.repository.clone(), options);
    let outcome = tokio::select! {
        outcome = service.archive(&arguments.path) => outcome?,
        () = context.cancel.cancelled() => return Err(Interrupted.into()),
    };
    let (archived, key) = match outcome {
        Archived::Put(key) => ("put", Some(key.to_string())),
        Archived::AlreadyThere(key) => ("already-there", Some(key.to_string())),
        Archived::Ahead => ("ahead", None),
    };
    context.output.json(&ArchivedDocument { archived, key });
    Ok(ExitCode::SUCCESS)
}
