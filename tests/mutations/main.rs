//! No reader panics on damaged files, and none takes what it cannot write again: files that
//! PostgreSQL, Barman and `pg_basebackup` wrote, flipped, cut, spliced, doubled.
//!
//! `CELLARMAN_SEED` repeats a run. Fuzzing reaches further, without the real files' shape:
//! see `fuzz/`.
#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail the test, and say which seed repeats it"
)]

mod damage;
mod wal;

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use cellarman::barman::backup_info::BackupInfo;
use cellarman::barman::layout::Layout;
use cellarman::barman::literal::Literal;
use cellarman::barman::stored_objects::StoredObjects;
use cellarman::codec::Codec;
use cellarman::codec::compress::Compressor;
use cellarman::codec::decompress::decompressor;
use cellarman::config::{self, Source};
use cellarman::domain::timeline::TimelineId;
use cellarman::pgfile::backup_label::BackupLabel;
use cellarman::pgfile::control::{CHECKSUM_OFFSETS, ControlFile};
use cellarman::pgfile::data_page;
use cellarman::pgfile::history;
use cellarman::pgfile::manifest::ManifestBuilder;
use cellarman::pgfile::manifest_reader;
use cellarman::pgfile::wal::page::SegmentHeader;
use cellarman::service::restore::trial;
use proptest::prelude::*;

use crate::damage::check;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/postgresql");
    let bytes = fs::read(folder.join(name)).expect("a fixture");
    if name.strip_suffix(".zst").is_some() {
        return zstd::decode_all(bytes.as_slice()).expect("a fixture");
    }
    bytes
}

fn fixtures(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| fixture(name)).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const BACKUP_INFO: &[u8] = include_bytes!("../../src/barman/backup_info/barman-3.19.info");

#[test]
fn a_damaged_backup_info_is_refused_or_reads_as_it_is_written() {
    check(
        "backup.info",
        (2_000, 50_000),
        &[BACKUP_INFO.to_vec()],
        |bytes| {
            if let Ok(info) = BackupInfo::parse(&text(bytes)) {
                let _ = info.to_backup(&"20261121T054347".parse().expect("an id"));
                let written = info.to_text();
                let read = BackupInfo::parse(&written).map(|read| read.to_text());
                prop_assert_eq!(read, Ok(written));
            }
            Ok(())
        },
    );
}

#[test]
fn a_damaged_literal_is_refused_or_reads_as_it_is_written() {
    let real = text(BACKUP_INFO);
    let values = real.lines().filter_map(|line| line.split_once('='));
    let values: Vec<Vec<u8>> = values.map(|(_, value)| value.into()).collect();
    check("literal", (5_000, 100_000), &values, |bytes| {
        if let Ok(literal) = Literal::parse(&text(bytes)) {
            prop_assert_eq!(Literal::parse(&literal.to_string()), Ok(literal));
        }
        Ok(())
    });
}

#[test]
fn damaged_wal_is_refused_or_read() {
    let names = [
        "wal-13",
        "wal-15",
        "wal-15-timeline-2",
        "wal-17",
        "wal-18-4-MiB",
    ];
    let files = fixtures(&names);
    check("WAL", (5_000, 100_000), &files, |bytes| {
        if let Ok(header) = SegmentHeader::parse(bytes) {
            let _ = header.version();
            let _ = header.belongs_to("000000010000000000000001".parse().expect("a name"));
        }
        Ok(())
    });
}

#[test]
fn a_damaged_name_is_no_wal_file_or_reads_as_it_is_written() {
    let names = [
        "000000010000000000000002.gz",
        "00000002000000010000000A.partial.zst",
        "000000010000000000000002.00000028.backup",
        "00000003.history.lz4",
    ];
    let names: Vec<Vec<u8>> = names.iter().map(|&name| name.into()).collect();
    check("WAL name", (5_000, 100_000), &names, |bytes| {
        if let Some((name, codec)) = Layout::parse_wal(&text(bytes)) {
            let written = format!("{name}{}", codec.suffix());
            prop_assert_eq!(Layout::parse_wal(&written), Some((name, codec)));
        }
        Ok(())
    });
}

#[test]
fn a_damaged_control_file_is_refused_or_read() {
    let names = [
        "pg_control-13",
        "pg_control-15",
        "pg_control-15-shut-down",
        "pg_control-15-standby",
        "pg_control-17",
        "pg_control-18",
    ];
    check("pg_control", (5_000, 100_000), &fixtures(&names), |bytes| {
        let _ = ControlFile::parse(bytes);
        // What lies behind a checksum is met only when that is right.
        for (_, offset) in CHECKSUM_OFFSETS {
            let mut bytes = bytes.to_vec();
            if bytes.len() >= offset + 4 {
                let checksum = crc32c::crc32c(&bytes[..offset]).to_le_bytes();
                bytes[offset..offset + 4].copy_from_slice(&checksum);
                let _ = ControlFile::parse(&bytes);
            }
        }
        Ok(())
    });
}

#[test]
fn a_damaged_backup_label_is_refused_or_read() {
    let names = [
        "backup_label-13",
        "backup_label-15",
        "backup_label-15-standby",
        "backup_label-17",
        "backup_label-18",
        "000000010000000000000002.00000028.backup",
    ];
    check(
        "backup_label",
        (5_000, 100_000),
        &fixtures(&names),
        |bytes| {
            let _ = BackupLabel::parse(&text(bytes));
            Ok(())
        },
    );
}

#[test]
fn a_damaged_history_is_refused_or_reads_as_it_is_written() {
    let files = fixtures(&[
        "00000003.history",
        "00000002.history-13",
        "00000002.history-17",
    ]);
    check("history", (5_000, 100_000), &files, |bytes| {
        let timeline = TimelineId::new(3).expect("a timeline");
        if let Ok(line) = history::parse(timeline, &text(bytes)) {
            let again = history::parse(timeline, &history::print(&line));
            prop_assert_eq!(again, Ok(line));
        }
        Ok(())
    });
}

#[test]
fn a_damaged_backup_manifest_is_refused_or_reads_as_it_is_written() {
    let names = [
        "backup_manifest-13.zst",
        "backup_manifest-15.zst",
        "backup_manifest-17.zst",
        "backup_manifest-18.zst",
    ];
    check(
        "backup_manifest",
        (150, 3_000),
        &fixtures(&names),
        |bytes| {
            let mut files = Vec::new();
            if manifest_reader::read(bytes, |file| files.push(file)).is_ok() {
                let mut builder = ManifestBuilder::new(2, 7).expect("in memory");
                for file in &files {
                    let added = builder.add_file(&file.path, file.size, 0, 0);
                    added.expect("in memory");
                }
                let written = builder.finish(&[]).expect("in memory");
                let mut again = Vec::new();
                let read = manifest_reader::read(written, |file| again.push(file));
                prop_assert!(read.is_ok(), "{:?}", read);
                prop_assert_eq!(again, files);
            }
            Ok(())
        },
    );
}

#[test]
fn a_damaged_page_is_judged() {
    let names = [
        "page-15-btree-3",
        "page-15-fsm-2",
        "page-15-gin-10",
        "page-15-heap-100",
        "page-18-heap-7",
    ];
    check("page", (1_000, 20_000), &fixtures(&names), |bytes| {
        let mut page = bytes.to_vec();
        page.resize(8_192, 0);
        let _ = data_page::verify(&page, 100);
        Ok(())
    });
}

const STORED_OBJECTS: &str = r#"{"objects": [
  {"name": "data.tar.gz", "size": 3145728, "blake3": "af1349b9f5f9a1a6", "tar_bytes": 24524800},
  {"name": "16384.tar.gz", "size": 20480, "blake3": "af1349b9f5f9a1a6", "tar_bytes": 20480}],
  "damaged": [{"path": "base/5/16391", "blocks": [100, 101]}]}"#;

#[test]
fn a_damaged_record_of_objects_is_refused_or_read() {
    let files = [STORED_OBJECTS.into()];
    check("objects.json", (5_000, 50_000), &files, |bytes| {
        if let Ok(objects) = StoredObjects::parse(bytes) {
            let again = objects
                .to_json()
                .and_then(|json| StoredObjects::parse(&json));
            prop_assert_eq!(again.ok(), Some(objects));
        }
        Ok(())
    });
}

const STORE_MANIFEST: &str = "apiVersion: barmancloud.cnpg.io/v1
kind: ObjectStore
metadata: {name: main}
spec:
  configuration:
    destinationPath: s3://backups/production
    endpointURL: https://s3.example.com
    s3Credentials:
      accessKeyId: {name: s3, key: id}
      secretAccessKey: {name: s3, key: secret}
    wal: {compression: zstd, maxParallel: 4, encryption: AES256}
    data: {compression: lz4, jobs: 2, immediateCheckpoint: true}
    tags: {team: databases}
    historyTags: {team: databases}
  retentionPolicy: 30d
---
apiVersion: v1
kind: Secret
metadata: {name: s3}
stringData: {id: some-id, secret: some-secret}
";

#[test]
fn a_damaged_store_manifest_is_refused_or_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.yaml");
    let files = [STORE_MANIFEST.into()];
    check("ObjectStore", (500, 20_000), &files, |bytes| {
        fs::write(&path, bytes).expect("a file");
        if let Err(error) = config::load(&Source::File(path.clone()), &|_| None) {
            prop_assert!(!error.to_string().contains("some-secret"), "{}", error);
        }
        Ok(())
    });
}

#[test]
fn a_damaged_tar_is_refused_or_unpacked_and_nothing_lands_outside() {
    let names = ["base-15-pg_basebackup.tar.zst", "base-15-barman.tar.zst"];
    for (name, is_pgdata) in [("tar", true), ("tar of a tablespace", false)] {
        let mut files = fixtures(&["16384-15-barman.tar.zst"]);
        if is_pgdata {
            files = fixtures(&names);
        }
        check(name, (150, 5_000), &files, |bytes| {
            let outside = tempfile::tempdir().expect("a directory");
            let inside = outside.path().join("inside");
            fs::create_dir(&inside).expect("a directory");
            let _ = trial::unpack(bytes, &inside, is_pgdata);
            let entries = fs::read_dir(outside.path()).expect("a directory");
            prop_assert_eq!(entries.count(), 1, "something landed outside");
            Ok(())
        });
    }
}

#[test]
fn the_real_tars_are_unpacked() {
    for (name, is_pgdata, files) in [
        ("base-15-pg_basebackup.tar.zst", true, 10),
        ("base-15-barman.tar.zst", true, 10),
        ("16384-15-barman.tar.zst", false, 1),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let unpacked = trial::unpack(fixture(name).as_slice(), directory.path(), is_pgdata);
        assert!(
            unpacked.clone().is_ok_and(|count| count >= files),
            "{name}: {unpacked:?}"
        );
    }
}

#[test]
fn damaged_objects_are_refused_or_read_to_what_a_reader_bears() {
    let raw = fixture("base-15-pg_basebackup.tar.zst");
    for codec in Codec::ALL {
        let compression = codec.as_str().parse().expect("a codec");
        let mut compressor = Compressor::new(Vec::new(), compression).expect("a compressor");
        io::copy(&mut raw.as_slice(), &mut compressor).expect("it compresses");
        let stored = compressor.finish().expect("it compresses");
        check(codec.as_str(), (100, 5_000), &[stored], |bytes| {
            let read = decompressor(bytes, codec)
                .and_then(|reader| io::copy(&mut reader.take(1 << 20), &mut io::sink()));
            drop(read);
            Ok(())
        });
    }
}
