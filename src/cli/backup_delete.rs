//! `cellarman backup delete`.

use std::process::ExitCode;

use clap::Args;

use crate::cli::Context;
use crate::fault::AnyFault;

/// The arguments.
#[derive(Debug, Args)]
pub struct DeleteArguments {}

/// Runs it.
pub async fn run(_arguments: DeleteArguments, _context: &Context) -> Result<ExitCode, AnyFault> {
    Ok(ExitCode::FAILURE)
}
