//! `cellarman backup delete`.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::barman::repository::DeletionPlan;
use crate::cli::{Context, text};
use crate::clock;
use crate::fault::AnyFault;
use crate::service::{catalog, store_clock};
use crate::store::ObjectMeta;

/// The arguments.
#[derive(Debug, Args)]
pub struct DeleteArguments {
    /// The id or the name of the backup
    #[arg(value_name = "BACKUP")]
    backup: String,
    /// Print what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

/// The JSON document.
#[derive(Debug, Serialize)]
struct DeleteDocument {
    id: String,
    is_deleted: bool,
    objects: Vec<String>,
    stored_bytes: u64,
    /// WAL that only this backup needed stays until WAL is expired.
    is_wal_deleted: bool,
}

/// Runs it. A backup that is kept, under way, or built on by others is refused.
pub async fn run(arguments: DeleteArguments, context: &Context) -> Result<ExitCode, AnyFault> {
    let (repository, output) = (&context.repository, context.output);
    let id = repository.resolve(&arguments.backup).await?;
    catalog::check_is_no_parent(repository, &id).await?;
    let now = if arguments.dry_run {
        clock::now()
    } else {
        store_clock::now(repository, clock::now()).await?
    };
    let deletion = catalog::plan_deletion(repository, &id, now).await?;
    let plan = &deletion.plan;
    let objects = objects(plan);
    let stored = text::size(plan.bytes());
    if arguments.dry_run {
        output.line(format!(
            "Backup {id} would be deleted: {} objects, {stored}.",
            objects.len()
        ));
        for object in &objects {
            output.line(format!("  {object}"));
        }
    } else {
        catalog::run_deletion(repository, &deletion).await?;
        output.line(format!(
            "Deleted backup {id}: {} objects, {stored}.",
            objects.len()
        ));
    }
    output.line("WAL is not deleted with a backup: it may serve others, and stays.");
    output.json(&DeleteDocument {
        id: id.to_string(),
        is_deleted: !arguments.dry_run,
        objects,
        stored_bytes: plan.bytes(),
        is_wal_deleted: false,
    });
    Ok(ExitCode::SUCCESS)
}

/// The keys that go, in the order they go.
fn objects(plan: &DeletionPlan) -> Vec<String> {
    let key = |object: &ObjectMeta| object.key.to_string();
    let files = plan.files.iter().map(key);
    let record = plan.record_key.iter().map(ToString::to_string);
    files
        .chain(record)
        .chain(plan.private.iter().map(key))
        .collect()
}
