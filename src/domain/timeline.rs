//! Timelines: the branches of a cluster's history, and where each left its parent.
//!
//! Not here: the text of a `.history` file (`pgfile::history`).

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::domain::lsn::Lsn;

/// The number of a timeline: 1 for a new cluster, higher after each promotion or recovery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineId(NonZeroU32);

/// A number or text that is no timeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no timeline: expected a number from 1 to 4294967295")]
pub struct TimelineError {
    text: String,
}

impl TimelineId {
    /// The timeline that every new cluster starts on.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The timeline of this number; `None` for 0, which PostgreSQL does not use.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number.
    pub const fn to_u32(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TimelineId {
    type Err = TimelineError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| TimelineError {
                text: text.to_owned(),
            })
    }
}

/// Where a timeline left one of its ancestors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// The timeline that was left.
    pub timeline: TimelineId,
    /// The first byte that no longer belongs to it: the log before `switched_at` is shared.
    pub switched_at: Lsn,
}

/// A timeline and all its ancestors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    timeline: TimelineId,
    ancestors: Vec<Ancestor>,
}

/// What an archive tells of its timelines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownTimelines {
    /// The histories that could be read.
    pub histories: Vec<TimelineHistory>,
    /// The timelines whose history is there and cannot be read.
    pub unreadable: Vec<TimelineId>,
}

/// Ancestors that cannot be one line of descent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("timeline {timeline} cannot come after timeline {previous} in one history")]
pub struct HistoryOrderError {
    timeline: TimelineId,
    previous: TimelineId,
}

impl TimelineHistory {
    /// The history of a timeline whose ancestors are given oldest first.
    ///
    /// # Errors
    /// The timelines must rise and the switch points must not fall.
    pub fn new(timeline: TimelineId, ancestors: Vec<Ancestor>) -> Result<Self, HistoryOrderError> {
        for pair in ancestors.windows(2) {
            let (previous, next) = (&pair[0], &pair[1]);
            if next.timeline <= previous.timeline || next.switched_at < previous.switched_at {
                return Err(HistoryOrderError {
                    timeline: next.timeline,
                    previous: previous.timeline,
                });
            }
        }
        match ancestors.last() {
            Some(last) if last.timeline >= timeline => Err(HistoryOrderError {
                timeline,
                previous: last.timeline,
            }),
            _ => Ok(Self {
                timeline,
                ancestors,
            }),
        }
    }

    /// The history of a timeline that has none: a cluster on its first timeline.
    pub fn root(timeline: TimelineId) -> Self {
        Self {
            timeline,
            ancestors: Vec::new(),
        }
    }

    /// The timeline this is the history of.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// Its ancestors, oldest first.
    pub fn ancestors(&self) -> &[Ancestor] {
        &self.ancestors
    }

    /// Whether `timeline` is this one or one of its ancestors.
    pub fn contains(&self, timeline: TimelineId) -> bool {
        timeline == self.timeline || self.switched_at(timeline).is_some()
    }

    /// Where this line left `timeline`; `None` for the timeline itself and for strangers.
    pub fn switched_at(&self, timeline: TimelineId) -> Option<Lsn> {
        self.ancestors
            .iter()
            .find(|a| a.timeline == timeline)
            .map(|a| a.switched_at)
    }

    /// Whether the position `lsn`, reached on `timeline`, lies on this line: on the timeline
    /// itself, or on an ancestor at or before the switch away from it.
    pub fn holds(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        timeline == self.timeline
            || self
                .switched_at(timeline)
                .is_some_and(|switch| lsn <= switch)
    }
}

/// The line of each timeline that the histories tell of: from its own where there is one, else from a
/// descendant's.
pub fn known_lines(histories: &[TimelineHistory]) -> BTreeMap<TimelineId, TimelineHistory> {
    let mut lines = BTreeMap::new();
    for history in histories {
        let ancestors = history.ancestors();
        for (index, ancestor) in ancestors.iter().enumerate() {
            let older = ancestors[..index].to_vec();
            if let Ok(line) = TimelineHistory::new(ancestor.timeline, older) {
                lines.insert(ancestor.timeline, line);
            }
        }
    }
    lines.extend(histories.iter().map(|line| (line.timeline(), line.clone())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn ancestor(number: u32, lsn: u64) -> Ancestor {
        Ancestor {
            timeline: tli(number),
            switched_at: Lsn::new(lsn),
        }
    }

    #[test]
    fn a_line_holds_its_ancestors_up_to_the_switch() {
        let history =
            TimelineHistory::new(tli(5), vec![ancestor(1, 100), ancestor(3, 200)]).unwrap();
        for (timeline, lsn, held) in [
            (1, 100, true),
            (1, 101, false),
            (2, 1, false),
            (3, 200, true),
            (3, 201, false),
            (5, 900, true),
            (6, 1, false),
        ] {
            assert_eq!(
                history.holds(tli(timeline), Lsn::new(lsn)),
                held,
                "{timeline} {lsn}"
            );
        }
    }

    #[test]
    fn histories_that_go_backwards_are_refused() {
        assert!(TimelineHistory::new(tli(3), vec![ancestor(2, 5), ancestor(1, 9)]).is_err());
        assert!(TimelineHistory::new(tli(3), vec![ancestor(1, 9), ancestor(2, 5)]).is_err());
        assert!(TimelineHistory::new(tli(2), vec![ancestor(2, 5)]).is_err());
    }
}
