//! One task that fetches WAL ahead of a server in recovery, started by its requests.
//!
//! Not here: the fetching (`cellarman::service::wal_restore::prefetch`), which ends by itself when
//! there is no more reason to go on.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use cellarman::fault::chain;
use cellarman::service::wal_restore::{Restorer, prefetch};
use cellarman::service::wal_state::PgWal;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// The task, if there is one. It ends with the process: what it leaves is cleaned by the next.
#[derive(Debug)]
pub(super) struct Prefetch {
    cancel: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Prefetch {
    /// No task yet.
    pub(super) fn new(cancel: CancellationToken) -> Self {
        Self {
            cancel,
            task: Mutex::new(None),
        }
    }

    /// Sees to it that the segments after those just restored to `destination` are fetched.
    pub(super) fn go_on(&self, restorer: &Restorer, destination: &Path) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let pg_wal = PgWal::holding(destination).ok().flatten();
        let Some(pg_wal) = pg_wal.filter(prefetch::is_wanted) else {
            return;
        };
        let (restorer, cancel) = (restorer.clone(), self.cancel.clone());
        *task = Some(tokio::spawn(async move {
            if let Err(error) = restorer.prefetch(&pg_wal, &cancel).await {
                warn!(error = chain(&error), "fetching WAL ahead failed");
            }
        }));
    }
}
