//! `cellarman index`.
//!
//! Not here: the index that `wal archive` makes by itself (`service::wal_archive`).

use std::process::ExitCode;
use std::sync::OnceLock;
use std::thread;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::progress::Progress;
use crate::cli::{Context, text};
use crate::domain::segment::SegmentName;
use crate::fault::{AnyFault, Fault, Kind};
use crate::service::wal_index::build::{self, BuildOptions, Built};

/// The commands on the index of the WAL.
#[derive(Debug, Subcommand)]
pub enum IndexCommand {
    /// Read the archived WAL that the index lacks, and put what it tells beside it
    ///
    /// `wal archive` indexes what it archives. This makes the index of an archive that was written
    /// by others, and heals one with holes. What is in the index already is not read again.
    Build(BuildArguments),
}

/// What `index build` takes.
#[derive(Debug, Args)]
pub struct BuildArguments {
    /// The first segment, on its timeline and all later ones [default: the first of the archive]
    #[arg(long, value_name = "SEGMENT")]
    from: Option<String>,
    /// How many groups of 16 segments are read at once [default: one for each core]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Read everything, and make again what is there already
    #[arg(long)]
    rebuild: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no name of a WAL segment")]
struct SegmentError(String);

impl Fault for SegmentError {
    fn kind(&self) -> Kind {
        Kind::Usage
    }
}

/// The JSON document.
#[derive(Debug, Serialize)]
struct BuiltDocument {
    server: String,
    segments: u64,
    /// How many of them were read.
    read: u64,
    objects_put: u64,
    objects_removed: u64,
    not_indexed: Vec<NotIndexedDocument>,
    /// Records that recovery could stop at, and of which the index knows only that they are there.
    unread_records: u64,
}

#[derive(Debug, Serialize)]
struct NotIndexedDocument {
    name: String,
    reason: String,
}

/// Runs one of them.
pub async fn run(command: IndexCommand, context: &Context) -> Result<ExitCode, AnyFault> {
    match command {
        IndexCommand::Build(arguments) => build(&arguments, context).await,
    }
}

/// Segments that cannot be indexed are told, and the first of them gives the exit code.
async fn build(arguments: &BuildArguments, context: &Context) -> Result<ExitCode, AnyFault> {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let options = BuildOptions {
        from: arguments.from.as_deref().map(segment).transpose()?,
        jobs: arguments.jobs.unwrap_or_else(cores).max(1),
        is_rebuild: arguments.rebuild,
    };
    let progress = OnceLock::new();
    let begin = |total| Progress::begin("indexing WAL", Some(total));
    let done = |bytes, total| progress.get_or_init(|| begin(total)).add(bytes);
    let built = build::build(&context.repository, options, &context.cancel, &done).await;
    if let Some(progress) = progress.get() {
        progress.end();
    }
    let built = built?;
    print(&built, context);
    context.output.json(&document(&built, context));
    let first = built.not_indexed.first();
    Ok(first.map_or(ExitCode::SUCCESS, |first| {
        ExitCode::from(first.kind.exit_code())
    }))
}

fn segment(text: &str) -> Result<SegmentName, SegmentError> {
    text.parse().map_err(|_| SegmentError(text.to_owned()))
}

fn print(built: &Built, context: &Context) {
    let output = context.output;
    for one in &built.not_indexed {
        output.line(format!("Could not index {}: {}.", one.name, one.reason));
    }
    if let Some(first) = built.not_indexed.first() {
        output.line(format!("hint: {}", first.kind.hint()));
    }
    if built.unread_records > 0 {
        let count = text::count(built.unread_records, "record");
        output.line(format!(
            "Of {count} the index does not tell what they are: a search reads their segments."
        ));
    }
    let (segments, read) = (text::count(built.segments, "WAL segment"), built.read);
    let put = text::count(built.objects_put, "index object");
    output.line(format!(
        "Looked at {segments}, read {read} of them, put {put} and removed {}.",
        built.objects_removed
    ));
}

fn document(built: &Built, context: &Context) -> BuiltDocument {
    let not_indexed = built.not_indexed.iter();
    BuiltDocument {
        server: context.repository.layout.server().to_string(),
        segments: built.segments,
        read: built.read,
        objects_put: built.objects_put,
        objects_removed: built.objects_removed,
        not_indexed: not_indexed
            .map(|one| NotIndexedDocument {
                name: one.name.to_string(),
                reason: one.reason.clone(),
            })
            .collect(),
        unread_records: built.unread_records,
    }
}
