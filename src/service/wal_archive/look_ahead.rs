//! Further files that wait, archived beside the one asked for.
//!
//! A look-ahead never fails the asked file. It is read and compressed beside the asked file, and
//! put when that one is safe: a server whose file is refused may not be the archive's own, and
//! then nothing of it goes there. Each success leaves a durable mark; without one, the later
//! request finds the same bytes there.
//!
//! In a process that ends with the call, look-aheads hold the answer up by a short grace at most.
//! In a resident one they go on after it, and each request begins what has come into reach.

use std::sync::Arc;
use std::time::Duration;

use tokio::{task, time};
use tracing::{debug, info, warn};

use crate::clock;
use crate::domain::wal_file::WalFileName;
use crate::fault::chain;
use crate::service::wal_archive::decision::{self, Absence, Admission};
use crate::service::wal_archive::error::ArchiveError;
use crate::service::wal_archive::file::WalFile;
use crate::service::wal_archive::store::PutWay;
use crate::service::wal_archive::turn::Turn;
use crate::service::wal_archive::{Archived, Archiver, Run, body, contents};
use crate::service::wal_restore::prefetch;
use crate::service::wal_state::{Mark, PgWal};

/// How long look-aheads may go on after the asked file is safe, where the process then ends.
const GRACE: Duration = Duration::from_secs(3);

impl Archiver {
    /// Archives the asked file, and further ones at the same time.
    pub(super) async fn run_with_look_ahead(
        &self,
        run: &Run,
        file: &WalFile,
        same_name: Vec<contents::Archived>,
    ) -> Result<Archived, ArchiveError> {
        let (turn, turn_ahead) = Turn::new();
        self.begin_ahead(run, file.name, turn_ahead).await;
        let way = PutWay {
            absence: self.steps(run, file).absence,
            is_conditional: is_conditional(run),
            wants_digest: false,
            is_alone: self.under_way.count() == 0,
        };
        // When this fails or is dropped, the turn is, and those ahead end with it.
        let stored = self.store_file(file, &same_name, way, &turn).await?;
        turn.is_safe();
        self.index(run, file.name, stored.index).await;
        if !self.options.is_resident {
            let end_of_all = async {
                self.under_way.end_of_all().await;
                self.indexing.end_of_all().await;
            };
            if time::timeout(GRACE, end_of_all).await.is_err() {
                info!("leaving WAL files that are archived ahead for later requests");
                self.under_way.give_up();
                self.indexing.give_up();
            }
        }
        Ok(stored.archived)
    }

    /// Begins what has come into reach by a request for a file that was archived ahead.
    pub(super) async fn go_on_ahead(&self, run: &Run, file: &WalFile) {
        if self.options.is_resident && self.steps(run, file).admission == Admission::Known {
            self.begin_ahead(run, file.name, Turn::after_safe()).await;
        }
    }

    /// Begins the next files that wait.
    async fn begin_ahead(&self, run: &Run, asked: WalFileName, turn: Turn) {
        let turn = Arc::new(turn);
        for name in self.names_ahead(run, asked).await {
            let (archiver, run, turn) = (self.clone(), run.clone(), Arc::clone(&turn));
            self.under_way.begin(name, async move {
                tokio::select! {
                    () = archiver.archive_ahead(&run, name, &turn) => {}
                    () = turn.given_up() => {}
                }
            });
        }
    }

    /// The next files that wait, by the status folder, and are not under way; stale marks are
    /// cleaned on the way.
    async fn names_ahead(&self, run: &Run, asked: WalFileName) -> Vec<WalFileName> {
        let count_max = self.options.jobs.saturating_sub(1);
        let Some(pg_wal) = run.pg_wal().filter(|_| run.known.is_some()).cloned() else {
            return Vec::new();
        };
        let (destination, under_way) = (self.destination.clone(), self.under_way.clone());
        let picked = task::spawn_blocking(move || {
            if let Err(error) = pg_wal.clean_marks() {
                warn!(%error, "cannot clean the marks of archived WAL files");
            }
            if let Err(error) = prefetch::clear_leftovers(&pg_wal) {
                warn!(%error, "cannot clean what a killed restore of WAL left");
            }
            if count_max == 0 {
                return Vec::new();
            }
            // None when the folder cannot be read.
            let ready = pg_wal.ready_files().into_iter().flatten().flatten();
            let mut names = decision::look_ahead(ready, asked, count_max);
            names.retain(|name| {
                let is_marked = || pg_wal.mark(&destination, &name.to_string()).is_some();
                !under_way.has(*name) && !is_marked()
            });
            names.truncate(count_max.saturating_sub(under_way.count()));
            names
        });
        picked.await.unwrap_or_default()
    }

    /// Archives one file ahead and marks it. What fails here is tried again when it is asked for.
    async fn archive_ahead(&self, run: &Run, name: WalFileName, turn: &Turn) {
        let Some(pg_wal) = run.pg_wal() else { return };
        if let Err(error) = self.try_ahead(run, pg_wal, name, turn).await {
            debug!(%name, error = chain(&error), "cannot archive a WAL file ahead");
        }
    }

    async fn try_ahead(
        &self,
        run: &Run,
        pg_wal: &PgWal,
        name: WalFileName,
        turn: &Turn,
    ) -> Result<(), ArchiveError> {
        let path = pg_wal.folder().join(name.to_string());
        let place = Arc::clone(&run.place);
        let inspected = task::spawn_blocking(move || place.inspect(&path)).await;
        let Ok(file) = inspected else { return Ok(()) };
        let file = file?;
        if body::streams(&file) {
            return Ok(());
        }
        let absence = decision::steps(&self.facts(run, name)).absence;
        let same_name = match absence {
            Absence::ListFirst => {
                let found = contents::neighbours(&self.repository, name, false).await?;
                found.same_name
            }
            Absence::ConditionalPut | Absence::HeadFirst => Vec::new(),
        };
        let way = PutWay {
            absence,
            is_conditional: is_conditional(run),
            wants_digest: true,
            is_alone: false,
        };
        let stored = self.store_file(&file, &same_name, way, turn).await?;
        self.index(run, name, stored.index).await;
        let Some(blake3) = stored.digest else {
            return Ok(());
        };
        let mark = Mark {
            size: file.size,
            blake3,
            archived_at: clock::now(),
        };
        let (pg_wal, destination) = (pg_wal.clone(), self.destination.clone());
        let marked =
            task::spawn_blocking(move || pg_wal.leave_mark(&destination, &name.to_string(), &mark));
        if let Ok(Err(error)) = marked.await {
            warn!(%name, %error, "cannot mark a WAL file that was archived ahead");
        }
        Ok(())
    }
}

/// Whether puts are made conditional: where nothing is known, they are, and the store may object.
fn is_conditional(run: &Run) -> bool {
    run.known
        .as_ref()
        .is_none_or(|known| known.is_put_conditional)
}
