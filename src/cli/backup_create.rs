//! `cellarman backup create`.

use std::process::ExitCode;

use clap::Args;

use crate::cli::Context;
use crate::fault::AnyFault;

/// The arguments.
#[derive(Debug, Args)]
pub struct CreateArguments {}

/// Runs it.
pub async fn run(_arguments: CreateArguments, _context: &Context) -> Result<ExitCode, AnyFault> {
    Ok(ExitCode::FAILURE)
}
