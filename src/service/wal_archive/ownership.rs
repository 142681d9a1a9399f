//! Pure: whether an archive that is not empty can be this server's own.
//!
//! It is when it holds WAL of the same cluster, every timeline in it is one of this server's
//! line, and on no ancestor timeline anything lies beyond the point where this line left it.
//!
//! Not here: finding out what the archive holds (`admission`).

use crate::domain::backup::SystemId;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::{TimelineHistory, TimelineId};

/// This server, as its data directory shows it.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// Its cluster.
    pub(super) system_id: SystemId,
    /// Its line of timelines; `None` when the history file is missing.
    pub(super) history: Option<TimelineHistory>,
    /// The timeline that it archives on.
    pub(super) timeline: TimelineId,
    /// The size of its segments.
    pub(super) segment_size: SegmentSize,
    /// Whether the file lies in a data directory, which tells the line.
    pub(super) is_line_known: bool,
}

/// What the archive holds, as far as the judgement needs it.
#[derive(Debug, Clone, Default)]
pub(super) struct Holdings {
    /// The cluster that the WAL in it belongs to, when it could be told.
    pub(super) system_id: Option<SystemId>,
    /// Whether there are segments. History files alone tell no cluster.
    pub(super) has_segments: bool,
    /// Each timeline with one file of it, the last one where that is known.
    pub(super) timelines: Vec<(TimelineId, String)>,
    /// The last segment on each timeline that this server's line has left.
    pub(super) last_on_ancestors: Vec<SegmentName>,
}

/// Why the archive is not this server's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stranger {
    /// The WAL of another cluster.
    #[error("it holds the WAL of cluster {theirs}, and this is cluster {ours}")]
    OtherCluster {
        /// The cluster in the archive.
        theirs: SystemId,
        /// This cluster.
        ours: SystemId,
    },
    /// Nothing in it tells whose it is.
    #[error("nothing in it tells which cluster it belongs to")]
    Unknown,
    /// A timeline that this server never was on.
    #[error("{file} is of timeline {timeline}, which this server never was on")]
    OtherTimeline {
        /// The timeline.
        timeline: TimelineId,
        /// A file of it.
        file: String,
    },
    /// More of an ancestor timeline than this server knows.
    #[error(
        "{found} lies beyond {fork}, where this server left timeline {}",
        fork.timeline()
    )]
    BeyondFork {
        /// The last segment found.
        found: SegmentName,
        /// The segment of the switch.
        fork: SegmentName,
    },
}

/// Whether a non-empty archive is this server's own.
pub(super) fn judge(server: &Server, holdings: &Holdings) -> Result<(), Stranger> {
    match holdings.system_id {
        Some(theirs) if theirs != server.system_id => {
            return Err(Stranger::OtherCluster {
                theirs,
                ours: server.system_id,
            });
        }
        None if holdings.has_segments => return Err(Stranger::Unknown),
        _ => {}
    }
    if !server.is_line_known {
        return Ok(());
    }
    let is_ours = |timeline| match &server.history {
        Some(history) => history.contains(timeline),
        None => timeline == server.timeline,
    };
    for (timeline, file) in &holdings.timelines {
        if !is_ours(*timeline) {
            return Err(Stranger::OtherTimeline {
                timeline: *timeline,
                file: file.clone(),
            });
        }
    }
    for found in &holdings.last_on_ancestors {
        match fork_segment(server, found.timeline()) {
            Some(fork) if *found > fork => {
                return Err(Stranger::BeyondFork {
                    found: *found,
                    fork,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The segment in which this server's line left `timeline`; `None` where it did not.
pub(super) fn fork_segment(server: &Server, timeline: TimelineId) -> Option<SegmentName> {
    let switched_at = server.history.as_ref()?.switched_at(timeline)?;
    let number = SegmentNumber::holding(switched_at, server.segment_size);
    SegmentName::new(timeline, number, server.segment_size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lsn::Lsn;
    use crate::domain::timeline::Ancestor;

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn server() -> Server {
        let ancestor = Ancestor {
            timeline: tli(1),
            switched_at: Lsn::new((5 << 24) + 100),
        };
        Server {
            system_id: SystemId(7),
            history: Some(TimelineHistory::new(tli(2), vec![ancestor]).unwrap()),
            timeline: tli(2),
            segment_size: SegmentSize::DEFAULT,
            is_line_known: true,
        }
    }

    fn holdings(system_id: Option<u64>, timelines: &[u32], last: &[&str]) -> Holdings {
        Holdings {
            system_id: system_id.map(SystemId),
            has_segments: timelines.contains(&1),
            timelines: timelines
                .iter()
                .map(|number| (tli(*number), format!("file{number}")))
                .collect(),
            last_on_ancestors: last.iter().map(|name| name.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn an_archive_on_this_servers_line_is_its_own() {
        for (timelines, last) in [
            (vec![1], vec!["000000010000000000000004"]),
            (vec![1, 2], vec!["000000010000000000000005"]),
            (vec![], vec![]),
        ] {
            let holdings = holdings(Some(7), &timelines, &last);
            assert_eq!(judge(&server(), &holdings), Ok(()), "{timelines:?}");
        }
    }

    #[test]
    fn strangers_are_told_apart() {
        let fork: SegmentName = "000000010000000000000005".parse().unwrap();
        for (holdings, stranger) in [
            (
                holdings(Some(8), &[1], &[]),
                Stranger::OtherCluster {
                    theirs: SystemId(8),
                    ours: SystemId(7),
                },
            ),
            (holdings(None, &[1], &[]), Stranger::Unknown),
            (
                holdings(Some(7), &[1, 3], &[]),
                Stranger::OtherTimeline {
                    timeline: tli(3),
                    file: "file3".to_owned(),
                },
            ),
            (
                holdings(Some(7), &[1], &["000000010000000000000006"]),
                Stranger::BeyondFork {
                    found: "000000010000000000000006".parse().unwrap(),
                    fork,
                },
            ),
        ] {
            assert_eq!(judge(&server(), &holdings), Err(stranger));
        }
    }

    #[test]
    fn a_file_outside_a_data_directory_is_judged_by_its_cluster_alone() {
        let mut server = server();
        server.is_line_known = false;
        assert!(judge(&server, &holdings(Some(7), &[9], &[])).is_ok());
        assert!(judge(&server, &holdings(Some(8), &[1], &[])).is_err());
    }

    #[test]
    fn without_a_history_file_only_the_servers_own_timeline_is_known() {
        let mut server = server();
        server.history = None;
        assert!(judge(&server, &holdings(Some(7), &[2], &[])).is_ok());
        assert!(judge(&server, &holdings(Some(7), &[1], &[])).is_err());
    }
}
