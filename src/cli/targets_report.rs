//! What `cellarman targets` prints, for people and as JSON.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::cli::output::Output;
use crate::cli::restore_report::{TargetDocument, target_document, target_words};
use crate::cli::text;
use crate::domain::log::chart::Chart;
use crate::domain::log::reach::StopPoint;
use crate::domain::log::stop::{Side, StopRecord, TransactionEnd, What};
use crate::domain::lsn::Lsn;
use crate::service::restore::recovery_plan::RecoveryPlan;
use crate::service::targets::window::Window;

/// Restore points that are listed to people; programs get all that were read.
const RESTORE_POINTS_SHOWN_MAX: usize = 20;

/// The heights of the chart.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Prints the windows for people.
pub(crate) fn print_windows(output: Output, windows: &[Window]) {
    if windows.is_empty() {
        output.line("Nothing can be gone back to: there is no backup.");
    }
    for (index, window) in windows.iter().enumerate() {
        if index > 0 {
            output.line("");
        }
        for (name, value) in window_lines(window) {
            output.line(format!("{name:<12}{value}").trim_end());
        }
        print_restore_points(output, window);
    }
}

type Line = (&'static str, String);

fn window_lines(window: &Window) -> Vec<Line> {
    let parent = window.line.ancestors().last().map(|left| {
        let (timeline, lsn) = (left.timeline, left.switched_at);
        format!(", which left timeline {timeline} at {lsn}")
    });
    let timeline = window.line.timeline();
    let mut lines = vec![(
        "timeline",
        format!("{timeline}{}", parent.unwrap_or_default()),
    )];
    let Some(first) = window.backups.first() else {
        lines.push(("from", "nowhere: no backup is on its line".to_owned()));
        return lines;
    };
    let at = first
        .end_time
        .map_or_else(String::new, |time| format!("{}, ", text::time(&time)));
    lines.push((
        "from",
        format!("{at}LSN {}, where backup {} ends", first.end, first.id),
    ));
    let survey = &window.survey;
    lines.push(("to", to_words(window)));
    let segments = text::count(survey.segments, "segment");
    lines.push(("WAL", format!("{segments}, {}", gap_words(window))));
    if survey.unknown_segments > 0 {
        let count = text::count(survey.unknown_segments, "segment");
        lines.push((
            "",
            format!("{count} not in the index: `cellarman index build` tells more"),
        ));
    }
    let backups = u64::try_from(window.backups.len()).unwrap_or(u64::MAX);
    lines.push((
        "backups",
        format!("{} to begin at", text::count(backups, "backup")),
    ));
    if let Some(chart) = window.chart() {
        let total: u64 = chart.commits.iter().sum();
        lines.push(("commits", format!("{}  {total} in all", bars(&chart))));
        let step = text::duration(chart.step.to_std().unwrap_or_default());
        lines.push((
            "",
            format!("each column {step}, from {}", text::time(&chart.begin)),
        ));
    }
    lines
}

fn to_words(window: &Window) -> String {
    let end = &window.survey.end;
    let lsn = end
        .last_record_end
        .map_or_else(String::new, |lsn| format!(", LSN {lsn}"));
    match &end.last_end {
        Some((at, last)) => format!(
            "{}, where {} at {at}{lsn}",
            precise(&last.time),
            end_words(last)
        ),
        None => format!("no transaction is known to have ended behind the backup{lsn}"),
    }
}

fn gap_words(window: &Window) -> String {
    let gaps = &window.survey.gaps;
    let named = gaps.iter().take(3).map(|(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first} to {last}")
        }
    });
    match gaps.len() {
        0 => "none missing".to_owned(),
        count => {
            let named: Vec<String> = named.collect();
            let count = text::count(u64::try_from(count).unwrap_or(u64::MAX), "gap");
            format!("{count}: {}", named.join(", "))
        }
    }
}

fn end_words(end: &TransactionEnd) -> String {
    let how = if end.is_commit {
        "committed"
    } else {
        "was rolled back"
    };
    format!("transaction {} {how}", end.xid)
}

fn print_restore_points(output: Output, window: &Window) {
    let points = &window.survey.restore_points;
    if points.is_empty() {
        return;
    }
    let latest = points.iter().rev().take(RESTORE_POINTS_SHOWN_MAX);
    let row = |point: &crate::domain::log::summary::RestorePoint| {
        let name = String::from_utf8_lossy(&point.name).into_owned();
        vec![name, precise(&point.time), point.lsn.to_string()]
    };
    let rows: Vec<_> = latest.map(row).collect();
    let more = points.len().saturating_sub(rows.len());
    output.table(&["RESTORE POINT", "TIME", "LSN"], rows);
    if more > 0 {
        output.line(format!("and {more} earlier ones"));
    }
}

fn bars(chart: &Chart) -> String {
    let highest = chart.commits.iter().copied().max().unwrap_or(0).max(1);
    let bar = |commits: &u64| match *commits {
        0 => ' ',
        commits => {
            let height = (commits * 8).div_ceil(highest).clamp(1, 8);
            let index = usize::try_from(height - 1).unwrap_or(0);
            BARS.get(index).copied().unwrap_or(' ')
        }
    };
    chart.commits.iter().map(bar).collect()
}

/// A time to the microsecond, as commits are told apart.
pub(crate) fn precise(time: &DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S%.6f UTC").to_string()
}

/// Where recovery stops, in words.
pub(crate) fn stop_words(point: &StopPoint) -> String {
    let side = match point.side {
        Side::Before => "before",
        Side::After => "after",
    };
    let lsn = point.record.begin;
    let what = match &point.record.what {
        What::TransactionEnd(end) => {
            format!(
                "the record at {lsn} by which {} at {}",
                end_words(end),
                precise(&end.time)
            )
        }
        What::RestorePoint { name, time } => {
            let name = String::from_utf8_lossy(name);
            format!("restore point {name:?} at {lsn} of {}", precise(time))
        }
        What::Checkpoint { .. } => format!("the checkpoint at {lsn}"),
        What::Other => format!("the record at {lsn}"),
    };
    format!("{side} {what}")
}

/// Prints the plan for one target.
pub(crate) fn print_plan(output: Output, plan: &RecoveryPlan) {
    let chosen = &plan.chosen;
    let mut lines: Vec<Line> = vec![
        ("target", target_words(&plan.target, plan.is_inclusive)),
        ("backup", chosen.backup.id.to_string()),
        ("timeline", chosen.choice.timeline.to_string()),
    ];
    let reasons = chosen.choice.reasons.iter();
    lines.extend(reasons.map(|reason| ("because", reason.clone())));
    lines.extend(plan.stop.as_ref().map(|stop| ("stops", stop_words(stop))));
    let bytes = plan.fetch_bytes();
    let archives = u64::try_from(chosen.archives.len()).unwrap_or(u64::MAX);
    lines.push((
        "fetch",
        format!(
            "{} in {}",
            text::size(bytes),
            text::count(archives, "archive")
        ),
    ));
    lines.push(("WAL", wal_words(plan)));
    let warnings = plan.warnings.iter();
    lines.extend(warnings.map(|warning| ("warning", warning.clone())));
    for (name, value) in lines {
        output.line(format!("{name:<12}{value}"));
    }
}

fn wal_words(plan: &RecoveryPlan) -> String {
    let wal = plan.wal();
    let (begin, end) = (wal.range.begin, wal.range.end);
    if wal.is_all {
        format!("{begin} to {end}, all archived")
    } else {
        format!("{begin} to {end} and on")
    }
}

#[derive(Serialize)]
pub(crate) struct WindowsDocument {
    timelines: Vec<WindowDocument>,
}

#[derive(Serialize)]
struct WindowDocument {
    timeline: u32,
    parent: Option<ParentDocument>,
    backups: Vec<BeginDocument>,
    first_time: Option<String>,
    last_end: Option<EndDocument>,
    last_lsn: Option<String>,
    quiet_until: Option<String>,
    segments: u64,
    missing_segments: u64,
    unknown_segments: u64,
    gaps: Vec<GapDocument>,
    restore_points: Vec<RestorePointDocument>,
    chart: Option<ChartDocument>,
}

#[derive(Serialize)]
struct ParentDocument {
    timeline: u32,
    switched_at: String,
}

#[derive(Serialize)]
struct BeginDocument {
    backup_id: String,
    end_lsn: String,
    end_time: Option<String>,
}

#[derive(Serialize)]
struct EndDocument {
    xid: u32,
    time: String,
    lsn: String,
    committed: bool,
}

#[derive(Serialize)]
struct GapDocument {
    first: String,
    last: String,
}

#[derive(Serialize)]
struct RestorePointDocument {
    name: String,
    time: String,
    lsn: String,
}

#[derive(Serialize)]
struct ChartDocument {
    begin: String,
    step_seconds: i64,
    commits: Vec<u64>,
}

fn end_document((lsn, end): &(Lsn, TransactionEnd)) -> EndDocument {
    EndDocument {
        xid: end.xid,
        time: end.time.to_rfc3339(),
        lsn: lsn.to_string(),
        committed: end.is_commit,
    }
}

/// The windows for programs.
pub(crate) fn windows_document(windows: &[Window]) -> WindowsDocument {
    WindowsDocument {
        timelines: windows.iter().map(window_document).collect(),
    }
}

fn window_document(window: &Window) -> WindowDocument {
    let survey = &window.survey;
    let parent = window.line.ancestors().last();
    let first = window.backups.first().and_then(|begin| begin.end_time);
    let chart = window.chart();
    WindowDocument {
        timeline: window.line.timeline().to_u32(),
        parent: parent.map(|left| ParentDocument {
            timeline: left.timeline.to_u32(),
            switched_at: left.switched_at.to_string(),
        }),
        backups: window
            .backups
            .iter()
            .map(|begin| BeginDocument {
                backup_id: begin.id.to_string(),
                end_lsn: begin.end.to_string(),
                end_time: begin.end_time.map(|time| time.to_rfc3339()),
            })
            .collect(),
        first_time: first.map(|time| time.to_rfc3339()),
        last_end: survey.end.last_end.as_ref().map(end_document),
        last_lsn: survey.end.last_record_end.map(|lsn| lsn.to_string()),
        quiet_until: survey.end.quiet_until.map(|(_, time)| time.to_rfc3339()),
        segments: survey.segments,
        missing_segments: survey.missing_segments,
        unknown_segments: survey.unknown_segments,
        gaps: survey
            .gaps
            .iter()
            .map(|(first, last)| GapDocument {
                first: first.to_string(),
                last: last.to_string(),
            })
            .collect(),
        restore_points: survey
            .restore_points
            .iter()
            .map(|point| RestorePointDocument {
                name: String::from_utf8_lossy(&point.name).into_owned(),
                time: point.time.to_rfc3339(),
                lsn: point.lsn.to_string(),
            })
            .collect(),
        chart: chart.map(|chart| ChartDocument {
            begin: chart.begin.to_rfc3339(),
            step_seconds: chart.step.num_seconds(),
            commits: chart.commits,
        }),
    }
}

#[derive(Serialize)]
pub(crate) struct PlanDocument<'a> {
    target: TargetDocument,
    backup_id: &'a str,
    timeline: u32,
    reasons: &'a [String],
    stop: Option<StopDocument>,
    begin_wal: String,
    end_wal: String,
    wal_segments: u64,
    fetch_bytes: u64,
    warnings: &'a [String],
}

/// Where recovery stops.
#[derive(Serialize)]
pub(crate) struct StopDocument {
    side: &'static str,
    segment: String,
    #[serde(flatten)]
    record: RecordDocument,
}

/// A record that recovery can stop at.
#[derive(Serialize)]
pub(crate) struct RecordDocument {
    lsn: String,
    end_lsn: String,
    xid: Option<u32>,
    committed: Option<bool>,
    restore_point: Option<String>,
    time: Option<String>,
}

impl RecordDocument {
    /// Of this record.
    pub(crate) fn of(record: &StopRecord) -> Self {
        let end = record.what.transaction_end();
        Self {
            lsn: record.begin.to_string(),
            end_lsn: record.end.to_string(),
            xid: end.map(|end| end.xid),
            committed: end.map(|end| end.is_commit),
            restore_point: record.what.restore_point(),
            time: record.what.time().map(|time| time.to_rfc3339()),
        }
    }
}

impl StopDocument {
    /// Of this record.
    pub(crate) fn of(point: &StopPoint) -> Self {
        Self {
            side: match point.side {
                Side::Before => "before",
                Side::After => "after",
            },
            segment: point.segment.to_string(),
            record: RecordDocument::of(&point.record),
        }
    }
}

/// The plan for one target, for programs.
pub(crate) fn plan_document(plan: &RecoveryPlan) -> PlanDocument<'_> {
    let chosen = &plan.chosen;
    let wal = plan.wal();
    PlanDocument {
        target: target_document(&plan.target, plan.is_inclusive),
        backup_id: chosen.backup.id.as_str(),
        timeline: chosen.choice.timeline.to_u32(),
        reasons: &chosen.choice.reasons,
        stop: plan.stop.as_ref().map(StopDocument::of),
        begin_wal: wal.range.begin.to_string(),
        end_wal: wal.range.end.to_string(),
        wal_segments: wal.range.count,
        fetch_bytes: plan.fetch_bytes(),
        warnings: &plan.warnings,
    }
}
