//! `cellarman wal gaps`: the segments that are missing on the way from the first backup on.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::cli::{Context, text};
use crate::domain::segment::SegmentName;
use crate::fault::{AnyFault, Fault, Kind};
use crate::service::targets::window;

/// The arguments.
#[derive(Debug, Args)]
pub struct GapsArguments {}

/// Segments are missing.
#[derive(Debug, thiserror::Error)]
#[error("the archive has {}", text::count(*.0, "gap"))]
struct GapsError(u64);

impl Fault for GapsError {
    fn kind(&self) -> Kind {
        Kind::Corrupt
    }

    fn hint(&self) -> String {
        "Archive those segments again where the server still has them; otherwise take a new backup, for recovery from \
         an older one ends at the gap."
            .to_owned()
    }
}

#[derive(Serialize)]
struct Document {
    gaps: Vec<GapDocument>,
}

#[derive(Serialize)]
struct GapDocument {
    timeline: u32,
    first: String,
    last: String,
}

/// Lists the gaps of each timeline's line. Fails when there are any.
pub async fn run(_: GapsArguments, context: &Context) -> Result<ExitCode, AnyFault> {
    let output = context.output;
    let gaps = window::gaps(&context.repository).await?;
    let document = |(first, last): &(SegmentName, SegmentName)| GapDocument {
        timeline: first.timeline().to_u32(),
        first: first.to_string(),
        last: last.to_string(),
    };
    output.json(&Document {
        gaps: gaps.iter().map(document).collect(),
    });
    if gaps.is_empty() {
        output.line("No segment is missing behind the first backup.");
        return Ok(ExitCode::SUCCESS);
    }
    let row = |(first, last): &(SegmentName, SegmentName)| {
        vec![
            first.timeline().to_string(),
            first.to_string(),
            last.to_string(),
        ]
    };
    let header = ["TIMELINE", "FIRST MISSING", "LAST MISSING"];
    output.table(&header, gaps.iter().map(row).collect());
    Err(GapsError(u64::try_from(gaps.len()).unwrap_or(u64::MAX)).into())
}
