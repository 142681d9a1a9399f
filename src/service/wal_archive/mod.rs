//! Archiving WAL: what an `archive_command` does.
//!
//! A file is acknowledged when it is in the store, whole, under its final name, and never
//! otherwise; the same name with other bytes is refused. Usually that is one request. Further
//! files that wait are archived at the same time, and marked, so that PostgreSQL's later requests
//! for them cost none.
//! Not here: what PostgreSQL is told (`cli::wal`).

mod admission;
mod body;
mod check;
pub mod contents;
mod decision;
pub mod error;
mod file;
mod indexing;
mod look_ahead;
mod ownership;
mod store;
#[cfg(test)]
mod tests;
mod turn;
mod under_way;
mod whole;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task;
use tracing::{info, warn};

use crate::barman::repository::Repository;
use crate::clock;
use crate::codec::Compression;
use crate::domain::wal_file::WalFileName;
use crate::service::durable_file;
use crate::service::wal_archive::body::Bodies;
use crate::service::wal_archive::decision::{Absence, Admission, Facts, Steps};
use crate::service::wal_archive::error::ArchiveError;
use crate::service::wal_archive::file::{Place, WalFile};
use crate::service::wal_archive::under_way::UnderWay;
use crate::service::wal_state::{Fingerprint, KnownArchive, Marker, PgWal};
use crate::store::ObjectKey;
use crate::store::config::{Encryption, StoreConfig};

/// How WAL is archived.
#[derive(Debug, Clone)]
pub struct ArchiveOptions {
    /// How files are compressed.
    pub compression: Compression,
    /// How many files are archived at once, the one asked for among them; at least 1.
    pub jobs: usize,
    /// Whether the process lives on after a call: files ahead go on in it then.
    pub is_resident: bool,
    /// A cluster just recovered may go on in an archive that is not empty, and a promoted one in
    /// an archive that goes beyond the fork, if it is its own.
    pub allows_own_archive: bool,
    /// Tags of every object.
    pub tags: Vec<(String, String)>,
    /// Tags of history files, instead of the others when there are any.
    pub history_tags: Vec<(String, String)>,
    /// Encryption at rest where it differs from the store's own setting.
    pub encryption: Option<Encryption>,
}

/// How a file came to be in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Archived {
    /// It was put now.
    Put(ObjectKey),
    /// It was there, with the same bytes.
    AlreadyThere(ObjectKey),
    /// It was put by an earlier look-ahead.
    Ahead,
}

/// What a caller demands of an archive that is not remembered as the server's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Demand {
    /// That it is empty where a marker says so, else empty or the server's own.
    #[default]
    ByMarker,
    /// That it is empty, marker or not.
    Empty,
    /// That it is the server's own, whatever a marker says.
    Own,
}

impl fmt::Display for Archived {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(key) => write!(formatter, "put as {key}"),
            Self::AlreadyThere(key) => write!(formatter, "there already as {key}"),
            Self::Ahead => formatter.write_str("put ahead"),
        }
    }
}

/// Archives WAL files into one archive.
#[derive(Debug, Clone)]
pub struct Archiver {
    repository: Repository,
    options: Arc<ArchiveOptions>,
    demand: Demand,
    destination: Fingerprint,
    bodies: Bodies,
    under_way: UnderWay,
    /// The groups of segments whose index is being put, each by its first segment.
    indexing: UnderWay,
    stored_bytes: Arc<AtomicU64>,
}

/// What a call works with.
#[derive(Clone)]
struct Run {
    place: Arc<Place>,
    markers: Vec<Marker>,
    known: Option<KnownArchive>,
}

impl Run {
    fn pg_wal(&self) -> Option<&PgWal> {
        self.place.pg_wal.as_ref()
    }
}

impl Archiver {
    /// An archiver into this repository, which lies in `store`.
    pub fn new(repository: Repository, store: &StoreConfig, options: ArchiveOptions) -> Self {
        let destination = Fingerprint::of(store, &repository.layout);
        Self {
            repository,
            demand: if options.allows_own_archive {
                Demand::Own
            } else {
                Demand::ByMarker
            },
            options: Arc::new(options),
            destination,
            bodies: Bodies::new(store.signs_bodies()),
            under_way: UnderWay::default(),
            indexing: UnderWay::default(),
            stored_bytes: Arc::default(),
        }
    }

    /// The same archiver for calls that demand this of the archive. Memory and threads are shared.
    #[must_use]
    pub fn demanding(&self, demand: Demand) -> Self {
        Self {
            demand,
            ..self.clone()
        }
    }

    /// How many bytes were put, as stored and look-aheads among them, since this was last asked.
    pub fn take_stored_bytes(&self) -> u64 {
        self.stored_bytes.swap(0, Ordering::Relaxed)
    }

    /// Archives the file at `path`. When it returns `Ok`, the file is in the store, durable. A
    /// file that is on its way ahead is waited for, not put twice.
    ///
    /// The future may be dropped: the file may then be in the store or not, and the next call
    /// finds out.
    pub async fn archive(&self, path: &Path) -> Result<Archived, ArchiveError> {
        let (place, file) = self.open(path).await?;
        let name = file.name;
        self.under_way.end_of(name).await;
        let mut run = Run {
            markers: place.pg_wal.as_ref().map_or_else(Vec::new, PgWal::markers),
            known: self.known_archive(&place, &file),
            place,
        };
        if let Some(pg_wal) = run.pg_wal()
            && self.is_archived_ahead(pg_wal, &file).await?
        {
            self.go_on_ahead(&run, &file).await;
            self.forget_pages(&file).await;
            info!(%name, "the WAL file was archived ahead");
            return Ok(Archived::Ahead);
        }
        if let Some(known) = &run.known {
            self.repository.store.recall(known.learnt);
        }
        let steps = self.steps(&run, &file);
        self.pass_admission(&mut run, &file, steps.admission)
            .await?;
        let same_name = self.look_around(&mut run, &file, steps.absence).await?;
        let archived = self.run_with_look_ahead(&run, &file, same_name).await?;
        self.after_success(&mut run, &file).await;
        info!(%name, %archived, "archived WAL file");
        Ok(archived)
    }

    /// What is remembered of the archive, if by this very cluster.
    fn known_archive(&self, place: &Place, file: &WalFile) -> Option<KnownArchive> {
        let known = place.pg_wal.as_ref()?.known_archive(&self.destination)?;
        let ids = place.system_id(file).zip(known.system_id);
        let is_own = ids.is_none_or(|(ours, remembered)| ours == remembered);
        is_own.then_some(known)
    }

    async fn open(&self, path: &Path) -> Result<(Arc<Place>, WalFile), ArchiveError> {
        let path = path.to_path_buf();
        let for_error = path.clone();
        let opened = task::spawn_blocking(move || {
            let place = Place::of(&path).map_err(|source| ArchiveError::Read {
                path: path.clone(),
                source,
            })?;
            let file = place.inspect(&path)?;
            Ok((Arc::new(place), file))
        });
        opened.await.map_err(|error| ArchiveError::Read {
            path: for_error,
            source: io::Error::other(error),
        })?
    }

    fn facts<'a>(&self, run: &'a Run, name: WalFileName) -> Facts<'a> {
        Facts {
            name,
            codec: self.options.compression.codec,
            known: run.known.as_ref(),
            markers: &run.markers,
            demand: self.demand,
        }
    }

    fn steps(&self, run: &Run, file: &WalFile) -> Steps {
        decision::steps(&self.facts(run, file.name))
    }

    /// Whether a look-ahead left a mark for this file and these very bytes. The mark is used up.
    async fn is_archived_ahead(
        &self,
        pg_wal: &PgWal,
        file: &WalFile,
    ) -> Result<bool, ArchiveError> {
        let name = file.name.to_string();
        let Some(mark) = pg_wal.mark(&self.destination, &name) else {
            return Ok(false);
        };
        let is_same = decision::may_trust_mark(&mark, file.size, clock::now())
            && self.digest(file).await? == mark.blake3;
        if !is_same {
            warn!(%name, "the mark of an earlier look-ahead does not fit the file");
        }
        if let Err(error) = pg_wal.remove_mark(&name) {
            warn!(%name, %error, "cannot remove the mark of an archived WAL file");
        }
        Ok(is_same)
    }

    /// Makes sure that the archive may be written to, and remembers it before anything is put:
    /// after a crash the first file would otherwise look like a stranger's.
    async fn pass_admission(
        &self,
        run: &mut Run,
        file: &WalFile,
        admission: Admission,
    ) -> Result<(), ArchiveError> {
        if admission == Admission::Known {
            return Ok(());
        }
        let server = run.place.server(file);
        if admission == Admission::EmptyOrOwn
            && run.pg_wal().is_none()
            && let Some(server) = &server
            && self.check_owner_only(server).await?
        {
            return Ok(());
        }
        let marker = decision::first_open_marker(&self.facts(run, file.name)).cloned();
        run.known = self
            .admit(server.as_ref(), admission, marker.as_ref())
            .await?;
        if let Some(pg_wal) = run.pg_wal()
            && let Some(known) = &run.known
        {
            let remembered = pg_wal.remember_archive(&self.destination, known);
            match remembered {
                Err(source) if marker.is_some() => {
                    return Err(ArchiveError::State {
                        path: pg_wal.state_folder(),
                        source,
                    });
                }
                Err(error) => warn!(%error, "cannot remember the archive"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Looks for the same name under any suffix, where it can be there unnoticed by the put.
    async fn look_around(
        &self,
        run: &mut Run,
        file: &WalFile,
        absence: Absence,
    ) -> Result<Vec<contents::Archived>, ArchiveError> {
        if absence != Absence::ListFirst {
            return Ok(Vec::new());
        }
        let codec = self.options.compression.codec;
        let is_to_settle = match (&run.known, file.name) {
            (Some(known), WalFileName::Segment(segment)) => known.settled.is_none_or(|settled| {
                settled.codec != codec || settled.after.timeline() != segment.timeline()
            }),
            _ => false,
        };
        let found = contents::neighbours(&self.repository, file.name, is_to_settle).await?;
        if is_to_settle
            && let (Some(known), WalFileName::Segment(segment)) = (&mut run.known, file.name)
        {
            known.settled = Some(crate::service::wal_state::Settled {
                codec,
                after: decision::settled_after(segment, found.last),
            });
            self.remember(run);
        }
        Ok(found.same_name)
    }

    /// What is left to do when the file is safe; nothing of it can make the call fail.
    async fn after_success(&self, run: &mut Run, file: &WalFile) {
        self.forget_pages(file).await;
        let learnt = self.repository.store.learnt();
        if let Some(known) = &mut run.known
            && known.learnt != learnt
        {
            known.learnt = learnt;
            self.remember(run);
        }
        if run.markers.is_empty() || run.known.is_none() {
            return;
        }
        // The first one last: it is the one that the archive was found empty for.
        for marker in run.markers.iter().rev() {
            if let Err(error) = durable_file::remove(&marker.path) {
                warn!(path = %marker.path.display(), %error, "cannot remove the marker");
                return;
            }
        }
        if let Some(known) = &mut run.known {
            known.empty_for = None;
        }
        self.remember(run);
    }

    fn remember(&self, run: &Run) {
        if let (Some(pg_wal), Some(known)) = (run.pg_wal(), &run.known)
            && let Err(error) = pg_wal.remember_archive(&self.destination, known)
        {
            warn!(%error, "cannot remember the archive");
        }
    }

    /// Gives the file's pages back. In a process that ends with the call no work outlives it; a
    /// resident one answers meanwhile.
    async fn forget_pages(&self, file: &WalFile) {
        let path = file.path.clone();
        let forgotten = task::spawn_blocking(move || file::forget_pages(&path));
        if !self.options.is_resident {
            let _ = forgotten.await;
        }
    }
}
