//! The command line: parse, open the store, run one command, report.
//!
//! Each command has its own file with its arguments and a `run`; what they share is the
//! [`Context`]. Nothing here decides anything about backups.

pub mod args;
pub mod backup;
pub mod backup_create;
pub mod backup_delete;
pub mod backup_document;
pub mod backup_keep;
pub mod backup_list;
pub mod backup_show;
pub mod check;
pub mod expire;
pub mod index;
pub mod logging;
pub mod output;
pub mod progress;
pub mod report;
pub mod restore;
mod restore_report;
pub mod targets;
mod targets_around;
mod targets_report;
pub mod text;
pub mod verify;
mod verify_report;
pub mod wal;
pub mod wal_gaps;

use std::io::IsTerminal;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tokio_util::sync::CancellationToken;

use crate::barman::layout::Layout;
use crate::barman::repository::Repository;
use crate::cli::args::{Arguments, Command, GlobalArguments};
use crate::cli::output::Output;
use crate::config::{self, Settings};
use crate::fault::AnyFault;
use crate::signals;
use crate::store::open;

/// What every command that touches a store is given.
pub struct Context {
    /// The validated settings.
    pub settings: Settings,
    /// The server's part of the bucket.
    pub repository: Repository,
    /// Where results go.
    pub output: Output,
    /// Cancelled by SIGINT and SIGTERM.
    pub cancel: CancellationToken,
    /// The options that select store and server, to be repeated in a `restore_command`. No secrets.
    pub store_arguments: Vec<String>,
}

/// Runs the command that the process was called with.
///
/// Exit codes are those of [`crate::fault`]. `wal restore` is special, because PostgreSQL takes
/// 1 to 125 as "there is no such file": see [`report::exit_code`].
pub fn main() -> ExitCode {
    let is_wal_restore = report::is_wal_restore(std::env::args_os().skip(1));
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| parse_and_run(is_wal_restore)));
    outcome.unwrap_or_else(|_| report::panicked(is_wal_restore))
}

fn parse_and_run(is_wal_restore: bool) -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return report::usage(&error, is_wal_restore),
    };
    // Now it is known, and no matter of words: a server may be called `wal`.
    let is_wal_restore = matches!(arguments.command, Command::Wal(wal::WalCommand::Restore(_)));
    logging::start(arguments.global.verbose, &arguments.command);
    let output = Output::new(arguments.global.json, std::io::stdout().is_terminal());
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return report::failed(&report::RuntimeError(error).into(), output, is_wal_restore);
        }
    };
    let outcome = runtime.block_on(run(arguments, output));
    // A blocked read must not keep the process: what mattered has been awaited.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| report::failed(&error, output, is_wal_restore))
}

async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, AnyFault> {
    let Arguments { global, command } = arguments;
    if let Command::Completions { shell } = command {
        output.completions(shell, &mut Arguments::command());
        return Ok(ExitCode::SUCCESS);
    }
    let context = open_context(&global, output).await?;
    match command {
        Command::Wal(command) => wal::run(command, &context).await,
        Command::Backup(command) => backup::run(command, &context).await,
        Command::Restore(command) => restore::run(command, &context).await,
        Command::Targets(command) => targets::run(command, &context).await,
        Command::Expire(command) => expire::run(command, &context).await,
        Command::Index(command) => index::run(command, &context).await,
        Command::Check(command) => check::run(command, &context).await,
        Command::Verify(command) => verify::run(command, &context).await,
        Command::Completions { .. } => Ok(ExitCode::SUCCESS),
    }
}

async fn open_context(global: &GlobalArguments, output: Output) -> Result<Context, AnyFault> {
    let source = global.source()?;
    let server = global.server()?;
    let settings = config::load(&source, &|name| std::env::var(name).ok())?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let store = open::open(&settings.destination.store).await?;
    let layout = Layout::new(&settings.destination.path, &server);
    let store_arguments = args::store_arguments(&source, &server)?;
    let cancel = CancellationToken::new();
    let ended = cancel.clone();
    signals::when_told_to_end(move || {
        tracing::warn!("interrupted: cleaning up");
        ended.cancel();
    });
    Ok(Context {
        settings,
        repository: Repository::new(store, layout),
        output,
        cancel,
        store_arguments,
    })
}
