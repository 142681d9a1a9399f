//! `cellarman wal`: what `archive_command` and `restore_command` call.
//!
//! Not here: the exit codes of failures (`cli::report`).

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use clap::{Args, Subcommand};
use serde::Serialize;
use tracing::{debug, warn};

use crate::cli::wal_gaps::GapsArguments;
use crate::cli::{Context, wal_gaps};
use crate::codec::Compression;
use crate::domain::wal_file::{WalFileName, WalFileNameError};
use crate::fault::{AnyFault, Fault, Kind, chain};
use crate::service::wal_archive::{ArchiveOptions, Archived, Archiver};
use crate::service::wal_restore::error::RestoreError;
use crate::service::wal_restore::{RestoreOptions, Restored, Restorer, prefetch};
use crate::service::wal_state::PgWal;

/// The exit code of a `wal restore` whose file is not in the archive. No other ending has it.
const NOT_IN_ARCHIVE: u8 = 1;

/// The exit code of a `wal restore` that was told to end: PostgreSQL takes this one, a shell's
/// word for SIGTERM, for its own shutdown, and any other above 125 for a fatal failure.
const TERMINATED: u8 = 128 + 15;

/// The commands on WAL files.
#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// Archive a WAL file: archive_command = 'cellarman … wal archive %p'
    Archive(ArchiveArguments),
    /// Restore a WAL file: restore_command = 'cellarman … wal restore %f %p'
    ///
    /// Exits with 0 when the file is there, with 1 only when the store said that there is no such
    /// file, and above 125 otherwise, which PostgreSQL takes as fatal and not as the end of WAL.
    Restore(RestoreArguments),
    /// List the segments that are missing on the way from the first backup on
    Gaps(GapsArguments),
    /// Fetch WAL ahead of a server in recovery; `wal restore` starts it by itself
    #[command(hide = true)]
    Prefetch(PrefetchArguments),
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
    /// Go on in an archive that is not empty although this cluster was just recovered, or that
    /// holds more of the old timeline than this server had when it was promoted
    #[arg(long)]
    allow_own_archive: bool,
}

/// What `wal restore` takes.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// The name of the file
    #[arg(value_name = "NAME")]
    name: String,
    /// Where it goes, relative to the data directory as PostgreSQL gives it
    #[arg(value_name = "DESTINATION")]
    destination: PathBuf,
    /// Never answer with an unfinished segment
    #[arg(long)]
    no_partial: bool,
    /// Do not fetch the segments that follow
    #[arg(long)]
    no_prefetch: bool,
    /// How many segments are fetched ahead at once
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

/// What `wal prefetch` takes.
#[derive(Debug, Args)]
pub struct PrefetchArguments {
    /// The pg_wal of the server
    #[arg(value_name = "PG_WAL")]
    pg_wal: PathBuf,
    /// How many segments are fetched at once
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

#[derive(Serialize)]
struct ArchivedDocument {
    archived: &'static str,
    key: Option<String>,
}

#[derive(Serialize)]
struct RestoredDocument {
    restored: &'static str,
    key: Option<String>,
}

/// How a command on WAL files fails before its work begins.
#[derive(Debug, thiserror::Error)]
enum WalCommandError {
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Name(#[from] WalFileNameError),
}

impl Fault for WalCommandError {
    fn kind(&self) -> Kind {
        match self {
            Self::Interrupted => Kind::Cancelled,
            Self::Name(_) => Kind::Usage,
        }
    }
}

/// Runs one of them.
pub async fn run(command: WalCommand, context: &Context) -> Result<ExitCode, AnyFault> {
    match command {
        WalCommand::Archive(arguments) => archive(&arguments, context).await,
        WalCommand::Restore(arguments) => restore(&arguments, context).await,
        WalCommand::Gaps(arguments) => wal_gaps::run(arguments, context).await,
        WalCommand::Prefetch(arguments) => {
            run_prefetch(&arguments, context).await;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn archive(arguments: &ArchiveArguments, context: &Context) -> Result<ExitCode, AnyFault> {
    let settings = &context.settings;
    let options = ArchiveOptions {
        compression: arguments.compression.unwrap_or(settings.wal.compression),
        jobs: arguments.jobs.unwrap_or(settings.wal.jobs).max(1),
        is_resident: false,
        allows_own_archive: arguments.allow_own_archive,
        tags: settings.tags.clone(),
        history_tags: settings.history_tags.clone(),
        encryption: settings.wal.encryption.clone(),
    };
    let service = Archiver::new(
        context.repository.clone(),
        &settings.destination.store,
        options,
    );
    let outcome = tokio::select! {
        outcome = service.archive(&arguments.path) => outcome?,
        () = context.cancel.cancelled() => return Err(WalCommandError::Interrupted.into()),
    };
    let (archived, key) = match outcome {
        Archived::Put(key) => ("put", Some(key.to_string())),
        Archived::AlreadyThere(key) => ("already-there", Some(key.to_string())),
        Archived::Ahead => ("ahead", None),
    };
    context.output.json(&ArchivedDocument { archived, key });
    Ok(ExitCode::SUCCESS)
}

async fn restore(arguments: &RestoreArguments, context: &Context) -> Result<ExitCode, AnyFault> {
    let name: WalFileName = arguments.name.parse().map_err(WalCommandError::Name)?;
    let service = restorer(context, !arguments.no_partial, arguments.jobs);
    let outcome = tokio::select! {
        outcome = service.restore(name, &arguments.destination) => outcome,
        () = context.cancel.cancelled() => return Ok(ExitCode::from(TERMINATED)),
    };
    let restored = match outcome {
        Ok(restored) => restored,
        Err(error @ RestoreError::NotInArchive { .. }) => {
            // PostgreSQL asks for much that never was: that is no news.
            debug!("{error}");
            let (restored, key) = ("not-in-archive", None);
            context.output.json(&RestoredDocument { restored, key });
            return Ok(ExitCode::from(NOT_IN_ARCHIVE));
        }
        Err(error) => return Err(error.into()),
    };
    if !arguments.no_prefetch && matches!(name, WalFileName::Segment(_)) {
        start_prefetch(arguments, context);
    }
    let (restored, key) = match restored {
        Restored::FromSpool => ("from-spool", None),
        Restored::FromStore(key) => ("from-store", Some(key.to_string())),
    };
    context.output.json(&RestoredDocument { restored, key });
    Ok(ExitCode::SUCCESS)
}

fn restorer(context: &Context, takes_partial: bool, jobs: Option<usize>) -> Restorer {
    let settings = &context.settings;
    let options = RestoreOptions {
        takes_partial,
        jobs: jobs.unwrap_or(settings.wal.jobs).max(1),
        codec_first: settings.wal.compression.codec,
    };
    let store = &settings.destination.store;
    Restorer::new(context.repository.clone(), store, options)
}

/// Starts `wal prefetch` as a process of its own, where it makes sense. What fails here is told
/// and changes nothing: the file asked for is restored.
fn start_prefetch(arguments: &RestoreArguments, context: &Context) {
    let pg_wal = PgWal::holding(&arguments.destination).ok().flatten();
    let Some(pg_wal) = pg_wal.filter(prefetch::is_wanted) else {
        return;
    };
    if let Err(error) = spawn_prefetch(&pg_wal, arguments.jobs, &context.store_arguments) {
        warn!(%error, "cannot start fetching WAL ahead");
    }
}

fn spawn_prefetch(
    pg_wal: &PgWal,
    jobs: Option<usize>,
    store_arguments: &[String],
) -> std::io::Result<()> {
    let log = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(pg_wal.make_state_folder()?.join("prefetch.log"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(store_arguments).args(["wal", "prefetch"]);
    if let Some(jobs) = jobs {
        command.args(["--jobs", &jobs.to_string()]);
    }
    command
        .arg(pg_wal.folder())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    // It ends by itself, and whoever is first among the processes then waits for it.
    command.spawn().map(drop)
}

/// Never fails as a process: a server that is its parent could mistake that for a crash.
async fn run_prefetch(arguments: &PrefetchArguments, context: &Context) {
    // A session of its own, so that signals meant for the restore_command do not end it. Fails
    // only where it leads one already.
    let _ = rustix::process::setsid();
    let Some(pg_wal) = PgWal::at(&arguments.pg_wal) else {
        return;
    };
    let service = restorer(context, false, arguments.jobs);
    if let Err(error) = service.prefetch(&pg_wal, &context.cancel).await {
        warn!(error = chain(&error), "fetching WAL ahead failed");
    }
}
