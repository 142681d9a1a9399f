//! The log without which a backup never becomes consistent, seen in the archive.
//!
//! Not here: the log after that (`way`).

use std::iter::successors;
use std::ops::RangeInclusive;

use crate::barman::repository::Repository;
use crate::domain::backup::Backup;
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::{KnownTimelines, TimelineHistory, TimelineId, known_lines};
use crate::service::restore::error::RestoreError;

/// Missing segments named in an error.
pub(crate) const MISSING_NAMED_MAX: usize = 5;

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
///
/// The last may be unfinished, or that of a later timeline of the line that recovery follows: a
/// standby's backup need not wait for it, and a failover may come before it is full.
pub(crate) async fn needed_wal(
    repository: &Repository,
    backup: &Backup,
    followed: TimelineId,
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
    let mut lines = known_lines(&timelines.histories);
    let known = lines.remove(&timeline);
    let line = known.unwrap_or(TimelineHistory::root(timeline));
    let name_of = |number| {
        // The timeline that it began on has it, unless the line left that before its end.
        let timeline = holder(&line, number, size).max(begin_wal.timeline());
        SegmentName::new(timeline, number, size)
    };
    let (Some(first), Some(last)) = (name_of(begin), name_of(end)) else {
        return Err(record("end_xlog"));
    };
    let segments = missing(repository, begin..=end, size, &name_of).await?;
    let mut is_whole = segments.is_empty();
    if segments == [last] {
        // Up to where the backup ended, the line that is followed is the same.
        let followed = lines.remove(&followed).unwrap_or(line);
        let on_followed = SegmentName::new(holder(&followed, end, size), end, size);
        let name = on_followed.unwrap_or(last);
        is_whole = !repository
            .archived_segments(name, name, size)
            .await?
            .is_empty()
            || has_up_to(repository, &followed, end_lsn, name, size).await?;
    }
    if is_whole {
        let count = end.to_u64() - begin.to_u64() + 1;
        return Ok(WalRange {
            begin: first,
            end: last,
            count,
        });
    }
    Err(RestoreError::WalMissing {
        backup: backup.id.clone(),
        segments: segments.iter().map(ToString::to_string).collect(),
    })
}

/// The first few of these segments that are not in the archive.
///
/// Looks at one folder at a time and stops at the last that it names: a record may be wrong about
/// its end by any length.
pub(crate) async fn missing(
    repository: &Repository,
    numbers: RangeInclusive<SegmentNumber>,
    size: SegmentSize,
    name_of: &(impl Fn(SegmentNumber) -> Option<SegmentName> + Sync),
) -> Result<Vec<SegmentName>, RestoreError> {
    let mut missing = Vec::new();
    let mut next = Some(*numbers.start());
    while let Some(from) = next.filter(|number| number <= numbers.end()) {
        let Some(first) = name_of(from) else { break };
        let window: Vec<SegmentName> = successors(Some(from), |number| number.next())
            .take_while(|number| number <= numbers.end())
            .map_while(name_of)
            .take_while(|name| name.folder() == first.folder())
            .collect();
        let Some(last) = window.last() else { break };
        let archived = repository.archived_segments(first, *last, size).await?;
        missing.extend(window.iter().filter(|name| !archived.contains(name)));
        if missing.len() >= MISSING_NAMED_MAX {
            missing.truncate(MISSING_NAMED_MAX);
            break;
        }
        next = last.number(size).and_then(SegmentNumber::next);
    }
    Ok(missing)
}

/// Whether the archive has a segment that it lacks whole up to `end`: unfinished, or on a timeline
/// that the line left in it later.
///
/// That is where PostgreSQL looks next: `XLogFileReadAnyTLI`, src/backend/access/transam/xlogrecovery.c.
/// An unfinished one is taken to reach there: how far it does, its name does not tell.
pub(crate) async fn has_up_to(
    repository: &Repository,
    line: &TimelineHistory,
    end: Lsn,
    segment: SegmentName,
    size: SegmentSize,
) -> Result<bool, RestoreError> {
    if repository.has_partial(segment).await? {
        return Ok(true);
    }
    let Some(number) = segment.number(size) else {
        return Ok(false);
    };
    for left in line.ancestors() {
        let is_shared = SegmentNumber::holding(left.switched_at, size) == number;
        let name = SegmentName::new(left.timeline, number, size);
        let Some(name) = name.filter(|_| is_shared && end <= left.switched_at) else {
            continue;
        };
        let whole = repository.archived_segments(name, name, size).await?;
        if !whole.is_empty() || repository.has_partial(name).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The timeline of a line on which a segment was finished: the first not left before its end.
pub(crate) fn holder(
    line: &TimelineHistory,
    number: SegmentNumber,
    size: SegmentSize,
) -> TimelineId {
    let end = number.next().and_then(|next| next.start(size));
    let ancestors = line.ancestors().iter();
    let mut whole = ancestors.filter(|left| end.is_some_and(|end| end <= left.switched_at));
    whole.next().map_or(line.timeline(), |left| left.timeline)
}
