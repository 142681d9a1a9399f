//! Fetching ahead: a background run that keeps the spool filled while PostgreSQL replays.
//!
//! It follows the last segment restored, which each `wal restore` notes in a small file, and ends
//! by itself: at the end of the archive, when nobody asks any more, or when the server is gone.
//! It never answers a request: what is not in the spool is asked of the store by `wal restore`.
//! Not here: making it a process of its own (`cli::wal`).

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustix::fs::{FlockOperation, flock, statvfs};
use rustix::io::Errno;
use tokio::{task, time};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::domain::segment::{SegmentName, SegmentSize};
use crate::domain::wal_file::WalFileName;
use crate::fault::chain;
use crate::service::wal_restore::error::RestoreError;
use crate::service::wal_restore::fetch::{self, Wanted};
use crate::service::wal_restore::file::{self, Temporary};
use crate::service::wal_restore::spool::{self, Spool};
use crate::service::wal_restore::{Restorer, choice};
use crate::service::wal_state::PgWal;

/// The file that holds the name of the segment restored last.
const ASKED: &str = "asked";

/// The file whose lock the one run of a data directory holds.
const LOCK: &str = "prefetch.lock";

/// How often the note is read again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often the lock is tried.
const LOCK_ATTEMPTS: u32 = 5;

/// How long after the last new request a run ends.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// How long after the archive's end was met a run ends.
const END_WAIT: Duration = Duration::from_secs(2);

/// No segment is fetched ahead where less than this is free: the server needs it more.
const FREE_BYTES_MIN: u64 = 512 << 20;

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Another run is under way.
    Busy,
    /// No segment has been asked for in a while.
    Idle,
    /// The next segment is not in the archive.
    EndOfArchive,
    /// The server, its data directory or its WAL is gone.
    ServerGone,
    /// The disk is nearly full.
    DiskFull,
    /// A segment could not be fetched; the next request will show why.
    Failed,
    /// It was told to end.
    Cancelled,
}

/// Notes the segment restored last, for a run to follow. What cannot be noted is not followed.
pub(super) fn note_asked(pg_wal: &PgWal, segment: SegmentName) {
    let note = || {
        let folder = pg_wal.make_state_folder()?;
        let temporary = folder.join(format!(".{ASKED}"));
        fs::write(&temporary, segment.to_string())?;
        fs::rename(temporary, folder.join(ASKED))
    };
    if let Err(error) = note() {
        warn!(%error, "cannot note the segment restored");
    }
}

/// Whether a run holds the lock of this data directory.
pub fn is_running(pg_wal: &PgWal) -> bool {
    let path = pg_wal.state_folder().join(LOCK);
    // For writing: network file systems lock no other file exclusively.
    let lock = OpenOptions::new().write(true).open(path);
    lock.is_ok_and(|lock| matches!(try_lock(&lock), Ok(false)))
}

/// Removes what killed runs and restores left, unless a run is under way.
///
/// For a server that archives: it may have been promoted and never restore again. One that does
/// (a standby that archives as well) loses a few segments fetched ahead by a run that failed.
pub(crate) fn clear_leftovers(pg_wal: &PgWal) -> io::Result<()> {
    let folder = pg_wal.state_folder();
    if !folder.is_dir() {
        return Ok(());
    }
    file::remove_leftovers(pg_wal)?;
    let spools = spool::spools(&folder)?;
    if spools.is_empty() {
        return Ok(());
    }
    let lock = open_lock(pg_wal)?;
    if try_lock(&lock)? {
        for spool in spools {
            fs::remove_dir_all(spool)?;
        }
    }
    Ok(())
}

/// Whether a run would make sense now: a server is up, the disk has room, and none is under way.
///
/// Not where the server is the first process of a container: it would inherit the run, and take
/// an unusual end of it for the crash of one of its own.
pub fn is_wanted(pg_wal: &PgWal) -> bool {
    let postmaster = fs::read_to_string(pg_wal.pgdata().join("postmaster.pid"));
    let pid = postmaster
        .ok()
        .and_then(|text| text.lines().next()?.trim().parse::<i32>().ok());
    let has_room = free_bytes(pg_wal) > FREE_BYTES_MIN;
    pid.is_some_and(|pid| pid != 1) && has_room && !is_running(pg_wal)
}

/// One run.
struct Run<'a> {
    restorer: &'a Restorer,
    pg_wal: &'a PgWal,
    spool: Spool,
    segment_size: SegmentSize,
}

/// What a run knows of where it is.
struct Progress {
    asked: SegmentName,
    asked_at: Instant,
    end: Option<(SegmentName, Instant)>,
    is_failed: bool,
    under_way: BTreeSet<SegmentName>,
}

impl Restorer {
    /// Keeps the spool filled until there is no more reason to. At most one run per data
    /// directory does so at a time.
    pub async fn prefetch(
        &self,
        pg_wal: &PgWal,
        cancel: &CancellationToken,
    ) -> Result<Ended, RestoreError> {
        let failed = |source| RestoreError::Write {
            path: pg_wal.state_folder(),
            source,
        };
        let Some(lock) = lock(pg_wal).await.map_err(failed)? else {
            return Ok(Ended::Busy);
        };
        let last = pg_wal.last_restored(&self.archive);
        let (Some(last), Some(asked)) = (last, asked(pg_wal)) else {
            return Ok(Ended::Idle);
        };
        let run = Run {
            restorer: self,
            pg_wal,
            spool: Spool::of(pg_wal, &self.archive),
            segment_size: last.segment_size,
        };
        run.spool.create().map_err(failed)?;
        run.clean(asked, &BTreeSet::new()).map_err(failed)?;
        let ended = tokio::select! {
            ended = run.fill(asked) => ended,
            () = cancel.cancelled() => Ended::Cancelled,
        };
        if !matches!(ended, Ended::Failed | Ended::Cancelled) {
            run.spool.clear().map_err(failed)?;
        }
        drop(lock);
        info!(?ended, "fetching ahead ended");
        Ok(ended)
    }
}

impl Run<'_> {
    async fn fill(&self, asked: SegmentName) -> Ended {
        let mut progress = Progress {
            asked,
            asked_at: Instant::now(),
            end: None,
            is_failed: false,
            under_way: BTreeSet::new(),
        };
        let mut fetches = FuturesUnordered::new();
        loop {
            if let Some(ended) = self.reason_to_end(&mut progress) {
                return ended;
            }
            for segment in self.next_segments(&progress) {
                progress.under_way.insert(segment);
                fetches.push(self.fetch(segment));
            }
            tokio::select! {
                Some((segment, outcome)) = fetches.next(), if !fetches.is_empty() => {
                    progress.under_way.remove(&segment);
                    progress.note(segment, outcome);
                }
                () = time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Reads the note again, and tells whether the run has come to its end.
    fn reason_to_end(&self, progress: &mut Progress) -> Option<Ended> {
        let is_server_up = self.pg_wal.pgdata().join("postmaster.pid").exists();
        let Some(asked) = asked(self.pg_wal).filter(|_| is_server_up) else {
            return Some(Ended::ServerGone);
        };
        if asked != progress.asked {
            progress.asked = asked;
            progress.asked_at = Instant::now();
            // The segment that was missing is there now, or is of no interest any more.
            progress.end.take_if(|(end, _)| *end <= asked);
            if let Err(error) = self.clean(asked, &progress.under_way) {
                warn!(%error, "cannot clean the spool");
                return Some(Ended::ServerGone);
            }
        }
        if !progress.under_way.is_empty() {
            return None;
        }
        match progress.end {
            _ if progress.is_failed => Some(Ended::Failed),
            Some((_, met_at)) if met_at.elapsed() > END_WAIT && !self.holds_any(progress) => {
                Some(Ended::EndOfArchive)
            }
            _ if progress.asked_at.elapsed() > IDLE_MAX => Some(Ended::Idle),
            _ if self.room() == 0 => Some(Ended::DiskFull),
            _ => None,
        }
    }

    /// Removes what lies behind the segment restored last, or otherwise out of the way.
    fn clean(&self, asked: SegmentName, under_way: &BTreeSet<SegmentName>) -> io::Result<()> {
        let ahead = choice::ahead(asked, self.segment_size);
        let keep: Vec<_> = ahead.into_iter().chain(under_way.iter().copied()).collect();
        self.spool.keep_only(&keep)
    }

    /// Whether PostgreSQL has something left to ask for here.
    fn holds_any(&self, progress: &Progress) -> bool {
        choice::ahead(progress.asked, self.segment_size)
            .into_iter()
            .any(|segment| self.spool.holds(segment))
    }

    /// The segments whose fetch is to begin now.
    fn next_segments(&self, progress: &Progress) -> Vec<SegmentName> {
        if progress.is_failed {
            return Vec::new();
        }
        let count_max = self.room().min(self.restorer.options.jobs.max(1));
        let free = count_max.saturating_sub(progress.under_way.len());
        choice::ahead(progress.asked, self.segment_size)
            .into_iter()
            .filter(|segment| progress.end.is_none_or(|(end, _)| *segment < end))
            .filter(|segment| !progress.under_way.contains(segment))
            .filter(|segment| !self.spool.holds(*segment))
            .take(free)
            .collect()
    }

    /// How many segments the disk has room for, and keeps what the server needs.
    fn room(&self) -> usize {
        room_for(free_bytes(self.pg_wal), self.segment_size)
    }

    async fn fetch(&self, segment: SegmentName) -> (SegmentName, Result<bool, RestoreError>) {
        (segment, self.try_fetch(segment).await)
    }

    /// Fetches one segment into the spool; false when it is not in the archive.
    async fn try_fetch(&self, segment: SegmentName) -> Result<bool, RestoreError> {
        let name = WalFileName::Segment(segment);
        let wanted = Wanted {
            name,
            codec_first: self.restorer.codec_first(name, Some(self.pg_wal)),
            takes_partial: false,
        };
        let part = Temporary::at(self.spool.part(segment));
        let fetched = fetch::fetch(&self.restorer.repository, wanted, part.path()).await?;
        let Some(fetched) = fetched else {
            return Ok(false);
        };
        let spool = self.spool.clone();
        let written = fetched.written;
        let committed = task::spawn_blocking(move || {
            spool.commit(segment, written.size, written.blake3)?;
            part.moved();
            Ok(())
        });
        committed
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(|source| RestoreError::Write {
                path: self.spool.part(segment),
                source,
            })?;
        Ok(true)
    }
}

/// What is free where the WAL is; nothing where that cannot be told.
fn free_bytes(pg_wal: &PgWal) -> u64 {
    let disk = statvfs(pg_wal.folder());
    disk.map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn room_for(free_bytes: u64, size: SegmentSize) -> usize {
    let room = free_bytes.saturating_sub(FREE_BYTES_MIN) / size.bytes();
    usize::try_from(room).unwrap_or(usize::MAX)
}

impl Progress {
    fn note(&mut self, segment: SegmentName, outcome: Result<bool, RestoreError>) {
        match outcome {
            Ok(true) => {}
            Ok(false) => {
                let is_first = self.end.is_none_or(|(end, _)| segment < end);
                if is_first {
                    self.end = Some((segment, Instant::now()));
                }
            }
            Err(error) => {
                warn!(%segment, error = chain(&error), "cannot fetch a segment ahead");
                self.is_failed = true;
            }
        }
    }
}

/// The segment restored last; `None` when none was noted, or the folder is gone.
fn asked(pg_wal: &PgWal) -> Option<SegmentName> {
    let text = fs::read_to_string(pg_wal.state_folder().join(ASKED)).ok()?;
    text.parse().ok()
}

/// The lock of this data directory; `None` when another process holds it.
///
/// Those who only look hold it for a moment as well, so it is tried more than once.
async fn lock(pg_wal: &PgWal) -> io::Result<Option<File>> {
    let file = open_lock(pg_wal)?;
    for _ in 0..LOCK_ATTEMPTS {
        if try_lock(&file)? {
            return Ok(Some(file));
        }
        time::sleep(LOOK_EVERY / LOCK_ATTEMPTS).await;
    }
    Ok(None)
}

fn open_lock(pg_wal: &PgWal) -> io::Result<File> {
    let path = pg_wal.make_state_folder()?.join(LOCK);
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).open(path)
}

/// Takes the lock for as long as the file is open; false when another process holds it.
fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_goes_unless_another_is_under_way() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir_all(data.path().join("pg_wal/archive_status")).unwrap();
        let pg_wal = PgWal::at(&data.path().join("pg_wal")).unwrap();
        clear_leftovers(&pg_wal).unwrap();
        assert!(!pg_wal.state_folder().exists());
        let folder = pg_wal.make_state_folder().unwrap();
        let left = [
            folder.join("spool-a/segment"),
            folder.join("tmp/dead.segment"),
        ];
        for path in &left {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "wal").unwrap();
        }
        fs::write(folder.join("archive.json"), "{}").unwrap();
        let lock = open_lock(&pg_wal).unwrap();
        assert!(!is_running(&pg_wal));
        assert!(try_lock(&lock).unwrap() && is_running(&pg_wal));
        clear_leftovers(&pg_wal).unwrap();
        assert!(left[0].exists() && !left[1].exists());
        drop(lock);
        clear_leftovers(&pg_wal).unwrap();
        assert!(!folder.join("spool-a").exists() && folder.join("archive.json").exists());
    }

    #[test]
    fn what_is_fetched_ahead_leaves_the_server_its_room() {
        for (free_mib, segment_mib, room) in
            [(512, 16, 0), (543, 16, 1), (1024, 1024, 0), (2560, 1024, 2)]
        {
            let size = SegmentSize::new(segment_mib << 20).unwrap();
            assert_eq!(room_for(free_mib << 20, size), room, "{free_mib}");
        }
    }
}
