//! Takes a base backup of a running server.
//!
//! Order: an id is claimed with a record STARTED, the backup begins on the server, files are
//! copied, the backup ends on the server, all its WAL is waited for, and the record says DONE last.
//! Whatever fails on the way leaves a record FAILED and no upload. Not here: choosing what to
//! keep or restore.

mod archive;
mod copy;
mod entry;
pub mod error;
mod file;
mod last;
mod own_wal;
mod prepare;
mod record;
mod run;
mod wal_wait;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::barman::backup_info::BackupInfo;
use crate::barman::repository::{Repository, RepositoryError};
use crate::barman::stored_objects::{DamagedFile, StoredObject};
use crate::clock;
use crate::codec::Compression;
use crate::domain::backup::BackupId;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::fault::{AnyFault, chain};
use crate::postgres::connect::ConnectOptions;
use crate::service::base_backup::error::BackupError;
use crate::service::base_backup::prepare::Prepared;
use crate::service::base_backup::run::Run;
use crate::service::maintenance;
use crate::service::running::Heartbeat;
use crate::store::PutOptions;
use crate::store::error::StoreErrorKind;

pub use crate::service::base_backup::wal_wait::default_timeout;

/// Ids are seconds: how many are tried when others have taken them.
const ID_TRIES: u32 = 10;

/// What backup to take.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// A name beside the id.
    pub name: Option<String>,
    /// How many files are copied at a time.
    pub jobs: usize,
    /// How archives are compressed.
    pub compression: Compression,
    /// Begin with a checkpoint at full speed.
    pub is_immediate: bool,
    /// The limit on what is sent, in bytes a second.
    pub bandwidth_max: Option<NonZeroU64>,
    /// How long to wait for WAL; [`default_timeout`] when absent.
    pub archive_timeout: Option<Duration>,
    /// Whether the WAL it needs is waited for. Without it, a backup that is DONE may be of no use yet.
    pub waits_for_wal: bool,
    /// How the archives are put: tags and encryption.
    pub put: PutOptions,
}

/// What a backup is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The server writes a checkpoint.
    Checkpoint,
    /// Files are copied, of so many bytes where that is known.
    Copy {
        /// The size of the cluster.
        bytes: Option<u64>,
    },
    /// The last WAL is waited for.
    WaitForWal,
}

/// Is told how far a backup is, from any thread.
pub trait Watcher: Send + Sync {
    /// Another stage has begun.
    fn enter(&self, stage: Stage);
    /// So many bytes more were read.
    fn copied(&self, bytes: u64);
}

/// A backup that was taken.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// Its id.
    pub id: BackupId,
    /// Its record.
    pub info: BackupInfo,
    /// The archives, as stored.
    pub objects: Vec<StoredObject>,
    /// Files with damaged pages. With any, the backup is DONE and the database is not well.
    pub damaged: Vec<DamagedFile>,
    /// How many damaged pages there are.
    pub damaged_count: u64,
    /// The bytes of all files copied.
    pub copied_bytes: u64,
    /// How many files were copied.
    pub copied_files: u64,
    /// How long it took.
    pub took: Duration,
}

/// Puts WAL beside a backup, where the server's archiver puts it somewhere else.
#[async_trait]
pub trait WalSupply: Send + Sync {
    /// Puts these segments, the first and the last of each stretch, into the backup's archive.
    ///
    /// It may take long, for the last of them are not finished yet; it is dropped when the wait
    /// for them is given up.
    async fn supply(
        &self,
        stretches: &[(SegmentName, SegmentName)],
        size: SegmentSize,
    ) -> Result<(), AnyFault>;
}

/// A backup to be taken.
pub struct BaseBackup {
    /// The archive.
    pub repository: Repository,
    /// The server.
    pub connection: ConnectOptions,
    /// What backup.
    pub request: BackupRequest,
    /// Who puts its WAL there; the server's archiver when absent.
    pub supply: Option<Arc<dyn WalSupply>>,
    /// Who is told how far it is.
    pub watcher: Arc<dyn Watcher>,
    /// Gives it up.
    pub cancel: CancellationToken,
}

impl BaseBackup {
    /// Takes the backup. On an error a record FAILED may be left; cancelling is an error too.
    ///
    /// Dropped half-way, it leaves what a killed run leaves, for the next run to clear.
    pub async fn take(&self) -> Result<BackupReport, BackupError> {
        let begun = Instant::now();
        // What others left must not keep this backup from being taken.
        if let Err(error) = maintenance::sweep(&self.repository).await {
            warn!(
                error = chain(&error),
                "cannot clear what killed backups left"
            );
        }
        let prepared = Prepared::new(&self.connection, &self.repository).await?;
        let info = record::started(&prepared);
        let (id, heartbeat) = self.claim(&info).await?;
        info!(%id, "backup started");
        let mut run = Run {
            backup: self,
            prepared,
            id,
            info,
            heartbeat,
            begun,
        };
        match run.take().await {
            Ok(report) => {
                run.heartbeat.stop().await;
                run.prepared.server.close().await;
                Ok(report)
            }
            Err(error) => {
                let is_cancelled = self.cancel.is_cancelled() || error.is_cancelled();
                let error = if is_cancelled {
                    BackupError::Cancelled
                } else {
                    error
                };
                run.give_up(&error).await;
                Err(error)
            }
        }
    }

    /// Writes the record over the one that is there.
    async fn put_record(&self, id: &BackupId, info: &BackupInfo) -> Result<(), RepositoryError> {
        let tags = &self.request.put.tags;
        self.repository.put_tagged_backup_info(id, info, tags).await
    }

    /// Finds an id that nobody has, and takes it.
    async fn claim(&self, info: &BackupInfo) -> Result<(BackupId, Heartbeat), BackupError> {
        let tags = &self.request.put.tags;
        for _ in 0..ID_TRIES {
            let id = BackupId::at(clock::now());
            // First the sign of life: a record without one would be taken for another tool's.
            match Heartbeat::start(&self.repository, &id).await {
                Ok(heartbeat) => {
                    let created = self.repository.create_backup_info(&id, info, tags).await;
                    match created {
                        Ok(()) => return Ok((id, heartbeat)),
                        Err(RepositoryError::Taken { .. }) => heartbeat.stop().await,
                        Err(error) => {
                            heartbeat.stop().await;
                            return Err(error.into());
                        }
                    }
                }
                Err(error) if error.kind == StoreErrorKind::Exists => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Err(BackupError::NoId { tries: ID_TRIES })
    }
}
