//! WAL in another archive than the server's own, for a backup that went there.
//!
//! Each segment is taken from the server's archive, as soon as it is there, and archived anew: with
//! that archive's compression, and refused where it holds another cluster's. Not here: how
//! long is waited.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, io, process};

use async_trait::async_trait;
use cellarman::domain::segment::{SegmentName, SegmentSize};
use cellarman::domain::timeline::TimelineId;
use cellarman::domain::wal_file::WalFileName;
use cellarman::fault::{AnyFault, Fault, Kind};
use cellarman::service::base_backup::WalSupply;
use tokio::time;
use tracing::info;

use crate::archives::OpenArchive;

/// Between two looks for a segment that is not archived yet.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells the folders of one process apart.
static FOLDERS: AtomicU64 = AtomicU64::new(0);

/// Two archives: the one that has the WAL, and the one that shall have it.
#[derive(Debug)]
pub(super) struct ExtraArchive {
    pub from: Arc<OpenArchive>,
    pub to: Arc<OpenArchive>,
}

/// A file of this host is in the way.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}", path.display())]
struct FolderError {
    path: PathBuf,
    source: io::Error,
}

impl Fault for FolderError {
    fn kind(&self) -> Kind {
        Kind::Local
    }

    fn hint(&self) -> String {
        "Check the space and the permissions of the folder that TMPDIR names.".to_owned()
    }
}

#[async_trait]
impl WalSupply for ExtraArchive {
    async fn supply(
        &self,
        stretches: &[(SegmentName, SegmentName)],
        size: SegmentSize,
    ) -> Result<(), AnyFault> {
        let folder = Folder::make()?;
        let mut last_timeline = None;
        for (first, last) in stretches {
            let timeline = first.timeline();
            if last_timeline.replace(timeline) != Some(timeline) {
                self.copy_history(timeline, &folder).await?;
            }
            let segments = std::iter::successors(Some(*first), |segment| segment.next(size));
            for segment in segments.take_while(|segment| segment <= last) {
                self.copy_when_there(WalFileName::Segment(segment), &folder)
                    .await?;
            }
        }
        Ok(())
    }
}

impl ExtraArchive {
    /// The first timeline has no history, and that of another may never have been archived.
    async fn copy_history(&self, timeline: TimelineId, folder: &Folder) -> Result<(), AnyFault> {
        if timeline == TimelineId::FIRST {
            return Ok(());
        }
        self.copy(WalFileName::TimelineHistory(timeline), folder)
            .await
            .map(drop)
    }

    async fn copy_when_there(&self, name: WalFileName, folder: &Folder) -> Result<(), AnyFault> {
        while !self.copy(name, folder).await? {
            time::sleep(PAUSE).await;
        }
        info!(%name, server = self.to.reference.server, "put the backup's WAL beside it");
        Ok(())
    }

    /// Copies one file; `false` when the first archive does not have it, or does not answer.
    async fn copy(&self, name: WalFileName, folder: &Folder) -> Result<bool, AnyFault> {
        let path = folder.path.join(name.to_string());
        match self.from.restorer.restore(name, &path).await {
            Err(error) if error.kind() == Kind::NotFound || error.kind().is_retryable() => {
                return Ok(false);
            }
            restored => restored?,
        };
        let archived = self.to.archiver.archive(&path).await;
        remove(&path)?;
        archived?;
        Ok(true)
    }
}

fn remove(path: &Path) -> Result<(), FolderError> {
    fs::remove_file(path).map_err(|source| FolderError {
        path: path.to_owned(),
        source,
    })
}

/// A folder of our own, gone with this value.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn make() -> Result<Self, FolderError> {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("cellarman-wal-{}-{number}", process::id());
        let path = std::env::temp_dir().join(name);
        match fs::create_dir_all(&path) {
            Ok(()) => Ok(Self { path }),
            Err(source) => Err(FolderError { path, source }),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays is small, and gone with the Pod.
        fs::remove_dir_all(&self.path).ok();
    }
}
