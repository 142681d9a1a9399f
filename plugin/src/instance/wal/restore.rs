//! Restoring one WAL file, with the patience that its server needs.
//!
//! The caller's answer to PostgreSQL has two values only, and everything but success means the
//! end of the log. So a server in archive recovery hears of nothing but the file, or the store's
//! own word that there is none: whatever else happens is waited out, loudly. A server that can
//! stream is let go after a while.

use std::path::PathBuf;
use std::time::Duration;

use cellarman::domain::wal_file::WalFileName;
use cellarman::fault::{Fault, chain};
use cellarman::metrics::Metric;
use cellarman::service::wal_restore::Restored;
use tokio::time::{self, Instant};
use tracing::{debug, info, warn};

use crate::instance::absence;
use crate::instance::choice::Patience;
use crate::instance::wal::Call;
use crate::instance::wal::error::WalError;
use crate::instance::wal::prefetch::Prefetch;
use crate::resources::{Event, EventType, ObjectKind, ObjectRef};

/// The first pause between attempts, which each have their own; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(200);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// How often it is told that a server waits.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// How long telling may take.
const TELL_MAX: Duration = Duration::from_secs(2);

/// What is asked for.
pub(super) struct Wanted {
    pub(super) name: WalFileName,
    pub(super) destination: PathBuf,
    /// For `pg_rewind`, which goes backwards: nothing is fetched ahead.
    pub(super) is_rewind: bool,
}

/// Restores the file, waiting as long as its server can.
pub(super) async fn run(
    call: &Call<'_>,
    wanted: &Wanted,
    prefetch: &Prefetch,
) -> Result<(), WalError> {
    match call.asker().patience() {
        Patience::UntilCallerGone => insist(call, wanted, prefetch).await,
        Patience::Bounded(limit) => {
            let may_pass = |error: &WalError| error.kind().is_retryable();
            let answered = until_answered(call, wanted, prefetch, may_pass);
            let answered = time::timeout(limit, answered).await;
            answered.unwrap_or(Err(WalError::OutOfPatience(limit)))
        }
    }
}

/// Tries until the store has answered, and leaves its word where the command sees it that the
/// restore hook gives to a server.
async fn insist(call: &Call<'_>, wanted: &Wanted, prefetch: &Prefetch) -> Result<(), WalError> {
    let pgdata = &call.context.pgdata;
    if let Err(error) = absence::take_back(pgdata, wanted.name) {
        warn!(name = %wanted.name, %error, "cannot take back that it is not in the archive");
    }
    let outcome = until_answered(call, wanted, prefetch, |_| true).await;
    if outcome.as_ref().is_err_and(WalError::is_not_in_archive)
        && let Err(error) = absence::tell(pgdata, wanted.name)
    {
        warn!(name = %wanted.name, %error, "cannot tell that it is not in the archive");
    }
    outcome
}

/// Tries until there is an answer, or an error that `may_pass` does not let pass.
async fn until_answered(
    call: &Call<'_>,
    wanted: &Wanted,
    prefetch: &Prefetch,
    may_pass: impl Fn(&WalError) -> bool,
) -> Result<(), WalError> {
    let mut pause = PAUSE_FIRST;
    let mut told_at: Option<Instant> = None;
    loop {
        let attempt = attempt(call, wanted, prefetch);
        let cancel = &call.context.cancel;
        let outcome = tokio::select! {
            outcome = attempt => outcome,
            () = cancel.cancelled() => return Err(WalError::Ending),
        };
        let error = match outcome {
            Ok(()) => {
                if told_at.is_some() {
                    info!(name = %wanted.name, "recovery goes on");
                }
                return Ok(());
            }
            Err(error) if error.is_not_in_archive() || error.is_of_the_request() => {
                return Err(error);
            }
            Err(error) if !may_pass(&error) => return Err(error),
            Err(error) => error,
        };
        if told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            told_at = Some(Instant::now());
            tell(call, wanted, &error).await;
        }
        tokio::select! {
            () = time::sleep(pause) => {}
            () = cancel.cancelled() => return Err(WalError::Ending),
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn attempt(call: &Call<'_>, wanted: &Wanted, prefetch: &Prefetch) -> Result<(), WalError> {
    let named = call.asker().to_restore_from()?;
    let archive = call.open(&named).await?;
    let service = &archive.restorer;
    let restored = service.restore(wanted.name, &wanted.destination).await?;
    let metrics = &call.context.metrics;
    if restored == Restored::FromSpool {
        metrics.increment(Metric::WalPrefetchHits);
    }
    if let Ok(meta) = tokio::fs::metadata(&wanted.destination).await {
        metrics.add(Metric::WalRestoreBytes, meta.len());
    }
    debug!(name = %wanted.name, ?restored, "restored WAL");
    if !wanted.is_rewind && matches!(wanted.name, WalFileName::Segment(_)) {
        prefetch.go_on(service, &wanted.destination);
    }
    Ok(())
}

/// Tells the log and the Cluster's readers why a server waits.
async fn tell(call: &Call<'_>, wanted: &Wanted, error: &WalError) {
    let cause = chain(error);
    warn!(name = %wanted.name, error = cause, hint = error.hint(),
        "the server waits for WAL: recovery goes on when the store answers");
    let message = format!(
        "{cause}. The server waits for WAL file {}; recovery goes on when the store answers.",
        wanted.name
    );
    let event = Event {
        about: ObjectRef::new(ObjectKind::Cluster, &call.cluster.metadata.name),
        event_type: EventType::Warning,
        reason: "StoreUnreachable",
        message,
    };
    let emitted = time::timeout(TELL_MAX, call.context.resources.emit(&event)).await;
    if let Ok(Err(error)) = emitted {
        debug!(error = chain(&error), "cannot emit an Event");
    }
}
