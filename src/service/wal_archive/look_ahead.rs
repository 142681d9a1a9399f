//! Further files that wait, archived beside the one asked for.
//!
//! A look-ahead never fails the asked file and holds it up by a short grace at most. It is read
//! and compressed beside the asked file, and put when that one is safe: a server whose file is
//! refused may not be the archive's own, and then nothing of it goes there. Each success leaves
//! a durable mark; without one, the later request finds the same bytes there.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::{task, time};
use tracing::{debug, info, warn};

use crate::clock;
use crate::domain::wal_file::WalFileName;
use crate::fault::chain;
use crate::service::wal_archive::decision::{self, Absence};
use crate::service::wal_archive::error::ArchiveError;
use crate::service::wal_archive::file::WalFile;
use crate::service::wal_archive::store::PutWay;
use crate::service::wal_archive::turn::Turn;
use crate::service::wal_archive::{Archived, Archiver, Run, body, contents};
use crate::service::wal_restore::prefetch;
use crate::service::wal_state::{Mark, PgWal};

/// How long look-aheads may go on after the asked file is safe.
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
        let names = self.names_ahead(run, file.name).await;
        let is_alone = names.is_empty();
        let asked = async {
            let way = PutWay {
                absence: self.steps(run, file).absence,
                is_conditional: is_conditional(run),
                wants_digest: false,
                is_alone,
            };
            self.store_file(file, &same_name, way, &turn).await
        };
        let mut asked = std::pin::pin!(asked);
        let mut ahead: FuturesUnordered<_> = names
            .into_iter()
            .map(|name| self.archive_ahead(run, name, &turn_ahead))
            .collect();
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut asked => break outcome,
                Some(()) = ahead.next(), if !ahead.is_empty() => {}
            }
        };
        if outcome.is_ok() && !ahead.is_empty() {
            turn.is_safe();
            let rest = async { while ahead.next().await.is_some() {} };
            if time::timeout(GRACE, rest).await.is_err() {
                info!("leaving WAL files that are archived ahead for later requests");
            }
        }
        outcome.map(|stored| stored.archived)
    }

    /// The next files that wait, by the status folder; stale marks are cleaned on the way.
    async fn names_ahead(&self, run: &Run, asked: WalFileName) -> Vec<WalFileName> {
        let count_max = self.options.jobs.saturating_sub(1);
        let Some(pg_wal) = run.pg_wal().filter(|_| run.known.is_some()).cloned() else {
            return Vec::new();
        };
        let destination = self.destination.clone();
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
            let is_marked = |name: WalFileName| {
                let mark = pg_wal.mark(&destination, &name.to_string());
                mark.is_some()
            };
            // None when the folder cannot be read.
            let ready = pg_wal.ready_files().into_iter().flatten().flatten();
            decision::look_ahead(ready, asked, count_max, is_marked)
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
