//! Copies the data directory and the tablespaces into archives, several files at a time.
//!
//! One thread walks, a bounded queue hands its entries to the workers, each of which fills an
//! archive of its own. The first archive of the data directory stays open to the end, for what
//! must be copied last. Not here: when the copy begins and ends, and what the last entries are.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;
use tracing::debug;

use crate::barman::layout::ArchiveName;
use crate::barman::stored_objects::{DamagedFile, StoredObject};
use crate::codec::tar::{Attributes, TarError};
use crate::domain::backup::Tablespace;
use crate::domain::lsn::Lsn;
use crate::domain::version::ServerVersion;
use crate::pgfile::manifest::ManifestBuilder;
use crate::postgres::datadir::{
    self, DataDirectory, DataDirectoryError, Entry, EntryKind, walk_tablespace,
};
use crate::service::base_backup::Watcher;
use crate::service::base_backup::archive::{ArchiveMaker, FinishedArchive, OpenArchive};
use crate::service::base_backup::error::BackupError;
use crate::service::base_backup::file::{FileReader, PageCheck};

/// When an archive has so many bytes stored, the next entry opens a new one: a restore works on
/// several at once.
const PIECE_BYTES: u64 = 1 << 30;
/// Entries that wait for a worker.
const QUEUE_LENGTH: usize = 256;
/// Files whose damaged pages are named.
const DAMAGED_FILES_MAX: usize = 1000;

/// What is copied, and how.
pub(super) struct Source {
    /// The data directory.
    pub data: DataDirectory,
    /// The tablespaces outside it.
    pub tablespaces: Vec<Tablespace>,
    /// Files from elsewhere that are put at the top of the data directory.
    pub outside: Vec<PathBuf>,
    /// The server's version.
    pub version: ServerVersion,
    /// The size of pages, where they carry checksums.
    pub checked_page_bytes: Option<usize>,
    /// Where the backup began.
    pub begin_lsn: Lsn,
    /// How many workers copy.
    pub jobs: usize,
}

/// What all threads of a copy share.
pub(super) struct Copy {
    /// What is copied.
    pub source: Source,
    /// Where it goes.
    pub archives: ArchiveMaker,
    /// Who is told how far it is.
    pub watcher: Arc<dyn Watcher>,
    /// What has been copied so far.
    pub gathered: Mutex<Gathered>,
}

/// What a copy gathers on its way.
pub(super) struct Gathered {
    /// The files copied; taken when all are.
    pub manifest: Option<ManifestBuilder>,
    /// The archives stored.
    pub objects: Vec<StoredObject>,
    /// Damaged pages by file, the first files of them.
    pub damaged: Vec<DamagedFile>,
    /// How many damaged pages there are.
    pub damaged_count: u64,
    /// The bytes of all files copied.
    pub copied_bytes: u64,
    /// How many files were copied.
    pub copied_files: u64,
    /// The first data archive, when nobody writes to it.
    pub first: Option<OpenArchive>,
}

impl Copy {
    /// Copies everything but what must come last, and gives the first archive back, still open.
    ///
    /// When it fails, or is cancelled, all uploads have been undone before it returns.
    pub(super) async fn run(self: &Arc<Self>) -> Result<OpenArchive, BackupError> {
        // A run that is dropped must not leave threads at work.
        let guard = self.archives.cancel.clone().drop_guard();
        let (sender, receiver) = sync_channel(QUEUE_LENGTH);
        let receiver = Arc::new(Mutex::new(receiver));
        let copy = Arc::clone(self);
        let directories = tokio::task::spawn_blocking(move || copy.begin())
            .await
            .map_err(|_| BackupError::Broken)??;
        let mut threads = JoinSet::new();
        let copy = Arc::clone(self);
        threads.spawn_blocking(move || copy.walk(&directories, &sender));
        for _ in 0..self.source.jobs.max(1) {
            let copy = Arc::clone(self);
            let receiver = Arc::clone(&receiver);
            threads.spawn_blocking(move || copy.work(&receiver));
        }
        // The workers hold it now; when they have ended, the walk must not wait for them.
        drop(receiver);
        let mut failure = None;
        while let Some(ended) = threads.join_next().await {
            let Err(error) = ended.unwrap_or(Err(BackupError::Broken)) else {
                continue;
            };
            self.archives.cancel.cancel();
            // What the others then end with is only that they were stopped.
            if failure.as_ref().is_none_or(BackupError::is_cancelled) {
                failure = Some(error);
            }
        }
        let first = self.gathered().first.take();
        match (failure, first) {
            (None, Some(first)) => {
                guard.disarm();
                Ok(first)
            }
            (failure, first) => {
                if let Some(first) = first {
                    tokio::task::spawn_blocking(|| first.abort()).await.ok();
                }
                Err(failure.unwrap_or(BackupError::Broken))
            }
        }
    }

    /// What was gathered. Held for a moment only.
    pub(super) fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the first archive and puts all directories into it, the data directory's own first.
    fn begin(&self) -> Result<BTreeSet<PathBuf>, BackupError> {
        let mut directories = BTreeSet::new();
        let mut archive = self.archives.open(None)?;
        for entry in self.source.data.walk().directories_only() {
            let appended = entry.map_err(BackupError::from).and_then(|entry| {
                let is_there = append_directory(&mut archive, &entry)?;
                if is_there {
                    directories.insert(entry.name);
                }
                Ok(())
            });
            if let Err(error) = appended {
                return Err(fail(archive, error));
            }
        }
        self.gathered().first = Some(archive);
        Ok(directories)
    }

    /// Sends all entries to the workers.
    fn walk(
        &self,
        directories: &BTreeSet<PathBuf>,
        sender: &SyncSender<Entry>,
    ) -> Result<(), BackupError> {
        let source = &self.source;
        let outside = source.outside.iter().map(|path| {
            Ok(Entry {
                tablespace: None,
                name: path.file_name().map(PathBuf::from).unwrap_or_default(),
                source: path.clone(),
                kind: EntryKind::File { first_block: None },
            })
        });
        let tablespaces = source
            .tablespaces
            .iter()
            .flat_map(|tablespace| walk_tablespace(tablespace, source.version));
        for entry in source.data.walk().chain(outside).chain(tablespaces) {
            let entry = entry?;
            let is_known = entry.tablespace.is_none()
                && entry.kind == EntryKind::Directory
                && directories.contains(&entry.name);
            if is_known {
                continue;
            }
            // Without workers there is nobody left to copy: what ended them is told by them.
            if self.archives.cancel.is_cancelled() || sender.send(entry).is_err() {
                return Err(BackupError::Cancelled);
            }
        }
        Ok(())
    }

    /// Copies entries until there are no more.
    fn work(&self, queue: &Mutex<Receiver<Entry>>) -> Result<(), BackupError> {
        let mut open: Option<OpenArchive> = None;
        let mut finishing: Option<FinishedArchive> = None;
        let outcome = self.copy_entries(queue, &mut open, &mut finishing);
        if outcome.is_err() {
            // First, so that the others stop as well and nothing waits for them.
            self.archives.cancel.cancel();
            if let Some(archive) = open {
                archive.abort();
            }
            if let Some(archive) = finishing {
                archive.abort();
            }
        }
        outcome
    }

    fn copy_entries(
        &self,
        queue: &Mutex<Receiver<Entry>>,
        open: &mut Option<OpenArchive>,
        finishing: &mut Option<FinishedArchive>,
    ) -> Result<(), BackupError> {
        while let Some(entry) = next(queue) {
            if self.archives.cancel.is_cancelled() {
                return Err(BackupError::Cancelled);
            }
            let fits = |archive: &mut OpenArchive| {
                archive.name.tablespace == entry.tablespace && archive.stored_bytes() < PIECE_BYTES
            };
            let mut archive = match open.take_if(fits) {
                Some(archive) => archive,
                None => {
                    if let Some(full) = open.take() {
                        self.retire(full, finishing)?;
                    }
                    self.open(entry.tablespace)?
                }
            };
            if let Err(error) = self.append(&mut archive, &entry) {
                return Err(fail(archive, error));
            }
            *open = Some(archive);
        }
        if let Some(last) = open.take() {
            self.retire(last, finishing)?;
        }
        match finishing.take() {
            Some(archive) => self.record(archive),
            None => Ok(()),
        }
    }

    /// The first data archive while it has room and nobody else writes to it, else a new one.
    fn open(&self, tablespace: Option<u32>) -> Result<OpenArchive, BackupError> {
        let first = self
            .gathered()
            .first
            .take_if(|first| tablespace.is_none() && first.stored_bytes() < PIECE_BYTES);
        match first {
            Some(first) => Ok(first),
            None => Ok(self.archives.open(tablespace)?),
        }
    }

    /// Puts an archive away: the first one open, any other to be finished while the worker goes on.
    fn retire(
        &self,
        archive: OpenArchive,
        finishing: &mut Option<FinishedArchive>,
    ) -> Result<(), BackupError> {
        if archive.name == ArchiveName::DATA {
            self.gathered().first = Some(archive);
            return Ok(());
        }
        if let Some(earlier) = finishing.take() {
            self.record(earlier)?;
        }
        *finishing = Some(archive.finish()?);
        Ok(())
    }

    fn record(&self, archive: FinishedArchive) -> Result<(), BackupError> {
        let object = archive.wait()?;
        self.gathered().objects.push(object);
        Ok(())
    }

    fn append(&self, archive: &mut OpenArchive, entry: &Entry) -> Result<(), BackupError> {
        let EntryKind::File { first_block } = entry.kind else {
            append_directory(archive, entry)?;
            return Ok(());
        };
        let Some((file, meta)) = datadir::open_file(&entry.source)? else {
            debug!(path = %entry.source.display(), "vanished before it was read");
            return Ok(());
        };
        let check = first_block.and_then(|first_block| {
            Some(PageCheck {
                page_bytes: self.source.checked_page_bytes?,
                first_block,
                begin_lsn: self.source.begin_lsn,
            })
        });
        self.append_file(archive, entry, (file, meta), check)
    }

    fn append_file(
        &self,
        archive: &mut OpenArchive,
        entry: &Entry,
        (file, meta): (File, Metadata),
        check: Option<PageCheck>,
    ) -> Result<(), BackupError> {
        let attributes = attributes(&meta);
        let size = meta.len();
        let mut reader = Counting {
            reader: FileReader::new(file, check),
            watcher: &*self.watcher,
        };
        let appended = archive
            .tar()
            .append_file(name_in_tar(entry), size, attributes, &mut reader)
            .map_err(|error| named(error, &entry.source))?;
        let path = path_in_cluster(entry);
        let damaged = reader.reader.damaged();
        let mut gathered = self.gathered();
        let manifest = gathered.manifest.as_mut().ok_or(BackupError::Broken)?;
        manifest
            .add_file(
                path.as_os_str().as_bytes(),
                size,
                attributes.mtime,
                appended.crc32c,
            )
            .map_err(BackupError::Manifest)?;
        gathered.copied_bytes += size;
        gathered.copied_files += 1;
        if damaged.count > 0 {
            gathered.damaged_count += damaged.count;
            if gathered.damaged.len() < DAMAGED_FILES_MAX {
                gathered.damaged.push(DamagedFile {
                    path: path.to_string_lossy().into_owned(),
                    blocks: damaged.blocks.clone(),
                });
            }
        }
        Ok(())
    }
}

fn next(queue: &Mutex<Receiver<Entry>>) -> Option<Entry> {
    // Whoever waits for an entry holds the lock; the others wait for the lock.
    queue
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .recv()
        .ok()
}

/// Appends a directory as it is now; `false` when it has vanished.
fn append_directory(archive: &mut OpenArchive, entry: &Entry) -> Result<bool, BackupError> {
    let meta = match std::fs::metadata(&entry.source) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => {
            let path = entry.source.clone();
            return Err(DataDirectoryError::Read { path, source }.into());
        }
    };
    archive
        .tar()
        .append_directory(name_in_tar(entry), attributes(&meta))
        .map_err(BackupError::Append)?;
    Ok(true)
}

/// Gives the archive up, and tells the cause where the error is only that it could not be written.
pub(super) fn fail(archive: OpenArchive, error: BackupError) -> BackupError {
    match error {
        BackupError::Append(error) => archive.fail(error).into(),
        other => {
            archive.abort();
            other
        }
    }
}

/// As Barman writes them: `./` before what lies at the top of the data directory, which itself is `./`.
fn name_in_tar(entry: &Entry) -> Vec<u8> {
    let bytes = entry.name.as_os_str().as_bytes();
    if entry.tablespace.is_some() || bytes.contains(&b'/') {
        return bytes.to_vec();
    }
    [b"./", bytes].concat()
}

fn path_in_cluster(entry: &Entry) -> PathBuf {
    match entry.tablespace {
        Some(oid) => Path::new("pg_tblspc")
            .join(oid.to_string())
            .join(&entry.name),
        None => entry.name.clone(),
    }
}

/// What a tar keeps of a file's or directory's attributes.
pub(super) fn attributes(meta: &Metadata) -> Attributes {
    Attributes {
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: meta.mtime(),
    }
}

/// A failed read names the file, as the server knows it.
fn named(error: TarError, path: &Path) -> BackupError {
    match error {
        TarError::Read { source, .. } => DataDirectoryError::Read {
            path: path.to_owned(),
            source,
        }
        .into(),
        TarError::Write(_) => BackupError::Append(error),
    }
}

/// Tells the watcher of what was read.
struct Counting<'a> {
    reader: FileReader<File>,
    watcher: &'a dyn Watcher,
}

impl io::Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.watcher.copied(u64::try_from(count).unwrap_or(0));
        Ok(count)
    }
}
