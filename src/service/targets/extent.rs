//! From when to when the newest line of an archive can be recovered, and what is missing on it: for
//! figures that are taken again and again.
//!
//! One listing of the log, one of the index, and at most a few objects. Not here: the whole picture
//! (`window`), and one target (`resolve`).

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use tracing::warn;

use crate::barman::repository::Repository;
use crate::domain::log::reach::LogEnd;
use crate::domain::log::summary::SegmentSummary;
use crate::domain::segment::{SegmentName, SegmentNumber};
use crate::domain::timeline::TimelineId;
use crate::fault::{Fault, Kind, chain};
use crate::service::targets::begins::{self, Begin};
use crate::service::targets::locate::{LocateError, Log, note_scanned, note_summary};
use crate::service::targets::window::WindowError;

/// How many segments are read that are not in the index, and how many of its objects.
const READ_MAX: usize = 2;

/// How many segments at the end are looked at in all.
const LOOKED_AT_MAX: usize = 64;

/// How far the newest line of an archive can be recovered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// The newest timeline with a backup; `None` without backups.
    pub timeline: Option<TimelineId>,
    /// When the first backup ended that can become consistent.
    pub first: Option<DateTime<Utc>>,
    /// The last moment that the log is known to reach without a gap behind the newest such backup:
    /// when a transaction ended last, or that of a later record which shows that none has since.
    pub latest: Option<DateTime<Utc>>,
    /// How many segments are missing behind the first backup, with others behind them.
    pub missing_segments: u64,
    /// The first that is missing behind the newest backup: recovery gets no further until there is
    /// another backup.
    pub ends_before: Option<SegmentName>,
}

/// The extent of an archive. Segments that are `on_their_way` are not missing, even where later
/// ones are there already.
pub async fn extent(
    repository: &Repository,
    on_their_way: &BTreeSet<SegmentName>,
) -> Result<Extent, WindowError> {
    let lines = begins::lines(repository).await?.into_iter();
    let mut with_backups = lines.filter_map(|line| Some((line.start?, line)));
    let Some((start, line)) = with_backups.next_back() else {
        return Ok(Extent::default());
    };
    let log = Log::open(repository, &line.history, start).await?;
    let backups = line.whole_backups(log.files());
    let mut extent = Extent {
        timeline: Some(line.history.timeline()),
        first: backups.first().and_then(end_time),
        missing_segments: missing(&log, on_their_way),
        ..Extent::default()
    };
    if let Some(newest) = backups.last() {
        let begin = SegmentNumber::holding(newest.begin, start.size);
        let last = log.files().last_without_gap(begin);
        let moment = match last {
            Some(last) => log.last_moment(begin, last).await?,
            None => None,
        };
        extent.latest = moment.max(end_time(newest));
        extent.ends_before = gap_behind(&log, last.unwrap_or(begin), on_their_way);
    }
    Ok(extent)
}

fn end_time(backup: &Begin) -> Option<DateTime<Utc>> {
    backup.end_time.map(|time| time.to_utc())
}

/// How many segments are missing and not on their way.
fn missing(log: &Log<'_>, on_their_way: &BTreeSet<SegmentName>) -> u64 {
    let (gaps, size) = (log.files().gaps(), log.files().size());
    let is_in_gap = |name: &&SegmentName| {
        let number = name.number(size);
        let mut gaps = gaps.iter();
        number.is_some_and(|number| gaps.any(|(first, last)| (*first..=*last).contains(&number)))
    };
    let coming = on_their_way.iter().filter(is_in_gap).count();
    let coming = u64::try_from(coming).unwrap_or(u64::MAX);
    log.files().missing().saturating_sub(coming)
}

/// The first segment that is missing from `last` on and not on its way.
fn gap_behind(
    log: &Log<'_>,
    last: SegmentNumber,
    on_their_way: &BTreeSet<SegmentName>,
) -> Option<SegmentName> {
    let files = log.files();
    let gaps = files.gaps().into_iter();
    let behind = gaps.filter(|(_, end)| *end >= last);
    behind
        .flat_map(|(first, last)| {
            // As many as can be on their way, and one more.
            let numbers = std::iter::successors(Some(first), |number| number.next());
            let numbers = numbers.take_while(move |number| *number <= last);
            numbers.take(on_their_way.len() + 1)
        })
        .filter_map(|number| files.name(number))
        .find(|name| !on_their_way.contains(name))
}

impl Log<'_> {
    /// The newest time that the last segments tell, of which none is missing from `begin` to `last`;
    /// `None` when too many would have to be read.
    async fn last_moment(
        &self,
        begin: SegmentNumber,
        last: SegmentNumber,
    ) -> Result<Option<DateTime<Utc>>, LocateError> {
        let mut may_read = READ_MAX;
        let mut next = Some(last);
        for _ in 0..LOOKED_AT_MAX {
            let Some(number) = next.filter(|number| *number >= begin) else {
                break;
            };
            let mut first = number;
            match self.indexed(number) {
                // What is behind the last may be missing now.
                Some((outline, until)) if until <= last && outline.unread_records == 0 => {
                    first = outline.first.number(self.files().size()).unwrap_or(number);
                    let mut moment = None;
                    if until == last && may_read > 0 {
                        may_read -= 1;
                        moment = end_of(&self.object(outline).await).moment();
                    }
                    let moment = moment.or(outline.ends.map(|ends| ends.latest));
                    if moment.is_some() {
                        return Ok(moment);
                    }
                }
                _ if may_read > 0 => {
                    may_read -= 1;
                    let end = self.end_read(number).await?;
                    if end.moment().is_some() {
                        return Ok(end.moment());
                    }
                }
                _ => {}
            }
            next = first.previous();
        }
        Ok(None)
    }

    /// What a segment itself tells; nothing where it cannot be read.
    async fn end_read(&self, number: SegmentNumber) -> Result<LogEnd, LocateError> {
        let mut end = LogEnd::default();
        let Some(from) = number.start(self.files().size()) else {
            return Ok(end);
        };
        match self.scan_whole(number, from, &mut None).await {
            Ok(Some(scanned)) if scanned.mistaken.is_none() => note_scanned(&mut end, &scanned),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Unsupported) => {
                warn!(error = chain(&error), "passing over a segment of the log");
            }
            Err(error) => return Err(error),
        }
        Ok(end)
    }
}

/// What segments tell together.
fn end_of(segments: &[SegmentSummary]) -> LogEnd {
    let mut end = LogEnd::default();
    for segment in segments {
        note_summary(&mut end, segment);
    }
    end
}
