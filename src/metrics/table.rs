//! The table itself. A dashboard and the alert rules are made from it.
//!
//! Not here: values.

/// How a value behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    /// It only rises, from zero at the start of the process.
    Counter,
    /// It rises and falls.
    Gauge,
}

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Seconds since 1970, UTC; 0 when unknown.
    Timestamp,
    /// 1 for yes, 0 for no.
    YesNo,
}

/// One metric, as a scraper is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Its full name.
    pub name: String,
    /// How it behaves.
    pub metric_type: MetricType,
    /// What it counts.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, as a sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($variant:ident $name:literal $metric_type:ident $unit:ident $help:literal;)*) => {
        /// A metric without labels.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the table's help says it")]
        pub enum Metric {
            $($variant,)*
        }

        impl Metric {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its full name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// How a scraper is told of it.
            pub fn definition(self) -> Definition {
                match self {
                    $(Self::$variant => Definition {
                        name: $name.to_owned(),
                        metric_type: MetricType::$metric_type,
                        unit: Unit::$unit,
                        labels: &[],
                        help: $help,
                    },)*
                }
            }
        }
    };
}

metrics! {
    FirstRecoverabilityPoint "barman_cloud_cloudnative_pg_io_first_recoverability_point" Gauge Timestamp
        "The first point of recoverability, as a Unix timestamp.";
    LastAvailableBackup "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp" Gauge Timestamp
        "The last available backup, as a Unix timestamp.";
    LastFailedBackup "barman_cloud_cloudnative_pg_io_last_failed_backup_timestamp" Gauge Timestamp
        "The last failed backup, as a Unix timestamp.";

    WalArchived "cellarman_wal_archived_total" Counter Count
        "WAL files acknowledged to the server as archived.";
    WalArchiveFailures "cellarman_wal_archive_failures_total" Counter Count
        "Requests to archive a WAL file that failed.";
    WalArchiveRawBytes "cellarman_wal_archive_raw_bytes_total" Counter Bytes
        "Bytes of archived WAL files before compression.";
    WalArchiveStoredBytes "cellarman_wal_archive_stored_bytes_total" Counter Bytes
        "Bytes of archived WAL files as stored.";
    WalArchiveRunning "cellarman_wal_archive_running" Gauge Count
        "Requests to archive a WAL file that are under way.";
    WalReadyFiles "cellarman_wal_ready_files" Gauge Count
        "WAL files that the server has ready and that are not archived yet.";
    WalArchiveLagSeconds "cellarman_wal_archive_lag_seconds" Gauge Seconds
        "How long the oldest WAL file that is ready has waited; 0 when none waits.";
    WalArchiveLagBytes "cellarman_wal_archive_lag_bytes" Gauge Bytes
        "The size of the WAL files that are ready and not archived yet.";
    WalLastArchived "cellarman_wal_last_archived_timestamp_seconds" Gauge Timestamp
        "When a WAL file was last archived by this sidecar.";
    WalLastArchiveFailure "cellarman_wal_last_archive_failure_timestamp_seconds" Gauge Timestamp
        "When archiving a WAL file last failed in this sidecar.";

    WalRestored "cellarman_wal_restored_total" Counter Count
        "WAL files given to the server.";
    WalRestoreNotFound "cellarman_wal_restore_not_found_total" Counter Count
        "Requests for a WAL file that the archive does not have.";
    WalRestoreFailures "cellarman_wal_restore_failures_total" Counter Count
        "Requests for a WAL file that failed for another reason.";
    WalRestoreBytes "cellarman_wal_restore_bytes_total" Counter Bytes
        "Bytes of WAL files given to the server.";
    WalRestoreRunning "cellarman_wal_restore_running" Gauge Count
        "Requests for a WAL file that are under way.";
    WalPrefetchHits "cellarman_wal_prefetch_hits_total" Counter Count
        "WAL files given to the server that had been fetched ahead.";

    BackupsCompleted "cellarman_backups_completed_total" Counter Count
        "Base backups taken by this sidecar.";
    BackupsFailed "cellarman_backups_failed_total" Counter Count
        "Base backups that failed in this sidecar.";
    BackupRunning "cellarman_backup_running" Gauge YesNo
        "Whether a base backup is under way in this sidecar.";
    BackupRunningCopiedBytes "cellarman_backup_running_copied_bytes" Gauge Bytes
        "Bytes that the running base backup has read; 0 when none runs.";
    BackupRunningTotalBytes "cellarman_backup_running_total_bytes" Gauge Bytes
        "Bytes of the cluster that the running base backup reads; 0 when none runs or that is unknown.";
    BackupLastDuration "cellarman_backup_last_duration_seconds" Gauge Seconds
        "How long the last base backup of this sidecar took.";
    BackupLastCopiedBytes "cellarman_backup_last_copied_bytes" Gauge Bytes
        "Bytes that the last base backup of this sidecar read.";
    BackupLastStoredBytes "cellarman_backup_last_stored_bytes" Gauge Bytes
        "Bytes of the last base backup of this sidecar as stored.";
    BackupLastDamagedPages "cellarman_backup_last_damaged_pages" Gauge Count
        "Damaged pages found by the last base backup of this sidecar.";

    MaintenanceRuns "cellarman_maintenance_runs_total" Counter Count
        "Runs of retention and of the look at the catalog, by this sidecar.";
    MaintenanceFailures "cellarman_maintenance_failures_total" Counter Count
        "Those runs that failed.";
    MaintenanceLastSuccess "cellarman_maintenance_last_success_timestamp_seconds" Gauge Timestamp
        "When such a run last succeeded in this sidecar.";
    MaintenanceLastDuration "cellarman_maintenance_last_duration_seconds" Gauge Seconds
        "How long the last such run took.";
    RetentionDeletedBackups "cellarman_retention_deleted_backups_total" Counter Count
        "Backups that retention deleted from the archive.";
    RetentionDeletedWalFiles "cellarman_retention_deleted_wal_files_total" Counter Count
        "WAL files that retention deleted from the archive.";
    RetentionDeletedWalBytes "cellarman_retention_deleted_wal_bytes_total" Counter Bytes
        "Bytes of the WAL files that retention deleted, as stored.";
    BackupResourcesDeleted "cellarman_backup_resources_deleted_total" Counter Count
        "Backup resources deleted because the archive no longer has their backup.";

    CatalogBackups "cellarman_backups" Gauge Count
        "Completed backups in the archive, as last seen.";
    CatalogFailedBackups "cellarman_backups_incomplete" Gauge Count
        "Backups in the archive that failed or have not ended, as last seen.";
    CatalogUnreadableBackups "cellarman_backups_unreadable" Gauge Count
        "Backups in the archive whose record cannot be read, as last seen.";
    FirstRecoverable "cellarman_recovery_window_first_timestamp_seconds" Gauge Timestamp
        "The first moment that can be recovered to: the end of the first backup that has all of its WAL, on the newest timeline.";
    LastRecoverable "cellarman_recovery_window_last_timestamp_seconds" Gauge Timestamp
        "The last moment that can be recovered to, as far as the archive proves it without a gap behind the newest backup.";
    RecoveryWindowLag "cellarman_recovery_window_lag_seconds" Gauge Seconds
        "How long before the last look at the archive that moment was. It grows while nothing happens in the database.";
    RecoveryWindowMissingWal "cellarman_recovery_window_wal_segments_missing" Gauge Count
        "WAL segments missing behind the first backup of the newest timeline, as last seen: moments between a gap and the next backup cannot be recovered to.";
    RecoveryWindowCut "cellarman_recovery_window_cut" Gauge YesNo
        "Whether WAL is missing behind the newest backup, as last seen: recovery ends before it until there is another backup.";
    VerifyLastRun "cellarman_verify_last_run_timestamp_seconds" Gauge Timestamp
        "When the archive was last verified as a whole, by `cellarman verify`.";
    VerifiedBackups "cellarman_verify_backups" Gauge Count
        "Backups in the archive that its verification found sound.";
    VerifiedDamagedBackups "cellarman_verify_backups_damaged" Gauge Count
        "Backups in the archive that its verification found damaged.";
    VerifiedMissingWal "cellarman_verify_wal_segments_missing" Gauge Count
        "WAL segments that backups need and that its verification did not find.";
    StoreReachable "cellarman_store_reachable" Gauge YesNo
        "Whether the object store answered when it was last asked by maintenance or a backup.";

    ProcessStart "cellarman_process_start_timestamp_seconds" Gauge Timestamp
        "When this sidecar started.";
    ProcessResidentBytes "cellarman_process_resident_memory_bytes" Gauge Bytes
        "The memory that this sidecar holds.";
}

/// A duration that is counted by size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timing {
    /// From the request to archive a WAL file to its answer, of those that succeed.
    WalArchive,
    /// From the request for a WAL file to its answer, of those that succeed.
    WalRestore,
}

impl Timing {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::WalArchive, Self::WalRestore];

    /// What its three names begin with.
    pub fn name(self) -> &'static str {
        match self {
            Self::WalArchive => "cellarman_wal_archive_duration_seconds",
            Self::WalRestore => "cellarman_wal_restore_duration_seconds",
        }
    }

    fn help(self) -> [&'static str; 3] {
        match self {
            Self::WalArchive => [
                "WAL files archived within so many seconds.",
                "Seconds that archiving WAL files took, all together.",
                "WAL files whose archiving was timed.",
            ],
            Self::WalRestore => [
                "WAL files given to the server within so many seconds.",
                "Seconds that giving WAL files to the server took, all together.",
                "WAL files given to the server that were timed.",
            ],
        }
    }

    fn definitions(self) -> [Definition; 3] {
        let name = self.name();
        let [bucket, sum, count] = self.help();
        let one = |suffix, unit, labels, help| Definition {
            name: format!("{name}_{suffix}"),
            metric_type: MetricType::Counter,
            unit,
            labels,
            help,
        };
        [
            one("bucket", Unit::Count, &["le"], bucket),
            one("sum", Unit::Seconds, &[], sum),
            one("count", Unit::Count, &[], count),
        ]
    }
}

/// The bounds of durations: as seconds, and as the label says it. `+Inf` follows.
pub const BUCKETS: [(f64, &str); 12] = [
    (0.005, "0.005"),
    (0.01, "0.01"),
    (0.025, "0.025"),
    (0.05, "0.05"),
    (0.1, "0.1"),
    (0.25, "0.25"),
    (0.5, "0.5"),
    (1.0, "1"),
    (2.5, "2.5"),
    (5.0, "5"),
    (15.0, "15"),
    (60.0, "60"),
];

/// Says which program answers: always 1.
pub const BUILD_INFO: &str = "cellarman_build_info";

/// All metrics, in the order of the table.
pub fn definitions() -> Vec<Definition> {
    let plain = Metric::ALL.iter().map(|metric| metric.definition());
    let timings = Timing::ALL.into_iter().flat_map(Timing::definitions);
    let build = Definition {
        name: BUILD_INFO.to_owned(),
        metric_type: MetricType::Gauge,
        unit: Unit::YesNo,
        labels: &["version"],
        help: "Always 1: the label says which version this is.",
    };
    plain.chain(timings).chain([build]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_their_unit_and_each_is_there_once() {
        let definitions = definitions();
        for (index, one) in definitions.iter().enumerate() {
            let name = one.name.as_str();
            assert!(
                definitions[..index].iter().all(|other| other.name != name),
                "{name}"
            );
            if name.starts_with("barman_cloud_") {
                continue;
            }
            let stem = name.strip_suffix("_total").unwrap_or(name);
            let is_named = match one.unit {
                Unit::Bytes => stem.ends_with("_bytes"),
                Unit::Seconds => stem.ends_with("_seconds") || stem.ends_with("_seconds_sum"),
                Unit::Timestamp => stem.ends_with("_timestamp_seconds"),
                Unit::Count | Unit::YesNo => true,
            };
            assert!(is_named, "{name}");
            let is_total = name.ends_with("_total") || name.contains("_duration_seconds_");
            assert_eq!(is_total, one.metric_type == MetricType::Counter, "{name}");
            assert!(one.help.ends_with('.'), "{name}");
        }
    }
}
