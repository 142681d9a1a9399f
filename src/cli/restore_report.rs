//! What `cellarman restore` prints: its plan and its outcome, for people and as JSON.

use std::time::Duration;

use chrono::Utc;
use serde::Serialize;

use crate::cli::output::Output;
use crate::cli::targets_report::{StopDocument, stop_words};
use crate::cli::{Context, text};
use crate::domain::recovery::Target;
use crate::service::restore::directories::DirectoryState;
use crate::service::restore::plan::RestorePlan;
use crate::service::restore::run::Restored;
use crate::service::restore::settings::shell_word;
use crate::store::config::StoreConfig;

/// What was restored, and how long it took.
pub(crate) struct Outcome {
    pub(crate) restored: Restored,
    pub(crate) elapsed: Duration,
}

/// The target in words, with its zone where it is a time.
pub(crate) fn target_words(target: &Target, is_inclusive: bool) -> String {
    let side = if is_inclusive { "included" } else { "excluded" };
    match target {
        Target::Latest => "the end of the archive".to_owned(),
        Target::Immediate => "the moment the backup is consistent".to_owned(),
        Target::Time(time) => {
            let time = time.with_timezone(&Utc).format("%Y-%m-%d %H:%M:%S%.f UTC");
            format!("the time {time}, {side}")
        }
        Target::Xid(xid) => format!("transaction {xid}, {side}"),
        Target::Lsn(lsn) => format!("LSN {lsn}, {side}"),
        Target::Name(name) => format!("restore point {name:?}"),
    }
}

/// Backups not chosen that are named to people; programs get all.
const PASSED_OVER_SHOWN_MAX: usize = 5;

/// Prints the plan for people; its archives one by one when the plan is all that was asked for.
pub(crate) fn print_plan(output: Output, plan: &RestorePlan, is_all: bool) {
    let mut lines = choice_lines(plan);
    lines.extend(source_lines(plan, is_all));
    lines.extend(place_lines(plan));
    lines.extend(
        plan.warnings
            .iter()
            .map(|warning| ("warning", warning.clone())),
    );
    for (name, value) in lines {
        output.line(format!("{name:<12}{value}"));
    }
}

type Line = (&'static str, String);

/// What is restored, how far, and why.
fn choice_lines(plan: &RestorePlan) -> Vec<Line> {
    let pgdata = plan.pgdata.display();
    let mut lines = vec![
        (
            "restore",
            format!("backup {} into {pgdata}", backup_words(plan)),
        ),
        (
            "target",
            format!(
                "{}, then {}",
                target_words(&plan.target, plan.is_inclusive),
                plan.action.as_str()
            ),
        ),
        ("timeline", plan.timeline.to_string()),
    ];
    lines.extend(plan.stop.as_ref().map(|stop| ("stops", stop_words(stop))));
    lines.extend(
        plan.reasons
            .iter()
            .map(|reason| ("because", reason.clone())),
    );
    let passed_over = plan.passed_over.iter().rev();
    lines.extend(
        passed_over
            .take(PASSED_OVER_SHOWN_MAX)
            .map(|(id, reason)| ("not", format!("{id}: {reason}"))),
    );
    if let Some(more) = plan
        .passed_over
        .len()
        .checked_sub(PASSED_OVER_SHOWN_MAX + 1)
    {
        lines.push(("not", format!("{} earlier ones", more + 1)));
    }
    lines
}

/// What is fetched.
fn source_lines(plan: &RestorePlan, is_all: bool) -> Vec<Line> {
    let (count, size) = (plan.archives.len(), text::size(plan.fetch_bytes));
    let recorded = plan
        .archives
        .iter()
        .filter(|archive| archive.blake3.is_some())
        .count();
    let mut lines = vec![(
        "fetch",
        format!("{size} in {count} archives, {recorded} of them with a recorded digest"),
    )];
    if is_all {
        lines.extend(plan.archives.iter().map(|archive| {
            let (name, size) = (
                archive.stored.key.base_name(),
                text::size(archive.stored.size),
            );
            ("", format!("{name} {size}"))
        }));
    }
    let wal = &plan.wal;
    lines.push((
        "WAL",
        format!(
            "{} to {} make it consistent: {} archived",
            wal.begin, wal.end, wal.count
        ),
    ));
    lines
}

/// Where it goes.
fn place_lines(plan: &RestorePlan) -> Vec<Line> {
    let tablespaces = plan.tablespaces.iter().map(|tablespace| {
        let (name, oid, new) = (&tablespace.name, tablespace.oid, tablespace.new.display());
        (
            "tablespace",
            format!("{name} ({oid}) from {} to {new}", tablespace.old),
        )
    });
    let space = plan.space.iter().map(|space| {
        let (free, needed) = (text::size(space.available), text::size(space.needed));
        (
            "space",
            format!(
                "{free} free for {}, {needed} or more needed",
                space.path.display()
            ),
        )
    });
    let mut lines: Vec<Line> = tablespaces.chain(space).collect();
    if plan.pgdata_state == DirectoryState::Unfinished {
        let text = "a restore that did not finish has left files there: they are removed first";
        lines.push(("clear", text.to_owned()));
    }
    lines
}

fn backup_words(plan: &RestorePlan) -> String {
    let mut words = plan.backup.id.to_string();
    if let Some(name) = &plan.backup.name {
        words = format!("{words} ({name})");
    }
    if let Some(version) = plan.backup.version {
        words = format!(
            "{words} of PostgreSQL {}.{}",
            version / 10_000,
            version % 10_000
        );
    }
    if let Some(end) = &plan.backup.end_time {
        words = format!("{words}, consistent at {},", text::time(end));
    }
    words
}

/// Prints what was done and what comes next.
pub(crate) fn print_outcome(context: &Context, plan: &RestorePlan, outcome: &Outcome) {
    let output = context.output;
    let Restored {
        files,
        bytes,
        archives_verified,
        notes,
    } = &outcome.restored;
    output.line("");
    let archives = plan.archives.len();
    let digests = match *archives_verified {
        0 => "no digests were recorded to hold it to".to_owned(),
        verified => format!("{verified} of {archives} archives had their recorded digest"),
    };
    output.line(format!(
        "Restored {files} files, {}, in {}; {digests}.",
        text::size(*bytes),
        text::duration(outcome.elapsed),
    ));
    for note in notes {
        output.line(format!("Note: {note}"));
    }
    if let StoreConfig::S3(_) = &context.settings.destination.store
        && !plan
            .restore_command
            .options
            .iter()
            .any(|option| option == "--store-file")
    {
        output.line(
            "Note: the server fetches WAL with the credentials in its own environment, so start it with \
             the same AWS_ variables as this command.",
        );
    }
    output.line(
        "Note: its archive_command is still that of the source. Give it a --server of its own: until its \
         first WAL file is archived, it takes only an empty archive.",
    );
    let pgdata = plan.pgdata.display().to_string();
    output.line(format!("Next: pg_ctl -D {} start", shell_word(&pgdata)));
    output.line(format!(
        "It recovers to {}, then: {}.",
        target_words(&plan.target, plan.is_inclusive),
        plan.action.as_str()
    ));
}

#[derive(Serialize)]
pub(crate) struct Document<'a> {
    plan: PlanDocument<'a>,
    restored: Option<RestoredDocument<'a>>,
}

#[derive(Serialize)]
struct PlanDocument<'a> {
    backup_id: &'a str,
    backup_name: Option<&'a str>,
    server_version: Option<u32>,
    pgdata: String,
    clears_unfinished_restore: bool,
    target: TargetDocument,
    stop: Option<StopDocument>,
    timeline: u32,
    target_action: &'static str,
    reasons: &'a [String],
    passed_over: Vec<PassedOver<'a>>,
    warnings: &'a [String],
    archives: Vec<ArchiveDocument<'a>>,
    fetch_bytes: u64,
    begin_wal: String,
    end_wal: String,
    tablespaces: Vec<TablespaceDocument<'a>>,
    space: Vec<SpaceDocument>,
    restore_command: String,
    jobs: usize,
}

/// The target, for programs.
#[derive(Serialize)]
pub(crate) struct TargetDocument {
    kind: &'static str,
    value: Option<String>,
    inclusive: bool,
}

#[derive(Serialize)]
struct PassedOver<'a> {
    backup_id: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct ArchiveDocument<'a> {
    key: &'a str,
    size: u64,
    codec: &'static str,
    blake3: Option<&'a str>,
}

#[derive(Serialize)]
struct TablespaceDocument<'a> {
    name: &'a str,
    oid: u32,
    old: &'a str,
    new: String,
}

#[derive(Serialize)]
struct SpaceDocument {
    path: String,
    available: u64,
    needed: u64,
}

#[derive(Serialize)]
struct RestoredDocument<'a> {
    files: u64,
    bytes: u64,
    archives_verified: usize,
    elapsed_seconds: f64,
    notes: &'a [String],
}

/// The plan, and the outcome where there is one.
pub(crate) fn document<'a>(plan: &'a RestorePlan, outcome: Option<&'a Outcome>) -> Document<'a> {
    Document {
        plan: plan_document(plan),
        restored: outcome.map(|outcome| RestoredDocument {
            files: outcome.restored.files,
            bytes: outcome.restored.bytes,
            archives_verified: outcome.restored.archives_verified,
            elapsed_seconds: outcome.elapsed.as_secs_f64(),
            notes: &outcome.restored.notes,
        }),
    }
}

fn plan_document(plan: &RestorePlan) -> PlanDocument<'_> {
    let passed_over = plan.passed_over.iter();
    let archives = plan.archives.iter();
    let tablespaces = plan.tablespaces.iter();
    PlanDocument {
        backup_id: plan.backup.id.as_str(),
        backup_name: plan.backup.name.as_deref(),
        server_version: plan.backup.version,
        pgdata: plan.pgdata.display().to_string(),
        clears_unfinished_restore: plan.pgdata_state == DirectoryState::Unfinished,
        target: target_document(&plan.target, plan.is_inclusive),
        stop: plan.stop.as_ref().map(StopDocument::of),
        timeline: plan.timeline.to_u32(),
        target_action: plan.action.as_str(),
        reasons: &plan.reasons,
        passed_over: passed_over
            .map(|(id, reason)| PassedOver {
                backup_id: id.as_str(),
                reason,
            })
            .collect(),
        warnings: &plan.warnings,
        archives: archives
            .map(|archive| ArchiveDocument {
                key: archive.stored.key.as_str(),
                size: archive.stored.size,
                codec: archive.stored.codec.as_str(),
                blake3: archive.blake3.as_deref(),
            })
            .collect(),
        fetch_bytes: plan.fetch_bytes,
        begin_wal: plan.wal.begin.to_string(),
        end_wal: plan.wal.end.to_string(),
        tablespaces: tablespaces
            .map(|tablespace| TablespaceDocument {
                name: &tablespace.name,
                oid: tablespace.oid,
                old: &tablespace.old,
                new: tablespace.new.display().to_string(),
            })
            .collect(),
        space: plan
            .space
            .iter()
            .map(|space| SpaceDocument {
                path: space.path.display().to_string(),
                available: space.available,
                needed: space.needed,
            })
            .collect(),
        restore_command: plan.restore_command.to_shell(),
        jobs: plan.jobs,
    }
}

/// The target, for programs.
pub(crate) fn target_document(target: &Target, is_inclusive: bool) -> TargetDocument {
    let (kind, value) = match target {
        Target::Latest => ("latest", None),
        Target::Immediate => ("immediate", None),
        Target::Time(time) => ("time", Some(time.with_timezone(&Utc).to_rfc3339())),
        Target::Xid(xid) => ("xid", Some(xid.to_string())),
        Target::Lsn(lsn) => ("lsn", Some(lsn.to_string())),
        Target::Name(name) => ("name", Some(name.clone())),
    };
    TargetDocument {
        kind,
        value,
        inclusive: is_inclusive,
    }
}
