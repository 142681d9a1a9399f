//! What windows and lists look like on the wire. Pure.
//!
//! Not here: plans (`resolve`).

use cellarman::api::recovery_targets as wire;
use cellarman::domain::log::chart::Chart;
use cellarman::domain::log::stop::TransactionEnd;
use cellarman::domain::log::summary;
use cellarman::domain::lsn::Lsn;
use cellarman::domain::segment::SegmentName;
use cellarman::domain::timeline::{TimelineHistory, TimelineId};
use cellarman::service::targets::begins::Begin;
use cellarman::service::targets::list::Listed;
use cellarman::service::targets::window::Window;
use chrono::{DateTime, TimeZone};
use prost_types::Timestamp;

/// The most backups, and the most gaps, of a window.
const NAMED_MAX: usize = 1000;

/// A window.
pub(super) fn window(window: Window) -> wire::TimelineWindow {
    let commits = window.chart().map(commits);
    let survey = window.survey;
    let timeline = window.line.timeline();
    let end = &survey.end;
    let latest = end.last_record_end.map(|lsn| wire::Position {
        lsn: lsn.to_string(),
        time: end.last_end.map(|(_, end)| time(&end.time)),
    });
    let newest = window.backups.len().saturating_sub(NAMED_MAX);
    let first = window.backups.first().map(end_of);
    wire::TimelineWindow {
        timeline: timeline.to_u32(),
        ancestors: ancestors(&window.line),
        latest: latest.or_else(|| window.backups.last().map(end_of)),
        first,
        backups: window.backups.iter().skip(newest).map(backup).collect(),
        last_transaction: end
            .last_end
            .as_ref()
            .map(|(lsn, end)| transaction(*lsn, end)),
        quiet_until: end.quiet_until.map(|(_, moment)| time(&moment)),
        gaps: survey.gaps.iter().take(NAMED_MAX).map(range).collect(),
        missing_segments: survey.missing_segments,
        segments: survey.segments,
        segments_not_indexed: survey.unknown_segments,
        commits,
    }
}

/// One thing of a list.
pub(super) fn listed(listed: Listed) -> wire::Listed {
    let what = match listed {
        Listed::Backup(begin) => wire::listed::What::Backup(backup(&begin)),
        Listed::RestorePoint { timeline, point } => {
            wire::listed::What::RestorePoint(restore_point(timeline, &point))
        }
    };
    wire::Listed { what: Some(what) }
}

/// The timelines before the last of a line.
pub(super) fn ancestors(line: &TimelineHistory) -> Vec<wire::Ancestor> {
    let ancestors = line.ancestors().iter();
    ancestors
        .map(|left| wire::Ancestor {
            timeline: left.timeline.to_u32(),
            switched_at_lsn: left.switched_at.to_string(),
        })
        .collect()
}

/// Segments that follow one another.
pub(super) fn range((first, last): &(SegmentName, SegmentName)) -> wire::SegmentRange {
    wire::SegmentRange {
        first: first.to_string(),
        last: last.to_string(),
    }
}

/// The end of a transaction.
pub(super) fn transaction(lsn: Lsn, end: &TransactionEnd) -> wire::TransactionEnd {
    wire::TransactionEnd {
        xid: end.xid,
        committed: end.is_commit,
        position: Some(position(lsn, Some(&end.time))),
    }
}

/// A restore point.
pub(super) fn restore_point(
    timeline: TimelineId,
    point: &summary::RestorePoint,
) -> wire::RestorePoint {
    wire::RestorePoint {
        name: String::from_utf8_lossy(&point.name).into_owned(),
        timeline: timeline.to_u32(),
        position: Some(position(point.lsn, Some(&point.time))),
    }
}

/// A place in the log.
pub(super) fn position<Zone: TimeZone>(
    lsn: Lsn,
    moment: Option<&DateTime<Zone>>,
) -> wire::Position {
    wire::Position {
        lsn: lsn.to_string(),
        time: moment.map(time),
    }
}

fn backup(begin: &Begin) -> wire::Backup {
    wire::Backup {
        backup_id: begin.id.to_string(),
        timeline: begin.timeline.to_u32(),
        begin_lsn: begin.begin.to_string(),
        end: Some(end_of(begin)),
    }
}

fn end_of(begin: &Begin) -> wire::Position {
    position(begin.end, begin.end_time.as_ref())
}

fn commits(chart: Chart) -> wire::CommitDensity {
    wire::CommitDensity {
        begin: Some(time(&chart.begin)),
        step_seconds: chart.step.num_seconds(),
        commits: chart.commits,
    }
}

fn time<Zone: TimeZone>(moment: &DateTime<Zone>) -> Timestamp {
    Timestamp {
        seconds: moment.timestamp(),
        nanos: i32::try_from(moment.timestamp_subsec_nanos()).unwrap_or(0),
    }
}
