//! Doing what a plan says: claim the directories, restore the archives side by side, finish.
//!
//! Not here: deciding anything.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::barman::repository::Repository;
use crate::codec::decompress::decompressor;
use crate::service::restore::archives::PlannedArchive;
use crate::service::restore::directories::Footprint;
use crate::service::restore::error::RestoreError;
use crate::service::restore::extract::{ExtractError, Extracted, Landing, extract};
use crate::service::restore::file_systems::FileSystems;
use crate::service::restore::finish;
use crate::service::restore::marker::Marker;
use crate::service::restore::owners::Owners;
use crate::service::restore::plan::RestorePlan;
use crate::store::download::{self, ChunkReader, DownloadOptions};
use crate::store::error::{StoreError, StoreErrorKind};

/// Memory for what is fetched ahead, shared by all archives under way.
const BUFFER_BYTES: usize = 36 << 20;
const PART_BYTES_MIN: usize = 1 << 20;
const PART_BYTES_MAX: usize = 8 << 20;
const PARTS_AHEAD: usize = 3;
/// Memory for what is about to be written, shared likewise.
const WRITE_BYTES: usize = 8 << 20;
const WRITE_BYTES_MIN: usize = 256 << 10;
const WRITE_BYTES_MAX: usize = 4 << 20;
/// Threads at most: the stores need some of the runtime's blocking threads, or nothing would come.
const JOBS_MAX: usize = 64;

/// Told of each stretch of stored bytes that has been restored, from several threads.
pub type OnBytes = Arc<dyn Fn(u64) + Send + Sync>;

/// What was restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Archives whose digest was recorded when they were stored, and is the same now.
    pub archives_verified: usize,
    /// What the user should know before starting the server.
    pub notes: Vec<String>,
}

/// Restores as planned.
///
/// On an error, and when `cancel` is cancelled, all that was made is removed again. Not to be
/// dropped before it ends: what is there then is no database, and a marker says so, but it is
/// only removed by the next restore to the same place.
pub async fn run(
    repository: &Repository,
    plan: RestorePlan,
    cancel: &CancellationToken,
    on_bytes: OnBytes,
) -> Result<Restored, RestoreError> {
    let plan = Arc::new(plan);
    let (footprint, file_systems) = {
        let plan = Arc::clone(&plan);
        blocking(move || {
            let apart = plan
                .tablespaces
                .iter()
                .filter(|tablespace| !is_inside(&plan, &tablespace.new));
            let tablespaces: Vec<PathBuf> =
                apart.map(|tablespace| tablespace.new.clone()).collect();
            let footprint = Footprint::claim(&plan.pgdata, &tablespaces)?;
            let roots = std::iter::once(&plan.pgdata).chain(&tablespaces);
            match FileSystems::open(roots.map(PathBuf::as_path)) {
                Ok(file_systems) => Ok((footprint, file_systems)),
                Err(error) => {
                    footprint.clear();
                    Err(error)
                }
            }
        })
        .await?
    };
    let filled = fill(repository, (&plan, footprint.marker()), cancel, on_bytes).await;
    let cancel = cancel.clone();
    blocking(move || {
        let finished = filled.and_then(|mut restored| {
            if cancel.is_cancelled() {
                return Err(RestoreError::Cancelled);
            }
            restored
                .notes
                .extend(finish::finish(&plan, &footprint, &file_systems)?);
            Ok(restored)
        });
        if finished.is_err() {
            footprint.clear();
        }
        finished
    })
    .await
}

fn is_inside(plan: &RestorePlan, path: &std::path::Path) -> bool {
    path.starts_with(&plan.pgdata)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RestoreError> + Send + 'static,
) -> Result<T, RestoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| RestoreError::Thread(error.to_string()))?
}

/// What the threads share.
struct Shared {
    repository: Repository,
    plan: Arc<RestorePlan>,
    /// The archives still to restore, the largest first, so that no thread ends long after the rest.
    waiting: Mutex<VecDeque<PlannedArchive>>,
    root_files: Mutex<HashMap<PathBuf, u32>>,
    left_out: Vec<PathBuf>,
    owners: Option<Owners>,
    marker: Arc<Marker>,
    download: DownloadOptions,
    write_bytes: usize,
    on_bytes: OnBytes,
}

/// Restores all archives, `jobs` at a time. The first failure stops the others.
async fn fill(
    repository: &Repository,
    (plan, marker): (&Arc<RestorePlan>, Arc<Marker>),
    cancel: &CancellationToken,
    on_bytes: OnBytes,
) -> Result<Restored, RestoreError> {
    let stop = cancel.child_token();
    // Stops the threads if this future is dropped.
    let _stop_on_drop = stop.clone().drop_guard();
    let mut waiting: Vec<PlannedArchive> = plan.archives.clone();
    waiting.sort_by_key(|archive| std::cmp::Reverse(archive.stored.size));
    let workers = plan.jobs.min(JOBS_MAX).clamp(1, waiting.len().max(1));
    let shared = Arc::new(Shared {
        repository: repository.clone(),
        plan: Arc::clone(plan),
        waiting: Mutex::new(waiting.into()),
        root_files: Mutex::new(HashMap::new()),
        left_out: plan
            .tablespaces
            .iter()
            .filter_map(|tablespace| tablespace.inside_pgdata.clone())
            .collect(),
        owners: Owners::when_root(&plan.pgdata),
        marker,
        download: DownloadOptions {
            part_bytes: (BUFFER_BYTES / (workers * PARTS_AHEAD))
                .clamp(PART_BYTES_MIN, PART_BYTES_MAX),
            parts_ahead: PARTS_AHEAD,
            cancel: stop.clone(),
        },
        write_bytes: (WRITE_BYTES / workers).clamp(WRITE_BYTES_MIN, WRITE_BYTES_MAX),
        on_bytes,
    });
    let mut threads = JoinSet::new();
    for _ in 0..workers {
        let shared = Arc::clone(&shared);
        threads.spawn_blocking(move || {
            let done = shared.work();
            if done.is_err() {
                shared.download.cancel.cancel();
            }
            done
        });
    }
    let mut sum = Restored::default();
    let mut failure = None;
    while let Some(joined) = threads.join_next().await {
        match joined.unwrap_or_else(|error| Err(RestoreError::Thread(error.to_string()))) {
            Ok(part) => {
                sum.files += part.files;
                sum.bytes += part.bytes;
                sum.archives_verified += part.archives_verified;
            }
            // A thread that was stopped is not why.
            Err(RestoreError::Cancelled) if failure.is_some() => {}
            Err(error) if matches!(failure, None | Some(RestoreError::Cancelled)) => {
                failure = Some(error);
            }
            Err(error) => tracing::warn!(
                error = crate::fault::chain(&error),
                "another archive failed too"
            ),
        }
    }
    failure.map_or(Ok(sum), Err)
}

impl Shared {
    /// Restores archives until none waits. Blocks.
    fn work(&self) -> Result<Restored, RestoreError> {
        let mut restored = Restored::default();
        loop {
            let next = self
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some(archive) = next else {
                return Ok(restored);
            };
            let extracted = self.restore(&archive)?;
            restored.files += extracted.files;
            restored.bytes += extracted.bytes;
            restored.archives_verified += usize::from(archive.blake3.is_some());
        }
    }

    fn restore(&self, archive: &PlannedArchive) -> Result<Extracted, RestoreError> {
        let key = &archive.stored.key;
        let mut reader = self.open(archive)?;
        let name = archive.stored.name;
        let tablespace = name.tablespace.and_then(|oid| {
            self.plan
                .tablespaces
                .iter()
                .find(|tablespace| tablespace.oid == oid)
        });
        if name.tablespace.is_some() && tablespace.is_none() {
            tracing::warn!(%key, "passed over the archive of a tablespace that the record does not know");
            return Ok(Extracted::default());
        }
        let landing = Landing {
            root: tablespace.map_or(&self.plan.pgdata, |tablespace| &tablespace.new),
            is_pgdata: tablespace.is_none(),
            left_out: if tablespace.is_none() {
                &self.left_out
            } else {
                &[]
            },
            piece: name.piece,
            root_files: &self.root_files,
            write_bytes: self.write_bytes,
            owners: self.owners.as_ref(),
            marker: &self.marker,
            cancel: &self.download.cancel,
        };
        if let Ok(inside) = landing.root.strip_prefix(&self.plan.pgdata) {
            self.marker.note_name(inside)?;
            std::fs::create_dir_all(landing.root)
                .map_err(RestoreError::local("make", landing.root))?;
        }
        let counted = Counted {
            inner: &mut reader,
            on_bytes: &self.on_bytes,
        };
        let extracted = decompressor(counted, archive.stored.codec)
            .map_err(ExtractError::Read)
            .and_then(|decoded| extract(decoded, &landing));
        let extracted = extracted.map_err(|error| self.sorted(archive, &mut reader, error))?;
        reader
            .drain()
            .map_err(|error| self.sorted(archive, &mut reader, ExtractError::Read(error)))?;
        match &archive.blake3 {
            Some(recorded) if *recorded != reader.digest() => Err(RestoreError::Digest {
                key: key.clone(),
                recorded: recorded.clone(),
                found: reader.digest(),
            }),
            _ => Ok(extracted),
        }
    }

    /// Begins to fetch an archive, of the version that is there now.
    fn open(&self, archive: &PlannedArchive) -> Result<ChunkReader, RestoreError> {
        let key = &archive.stored.key;
        let store = &self.repository.store;
        let cancel = &self.download.cancel;
        let runtime = Handle::current();
        let looked = runtime.block_on(async {
            tokio::select! {
                () = cancel.cancelled() => None,
                looked = store.head(key) => Some(looked),
            }
        });
        let fetch = |source| RestoreError::Fetch {
            key: key.clone(),
            source,
        };
        let meta = looked.ok_or(RestoreError::Cancelled)?.map_err(fetch)?;
        if meta.size != archive.stored.size {
            return Err(fetch(StoreError {
                operation: "get",
                subject: key.to_string(),
                kind: StoreErrorKind::Changed,
                source: None,
            }));
        }
        let _inside = runtime.enter();
        Ok(download::reader(Arc::clone(store), &meta, &self.download))
    }

    /// What really failed: the store and the user's wish come before what they look like here.
    fn sorted(
        &self,
        archive: &PlannedArchive,
        reader: &mut ChunkReader,
        error: ExtractError,
    ) -> RestoreError {
        let key = archive.stored.key.clone();
        if let Some(source) = reader.take_failure() {
            return RestoreError::Fetch { key, source };
        }
        match error {
            _ if self.download.cancel.is_cancelled() => RestoreError::Cancelled,
            ExtractError::Cancelled => RestoreError::Cancelled,
            ExtractError::Read(source) => RestoreError::Archive { key, source },
            ExtractError::Note(error) => *error,
            ExtractError::LinkedAway { member, target } => RestoreError::LinkedAway {
                key,
                member,
                target,
            },
            ExtractError::Unsafe(member) => RestoreError::UnsafeMember { key, member },
            ExtractError::Write {
                action,
                path,
                source,
            } => RestoreError::Local {
                action,
                path,
                source,
            },
        }
    }
}

/// A reader that tells how far it is.
struct Counted<'a> {
    inner: &'a mut ChunkReader,
    on_bytes: &'a OnBytes,
}

impl std::io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        (self.on_bytes)(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}
