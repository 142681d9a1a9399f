//! Restoring WAL: what a `restore_command` does.
//!
//! A file appears whole at its destination, checked and durable, or not at all. "Not found" is
//! said only when the store said so, for a server in recovery takes it for the end of the log.
//! Not here: what PostgreSQL is told (`cli::wal`).

mod choice;
pub mod error;
mod fetch;
mod file;
pub mod prefetch;
mod spool;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::{task, time};
use tracing::{info, warn};

use crate::barman::repository::Repository;
use crate::codec::Codec;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::domain::wal_file::WalFileName;
use crate::service::wal_restore::error::RestoreError;
use crate::service::wal_restore::fetch::{Fetched, Wanted};
use crate::service::wal_restore::file::Temporary;
use crate::service::wal_restore::spool::Spool;
use crate::service::wal_state::{Fingerprint, LastRestored, PgWal};
use crate::store::ObjectKey;
use crate::store::config::StoreConfig;

/// How long the spool may stand still before a segment under way there is fetched once more.
const STANDSTILL_MAX: Duration = Duration::from_secs(3);

/// How often a segment under way is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How WAL is restored.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Whether an unfinished segment may answer for a whole one.
    pub takes_partial: bool,
    /// How many segments are fetched ahead at once.
    pub jobs: usize,
    /// The codec that WAL is most likely stored in.
    pub codec_first: Codec,
}

/// Where a restored file came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// It had been fetched ahead.
    FromSpool,
    /// It was fetched now.
    FromStore(ObjectKey),
}

/// Restores WAL files from one archive.
#[derive(Debug, Clone)]
pub struct Restorer {
    repository: Repository,
    options: RestoreOptions,
    archive: Fingerprint,
}

impl Restorer {
    /// A restorer from this repository, which lies in `store`.
    pub fn new(repository: Repository, store: &StoreConfig, options: RestoreOptions) -> Self {
        let archive = Fingerprint::of(store, &repository.layout);
        Self {
            repository,
            options,
            archive,
        }
    }

    /// Restores `name` to `destination`, over what is there. When it returns `Ok`, the file is
    /// whole and durable; when it fails, `destination` is as it was.
    ///
    /// The future may be dropped: then the destination is as it was, or holds the whole file.
    pub async fn restore(
        &self,
        name: WalFileName,
        destination: &Path,
    ) -> Result<Restored, RestoreError> {
        let destination =
            std::path::absolute(destination).map_err(|source| cannot_write(destination, source))?;
        let pg_wal =
            PgWal::holding(&destination).map_err(|source| cannot_write(&destination, source))?;
        if let (Some(pg_wal), WalFileName::Segment(segment)) = (&pg_wal, name) {
            let taken = self.take_from_spool(pg_wal, segment, &destination).await;
            match taken {
                Ok(true) => {
                    prefetch::note_asked(pg_wal, segment);
                    return Ok(Restored::FromSpool);
                }
                Ok(false) => {}
                Err(error) => warn!(%name, %error, "cannot use the spool"),
            }
        }
        let fetched = self.fetch(name, &destination, pg_wal.as_ref()).await?;
        let key = fetched.from.key.clone();
        if let Some(pg_wal) = &pg_wal {
            self.remember(pg_wal, &fetched);
            if let WalFileName::Segment(segment) = name {
                prefetch::note_asked(pg_wal, segment);
            }
        }
        info!(%name, %key, "restored WAL file");
        Ok(Restored::FromStore(key))
    }

    /// Hands the segment over from the spool, waiting for it while it is being fetched there.
    async fn take_from_spool(
        &self,
        pg_wal: &PgWal,
        segment: SegmentName,
        destination: &Path,
    ) -> io::Result<bool> {
        let spool = Spool::of(pg_wal, &self.archive);
        let mut last_bytes = None;
        let mut since = Instant::now();
        loop {
            let (entry, to) = (spool.clone(), destination.to_path_buf());
            let taken = task::spawn_blocking(move || entry.take(segment, &to)).await;
            if taken.map_err(io::Error::other)?? {
                return Ok(true);
            }
            let bytes = spool.part_bytes(segment);
            let is_under_way = bytes.is_some() && prefetch::is_running(pg_wal);
            if bytes != last_bytes {
                last_bytes = bytes;
                since = Instant::now();
            }
            // It may have become whole since it was last tried.
            let may_come = is_under_way || spool.holds(segment);
            if !may_come || since.elapsed() > STANDSTILL_MAX {
                return Ok(false);
            }
            time::sleep(LOOK_EVERY).await;
        }
    }

    async fn fetch(
        &self,
        name: WalFileName,
        destination: &Path,
        pg_wal: Option<&PgWal>,
    ) -> Result<Fetched, RestoreError> {
        let wanted = Wanted {
            name,
            codec_first: self.codec_first(name, pg_wal),
            takes_partial: self.options.takes_partial,
        };
        let temporary = Temporary::new(destination, pg_wal);
        let fetched = fetch::fetch(&self.repository, wanted, temporary.path()).await?;
        let fetched = fetched.ok_or(RestoreError::NotInArchive { name })?;
        let to = destination.to_path_buf();
        task::spawn_blocking(move || temporary.move_to(&to))
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(|source| cannot_write(destination, source))?;
        Ok(fetched)
    }

    /// The codec to try without a listing. Histories are mostly asked for in vain, and then only
    /// the listing tells.
    fn codec_first(&self, name: WalFileName, pg_wal: Option<&PgWal>) -> Option<Codec> {
        if matches!(name, WalFileName::TimelineHistory(_)) {
            return None;
        }
        let last = pg_wal.and_then(|pg_wal| pg_wal.last_restored(&self.archive));
        Some(last.map_or(self.options.codec_first, |last| last.codec))
    }

    fn remember(&self, pg_wal: &PgWal, fetched: &Fetched) {
        let WalFileName::Segment(_) = fetched.from.name else {
            return;
        };
        let Ok(segment_size) = SegmentSize::new(fetched.written.size) else {
            return;
        };
        let last = LastRestored {
            codec: fetched.from.codec,
            segment_size,
        };
        if pg_wal.last_restored(&self.archive) != Some(last)
            && let Err(error) = pg_wal.remember_restored(&self.archive, last)
        {
            warn!(%error, "cannot remember what the archive holds");
        }
    }
}

fn cannot_write(path: &Path, source: io::Error) -> RestoreError {
    RestoreError::Write {
        path: PathBuf::from(path),
        source,
    }
}
