//! Which WAL a backup needs, and waiting until all of it is in the archive.
//!
//! Not here: putting it there, which the server's archiver does.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::barman::repository::Repository;
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::{TimelineHistory, TimelineId};
use crate::domain::wal_file::WalFileName;
use crate::pgfile::history;
use crate::pgfile::manifest::WalRange;
use crate::postgres::datadir::DataDirectoryError;
use crate::service::base_backup::error::BackupError;
use crate::service::base_backup::own_wal;
use crate::service::wal_state::PgWal;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const TELL_INTERVAL: Duration = Duration::from_secs(30);
/// How many missing segments an error carries.
const MISSING_MAX: usize = 1000;

/// How long to wait when nothing is said: two `archive_timeout`s of at least a minute each, in
/// which the server must finish a segment, and a minute for the archiver.
pub fn default_timeout(archive_timeout: Duration) -> Duration {
    let minute = Duration::from_mins(1);
    archive_timeout.max(minute) * 2 + minute
}

/// The log from `begin` to `end`, by timeline: a standby may follow a switch during its backup.
pub(super) fn ranges(
    begin: (TimelineId, Lsn),
    end: (TimelineId, Lsn),
    history: &TimelineHistory,
) -> Vec<WalRange> {
    let mut start = begin.1;
    let mut ranges = Vec::new();
    let passed = history
        .ancestors()
        .iter()
        .filter(|ancestor| (begin.0..end.0).contains(&ancestor.timeline));
    for ancestor in passed {
        let switch = ancestor.switched_at;
        if switch > end.1 {
            // The server went on to a later timeline after the end.
            let timeline = ancestor.timeline;
            ranges.push(WalRange {
                timeline,
                start,
                end: end.1,
            });
            return ranges;
        }
        if switch > start {
            ranges.push(WalRange {
                timeline: ancestor.timeline,
                start,
                end: switch,
            });
            start = switch;
        }
    }
    ranges.push(WalRange {
        timeline: end.0,
        start,
        end: end.1,
    });
    ranges
}

/// Reads the history of `timeline` from the server's own files.
pub(super) fn read_history(
    root: &Path,
    timeline: TimelineId,
) -> Result<TimelineHistory, BackupError> {
    let path = root
        .join("pg_wal")
        .join(format!("{:08X}.history", timeline.to_u32()));
    let text =
        std::fs::read_to_string(&path).map_err(|source| DataDirectoryError::new(&path, source))?;
    Ok(history::parse(timeline, &text)?)
}

/// The segments of the ranges, first and last of each, both included.
///
/// The segment in which a timeline was left is archived whole on the next timeline only.
pub(super) fn segments(ranges: &[WalRange], size: SegmentSize) -> Vec<(SegmentName, SegmentName)> {
    let last = ranges.len().saturating_sub(1);
    ranges
        .iter()
        .enumerate()
        .filter_map(|(index, range)| {
            let begin = SegmentNumber::holding(range.start, size);
            let end = if index == last {
                SegmentNumber::ending_at(range.end, size)
            } else {
                // Up to the one before that of the switch.
                let switch = SegmentNumber::holding(range.end, size).start(size)?;
                SegmentNumber::ending_at(switch, size)
            };
            // An end just at the switch lies in a segment that the new timeline holds.
            (begin <= end)
                .then(|| {
                    Some((
                        SegmentName::new(range.timeline, begin, size)?,
                        SegmentName::new(range.timeline, end, size)?,
                    ))
                })
                .flatten()
        })
        .collect()
}

/// What is waited for, and how long.
pub(super) struct WalWait<'a> {
    /// The archive.
    pub repository: &'a Repository,
    /// What the backup needs.
    pub ranges: &'a [WalRange],
    /// The size of a segment.
    pub segment_size: SegmentSize,
    /// The limit.
    pub timeout: Duration,
    /// Whether the server is a standby, for the hint.
    pub is_standby: bool,
    /// The server's own log, where its archiver alone puts it: then what lies in the archive
    /// counts once the archiver has succeeded with it, or is seen to be these very bytes.
    pub archiver: Option<PgWal>,
}

impl WalWait<'_> {
    /// Waits until every segment is in the archive.
    pub(super) async fn run(&self, cancel: &CancellationToken) -> Result<(), BackupError> {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut told = None;
        let needed = segments(self.ranges, self.segment_size);
        let mut wanted = needed.clone();
        loop {
            let missing = self.missing(&mut wanted).await?;
            let refused = if missing.is_empty() {
                // The archiver hears of its success a moment after the file is there.
                pause = pause.min(FIRST_PAUSE);
                self.not_acknowledged(&needed).await?
            } else {
                Vec::new()
            };
            let Some(first) = missing.first().or(refused.first()) else {
                return Ok(());
            };
            if begun.elapsed() >= self.timeout {
                if missing.is_empty() && self.is_own(&refused).await? {
                    warn!(segment = %first, "the archiver did not succeed, but the archive has these very bytes");
                    return Ok(());
                }
                return Err(self.given_up(missing, refused));
            }
            if told.is_none_or(|told: Instant| told.elapsed() >= TELL_INTERVAL) {
                told = Some(Instant::now());
                let count = missing.len() + refused.len();
                info!(segment = %first, missing = count, "waiting for WAL in the archive");
            }
            let left = self.timeout.saturating_sub(begun.elapsed());
            tokio::select! {
                () = cancel.cancelled() => return Err(BackupError::Cancelled),
                () = tokio::time::sleep(pause.min(left)) => {}
            }
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    fn given_up(&self, missing: Vec<SegmentName>, refused: Vec<SegmentName>) -> BackupError {
        let waited = self.timeout;
        if missing.is_empty() {
            return BackupError::NotAcknowledged {
                segments: refused,
                waited,
            };
        }
        BackupError::MissingWal {
            missing,
            waited,
            is_standby: self.is_standby,
        }
    }

    /// Whether the archive has the server's own bytes of these segments.
    async fn is_own(&self, segments: &[SegmentName]) -> Result<bool, BackupError> {
        let Some(pg_wal) = &self.archiver else {
            return Ok(false);
        };
        for segment in segments {
            if !own_wal::is_archived(self.repository, pg_wal.folder(), *segment).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What the server's archiver still has to archive of the segments needed.
    async fn not_acknowledged(
        &self,
        needed: &[(SegmentName, SegmentName)],
    ) -> Result<Vec<SegmentName>, BackupError> {
        let Some(pg_wal) = self.archiver.clone() else {
            return Ok(Vec::new());
        };
        let needed = needed.to_vec();
        tokio::task::spawn_blocking(move || {
            let unreadable = |source| DataDirectoryError::new(pg_wal.folder(), source);
            let mut found = Vec::new();
            for file in pg_wal.ready_files().map_err(unreadable)? {
                if let WalFileName::Segment(segment) = file.map_err(unreadable)?
                    && needed
                        .iter()
                        .any(|(begin, end)| (begin..=end).contains(&&segment))
                    && found.len() < MISSING_MAX
                {
                    found.push(segment);
                }
            }
            found.sort();
            Ok(found)
        })
        .await
        .unwrap_or(Err(BackupError::Broken))
    }

    /// What is not there yet. What is there is not asked for again.
    async fn missing(
        &self,
        wanted: &mut Vec<(SegmentName, SegmentName)>,
    ) -> Result<Vec<SegmentName>, BackupError> {
        let size = self.segment_size;
        let mut missing = Vec::new();
        let mut left = Vec::new();
        for (begin, end) in std::mem::take(wanted) {
            let there = self.repository.archived_segments(begin, end, size).await?;
            let absent = absent(begin, end, size, &there);
            if let Some(first) = absent.first() {
                left.push((*first, end));
            }
            missing.extend(absent);
        }
        missing.truncate(MISSING_MAX);
        *wanted = left;
        Ok(missing)
    }
}

fn absent(
    begin: SegmentName,
    end: SegmentName,
    size: SegmentSize,
    there: &BTreeSet<SegmentName>,
) -> Vec<SegmentName> {
    std::iter::successors(Some(begin), |segment| segment.next(size))
        .take_while(|segment| *segment <= end)
        .filter(|segment| !there.contains(segment))
        .take(MISSING_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::barman::layout::Layout;
    use crate::codec::Codec;
    use crate::domain::timeline::Ancestor;
    use crate::fault::{Fault, Kind};
    use crate::store::memory::MemoryStore;
    use crate::store::{ObjectStore, PutOptions};

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn lsn(segment: u64, offset: u64) -> Lsn {
        Lsn::new(segment * SIZE.bytes() + offset)
    }

    fn names(begin: (u32, Lsn), end: (u32, Lsn), switches: &[(u32, Lsn)]) -> Vec<String> {
        let ancestors = switches
            .iter()
            .map(|(timeline, switched_at)| Ancestor {
                timeline: tli(*timeline),
                switched_at: *switched_at,
            })
            .collect();
        let history = TimelineHistory::new(tli(end.0), ancestors).unwrap();
        let ranges = ranges((tli(begin.0), begin.1), (tli(end.0), end.1), &history);
        segments(&ranges, SIZE)
            .iter()
            .map(|(first, last)| format!("{first}-{last}"))
            .collect()
    }

    #[test]
    fn a_backup_needs_each_segment_from_begin_to_end() {
        for (begin, end, expected) in [
            (
                lsn(3, 0x28),
                lsn(3, 0x138),
                "000000010000000000000003-000000010000000000000003",
            ),
            (
                lsn(3, 0x28),
                lsn(5, 0x10),
                "000000010000000000000003-000000010000000000000005",
            ),
            // An end on the boundary needs nothing of the next segment.
            (
                lsn(3, 0x28),
                lsn(5, 0),
                "000000010000000000000003-000000010000000000000004",
            ),
        ] {
            assert_eq!(names((1, begin), (1, end), &[]), [expected]);
        }
    }

    #[test]
    fn after_a_switch_the_new_timeline_holds_the_segment_of_the_switch() {
        assert_eq!(
            names((1, lsn(3, 8)), (2, lsn(7, 8)), &[(1, lsn(5, 100))]),
            [
                "000000010000000000000003-000000010000000000000004",
                "000000020000000000000005-000000020000000000000007",
            ]
        );
        // Switched in the segment that the backup began in: the old timeline has nothing to give.
        assert_eq!(
            names((1, lsn(5, 8)), (2, lsn(5, 200)), &[(1, lsn(5, 100))]),
            ["000000020000000000000005-000000020000000000000005"]
        );
    }

    #[test]
    fn the_segment_of_the_end_is_needed_wherever_the_switch_was() {
        // The server had gone on to timeline 2 when it was asked for its timeline.
        assert_eq!(
            names((1, lsn(3, 8)), (2, lsn(5, 100)), &[(1, lsn(6, 100))]),
            ["000000010000000000000003-000000010000000000000005"]
        );
        assert_eq!(
            names((1, lsn(3, 8)), (2, lsn(5, 100)), &[(1, lsn(5, 100))]),
            [
                "000000010000000000000003-000000010000000000000004",
                "000000020000000000000005-000000020000000000000005",
            ]
        );
        assert_eq!(
            names((1, lsn(3, 8)), (2, lsn(5, 0)), &[(1, lsn(5, 0))]),
            ["000000010000000000000003-000000010000000000000004"]
        );
    }

    #[test]
    fn the_wait_is_longer_than_the_server_takes_to_finish_a_segment() {
        for (setting, seconds) in [(0, 180), (60, 180), (300, 660)] {
            let timeout = default_timeout(Duration::from_secs(setting));
            assert_eq!(timeout.as_secs(), seconds);
        }
    }

    #[tokio::test]
    async fn wal_that_the_servers_archiver_fails_with_is_not_the_backups() {
        let home = tempfile::tempdir().unwrap();
        let status = home.path().join("archive_status");
        std::fs::create_dir(&status).unwrap();
        let layout = Layout::new("", &"srv".parse().unwrap());
        let store = Arc::new(MemoryStore::new());
        let name = "000000010000000000000003";
        let key = layout.wal(&name.parse().unwrap(), Codec::None);
        let body = bytes::Bytes::from_static(b"of whomever");
        store.put(&key, body, &PutOptions::default()).await.unwrap();
        let repository = Repository::new(store, layout);
        let range = WalRange {
            timeline: tli(1),
            start: lsn(3, 0x28),
            end: lsn(3, 0x138),
        };
        let (own, others) = ("of whomever", "of another");
        for (files, is_primary, bytes_here, is_enough) in [
            (&[][..], true, others, true),
            (&["000000010000000000000003.done"], true, others, true),
            (&["000000010000000000000003.ready"], true, others, false),
            // It fails for another reason.
            (&["000000010000000000000003.ready"], true, own, true),
            // What comes after the backup may be on its way.
            (&["000000010000000000000004.ready"], true, others, true),
            (&["000000010000000000000003.ready"], false, others, true),
        ] {
            std::fs::write(home.path().join(name), bytes_here).unwrap();
            for file in files {
                std::fs::write(status.join(file), "").unwrap();
            }
            let wait = WalWait {
                repository: &repository,
                ranges: &[range],
                segment_size: SIZE,
                timeout: Duration::ZERO,
                is_standby: !is_primary,
                archiver: PgWal::at(home.path()).filter(|_| is_primary),
            };
            match wait.run(&CancellationToken::new()).await {
                Ok(()) => assert!(is_enough, "{files:?}"),
                Err(error) => {
                    assert!(!is_enough, "{files:?}: {error}");
                    assert!(error.to_string().contains(name), "{error}");
                    assert_eq!(error.kind(), Kind::Conflict);
                }
            }
            for file in files {
                std::fs::remove_file(status.join(file)).unwrap();
            }
        }
    }
}
