//! The record's text, against what Barman wrote.
//!
//! `barman-3.19.info` was written by barman-cloud-backup 3.19.1 of a PostgreSQL 15.20.

use proptest::prelude::*;

use super::*;

const REAL: &str = include_str!("barman-3.19.info");

fn parse(text: &str) -> BackupInfo {
    BackupInfo::parse(text).unwrap()
}

#[test]
fn what_barman_wrote_is_written_back_byte_for_byte() {
    assert_eq!(parse(REAL).to_text(), REAL);
}

#[test]
fn what_barman_wrote_is_understood() {
    let id: BackupId = "20261121T054347".parse().unwrap();
    let backup = parse(REAL).to_backup(&id);
    let moment = |text: &str| DateTime::parse_from_rfc3339(text).unwrap();
    let tablespace = |name: &str, oid, location: &str| Tablespace {
        name: name.to_owned(),
        oid,
        location: location.to_owned(),
    };
    let segment = Some("000000010000000000000003".parse().unwrap());
    assert_eq!(
        backup,
        Backup {
            id,
            name: Some("bk one".to_owned()),
            status: BackupStatus::Done,
            kind: BackupKind::Full,
            begin_time: Some(moment("2026-11-21T05:43:47.841538Z")),
            end_time: Some(moment("2026-11-21T05:43:49.001483Z")),
            begin_lsn: Some(Lsn::new(0x0300_0028)),
            end_lsn: Some(Lsn::new(0x0300_0138)),
            begin_wal: segment,
            end_wal: segment,
            timeline: Some(TimelineId::FIRST),
            system_id: Some(SystemId(7_710_495_969_176_941_014)),
            version: Some(150_020),
            segment_size: SegmentSize::DEFAULT,
            tablespaces: vec![
                tablespace("tsone", 16384, "/srv/lab/ts1"),
                tablespace("ts Two", 16385, "/srv/lab/ts2"),
            ],
            cluster_size: Some(26_185_422),
            error: None,
        }
    );
    let label = parse(REAL).backup_label.unwrap();
    assert!(label.starts_with("START WAL LOCATION: 0/3000028 (file"));
    assert_eq!(label.lines().count(), 7);
}

#[test]
fn only_barmans_keys_are_written_in_order_and_hidden_ones_only_when_set() {
    let keys = |text: &str| -> Vec<String> {
        let key = |line: &str| line.split_once('=').unwrap().0.to_owned();
        text.lines().map(key).collect()
    };
    let mut expected = keys(REAL);
    expected.retain(|key| key != "backup_name");
    assert_eq!(keys(&BackupInfo::default().to_text()), expected);
    let full = BackupInfo {
        backup_name: Some("n".to_owned()),
        snapshots_info: Some(Literal::Dict(Vec::new())),
        ..BackupInfo::default()
    };
    let keys = keys(&full.to_text());
    assert!(keys.is_sorted());
    assert_eq!(keys.len(), 35);
}

#[test]
fn missing_keys_take_defaults_and_foreign_lines_are_skipped() {
    let text = "\n# a=b, no line\n  status = DONE \r\nno_such_key=1\nversion=None\nbackup_name=a=b";
    let info = parse(text);
    let expected = BackupInfo {
        status: BackupStatus::Done,
        backup_name: Some("a=b".to_owned()),
        ..BackupInfo::default()
    };
    assert_eq!(info, expected);
    assert!(!info.to_text().contains("no_such_key"));
}

#[test]
fn a_failed_backup_is_written_without_its_end() {
    let failed = BackupInfo {
        status: BackupStatus::Failed,
        ..parse(REAL)
    };
    let text = failed.to_text();
    assert!(text.contains("\nend_time=None\n") && text.contains("\nstatus=FAILED\n"));
    assert_eq!(text.lines().count(), REAL.lines().count());
}

#[test]
fn the_variants_that_were_seen_are_read() {
    for (line, read) in [
        ("included_files=['/srv/a.conf', \"/b'c\"]", "included_files"),
        ("begin_time=2026-11-21 11:38:57.088652+05:30", "begin_time"),
        ("end_time=2026-11-21T05:43:49+00:00", ""),
        ("end_time=Sat Nov 21 05:43:47 2026", ""),
        ("tablespaces=[]", "tablespaces"),
        ("tablespaces=[['a', '16384', '/a']]", ""),
        ("error=failure uploading data (KeyboardInterrupt)", "error"),
        ("status=WAITING_FOR_WALS", "status"),
        ("summarize_wal=on", "summarize_wal"),
        (
            "snapshots_info={'provider': 'aws', 'snapshots': [{'mount': {}}]}",
            "snapshots_info",
        ),
    ] {
        let text = parse(line).to_text();
        assert!(
            read.is_empty() || text.lines().any(|l| l == line),
            "{line}\n{text}"
        );
    }
}

#[test]
fn what_makes_no_sense_is_an_error_that_names_the_key() {
    for (text, part) in [
        ("status=DONE\nrubbish", "line 2"),
        ("status=FINE", "status"),
        ("timeline=0", "timeline"),
        ("begin_xlog=x", "begin_xlog"),
        ("end_wal=0", "end_wal"),
        ("end_time=soon", "end_time"),
        ("systemid=-1", "systemid"),
        ("xlog_segment_size=17", "xlog_segment_size"),
        ("tablespaces=[('a', 1)]", "tablespaces"),
        ("tablespaces=[('a', 4294967296, '/')]", "tablespaces"),
        ("included_files=[1]", "included_files"),
        ("copy_stats={", "copy_stats"),
        ("backup_label=5", "backup_label"),
    ] {
        let error = BackupInfo::parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn text_that_would_break_the_line_is_put_on_one() {
    let info = BackupInfo {
        error: Some("a\nstatus=DONE".to_owned()),
        backup_label: Some("x\ny".to_owned()),
        ..BackupInfo::default()
    };
    let read = parse(&info.to_text());
    assert_eq!(read.error.as_deref(), Some("a status=DONE"));
    assert_eq!(read.status, BackupStatus::Empty);
    assert_eq!(read.backup_label, info.backup_label);
}

/// Text as it stands in a line on its own.
fn any_text() -> impl Strategy<Value = Option<String>> {
    let text = "[!-~é]([ -~é]{0,20}[!-~é])?".prop_filter("null", |text| text != NULL);
    prop::option::of(text)
}

fn any_time() -> impl Strategy<Value = Option<DateTime<FixedOffset>>> {
    let moment = (0i64..4_000_000_000_000_000, -56i32..=56).prop_map(|(micros, quarters)| {
        let zone = FixedOffset::east_opt(quarters * 900).unwrap();
        DateTime::from_timestamp_micros(micros)
            .unwrap()
            .with_timezone(&zone)
    });
    prop::option::of(moment)
}

prop_compose! {
    fn any_tablespaces()(
        rows in prop::collection::vec((any::<String>(), any::<u32>(), any::<String>()), 0..3)
    ) -> Vec<Tablespace> {
        rows.into_iter()
            .map(|(name, oid, location)| Tablespace { name, oid, location })
            .collect()
    }
}

prop_compose! {
    fn any_info()(
        texts in prop::array::uniform12(any_text()),
        times in (any_time(), any_time()),
        numbers in prop::array::uniform6(prop::option::of(any::<u64>())),
        label in prop::option::of(any::<String>()),
        files in prop::option::of(prop::collection::vec(any::<String>(), 0..3)),
        tablespaces in prop::option::of(any_tablespaces()),
        shift in 20u32..=30,
        timeline in 0u32..,
        is_done: bool,
    ) -> BackupInfo {
        let [backup_name, error, pgdata, mode, config_file, hba_file, ident_file, server_name,
            compression, encryption, data_checksums, children_backup_ids] = texts;
        let [begin_offset, end_offset, cluster_size, size, deduplicated_size, xlog] = numbers;
        BackupInfo {
            backup_label: label,
            backup_name, error, pgdata, mode, config_file, hba_file, ident_file, server_name,
            compression, encryption, data_checksums, children_backup_ids,
            begin_offset, end_offset, cluster_size, size, deduplicated_size,
            begin_time: times.0,
            end_time: times.1,
            begin_xlog: xlog.map(Lsn::new),
            systemid: xlog.map(SystemId),
            timeline: TimelineId::new(timeline),
            included_files: files,
            tablespaces,
            status: if is_done { BackupStatus::Done } else { BackupStatus::Started },
            xlog_segment_size: SegmentSize::new(1 << shift).unwrap(),
            ..BackupInfo::default()
        }
    }
}

proptest! {
    #[test]
    fn records_read_as_they_are_written(info in any_info()) {
        prop_assert_eq!(BackupInfo::parse(&info.to_text()), Ok(info));
    }

    #[test]
    fn no_change_to_a_record_is_a_panic(
        at in 0..REAL.len(),
        length in 0usize..40,
        other in "[-=\n'\"\\[\\](){},0-9A-Za-z\\\\:+ é#]{0,20}",
    ) {
        let end = (at + length).min(REAL.len());
        let text = format!("{}{other}{}", &REAL[..at], &REAL[end..]);
        if let Ok(info) = BackupInfo::parse(&text) {
            // What could be read can be written, and is then the same.
            prop_assert!(BackupInfo::parse(&info.to_text()).is_ok());
        }
    }
}
