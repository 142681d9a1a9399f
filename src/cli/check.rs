//! `cellarman check`.

use std::process::ExitCode;

use clap::Args;

use crate::cli::Context;
use crate::fault::AnyFault;

/// The arguments.
#[derive(Debug, Args)]
pub struct CheckArguments {}

/// Runs it.
pub async fn run(_arguments: CheckArguments, _context: &Context) -> Result<ExitCode, AnyFault> {
    Ok(ExitCode::FAILURE)
}
