//! Which segments of the log the backups need, from the begin of each to the head of its lines, and
//! which of them an archive lacks.
//!
//! Pure. Not here: listing the archive (`wal`), and the log on the way to one target, which a restore
//! looks at by itself.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::backup::{Backup, BackupId, Keep};
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::{Ancestor, TimelineHistory, TimelineId, known_lines};
use crate::service::verify::archived::Archived;

/// What is missing for so long is not on its way: an archiver that sends ahead fills its gaps
/// within seconds.
const ON_ITS_WAY_MAX: TimeDelta = TimeDelta::minutes(15);

/// What a backup needs of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) backup: BackupId,
    pub(super) size: SegmentSize,
    /// The segment that it begins in, by name.
    pub(super) begin_wal: SegmentName,
    begin: SegmentNumber,
    /// The segment that holds the last byte without which it is not consistent.
    end: SegmentNumber,
    end_lsn: Lsn,
    ended_on: TimelineId,
    ended_at: Option<DateTime<Utc>>,
    /// Kept with the log that makes it consistent, and no more.
    is_standalone: bool,
}

/// The log of one timeline and its ancestors, from the first backup that it can be replayed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The timeline.
    pub timeline: TimelineId,
    /// The first segment needed.
    pub begin: SegmentName,
    /// The last segment there is.
    pub head: Option<SegmentName>,
    /// How many are missing between them.
    pub missing: u64,
}

/// Segments in a row that are needed and not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingWal {
    /// The first.
    pub first: SegmentName,
    /// The last, on the same timeline.
    pub last: SegmentName,
    /// How many.
    pub count: u64,
    /// The backups that cannot be recovered beyond them, or at all.
    pub backups: BTreeSet<BackupId>,
    /// Whether they may yet come: what lies behind was put just now.
    pub is_on_its_way: bool,
}

/// What the archive holds of the log that its backups need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    /// Each line that leads on from a backup.
    pub lines: Vec<Line>,
    /// What is missing, by name. What several lines share is in it once.
    pub missing: Vec<MissingWal>,
    /// Timelines that have segments, and may descend from a backup's, without a history that tells.
    pub without_history: Vec<TimelineId>,
}

impl Need {
    /// What a backup needs; the name of the field where its record does not tell.
    pub(super) fn of(backup: &Backup, keep: Option<Keep>) -> Result<Self, &'static str> {
        let size = backup.segment_size;
        let begin_wal = backup.begin_wal.ok_or("begin_wal")?;
        let end_lsn = backup.end_lsn.ok_or("end_xlog")?.max(Lsn::new(1));
        let begin = begin_wal.number(size).ok_or("begin_wal")?;
        Ok(Self {
            backup: backup.id.clone(),
            size,
            begin_wal,
            begin,
            end: SegmentNumber::ending_at(end_lsn, size).max(begin),
            end_lsn,
            ended_on: backup.end_wal.unwrap_or(begin_wal).timeline(),
            ended_at: backup.end_time.map(|time| time.to_utc()),
            is_standalone: keep == Some(Keep::Standalone),
        })
    }
}

/// Holds the archive to what these backups need, all of one segment size.
pub(super) fn check(
    needs: &[&Need],
    histories: &[TimelineHistory],
    archived: &Archived,
    now: DateTime<Utc>,
) -> Lines {
    let mut known = known_lines(histories);
    let timelines: BTreeSet<TimelineId> = known
        .keys()
        .copied()
        .chain(archived.timelines())
        .chain(needs.iter().map(|need| need.ended_on))
        .collect();
    let mut found = Lines::default();
    let mut gaps = Gaps::default();
    for timeline in timelines {
        let is_stranger = !known.contains_key(&timeline)
            && needs.iter().all(|need| need.ended_on != timeline)
            && needs.iter().any(|need| need.ended_on < timeline);
        if is_stranger {
            found.without_history.push(timeline);
        }
        let line = known.remove(&timeline);
        let line = line.unwrap_or(TimelineHistory::root(timeline));
        let held = needs.iter().copied();
        let held: Vec<&Need> = held
            .filter(|need| line.holds(need.ended_on, need.end_lsn))
            .collect();
        let look = Look {
            line: &line,
            histories,
            needs: held,
            archived,
            now,
        };
        found.lines.extend(look.along(&mut gaps));
    }
    found.missing = gaps.named(archived.size);
    found
}

/// A stretch of a line that lies on one timeline: up to and without `end`, or all.
#[derive(Debug, Clone, Copy)]
struct Span {
    timeline: TimelineId,
    begin: SegmentNumber,
    end: Option<SegmentNumber>,
}

/// A look along one line.
struct Look<'a> {
    line: &'a TimelineHistory,
    histories: &'a [TimelineHistory],
    needs: Vec<&'a Need>,
    archived: &'a Archived,
    now: DateTime<Utc>,
}

impl Look<'_> {
    fn along(&self, gaps: &mut Gaps) -> Option<Line> {
        let size = self.archived.size;
        let begin = self.needs.iter().map(|need| need.begin).min()?;
        let spans = self.spans(begin);
        let head = self.head(&spans);
        let mut missing = 0;
        for (from, to) in self.ranges(head.map(|(_, number)| number)) {
            for span in &spans {
                let last = span.end.and_then(SegmentNumber::previous).unwrap_or(to);
                let part = (span.begin.max(from), last.min(to));
                if part.0 > part.1 {
                    continue;
                }
                for (first, last) in self.archived.missing(span.timeline, part) {
                    let Some(last) = self.without_the_end(span, (first, last), to) else {
                        continue;
                    };
                    missing += last.to_u64() - first.to_u64() + 1;
                    gaps.add(span.timeline, self.gap(span, (first, last)));
                }
            }
        }
        let named = |timeline, number| SegmentName::new(timeline, number, size);
        Some(Line {
            timeline: self.line.timeline(),
            begin: named(spans.first()?.timeline, begin)?,
            head: head.and_then(|(timeline, number)| named(timeline, number)),
            missing,
        })
    }

    /// The timelines of the line from a segment on, oldest first. A segment in which the line left
    /// a timeline was finished on a later one.
    fn spans(&self, from: SegmentNumber) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut begin = from;
        for left in self.line.ancestors() {
            let end = SegmentNumber::holding(left.switched_at, self.archived.size);
            if begin < end {
                spans.push(Span {
                    timeline: left.timeline,
                    begin,
                    end: Some(end),
                });
                begin = end;
            }
        }
        spans.push(Span {
            timeline: self.line.timeline(),
            begin,
            end: None,
        });
        spans
    }

    /// The last segment of the line that is there.
    fn head(&self, spans: &[Span]) -> Option<(TimelineId, SegmentNumber)> {
        spans.iter().rev().find_map(|span| {
            let runs = self.archived.runs(span.timeline).iter().rev();
            let is_before_end = |number| span.end.is_none_or(|end| number < end);
            let mut runs = runs.filter(|run| is_before_end(run.first));
            let last = runs.next().map(|run| run.last)?;
            let last = match span.end.and_then(SegmentNumber::previous) {
                Some(end) => last.min(end),
                None => last,
            };
            (last >= span.begin).then_some((span.timeline, last))
        })
    }

    /// What must be there: to the head from the first backup that is not alone, and each that is
    /// by itself. Ranges in order that do not overlap.
    fn ranges(&self, head: Option<SegmentNumber>) -> Vec<(SegmentNumber, SegmentNumber)> {
        let mut ranges: Vec<_> = self
            .needs
            .iter()
            .map(|need| match head {
                Some(head) if !need.is_standalone => (need.begin, need.end.max(head)),
                _ => (need.begin, need.end),
            })
            .collect();
        ranges.sort_unstable();
        let mut merged: Vec<(SegmentNumber, SegmentNumber)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        merged
    }

    /// The last segment that is missing of `first..=last`; `None` where none is.
    ///
    /// The very last that a backup needs may be there unfinished, or on another timeline that was
    /// left or begun in it: a standby's backup need not wait for it, and a failover may come before
    /// it is full.
    fn without_the_end(
        &self,
        span: &Span,
        (first, last): (SegmentNumber, SegmentNumber),
        to: SegmentNumber,
    ) -> Option<SegmentNumber> {
        if last == to && (self.archived.has_any(span.timeline, last) || self.is_beside(last)) {
            return last.previous().filter(|previous| first <= *previous);
        }
        Some(last)
    }

    /// Whether another timeline has a segment as far as the backups that end in it need it.
    fn is_beside(&self, number: SegmentNumber) -> bool {
        let is_as_far = |left: &Ancestor| {
            let mut ending = self.needs.iter().filter(|need| need.end == number);
            SegmentNumber::holding(left.switched_at, self.archived.size) == number
                && ending.all(|need| need.end_lsn <= left.switched_at)
        };
        let earlier = self.line.ancestors().iter().filter(|left| is_as_far(left));
        let later = self.histories.iter().filter(|history| {
            let mut ancestors = history.ancestors().iter();
            ancestors.any(|left| left.timeline == self.line.timeline() && is_as_far(left))
        });
        let mut timelines = earlier
            .map(|left| left.timeline)
            .chain(later.map(TimelineHistory::timeline));
        timelines.any(|timeline| self.archived.has_any(timeline, number))
    }

    fn gap(&self, span: &Span, (first, last): (SegmentNumber, SegmentNumber)) -> Gap {
        let runs = self.archived.runs(span.timeline).iter();
        let behind = runs.map(|run| (run.first, run.first_put));
        let behind = behind
            .filter(|(number, _)| *number > last)
            .map(|(_, put)| put);
        let needed = self.needs.iter().filter(|need| {
            let is_before = need.begin <= last;
            is_before && (!need.is_standalone || first <= need.end)
        });
        let ended = self.needs.iter().filter(|need| need.end >= first);
        let ended = ended.filter_map(|need| need.ended_at);
        let since = behind.chain(ended).min();
        let is_passed = self.needs.iter().any(|need| need.begin > last);
        Gap {
            range: (first, last),
            backups: needed.map(|need| need.backup.clone()).collect(),
            is_on_its_way: span.end.is_none()
                && !is_passed
                && since.is_some_and(|since| self.now - since < ON_ITS_WAY_MAX),
        }
    }
}

#[derive(Debug, Clone)]
struct Gap {
    range: (SegmentNumber, SegmentNumber),
    backups: BTreeSet<BackupId>,
    is_on_its_way: bool,
}

/// What is missing, by timeline, each segment once.
#[derive(Debug, Default)]
struct Gaps(BTreeMap<TimelineId, Vec<Gap>>);

impl Gaps {
    fn add(&mut self, timeline: TimelineId, gap: Gap) {
        self.0.entry(timeline).or_default().push(gap);
    }

    fn named(self, size: SegmentSize) -> Vec<MissingWal> {
        let mut named = Vec::new();
        for (timeline, mut gaps) in self.0 {
            gaps.sort_by_key(|gap| gap.range);
            let mut merged: Vec<Gap> = Vec::new();
            for gap in gaps {
                match merged.last_mut() {
                    Some(before) if gap.range.0 <= before.range.1 => {
                        before.range.1 = before.range.1.max(gap.range.1);
                        before.backups.extend(gap.backups);
                        before.is_on_its_way &= gap.is_on_its_way;
                    }
                    _ => merged.push(gap),
                }
            }
            named.extend(merged.into_iter().filter_map(|gap| {
                let (first, last) = gap.range;
                Some(MissingWal {
                    first: SegmentName::new(timeline, first, size)?,
                    last: SegmentName::new(timeline, last, size)?,
                    count: last.to_u64() - first.to_u64() + 1,
                    backups: gap.backups,
                    is_on_its_way: gap.is_on_its_way,
                })
            }));
        }
        named
    }
}

#[cfg(test)]
mod tests;
