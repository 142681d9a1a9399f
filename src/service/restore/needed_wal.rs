//! The log without which a backup never becomes consistent, seen in the archive.
//!
//! Not here: the log after that, which the restored server asks for.

use std::iter::successors;

use crate::barman::repository::Repository;
use crate::domain::backup::Backup;
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::{KnownTimelines, TimelineHistory, TimelineId, known_lines};
use crate::service::restore::error::RestoreError;

/// Missing segments named in an error.
const MISSING_NAMED_MAX: usize = 5;

/// Segments in a row; a standby may have followed its primary to another timeline between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// The first.
    pub begin: SegmentName,
    /// The last.
    pub end: SegmentName,
    /// How many.
    pub count: u64,
}

/// The segments from the backup's begin to its end, each seen in the archive.
pub(crate) async fn needed_wal(
    repository: &Repository,
    backup: &Backup,
    timelines: &KnownTimelines,
) -> Result<WalRange, RestoreError> {
    let record = |missing| RestoreError::Record {
        backup: backup.id.clone(),
        missing,
    };
    let size = backup.segment_size;
    let begin_wal = backup.begin_wal.ok_or_else(|| record("begin_wal"))?;
    let end_lsn = backup.end_lsn.ok_or_else(|| record("end_xlog"))?;
    let begin = begin_wal.number(size).ok_or_else(|| record("begin_wal"))?;
    let end = SegmentNumber::ending_at(end_lsn.max(Lsn::new(1)), size).max(begin);
    let timeline = backup.end_wal.unwrap_or(begin_wal).timeline();
    let known = known_lines(&timelines.histories).remove(&timeline);
    let line = known.unwrap_or(TimelineHistory::root(timeline));
    let needed = |number| {
        // The timeline that it began on has it, unless the line left that before its end.
        let timeline = holder(&line, number, size).max(begin_wal.timeline());
        SegmentName::new(timeline, number, size)
    };
    let all: Vec<SegmentName> = successors(Some(begin), |number| number.next())
        .take_while(|number| *number <= end)
        .map_while(needed)
        .collect();
    let (Some(first), Some(last)) = (all.first(), all.last()) else {
        return Err(record("end_xlog"));
    };
    let mut missing: Vec<&SegmentName> = Vec::new();
    for run in all.chunk_by(|one, next| one.timeline() == next.timeline()) {
        let (Some(from), Some(to)) = (run.first(), run.last()) else {
            continue;
        };
        let archived = repository.archived_segments(*from, *to, size).await?;
        missing.extend(run.iter().filter(|segment| !archived.contains(segment)));
    }
    if missing.is_empty() {
        let count = end.to_u64() - begin.to_u64() + 1;
        return Ok(WalRange {
            begin: *first,
            end: *last,
            count,
        });
    }
    let named = missing.iter().take(MISSING_NAMED_MAX);
    Err(RestoreError::WalMissing {
        backup: backup.id.clone(),
        segments: named.map(ToString::to_string).collect(),
    })
}

/// Sees that a target which says where in the log it lies is not behind a gap, or behind the end
/// of the archive: a server that finds out has recovered for hours.
///
/// The last segment may be there unfinished, as a failover leaves it.
pub(crate) async fn check_wal_to_target(
    repository: &Repository,
    backup: &Backup,
    target: Lsn,
    (timeline, timelines): (TimelineId, &KnownTimelines),
) -> Result<(), RestoreError> {
    let root = (timeline == TimelineId::FIRST).then_some(TimelineHistory::root(timeline));
    let known = known_lines(&timelines.histories).remove(&timeline);
    // Where the line is not known, nor is what lies on it.
    let Some(line) = known.or(root) else {
        return Ok(());
    };
    let size = backup.segment_size;
    let end_lsn = backup.end_lsn.unwrap_or(Lsn::new(1));
    let mut from = SegmentNumber::ending_at(end_lsn.max(Lsn::new(1)), size);
    let last = SegmentNumber::holding(target, size);
    while from < last {
        let Some(next) = from.next() else { break };
        from = next;
        let timeline = holder(&line, from, size);
        let Some(first) = SegmentName::new(timeline, from, size) else {
            break;
        };
        let in_one_folder = |name: &SegmentName| {
            name.folder() == first.folder()
                && name
                    .number(size)
                    .is_some_and(|number| number <= last && holder(&line, number, size) == timeline)
        };
        let window = successors(Some(first), |name| name.next(size)).take_while(in_one_folder);
        let window: Vec<SegmentName> = window.collect();
        let Some(end) = window.last() else { break };
        let archived = repository.archived_segments(first, *end, size).await?;
        let mut missing = Vec::new();
        for segment in window.iter().filter(|segment| !archived.contains(segment)) {
            if !repository.has_partial(*segment).await? {
                missing.push(segment.to_string());
            }
            if missing.len() == MISSING_NAMED_MAX {
                break;
            }
        }
        if !missing.is_empty() {
            return Err(RestoreError::TargetWalMissing {
                target: target.to_string(),
                segments: missing,
            });
        }
        from = end.number(size).unwrap_or(last);
    }
    Ok(())
}

/// The timeline of a line on which a segment was finished: the first not left before its end.
fn holder(line: &TimelineHistory, number: SegmentNumber, size: SegmentSize) -> TimelineId {
    let end = number.next().and_then(|next| next.start(size));
    let ancestors = line.ancestors().iter();
    let mut whole = ancestors.filter(|left| end.is_some_and(|end| end <= left.switched_at));
    whole.next().map_or(line.timeline(), |left| left.timeline)
}
