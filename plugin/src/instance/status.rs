//! What the ObjectStore's status says of one server: the recovery window and what went wrong last.
//!
//! Written by merge patches, each key by itself: other servers' keys are never touched, and neither
//! are keys that are not known here. Not here: conditions and events.

use cellarman::barman::repository::Catalog;
use cellarman::domain::backup::BackupStatus;
use cellarman::fault::chain;
use cellarman::metrics::{Metric, Metrics};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use tracing::warn;

use crate::cluster::ArchiveRef;
use crate::instance::wal_wish;
use crate::resources::{ResourceError, Resources};

/// The recovery window of one server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// The end of the earliest completed backup.
    pub first: Option<DateTime<Utc>>,
    /// The end of the latest completed backup.
    pub last_success: Option<DateTime<Utc>>,
    /// When a backup last failed.
    pub last_failure: Option<DateTime<Utc>>,
}

impl Window {
    /// What the status of an ObjectStore says of a server.
    pub fn of(object_store: &Value, server: &str) -> Self {
        let window = &object_store["status"]["serverRecoveryWindow"][server];
        let time = |key: &str| {
            let text = window[key].as_str()?;
            Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc())
        };
        Self {
            first: time("firstRecoverabilityPoint"),
            last_success: time("lastSuccessfulBackupTime"),
            last_failure: time("lastFailedBackupTime"),
        }
    }

    /// Shows it in the metrics.
    pub fn show(self, metrics: &Metrics) {
        metrics.set_time(Metric::FirstRecoverabilityPoint, self.first);
        metrics.set_time(Metric::LastAvailableBackup, self.last_success);
        metrics.set_time(Metric::LastFailedBackup, self.last_failure);
        metrics.set_time(Metric::FirstRecoverable, self.first);
        if let Some(last) = self.last_success {
            metrics.advance_time(Metric::LastRecoverable, last);
        }
    }
}

/// What a catalog tells of its server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// The end of the earliest completed backup.
    pub first: Option<DateTime<Utc>>,
    /// The end of the latest completed backup.
    pub last_success: Option<DateTime<Utc>>,
    /// Completed backups.
    pub backups: usize,
    /// Backups that failed or have not ended.
    pub incomplete: usize,
    /// Backups whose record cannot be read.
    pub unreadable: usize,
}

impl Summary {
    /// The summary of a catalog.
    pub fn of(catalog: &Catalog) -> Self {
        let backups = catalog.backups.iter().map(|entry| &entry.backup);
        let done = backups.filter(|backup| backup.status == BackupStatus::Done);
        let ends: Vec<_> = done.map(|backup| backup.end_time).collect();
        let known = || ends.iter().flatten().map(DateTime::to_utc);
        Self {
            first: known().min(),
            last_success: known().max(),
            backups: ends.len(),
            incomplete: catalog.backups.len() - ends.len(),
            unreadable: catalog.unreadable.len(),
        }
    }

    /// Shows it in the metrics.
    pub fn show(&self, metrics: &Metrics) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        metrics.set(Metric::CatalogBackups, count(self.backups));
        metrics.set(Metric::CatalogFailedBackups, count(self.incomplete));
        metrics.set(Metric::CatalogUnreadableBackups, count(self.unreadable));
        metrics.set_time(Metric::FirstRecoverabilityPoint, self.first);
        metrics.set_time(Metric::LastAvailableBackup, self.last_success);
        metrics.set_time(Metric::FirstRecoverable, self.first);
        if let Some(last) = self.last_success {
            metrics.advance_time(Metric::LastRecoverable, last);
        }
    }

    fn patch(&self, server: &str, clears_error: bool) -> Value {
        let mut fields = json!({
            "firstRecoverabilityPoint": self.first.map(rfc3339),
            "lastSuccessfulBackupTime": self.last_success.map(rfc3339),
            "backups": self.backups,
        });
        if clears_error {
            fields["lastError"] = Value::Null;
        }
        patch(server, &fields)
    }
}

/// Writes what a catalog tells, once a backup was taken or the archive was looked after.
pub async fn report(
    resources: &dyn Resources,
    archive: &ArchiveRef,
    summary: &Summary,
    clears_error: bool,
) -> Result<(), ResourceError> {
    let patch = summary.patch(&archive.server, clears_error);
    resources.merge_status(&archive.object_store, &patch).await
}

/// Writes that a backup failed. What cannot be written is told in the log.
pub async fn report_failed_backup(
    resources: &dyn Resources,
    archive: &ArchiveRef,
    error: &str,
    now: DateTime<Utc>,
) {
    let fields = json!({
        "lastFailedBackupTime": rfc3339(now),
        "lastError": {"time": rfc3339(now), "message": error},
    });
    write(resources, archive, &fields).await;
}

/// Writes that something failed.
pub async fn report_error(
    resources: &dyn Resources,
    archive: &ArchiveRef,
    error: &str,
    now: DateTime<Utc>,
) {
    let error = json!({"time": rfc3339(now), "message": error});
    write(resources, archive, &json!({"lastError": error})).await;
}

/// Writes since when a standby's backup waits for WAL, or that none does any more.
pub async fn report_wal_wish(
    resources: &dyn Resources,
    archive: &ArchiveRef,
    since: Option<DateTime<Utc>>,
) {
    let fields = json!({ wal_wish::KEY: since.map(rfc3339) });
    write(resources, archive, &fields).await;
}

async fn write(resources: &dyn Resources, archive: &ArchiveRef, fields: &Value) {
    let patch = patch(&archive.server, fields);
    if let Err(error) = resources.merge_status(&archive.object_store, &patch).await {
        warn!(
            object_store = archive.object_store,
            error = chain(&error),
            "cannot write the ObjectStore's status"
        );
    }
}

fn patch(server: &str, fields: &Value) -> Value {
    json!({"serverRecoveryWindow": {server: fields}})
}

/// To the second, in UTC, as Kubernetes reads it.
fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_read_leniently() {
        let time = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        let store = json!({"status": {"serverRecoveryWindow": {"pg": {
            "firstRecoverabilityPoint": "2026-01-02T03:04:05Z",
            "lastSuccessfulBackupTime": null, "lastFailedBackupTime": "yesterday"}}}});
        let expected = Window {
            first: Some(time("2026-01-02T03:04:05Z")),
            ..Window::default()
        };
        assert_eq!(Window::of(&store, "pg"), expected);
        assert_eq!(Window::of(&store, "other"), Window::default());
        assert_eq!(Window::of(&Value::Null, "pg"), Window::default());
    }

    #[test]
    fn an_empty_catalog_takes_the_window_away_and_keeps_the_last_failure() {
        let patch = Summary::default().patch("pg", false);
        let expected = json!({"serverRecoveryWindow": {"pg": {
            "firstRecoverabilityPoint": null, "lastSuccessfulBackupTime": null, "backups": 0}}});
        assert_eq!(patch, expected);
    }
}
