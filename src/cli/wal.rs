//! `cellarman wal`.

use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::Context;
use crate::fault::AnyFault;

/// The commands on WAL files.
#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// Archive a WAL file: archive_command = 'cellarman … wal archive %p'
    Archive {},
}

/// Runs one of them.
pub async fn run(_command: WalCommand, _context: &Context) -> Result<ExitCode, AnyFault> {
    Ok(ExitCode::FAILURE)
}
