//! `.history` files: the ancestors of a timeline, one a line, oldest first.
//!
//! Source: `readTimeLineHistory` and `writeTimeLineHistory`, PostgreSQL 18,
//! src/backend/access/transam/timeline.c. A line is the ancestor's number, where it was left
//! and why, between tabs; `#` begins a comment. Why is for people and not kept here.

use std::fmt::Write;

use crate::domain::lsn::Lsn;
use crate::domain::timeline::{Ancestor, HistoryOrderError, TimelineHistory, TimelineId};
use crate::fault::{Fault, Kind};

/// Text that is no timeline history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// A line is not an ancestor.
    #[error(
        "line {line} of the history of timeline {timeline} is {text:?}: expected a timeline and an LSN"
    )]
    Line {
        /// The timeline the file is about.
        timeline: TimelineId,
        /// The line, counted from 1.
        line: usize,
        /// What it holds.
        text: String,
    },
    /// The last line has no end: PostgreSQL ends each, so a part of the file is missing, and a
    /// number cut short is another number.
    #[error("the history of timeline {timeline} is cut short after {text:?}")]
    Cut {
        /// The timeline the file is about.
        timeline: TimelineId,
        /// The last line, as far as it goes.
        text: String,
    },
    /// The lines are no line of descent.
    #[error("the history of timeline {timeline} is out of order")]
    Order {
        /// The timeline the file is about.
        timeline: TimelineId,
        /// What is wrong.
        source: HistoryOrderError,
    },
}

impl Fault for HistoryError {
    fn kind(&self) -> Kind {
        Kind::Corrupt
    }
}

/// Reads the contents of `timeline`'s history file.
pub fn parse(timeline: TimelineId, text: &str) -> Result<TimelineHistory, HistoryError> {
    let mut ancestors = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let ancestor = parse_line(line).ok_or_else(|| HistoryError::Line {
            timeline,
            line: index + 1,
            text: line.to_owned(),
        })?;
        ancestors.push(ancestor);
    }
    if let Some(last) = text.lines().next_back().filter(|_| !text.ends_with('\n')) {
        return Err(HistoryError::Cut {
            timeline,
            text: last.to_owned(),
        });
    }
    TimelineHistory::new(timeline, ancestors)
        .map_err(|source| HistoryError::Order { timeline, source })
}

fn parse_line(line: &str) -> Option<Ancestor> {
    let mut words = line.split_whitespace();
    Some(Ancestor {
        timeline: words.next()?.parse().ok()?,
        switched_at: words.next()?.parse::<Lsn>().ok()?,
    })
}

/// The contents of a history file, without reasons; empty for a timeline without ancestors.
pub fn print(history: &TimelineHistory) -> String {
    let mut text = String::new();
    for ancestor in history.ancestors() {
        writeln!(text, "{}\t{}", ancestor.timeline, ancestor.switched_at)
            .expect("a string takes all that is written to it");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    #[test]
    fn postgresql_s_own_text_is_read() {
        let text =
            "1\t0/A000198\tbefore 2000-01-01 01:00:00+00\n\n2\t1/0\tno recovery target specified\n";
        let history = parse(timeline(3), text).unwrap();
        assert_eq!(print(&history), "1\t0/A000198\n2\t1/0\n");
        let padded = "# by hand\n  1\t0/0A000198 for a reason\r\n";
        assert_eq!(
            print(&parse(timeline(3), padded).unwrap()),
            "1\t0/A000198\n"
        );
        assert_eq!(
            parse(timeline(7), "").unwrap(),
            TimelineHistory::root(timeline(7))
        );
    }

    #[test]
    fn a_history_that_is_cut_short_is_refused_wherever_it_is_cut() {
        let text = "1\t0/A000198\tno recovery target specified\n";
        for end in 1..text.len() {
            assert!(parse(timeline(2), &text[..end]).is_err(), "{end}");
        }
        assert!(parse(timeline(2), text).is_ok());
    }

    #[test]
    fn histories_of_13_and_17_are_read() {
        for text in [
            include_str!("../../tests/fixtures/postgresql/00000002.history-13"),
            include_str!("../../tests/fixtures/postgresql/00000002.history-17"),
        ] {
            let history = parse(timeline(2), text).unwrap();
            assert_eq!(print(&history), "1\t0/3000000\n");
        }
    }

    #[test]
    fn what_is_no_history_is_refused() {
        for text in ["1\n", "x\t0/0\n", "1\t0\n", "0\t0/0\n", "1\t0/1\n1\t0/2\n"] {
            assert!(parse(timeline(3), text).is_err(), "{text:?}");
        }
        let own = parse(timeline(3), "3\t0/0\n").unwrap_err();
        assert!(matches!(own, HistoryError::Order { .. }));
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(mut steps in proptest::collection::vec((1u32..9, 0u64..1 << 40), 0..8)) {
            let (mut number, mut lsn) = (0, 0);
            let ancestors = steps
                .drain(..)
                .map(|(step, bytes)| {
                    number += step;
                    lsn += bytes;
                    Ancestor { timeline: timeline(number), switched_at: Lsn::new(lsn) }
                })
                .collect();
            let history = TimelineHistory::new(timeline(number + 1), ancestors).unwrap();
            prop_assert_eq!(parse(timeline(number + 1), &print(&history)).unwrap(), history);
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = parse(timeline(3), &text);
        }
    }
}
