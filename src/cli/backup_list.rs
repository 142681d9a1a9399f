//! `cellarman backup list`.

use std::process::ExitCode;

use clap::Args;

use crate::cli::Context;
use crate::fault::AnyFault;

/// The arguments.
#[derive(Debug, Args)]
pub struct ListArguments {}

/// Runs it.
pub async fn run(_arguments: ListArguments, _context: &Context) -> Result<ExitCode, AnyFault> {
    Ok(ExitCode::FAILURE)
}
