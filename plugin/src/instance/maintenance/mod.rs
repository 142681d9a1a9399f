//! Looks after the archive from time to time: retention, the Backups of the namespace, the status.
//!
//! Every sidecar runs this loop, and only that of the current primary does anything in it. Not here:
//! one round of it (`rounds`), and what a backup reports by itself.

mod collection;
mod conditions;
mod error;
mod reach;
mod rounds;
mod rules;

use std::sync::Arc;
use std::time::Duration;

use cellarman::clock;
use cellarman::fault::{Fault, chain};
use cellarman::metrics::Metric;
use cellarman::service::maintenance::sweep;
use tokio::sync::Notify;
use tokio::time::{self, Instant};
use tracing::{debug, info, warn};

use crate::cluster::ArchiveRef;
use crate::instance::Context;
use crate::instance::maintenance::error::RoundError;
use crate::instance::maintenance::rounds::{Outcome, Round};

/// Between two looks when this is not the primary: another may become it at any time.
const NOT_OURS_INTERVAL: Duration = Duration::from_mins(1);
/// After an error, and where the interval makes no sense.
const ERROR_INTERVAL: Duration = Duration::from_mins(5);
/// After somebody did not answer, the API or the store.
const NO_ANSWER_INTERVAL: Duration = Duration::from_secs(30);
/// When what a killed backup left is looked for: at once, and when its last sign of life has aged.
const SWEEPS: [Duration; 2] = [Duration::ZERO, Duration::from_secs(140)];

/// Looks after the archive until the process is to end; `wake` brings the next round forward.
pub async fn run(context: Context, wake: Arc<Notify>) {
    tokio::join!(sweep_after_start(&context), rounds(&context, &wake));
}

async fn rounds(context: &Context, wake: &Notify) {
    let mut past = Past {
        told: None,
        is_first: true,
    };
    loop {
        let pause = next_round(context, &mut past).await;
        tokio::select! {
            () = context.cancel.cancelled() => return,
            () = wake.notified() => {}
            () = time::sleep(pause) => {}
        }
    }
}

/// What is known of the rounds before.
struct Past {
    /// The error that the last one ended with, as it was told.
    told: Option<String>,
    /// Whether none has succeeded yet: then an error in the status is an earlier process's.
    is_first: bool,
}

/// Runs a round; returns how long to wait for the next. The same error is told once.
async fn next_round(context: &Context, past: &mut Past) -> Duration {
    let metrics = &context.metrics;
    let begun = Instant::now();
    let mut round = Round::new(context, past.told.is_some(), past.is_first);
    let outcome = round.run().await;
    let interval = round.interval().unwrap_or(ERROR_INTERVAL);
    let error = match outcome {
        Ok(Outcome::NotOurs(reason)) => {
            debug!(reason, "not looking after the archive");
            return interval.min(NOT_OURS_INTERVAL);
        }
        Ok(Outcome::Done) => {
            past.is_first = false;
            if past.told.take().is_some() {
                info!("looking after the archive works again");
            }
            metrics.increment(Metric::MaintenanceRuns);
            metrics.set_duration(Metric::MaintenanceLastDuration, begun.elapsed());
            metrics.set_time(Metric::MaintenanceLastSuccess, Some(clock::now()));
            return interval;
        }
        Err(error) => error,
    };
    metrics.increment(Metric::MaintenanceRuns);
    metrics.increment(Metric::MaintenanceFailures);
    let text = chain(&error);
    if past.told.as_deref() != Some(text.as_str()) {
        let hint = error.hint();
        warn!(error = text, hint, "looking after the archive failed");
        past.told = Some(text);
    }
    let pause = match error {
        RoundError::Resource(_) => NO_ANSWER_INTERVAL,
        error if error.kind().is_retryable() => NO_ANSWER_INTERVAL,
        _ => ERROR_INTERVAL,
    };
    interval.min(pause)
}

/// Marks the backups that a killed sidecar of this instance left.
async fn sweep_after_start(context: &Context) {
    for delay in SWEEPS {
        tokio::select! {
            () = context.cancel.cancelled() => return,
            () = time::sleep(delay) => {}
        }
        while let Err(error) = sweep_own(context).await {
            debug!(error = chain(&error), "cannot look for killed backups yet");
            tokio::select! {
                () = context.cancel.cancelled() => return,
                () = time::sleep(NO_ANSWER_INTERVAL) => {}
            }
        }
    }
}

async fn sweep_own(context: &Context) -> Result<(), RoundError> {
    let cluster = context.cluster::<RoundError>().await?;
    let Some(own) = cluster.archives(&context.plugin_name).own else {
        return Ok(());
    };
    let archive = context.archives.open(&own, &named_by(&own)).await?;
    let swept = sweep(&archive.repository).await?;
    for id in &swept.failed {
        warn!(%id, "marked a killed backup FAILED");
    }
    Ok(())
}

/// The field that names the Cluster's own archive.
fn named_by(own: &ArchiveRef) -> String {
    format!(
        "spec.plugins[].parameters of the Cluster, for server {},",
        own.server
    )
}
