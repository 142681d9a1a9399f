//! Copies the data directory and the tablespaces into archives, several files at a time.
//!
//! One thread walks, a bounded queue hands its entries to the workers, each of which fills an
//! archive of its own. The first archive of the data directory stays open to the end, for what
//! must be copied last. Not here: when the copy begins and ends, and what the last entries are.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::barman::layout::ArchiveName;
use crate::barman::stored_objects::{DamagedFile, StoredObject};
use crate::domain::backup::Tablespace;
use crate::domain::lsn::Lsn;
use crate::domain::version::ServerVersion;
use crate::pgfile::manifest::ManifestBuilder;
use crate::postgres::datadir::{DataDirectory, Entry, EntryKind, walk_tablespace};
use crate::service::base_backup::Watcher;
use crate::service::base_backup::archive::{ArchiveMaker, FinishedArchive, OpenArchive};
use crate::service::base_backup::entry::append_directory;
use crate::service::base_backup::error::BackupError;

/// Between two looks at the archive that waits.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Entries that wait for a worker.
const QUEUE_LENGTH: usize = 256;

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
    /// When an archive has so many bytes stored, the next entry opens a new one.
    pub piece_bytes: u64,
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
        loop {
            let ended = tokio::select! {
                ended = threads.join_next() => ended,
                () = tokio::time::sleep(LOOK_INTERVAL) => {
                    // Nobody writes to it for hours, and would notice.
                    if self.gathered().first.as_ref().is_some_and(OpenArchive::has_failed) {
                        self.archives.cancel.cancel();
                    }
                    continue;
                }
            };
            let Some(ended) = ended else { break };
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
                let failure = failure.unwrap_or(BackupError::Broken);
                let Some(first) = first else {
                    return Err(failure);
                };
                let cause = tokio::task::spawn_blocking(|| first.give_up()).await;
                match cause {
                    Ok(Some(cause)) if failure.is_cancelled() => Err(cause.into()),
                    _ => Err(failure),
                }
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
        for entry in source.data.walk().chain(outside) {
            let entry = entry?;
            let is_known = entry.kind == EntryKind::Directory && directories.contains(&entry.name);
            if !is_known {
                self.send(sender, entry)?;
            }
        }
        for tablespace in &source.tablespaces {
            let mut is_there = false;
            for entry in walk_tablespace(tablespace, source.version) {
                is_there = true;
                self.send(sender, entry?)?;
            }
            // One dropped meanwhile: replay drops it too, but readers want a tar of each.
            if !is_there {
                let empty = self.archives.open(Some(tablespace.oid))?;
                self.record(empty.finish()?)?;
            }
        }
        Ok(())
    }

    fn send(&self, sender: &SyncSender<Entry>, entry: Entry) -> Result<(), BackupError> {
        // Without workers there is nobody left to copy: what ended them is told by them.
        if self.archives.cancel.is_cancelled() || sender.send(entry).is_err() {
            return Err(BackupError::Cancelled);
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
                archive.name.tablespace == entry.tablespace
                    && archive.stored_bytes() < self.source.piece_bytes
            };
            let mut archive = if let Some(archive) = open.take_if(fits) {
                archive
            } else {
                self.open_after(open.take(), entry.tablespace, finishing)?
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
    /// `full` is what the worker wrote to before.
    fn open_after(
        &self,
        full: Option<OpenArchive>,
        tablespace: Option<u32>,
        finishing: &mut Option<FinishedArchive>,
    ) -> Result<OpenArchive, BackupError> {
        if let Some(full) = full {
            self.retire(full, finishing)?;
        }
        let first = self.gathered().first.take_if(|first| {
            tablespace.is_none() && first.stored_bytes() < self.source.piece_bytes
        });
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
}

fn next(queue: &Mutex<Receiver<Entry>>) -> Option<Entry> {
    // Whoever waits for an entry holds the lock; the others wait for the lock.
    queue
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .recv()
        .ok()
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

#[cfg(test)]
mod tests;
