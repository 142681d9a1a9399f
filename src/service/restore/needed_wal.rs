//! The log without which a backup never becomes consistent, seen in the archive.
//!
//! Not here: the log after that (`way`).

use std::iter::successors;

use crate::domain::backup::Backup;
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber};
use crate::service::restore::error::RestoreError;
use crate::service::targets::line_files::LineFiles;

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
/// `files` are those of the line that recovery follows, from the backup's begin on. The last segment
/// may be unfinished, or that of a later timeline: a standby's backup need not wait for it, and a
/// failover may come before it is full.
pub(crate) fn needed_wal(backup: &Backup, files: &LineFiles) -> Result<WalRange, RestoreError> {
    let size = backup.segment_size;
    let span = span(backup)?;
    let begin_wal = backup
        .begin_wal
        .ok_or_else(|| record(backup, "begin_wal"))?;
    let timeline = backup.end_wal.unwrap_or(begin_wal).timeline();
    let last = SegmentName::new(timeline, span.end, size);
    let last = last.ok_or_else(|| record(backup, "end_xlog"))?;
    let name_of = |number| {
        if number == span.end {
            Some(last)
        } else {
            files.name(number)
        }
    };
    let missing = missing(files, (span.begin, span.end), span.end_lsn, name_of);
    if missing.is_empty() {
        return Ok(WalRange {
            begin: begin_wal,
            end: last,
            count: span.end.to_u64() - span.begin.to_u64() + 1,
        });
    }
    Err(RestoreError::WalMissing {
        backup: backup.id.clone(),
        segments: missing.iter().map(ToString::to_string).collect(),
    })
}

/// Where a backup begins and ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// The first segment.
    pub(crate) begin: SegmentNumber,
    /// The last.
    pub(crate) end: SegmentNumber,
    /// Its end, in the last segment or right behind it.
    pub(crate) end_lsn: Lsn,
}

/// Where a backup begins and ends, by its record.
pub(crate) fn span(backup: &Backup) -> Result<Span, RestoreError> {
    let size = backup.segment_size;
    let begin = backup.begin_wal.and_then(|name| name.number(size));
    let begin = begin.ok_or_else(|| record(backup, "begin_wal"))?;
    let end_lsn = backup.end_lsn.ok_or_else(|| record(backup, "end_xlog"))?;
    let end = SegmentNumber::ending_at(end_lsn.max(Lsn::new(1)), size).max(begin);
    Ok(Span {
        begin,
        end,
        end_lsn,
    })
}

fn record(backup: &Backup, missing: &'static str) -> RestoreError {
    RestoreError::Record {
        backup: backup.id.clone(),
        missing,
    }
}

/// The first few of these segments that are not there; of the last as much is needed as comes before
/// `end`.
///
/// Stops at the last that it names: a record may be wrong about its end by any length.
pub(crate) fn missing(
    files: &LineFiles,
    (first, last): (SegmentNumber, SegmentNumber),
    end: Lsn,
    name_of: impl Fn(SegmentNumber) -> Option<SegmentName>,
) -> Vec<SegmentName> {
    successors(Some(first), |number| number.next())
        .take_while(|number| *number <= last)
        .filter(|number| !files.has(*number, Some(end).filter(|_| *number == last)))
        .take(MISSING_NAMED_MAX)
        .map_while(name_of)
        .collect()
}
