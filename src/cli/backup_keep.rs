//! `cellarman backup keep`.

use std::process::ExitCode;

use clap::Args;

use crate::cli::Context;
use crate::fault::AnyFault;

/// The arguments.
#[derive(Debug, Args)]
pub struct KeepArguments {}

/// Runs it.
pub async fn run(_arguments: KeepArguments, _context: &Context) -> Result<ExitCode, AnyFault> {
    Ok(ExitCode::FAILURE)
}

/// The arguments of `backup release`.
#[derive(Debug, Args)]
pub struct ReleaseArguments {}

/// Runs `backup release`.
pub async fn run_release(
    _arguments: ReleaseArguments,
    _context: &Context,
) -> Result<ExitCode, AnyFault> {
    Ok(ExitCode::FAILURE)
}
