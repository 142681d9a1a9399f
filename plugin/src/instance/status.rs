//! What the ObjectStore's status says of one server: the recovery window and what went wrong last.
//!
//! Written by merge patches, each key by itself: other servers' keys are never touched, and neither
//! are keys that are not known here. Not here: conditions and events.

use cellarman::barman::repository::Catalog;
use cellarman::domain::backup::BackupStatus;
use cellarman::domain::segment::SegmentName;
use cellarman::fault::chain;
use cellarman::metrics::{Metric, Metrics};
use cellarman::service::targets::extent::Extent;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use tracing::warn;

use crate::cluster::ArchiveRef;
use crate::instance::wal_wish;
use crate::resources::{ResourceError, Resources};

/// The recovery window of one server, as its status has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// The end of the earliest completed backup.
    pub first: Option<DateTime<Utc>>,
    /// The end of the latest completed backup.
    pub last_success: Option<DateTime<Utc>>,
    /// When a backup last failed.
    pub last_failure: Option<DateTime<Utc>>,
    /// How far the archive could be recovered when it was last looked at.
    pub reach: Reach,
}

/// How far an archive can be recovered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// The first moment.
    pub first: Option<DateTime<Utc>>,
    /// The last moment that is proven.
    pub latest: Option<DateTime<Utc>>,
    /// How long before the look that was, in seconds.
    pub seconds_behind: u64,
    /// How many segments are missing behind the first backup.
    pub missing_segments: u64,
    /// The first that is missing behind the last backup.
    pub ends_before: Option<SegmentName>,
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
            reach: Reach {
                first: time("firstRestorableTime"),
                latest: time("latestRestorableTime"),
                seconds_behind: window["secondsBehind"].as_u64().unwrap_or(0),
                missing_segments: window["missingWalSegments"].as_u64().unwrap_or(0),
                ends_before: window["firstMissingWal"]
                    .as_str()
                    .and_then(|name| name.parse().ok()),
            },
        }
    }

    /// Shows it in the metrics. Of a primary, the sidecar itself may know of a later moment.
    pub fn show(self, metrics: &Metrics, is_primary: bool) {
        metrics.set_time(Metric::FirstRecoverabilityPoint, self.first);
        metrics.set_time(Metric::LastAvailableBackup, self.last_success);
        metrics.set_time(Metric::LastFailedBackup, self.last_failure);
        if is_primary {
            if let Some(last) = self.reach.latest.or(self.last_success) {
                metrics.advance_time(Metric::LastRecoverable, last);
            }
        } else {
            // An older release wrote nothing of it.
            let reach = Reach {
                first: self.reach.first.or(self.first),
                latest: self.reach.latest.or(self.last_success),
                ..self.reach
            };
            reach.show(metrics);
        }
    }
}

impl Reach {
    /// What a look at `now` found.
    pub fn of(extent: &Extent, now: DateTime<Utc>) -> Self {
        let behind = extent
            .latest
            .map(|latest| now.signed_duration_since(latest));
        let seconds = behind.and_then(|behind| u64::try_from(behind.num_seconds()).ok());
        Self {
            first: extent.first,
            latest: extent.latest,
            seconds_behind: seconds.unwrap_or(0),
            missing_segments: extent.missing_segments,
            ends_before: extent.ends_before,
        }
    }

    /// Shows it in the metrics.
    pub fn show(&self, metrics: &Metrics) {
        metrics.set_time(Metric::FirstRecoverable, self.first);
        metrics.set_time(Metric::LastRecoverable, self.latest);
        metrics.set(Metric::RecoveryWindowLag, self.seconds_behind);
        metrics.set(Metric::RecoveryWindowMissingWal, self.missing_segments);
        metrics.set_flag(Metric::RecoveryWindowCut, self.ends_before.is_some());
    }

    fn fields(&self) -> Value {
        json!({
            "firstRestorableTime": self.first.map(rfc3339),
            "latestRestorableTime": self.latest.map(rfc3339),
            "secondsBehind": self.latest.map(|_| self.seconds_behind),
            "missingWalSegments": self.missing_segments,
            "firstMissingWal": self.ends_before.map(|name| name.to_string()),
        })
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
    }

    fn patch(&self, server: &str, clears_error: bool, reach: Option<&Reach>) -> Value {
        let mut fields = json!({
            "firstRecoverabilityPoint": self.first.map(rfc3339),
            "lastSuccessfulBackupTime": self.last_success.map(rfc3339),
            "backups": self.backups,
        });
        if clears_error {
            fields["lastError"] = Value::Null;
        }
        if let (Some(fields), Some(Value::Object(reach))) =
            (fields.as_object_mut(), reach.map(Reach::fields))
        {
            fields.extend(reach);
        }
        patch(server, &fields)
    }
}

/// Writes what a catalog tells, once a backup was taken or the archive was looked after, and how far
/// it can be recovered where that was looked at.
pub async fn report(
    resources: &dyn Resources,
    archive: &ArchiveRef,
    (summary, reach): (&Summary, Option<&Reach>),
    clears_error: bool,
) -> Result<(), ResourceError> {
    let patch = summary.patch(&archive.server, clears_error, reach);
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
            "lastSuccessfulBackupTime": null, "lastFailedBackupTime": "yesterday",
            "missingWalSegments": 3, "secondsBehind": -1, "firstMissingWal": "none"}}}});
        let expected = Window {
            first: Some(time("2026-01-02T03:04:05Z")),
            reach: Reach {
                missing_segments: 3,
                ..Reach::default()
            },
            ..Window::default()
        };
        assert_eq!(Window::of(&store, "pg"), expected);
        assert_eq!(Window::of(&store, "other"), Window::default());
        assert_eq!(Window::of(&Value::Null, "pg"), Window::default());
    }

    #[test]
    fn an_empty_catalog_takes_the_window_away_and_keeps_the_last_failure() {
        let patch = Summary::default().patch("pg", false, None);
        let expected = json!({"serverRecoveryWindow": {"pg": {
            "firstRecoverabilityPoint": null, "lastSuccessfulBackupTime": null, "backups": 0}}});
        assert_eq!(patch, expected);
    }

    #[test]
    fn what_was_written_of_a_reach_is_read_and_shown_again() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let extent = Extent {
            first: Some(at(1_000)),
            latest: Some(at(2_000)),
            missing_segments: 2,
            ends_before: "000000010000000000000007".parse().ok(),
            ..Extent::default()
        };
        let reach = Reach::of(&extent, at(2_060));
        assert_eq!(reach.seconds_behind, 60);
        assert_eq!(Reach::of(&extent, at(1_990)).seconds_behind, 0, "clocks");
        let status = Summary::default().patch("pg", false, Some(&reach));
        let window = Window::of(&json!({"status": status}), "pg");
        assert_eq!(window.reach, reach);
        let metrics = Metrics::default();
        window.show(&metrics, false);
        for (metric, expected) in [
            (Metric::FirstRecoverable, 1_000.0),
            (Metric::LastRecoverable, 2_000.0),
            (Metric::RecoveryWindowLag, 60.0),
            (Metric::RecoveryWindowMissingWal, 2.0),
            (Metric::RecoveryWindowCut, 1.0),
        ] {
            let value = metrics.value(metric);
            assert!((value - expected).abs() < 0.5, "{metric:?}: {value}");
        }
        // Nothing can be recovered any more: nothing of that stays.
        let nothing = Reach::of(&Extent::default(), at(3_000));
        let patch = Summary::default().patch("pg", false, Some(&nothing));
        let window = &patch["serverRecoveryWindow"]["pg"];
        assert!(window["latestRestorableTime"].is_null() && window["secondsBehind"].is_null());
    }
}
