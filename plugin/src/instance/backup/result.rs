//! What the operator is told of a backup that was taken.
//!
//! The keys of the metadata are those of plugin-barman-cloud, and others that say in which archive
//! the backup lies. Not here: the record in the archive.

use std::collections::HashMap;

use bytes::Bytes;
use cellarman::cnpgi::backup::BackupResult;
use cellarman::domain::timeline::TimelineId;
use cellarman::service::base_backup::BackupReport;

use crate::archives::OpenArchive;
use crate::instance::Context;
use crate::instance::backup::request::Wanted;

/// The ObjectStore that a backup is in.
pub const OBJECT_STORE_KEY: &str = "objectStore";
/// The server's folder in it.
pub const SERVER_KEY: &str = "serverName";
/// The plugin of a backup in the Cluster's own archive.
pub const PLUGIN_KEY: &str = "pluginName";
/// The plugin of a backup in another archive. Under another key: plugin-barman-cloud takes the
/// Backups of its name for its own, looks for all of them in one archive, and deletes those that
/// it does not find there.
pub const PLUGIN_ELSEWHERE_KEY: &str = "pluginNameElsewhere";
/// Says `false` of a backup that did not wait for its WAL: whether that is archived is not known.
const WAL_AWAITED_KEY: &str = "waitedForArchive";
/// Where the ObjectStore led to at the time.
pub const DESTINATION_KEY: &str = "destinationPath";

/// The result.
pub(super) fn of(
    wanted: &Wanted,
    archive: &OpenArchive,
    report: &BackupReport,
    context: &Context,
) -> BackupResult {
    let info = &report.info;
    let text = |value: Option<String>| value.unwrap_or_default();
    let seconds = |time: Option<i64>| time.unwrap_or_default();
    BackupResult {
        backup_id: report.id.to_string(),
        backup_name: wanted.backup_name.clone(),
        started_at: seconds(info.begin_time.map(|time| time.timestamp())),
        stopped_at: seconds(info.end_time.map(|time| time.timestamp())),
        begin_wal: text(info.begin_wal.map(|wal| wal.to_string())),
        end_wal: text(info.end_wal.map(|wal| wal.to_string())),
        begin_lsn: text(info.begin_xlog.map(|lsn| lsn.to_string())),
        end_lsn: text(info.end_xlog.map(|lsn| lsn.to_string())),
        backup_label_file: text(info.backup_label.clone()).into(),
        // It is in the backup, and no reader of this field wants it for a plugin's backup.
        tablespace_map_file: Bytes::new(),
        instance_id: context.pod_name.clone(),
        online: true,
        metadata: metadata(wanted, archive, report, context),
    }
}

fn metadata(
    wanted: &Wanted,
    archive: &OpenArchive,
    report: &BackupReport,
    context: &Context,
) -> HashMap<String, String> {
    let timeline = report.info.timeline.map_or(0, TimelineId::to_u32);
    let is_own = wanted.own.as_ref() == Some(&archive.reference);
    let plugin_key = if is_own {
        PLUGIN_KEY
    } else {
        PLUGIN_ELSEWHERE_KEY
    };
    let pairs = [
        ("timeline", timeline.to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("name", context.plugin_name.clone()),
        ("displayName", "BarmanCloudInstance".to_owned()),
        ("clusterUID", wanted.cluster.metadata.uid.clone()),
        (plugin_key, context.plugin_name.clone()),
        (OBJECT_STORE_KEY, archive.reference.object_store.clone()),
        (SERVER_KEY, archive.reference.server.clone()),
        (DESTINATION_KEY, archive.settings.destination.url.clone()),
    ];
    let mut metadata = HashMap::from(pairs.map(|(key, value)| (key.to_owned(), value)));
    if !wanted.waits_for_wal() {
        metadata.insert(WAL_AWAITED_KEY.to_owned(), "false".to_owned());
    }
    metadata
}
