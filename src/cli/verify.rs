//! `cellarman verify`.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are the help that people read"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use crate::cli::progress::Progress;
use crate::cli::{Context, restore, verify_report};
use crate::fault::AnyFault;
use crate::service::verify::deep::DeepRequest;
use crate::service::verify::error::VerifyError;
use crate::service::verify::{self, OnBytes, Request};

/// The arguments.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Verify this backup alone, by id or name, whatever is known of it
    #[arg(long, value_name = "ID")]
    backup_id: Option<String>,
    /// Also read what an earlier run found sound and nobody has changed since
    #[arg(long)]
    all: bool,
    /// Also restore each backup, run pg_verifybackup on it, start PostgreSQL and check its indexes
    #[arg(long, requires = "scratch")]
    deep: bool,
    /// Where --deep restores to: a directory with room for the largest backup. As root its owner runs PostgreSQL
    #[arg(long, value_name = "DIR", requires = "deep")]
    scratch: Option<PathBuf>,
    /// Tars read at a time [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
}

impl VerifyArguments {
    async fn to_request(&self, context: &Context) -> Result<Request, AnyFault> {
        let jobs = self.jobs.map_or_else(restore::cores, usize::from);
        let backup = match &self.backup_id {
            Some(wanted) => Some(context.repository.resolve(wanted).await?),
            None => None,
        };
        let deep = match self.scratch.clone() {
            None => None,
            Some(scratch) => Some(DeepRequest {
                scratch,
                restore_command: restore::restore_command(context)?,
                jobs,
                user: std::env::var("PGUSER")
                    .ok()
                    .filter(|user| !user.is_empty())
                    .unwrap_or_else(|| "postgres".to_owned()),
                path: std::env::var_os("PATH"),
            }),
        };
        Ok(Request {
            backup,
            is_all: self.all,
            jobs,
            deep,
        })
    }
}

/// Runs it. Ends with 0 where all that was asked for is sound, with the exit code of damage where
/// something is damaged or missing, and with that of what could not be verified else.
pub async fn run(arguments: VerifyArguments, context: &Context) -> Result<ExitCode, AnyFault> {
    let request = arguments.to_request(context).await?;
    let plan = tokio::select! {
        () = context.cancel.cancelled() => return Err(VerifyError::Cancelled.into()),
        plan = verify::plan(&context.repository, request) => plan?,
    };
    let progress = Arc::new(Progress::begin("verifying", Some(plan.bytes())));
    let on_bytes: OnBytes = {
        let progress = Arc::clone(&progress);
        Arc::new(move |bytes| progress.add(bytes))
    };
    let report = plan.run(&context.cancel, on_bytes).await;
    progress.end();
    let report = report?;
    verify_report::print(context, &report);
    let kind = report.kind();
    Ok(kind.map_or(ExitCode::SUCCESS, |kind| ExitCode::from(kind.exit_code())))
}
