//! Shows in the metrics how far a backup is.
//!
//! Not here: what is counted at its end.

use std::sync::Arc;

use cellarman::metrics::{Metric, Metrics};
use cellarman::service::base_backup::{Stage, Watcher};
use tracing::info;

/// Shows a backup.
#[derive(Debug)]
pub(super) struct Shown {
    metrics: Arc<Metrics>,
}

impl Shown {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl Watcher for Shown {
    fn enter(&self, stage: Stage) {
        match stage {
            Stage::Checkpoint => info!("waiting for the server's checkpoint"),
            Stage::Copy { bytes } => {
                info!(bytes, "copying files");
                self.metrics
                    .set(Metric::BackupRunningTotalBytes, bytes.unwrap_or(0));
            }
            Stage::WaitForWal => info!("waiting for the backup's last WAL"),
        }
    }

    fn copied(&self, bytes: u64) {
        self.metrics.add(Metric::BackupRunningCopiedBytes, bytes);
    }
}
