//! `cellarman backup`: which of its commands.

use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::Context;
use crate::cli::backup_create::{self, CreateArguments};
use crate::cli::backup_delete::{self, DeleteArguments};
use crate::cli::backup_keep::{self, KeepArguments, ReleaseArguments};
use crate::cli::backup_list::{self, ListArguments};
use crate::cli::backup_show::{self, ShowArguments};
use crate::fault::AnyFault;

/// The commands on base backups.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Back up a running server
    Create(CreateArguments),
    /// List the backups of a server
    List(ListArguments),
    /// Show all that is known of a backup
    Show(ShowArguments),
    /// Delete a backup
    Delete(DeleteArguments),
    /// Hold a backup back from retention
    Keep(KeepArguments),
    /// Give a kept backup back to retention
    Release(ReleaseArguments),
}

/// Runs one of them.
pub async fn run(command: BackupCommand, context: &Context) -> Result<ExitCode, AnyFault> {
    match command {
        BackupCommand::Create(arguments) => backup_create::run(arguments, context).await,
        BackupCommand::List(arguments) => backup_list::run(arguments, context).await,
        BackupCommand::Show(arguments) => backup_show::run(arguments, context).await,
        BackupCommand::Delete(arguments) => backup_delete::run(arguments, context).await,
        BackupCommand::Keep(arguments) => backup_keep::run(arguments, context).await,
        BackupCommand::Release(arguments) => backup_keep::run_release(arguments, context).await,
    }
}
