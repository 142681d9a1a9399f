//! A backup's record at each of its stages, as values.
//!
//! Not here: when it is written.

use std::time::Duration;

use crate::barman::backup_info::BackupInfo;
use crate::barman::literal::Literal;
use crate::domain::backup::{BackupStatus, Tablespace};
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::TimelineId;
use crate::postgres::facts::{BackupBegin, BackupEnd};
use crate::service::base_backup::prepare::Prepared;

/// How much of an error's text a record takes.
const ERROR_CHARACTERS_MAX: usize = 1000;

/// The first record: all that is known before the backup begins on the server.
pub(super) fn started(prepared: &Prepared) -> BackupInfo {
    let settings = &prepared.settings;
    let path = |path: &Option<std::path::PathBuf>| {
        path.as_ref()
            .map(|path| path.to_string_lossy().into_owned())
    };
    let word = |is_on: bool| if is_on { "on" } else { "off" }.to_owned();
    let included = prepared.included_files.clone();
    let mut info = BackupInfo {
        cluster_size: prepared.cluster_size,
        config_file: path(&settings.config_file),
        data_checksums: Some(word(settings.has_data_checksums)),
        hba_file: path(&settings.hba_file),
        ident_file: path(&settings.ident_file),
        included_files: Some(included).filter(|files| !files.is_empty()),
        pgdata: path(&settings.data_directory),
        server_name: Some("cloud".to_owned()),
        status: BackupStatus::Started,
        summarize_wal: settings.summarize_wal.map(word),
        systemid: Some(prepared.control.system_id),
        version: Some(settings.version_number),
        xlog_segment_size: settings.segment_size,
        ..BackupInfo::default()
    };
    set_tablespaces(&mut info, &prepared.tablespaces);
    info
}

/// Names the tablespaces that the backup takes.
pub(super) fn set_tablespaces(info: &mut BackupInfo, tablespaces: &[Tablespace]) {
    info.tablespaces = Some(tablespaces.to_vec()).filter(|tablespaces| !tablespaces.is_empty());
}

/// Adds where the backup begins.
pub(super) fn set_begin(info: &mut BackupInfo, begin: &BackupBegin, timeline: TimelineId) {
    let size = info.xlog_segment_size;
    info.begin_time = Some(begin.time);
    info.begin_xlog = Some(begin.lsn);
    info.begin_wal = segment(begin.lsn, timeline, size);
    info.begin_offset = Some(begin.lsn.to_u64() % size.bytes());
    info.timeline = Some(timeline);
}

/// Makes the record that of a whole backup.
pub(super) fn set_done(info: &mut BackupInfo, end: &BackupEnd, timeline: TimelineId) {
    let size = info.xlog_segment_size;
    info.backup_label = Some(end.label.clone());
    info.end_time = Some(end.time);
    info.end_xlog = Some(end.lsn);
    info.end_wal = segment(end.lsn, timeline, size);
    info.end_offset = Some(end.lsn.to_u64() % size.bytes());
    info.error = None;
    info.status = BackupStatus::Done;
}

/// Makes the record that of a backup given up.
pub(super) fn set_failed(info: &mut BackupInfo, reason: &str) {
    info.error = Some(reason.chars().take(ERROR_CHARACTERS_MAX).collect());
    info.end_time = None;
    info.status = BackupStatus::Failed;
}

/// How long it took, in Barman's words. Items are not timed one by one: they are copied together.
pub(super) fn copy_stats(
    total: Duration,
    copy: Duration,
    workers: usize,
    items: &[String],
) -> Literal {
    let seconds = |duration: Duration| Literal::seconds(duration.as_secs_f64());
    let per_item = |duration: Duration| {
        let entries = items
            .iter()
            .map(|item| (Literal::text(item), seconds(duration)));
        Literal::Dict(entries.collect())
    };
    let none = per_item(Duration::ZERO);
    let workers = u64::try_from(workers).unwrap_or(u64::MAX);
    let entries = [
        ("total_time", seconds(total)),
        ("number_of_workers", Literal::integer(workers)),
        ("analysis_time", Literal::integer(0)),
        ("analysis_time_per_item", none),
        ("copy_time_per_item", per_item(copy)),
        ("serialized_copy_time_per_item", per_item(copy)),
        ("copy_time", seconds(copy)),
        ("serialized_copy_time", seconds(copy)),
    ];
    Literal::Dict(
        entries
            .into_iter()
            .map(|(key, value)| (Literal::text(key), value))
            .collect(),
    )
}

/// The segment that holds `lsn`, by plain division, as Barman names both ends.
fn segment(lsn: Lsn, timeline: TimelineId, size: SegmentSize) -> Option<SegmentName> {
    SegmentName::new(timeline, SegmentNumber::holding(lsn, size), size)
}
