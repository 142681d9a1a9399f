//! `cellarman backup keep` and `cellarman backup release`.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::cli::Context;
use crate::domain::backup::Keep;
use crate::fault::AnyFault;

/// The arguments.
#[derive(Debug, Args)]
pub struct KeepArguments {
    /// The id or the name of the backup
    #[arg(value_name = "BACKUP")]
    backup: String,
    /// Keep only the WAL that makes the backup consistent, not all WAL after it
    #[arg(long)]
    standalone: bool,
}

/// The arguments of `backup release`.
#[derive(Debug, Args)]
pub struct ReleaseArguments {
    /// The id or the name of the backup
    #[arg(value_name = "BACKUP")]
    backup: String,
}

/// The JSON document of both.
#[derive(Debug, Serialize)]
struct KeepDocument {
    id: String,
    /// `full`, `standalone` or null.
    keep: Option<&'static str>,
}

/// Runs it.
pub async fn run(arguments: KeepArguments, context: &Context) -> Result<ExitCode, AnyFault> {
    let (repository, output) = (&context.repository, context.output);
    let id = repository.resolve(&arguments.backup).await?;
    let keep = if arguments.standalone {
        Keep::Standalone
    } else {
        Keep::Full
    };
    repository.set_keep(&id, keep).await?;
    let wal = match keep {
        Keep::Full => "all WAL from its begin on",
        Keep::Standalone => "the WAL that makes it consistent",
    };
    output.line(format!("Backup {id} is kept, with {wal}."));
    output.json(&KeepDocument {
        id: id.to_string(),
        keep: Some(keep.as_str()),
    });
    Ok(ExitCode::SUCCESS)
}

/// Runs `backup release`.
pub async fn run_release(
    arguments: ReleaseArguments,
    context: &Context,
) -> Result<ExitCode, AnyFault> {
    let (repository, output) = (&context.repository, context.output);
    let id = repository.resolve(&arguments.backup).await?;
    repository.release_keep(&id).await?;
    output.line(format!("Backup {id} is no longer kept."));
    output.json(&KeepDocument {
        id: id.to_string(),
        keep: None,
    });
    Ok(ExitCode::SUCCESS)
}
