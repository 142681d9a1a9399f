//! `cellarman expire`.

use std::process::ExitCode;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use serde::Serialize;

use crate::cli::{Context, text};
use crate::clock;
use crate::domain::backup::BackupStatus;
use crate::domain::retention::policy::{RetentionPolicy, RetentionPolicyError};
use crate::domain::retention::{BackupVerdict, Rules, Verdict, WalRange};
use crate::fault::{AnyFault, Fault, Kind};
use crate::service::expire::run::Done;
use crate::service::expire::{self, ExpirePlan};
use crate::service::store_clock;

const BACKUPS_HEADER: [&str; 4] = ["BACKUP", "STATUS", "VERDICT", "REASON"];
const WAL_HEADER: [&str; 7] = [
    "TIMELINE",
    "FIRST WAL",
    "LAST WAL",
    "FILES",
    "STORED",
    "VERDICT",
    "REASON",
];

/// The arguments.
#[derive(Debug, Args)]
pub struct ExpireArguments {
    /// What to keep: 7d, 2w, 1m, RECOVERY WINDOW OF 7 DAYS or REDUNDANCY 3 [default: the manifest's retentionPolicy]
    #[arg(long, value_name = "POLICY")]
    retention: Option<String>,
    /// Keep at least so many backups, however old they are
    #[arg(long, value_name = "N", default_value_t = 0)]
    minimum_redundancy: u32,
    /// Print what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

/// Policies that are missing or wrong.
#[derive(Debug, thiserror::Error)]
enum PolicyError {
    #[error("no retention policy is given")]
    Missing,
    #[error(transparent)]
    Unreadable(#[from] RetentionPolicyError),
}

impl Fault for PolicyError {
    fn kind(&self) -> Kind {
        Kind::Usage
    }

    fn hint(&self) -> String {
        match self {
            Self::Missing => {
                "Give --retention, such as 30d, or set retentionPolicy in the ObjectStore manifest."
            }
            Self::Unreadable(_) => "Write a number from 1 and d, w or m, or Barman's words.",
        }
        .to_owned()
    }
}

/// The JSON document.
#[derive(Debug, Serialize)]
struct ExpireDocument {
    server: String,
    policy: String,
    /// Where the recovery window begins; null for a redundancy.
    window_start: Option<String>,
    minimum_redundancy: u32,
    is_dry_run: bool,
    backups: Vec<BackupDocument>,
    wal: Vec<WalDocument>,
    /// Killed backups that are marked FAILED first.
    killed: Vec<ReasonDocument>,
    /// Marked backups whose deletion had begun, which are made whole again where all of them is there.
    taken_back: Vec<String>,
    /// Backups of which only our own objects are left, which go.
    orphans: Vec<String>,
    unreadable: Vec<ReasonDocument>,
    unreadable_histories: Vec<HistoryDocument>,
    /// Objects among the WAL that are none. They stay.
    foreign_objects: u64,
    /// Index objects that go with the WAL they tell of.
    index_objects: usize,
    /// What was done; null for a dry run.
    done: Option<DoneDocument>,
}

#[derive(Debug, Serialize)]
struct BackupDocument {
    id: String,
    /// Null where the record cannot be read.
    status: Option<&'static str>,
    /// `keep` or `delete`.
    verdict: &'static str,
    reason: String,
}

#[derive(Debug, Serialize)]
struct WalDocument {
    timeline: u32,
    first: String,
    last: String,
    files: u64,
    stored_bytes: u64,
    /// `keep` or `delete`.
    verdict: &'static str,
    reason: String,
}

#[derive(Debug, Serialize)]
struct ReasonDocument {
    id: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct FailureDocument {
    /// A backup or an object.
    what: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct HistoryDocument {
    timeline: u32,
    reason: String,
}

#[derive(Debug, Serialize)]
struct DoneDocument {
    marked_failed: Vec<String>,
    taken_back: Vec<String>,
    backups: Vec<String>,
    /// Backups that changed between plan and run, and stay for now.
    spared: Vec<ReasonDocument>,
    /// What could not be deleted.
    failed: Vec<FailureDocument>,
    wal_files: u64,
    wal_stored_bytes: u64,
    index_objects: u64,
}

/// Runs it: the plan is printed first, whether or not it is then carried out.
pub async fn run(arguments: ExpireArguments, context: &Context) -> Result<ExitCode, AnyFault> {
    let (repository, output) = (&context.repository, context.output);
    let rules = Rules {
        policy: policy(&arguments, context)?,
        minimum_redundancy: arguments.minimum_redundancy,
    };
    // Before the store's clock is looked at, for which something is put.
    expire::check_server(repository).await?;
    let host_now = clock::now();
    let now = if arguments.dry_run {
        host_now
    } else {
        store_clock::now(repository, host_now).await?
    };
    let plan = expire::plan(repository, rules, now).await?;
    if let Some(newest) = plan.newest_put().filter(|_| arguments.dry_run) {
        store_clock::warn_if_behind(host_now, newest);
    }
    output.line(headline(&plan, context, arguments.dry_run));
    print_plan(&plan, context);
    let done = if arguments.dry_run {
        None
    } else {
        let done = expire::run::run(repository, &plan, &context.cancel).await?;
        if !plan.is_empty() {
            print_done(&done, context);
        }
        Some(done)
    };
    output.json(&document(&plan, context, done.as_ref()));
    let first = done.as_ref().and_then(|done| done.failed.first());
    Ok(first.map_or(ExitCode::SUCCESS, |first| {
        ExitCode::from(first.kind.exit_code())
    }))
}

fn policy(arguments: &ExpireArguments, context: &Context) -> Result<RetentionPolicy, PolicyError> {
    match &arguments.retention {
        Some(text) => Ok(text.parse()?),
        None => context
            .settings
            .retention_policy
            .ok_or(PolicyError::Missing),
    }
}

fn headline(plan: &ExpirePlan, context: &Context, is_dry_run: bool) -> String {
    let server = context.repository.layout.server();
    let begin = if is_dry_run {
        "Nothing is deleted: this is what expiring would do to"
    } else {
        "Expiring"
    };
    let policy = plan.rules.policy;
    let since = match policy.window_start(plan.now) {
        Some(start) => format!(", from {} on", text::time(&start)),
        None => String::new(),
    };
    let minimum = match plan.rules.minimum_redundancy {
        0 => String::new(),
        minimum => format!(", and at least {minimum}"),
    };
    format!("{begin} server {server}, for {policy}{since}{minimum}.")
}

fn print_plan(plan: &ExpirePlan, context: &Context) {
    let output = context.output;
    output.line("");
    if plan.plan.backups.is_empty() {
        output.line("No backups.");
    } else {
        let rows = plan.plan.backups.iter().map(backup_row).collect();
        output.table(&BACKUPS_HEADER, rows);
    }
    output.line("");
    if !plan.plan.wal.is_empty() {
        output.table(&WAL_HEADER, plan.plan.wal.iter().map(wal_row).collect());
        output.line("");
    }
    for unreadable in &plan.unreadable {
        let (id, reason) = (&unreadable.id, &unreadable.reason);
        output.line(format!("{id} is unreadable: {reason}"));
    }
    for (timeline, reason) in &plan.unreadable_histories {
        output.line(format!(
            "The history of timeline {timeline} is unreadable: {reason}"
        ));
    }
    for killed in &plan.killed {
        output.line(format!("{} was killed: {}", killed.id, killed.reason));
    }
    for id in &plan.taken_back {
        output.line(format!(
            "{id} is marked, and its deletion had begun: that is taken back where all of it is there."
        ));
    }
    for id in &plan.orphans {
        output.line(format!("{id} has only objects of ours left, which go."));
    }
    if plan.foreign_objects > 0 {
        let count = text::count(plan.foreign_objects, "foreign object");
        output.line(format!("Among the WAL: {count}, not touched."));
    }
    if !plan.index.is_empty() {
        let count = u64::try_from(plan.index.len()).unwrap_or(u64::MAX);
        let count = text::count(count, "index object");
        output.line(format!("With the WAL that they tell of go {count}."));
    }
    output.line(totals(plan));
}

fn totals(plan: &ExpirePlan) -> String {
    let sums = |is_delete: bool| {
        let backups = plan.plan.backups.iter();
        let backups = backups.filter(|one| one.verdict.is_delete() == is_delete);
        let wal = plan.plan.wal.iter();
        let wal = wal.filter(|range| range.verdict.is_delete() == is_delete);
        let (files, bytes) = wal.fold((0, 0), |(files, bytes), range| {
            (files + range.files.files, bytes + range.files.bytes)
        });
        let backups = u64::try_from(backups.count()).unwrap_or(u64::MAX);
        if backups == 0 && files == 0 {
            return "nothing".to_owned();
        }
        let (backups, files) = (
            text::count(backups, "backup"),
            text::count(files, "WAL file"),
        );
        format!("{backups} and {files} ({})", text::size(bytes))
    };
    format!("To delete: {}. To keep: {}.", sums(true), sums(false))
}

fn print_done(done: &Done, context: &Context) {
    let output = context.output;
    for id in &done.taken_back {
        output.line(format!("{id} is whole again."));
    }
    for (id, reason) in &done.spared {
        output.line(format!("Spared {id}: {reason}."));
    }
    for failure in &done.failed {
        let (what, reason) = (&failure.what, &failure.reason);
        output.line(format!("Could not delete {what}: {reason}."));
    }
    if let Some(first) = done.failed.first() {
        output.line(format!("hint: {}", first.kind.hint()));
    }
    let size = text::size(done.wal_bytes);
    output.line(format!("Deleted {done} ({size})."));
}

fn words<Stays: ToString, Goes: ToString>(
    verdict: &Verdict<Stays, Goes>,
) -> (&'static str, String) {
    match verdict {
        Verdict::Keep(reason) => ("keep", reason.to_string()),
        Verdict::Delete(reason) => ("delete", reason.to_string()),
    }
}

fn backup_row(backup: &BackupVerdict) -> Vec<String> {
    let (verdict, reason) = words(&backup.verdict);
    let status = backup.status.map_or("-", BackupStatus::as_str);
    [backup.id.as_str(), status, verdict, &reason]
        .map(str::to_owned)
        .into()
}

fn wal_row(range: &WalRange) -> Vec<String> {
    let (verdict, reason) = words(&range.verdict);
    vec![
        range.timeline().to_string(),
        range.files.first.to_string(),
        range.files.last.to_string(),
        range.files.files.to_string(),
        text::size(range.files.bytes),
        verdict.to_owned(),
        reason,
    ]
}

fn document(plan: &ExpirePlan, context: &Context, done: Option<&Done>) -> ExpireDocument {
    let window_start = plan.rules.policy.window_start(plan.now);
    ExpireDocument {
        server: context.repository.layout.server().to_string(),
        policy: plan.rules.policy.to_string(),
        window_start: window_start.map(rfc3339),
        minimum_redundancy: plan.rules.minimum_redundancy,
        is_dry_run: done.is_none(),
        backups: plan.plan.backups.iter().map(backup_document).collect(),
        wal: plan.plan.wal.iter().map(wal_document).collect(),
        killed: documents(plan.killed.iter().map(|one| (&one.id, &one.reason))),
        taken_back: plan.taken_back.iter().map(ToString::to_string).collect(),
        orphans: plan.orphans.iter().map(ToString::to_string).collect(),
        unreadable: documents(plan.unreadable.iter().map(|one| (&one.id, &one.reason))),
        unreadable_histories: plan
            .unreadable_histories
            .iter()
            .map(|(timeline, reason)| HistoryDocument {
                timeline: timeline.to_u32(),
                reason: reason.clone(),
            })
            .collect(),
        foreign_objects: plan.foreign_objects,
        index_objects: plan.index.len(),
        done: done.map(|done| DoneDocument {
            marked_failed: done.marked_failed.iter().map(ToString::to_string).collect(),
            taken_back: done.taken_back.iter().map(ToString::to_string).collect(),
            backups: done.backups.iter().map(ToString::to_string).collect(),
            spared: documents(done.spared.iter().map(|(id, reason)| (id, reason))),
            failed: done
                .failed
                .iter()
                .map(|failure| FailureDocument {
                    what: failure.what.clone(),
                    reason: failure.reason.clone(),
                })
                .collect(),
            wal_files: done.wal_files,
            wal_stored_bytes: done.wal_bytes,
            index_objects: done.index_objects,
        }),
    }
}

fn documents<'a, Id: ToString + 'a>(
    reasons: impl Iterator<Item = (&'a Id, &'a String)>,
) -> Vec<ReasonDocument> {
    let one = |(id, reason): (&Id, &String)| ReasonDocument {
        id: id.to_string(),
        reason: reason.clone(),
    };
    reasons.map(one).collect()
}

fn backup_document(backup: &BackupVerdict) -> BackupDocument {
    let (verdict, reason) = words(&backup.verdict);
    BackupDocument {
        id: backup.id.to_string(),
        status: backup.status.map(BackupStatus::as_str),
        verdict,
        reason,
    }
}

fn wal_document(range: &WalRange) -> WalDocument {
    let (verdict, reason) = words(&range.verdict);
    WalDocument {
        timeline: range.timeline().to_u32(),
        first: range.files.first.to_string(),
        last: range.files.last.to_string(),
        files: range.files.files,
        stored_bytes: range.files.bytes,
        verdict,
        reason,
    }
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}
