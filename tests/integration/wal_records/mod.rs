//! The reader of the WAL against `pg_waldump` of the same version, record for record, on logs made
//! awkward on purpose: edges of pages and segments, subtransactions, two-phase commit, compressed
//! images, crashes, switches and promotions.

mod load;
mod ours;
mod summaries;
mod waldump;

use std::fs;
use std::path::{Path, PathBuf};

use cellarman::pgfile::wal::stop::SegmentEnd;
use testbed::account::Account;
use testbed::cluster::{Cluster, Release};
use testbed::or_not_run;
use testbed::process;
use testbed::report;
use testbed::scratch::Scratch;
use testbed::wait;

use crate::wal_records::ours::{Read, Segment, read_alone, read_in_a_row};

#[test]
fn records_are_those_of_pg_waldump_on_postgresql_13() {
    let release = or_not_run!(Release::other_debian(13));
    let waldump = or_not_run!(waldump_of(&release));
    check_sizes(&release, &waldump, 1);
}

#[test]
fn records_are_those_of_pg_waldump_on_postgresql_18() {
    let release = or_not_run!(Release::eighteen());
    let waldump = or_not_run!(waldump_of(&release));
    check_sizes(&release, &waldump, 16);
}

#[test]
fn records_are_those_of_pg_waldump_on_the_distributions_postgresql() {
    if report::is_full() {
        let release = or_not_run!(Release::distribution());
        let waldump = or_not_run!(waldump_of(&release));
        check_sizes(&release, &waldump, 16);
    }
}

#[test]
fn records_are_those_of_pg_waldump_on_postgresql_14() {
    if report::is_full() {
        let release = or_not_run!(Release::other_debian(14));
        let waldump = or_not_run!(waldump_of(&release));
        check_sizes(&release, &waldump, 16);
    }
}

#[test]
fn records_are_those_of_pg_waldump_on_postgresql_16() {
    if report::is_full() {
        let release = or_not_run!(Release::other_debian(16));
        let waldump = or_not_run!(waldump_of(&release));
        check_sizes(&release, &waldump, 16);
    }
}

#[test]
fn records_are_those_of_pg_waldump_on_postgresql_17() {
    if report::is_full() {
        let release = or_not_run!(Release::other_debian(17));
        let waldump = or_not_run!(waldump_of(&release));
        check_sizes(&release, &waldump, 16);
    }
}

fn waldump_of(release: &Release) -> Result<PathBuf, String> {
    let client = if release.major == 18 { "client" } else { "" };
    release.needed_tool(&format!("pg{}{client}", release.major), "pg_waldump")
}

/// With segments of `reduced` MiB, or in a full run of each size.
fn check_sizes(release: &Release, waldump: &Path, reduced: u32) {
    let all = [1, 16, 64];
    for mebibytes in all {
        if report::is_full() || mebibytes == reduced {
            eprintln!("PostgreSQL {}, {mebibytes} MiB", release.major);
            check(release, waldump, mebibytes);
        }
    }
}

const SETTINGS: &str = "
autovacuum = off
wal_level = logical
wal_keep_size = 4GB
max_wal_size = 4GB
max_prepared_transactions = 20
track_commit_timestamp = on
";

fn check(release: &Release, waldump: &Path, mebibytes: u32) {
    let account = Account::of_servers().expect("an account");
    let scratch = Scratch::new(account);
    let size = format!("--wal-segsize={mebibytes}");
    let primary = Cluster::create(release, &scratch, "primary", &[&size, "-k"]);
    primary.configure(SETTINGS);
    primary.start();
    load::mix(&primary.sql());
    lose_the_end_of_a_record(&primary);
    let standby = copy(release, &scratch, &primary);
    load::mix(&primary.sql());
    promote(&primary, &standby);
    load::mix(&standby.sql());
    let checkpoint = load::checkpoint(&standby.sql());
    let compressions = load::compressions(&standby.sql());
    standby.stop();
    let first = compare(waldump, &primary, 1);
    let second = compare(waldump, &standby, 2);
    let checkpoints: Vec<&String> = second
        .iter()
        .filter_map(|read| read.checkpoint.as_ref())
        .collect();
    // The last one is that of the shutdown.
    assert_eq!(*checkpoints[checkpoints.len() - 2], checkpoint);
    for (records, timeline) in [(first, 1), (second, 2)] {
        check_awkwardness(&records, timeline, &compressions);
    }
}

/// Crashes while a record goes over into the next segment, which is lost: the server then gives
/// the record up, and goes on where its rest would lie.
fn lose_the_end_of_a_record(primary: &Cluster) {
    let sql = primary.sql();
    sql.run("CHECKPOINT");
    let segment = load::cross_a_segment(&sql);
    primary.stop_at_once();
    let path = primary.directory().join("pg_wal").join(segment);
    fs::remove_file(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    primary.start();
}

/// A standby of the primary, from a copy of its files.
fn copy(release: &Release, scratch: &Scratch, primary: &Cluster) -> Cluster {
    primary.stop();
    let directory = scratch.path().join("standby");
    let mut cp = std::process::Command::new("cp");
    process::run(cp.arg("-a").arg(primary.directory()).arg(&directory)).ok();
    primary.start();
    let standby = Cluster::adopt(release, scratch, "standby", directory);
    standby.follow(primary);
    standby.start();
    standby
}

fn promote(primary: &Cluster, standby: &Cluster) {
    let position = primary.sql().value("SELECT pg_current_wal_flush_lsn()");
    let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
    let sql = standby.sql();
    wait::until_true("the standby to follow", || sql.value(&caught_up) == "t");
    primary.stop();
    standby.promote();
}

/// The segments of a timeline that have been written to, in order.
fn segments(cluster: &Cluster, timeline: u32) -> Vec<Segment> {
    let folder = cluster.directory().join("pg_wal");
    let prefix = format!("{timeline:08X}");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a readable pg_wal")
        .map(|entry| entry.expect("a readable pg_wal").path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.len() == 24 && name.starts_with(&prefix))
        })
        .collect();
    paths.sort();
    let read = paths.iter().map(|path| Segment::read(path));
    // The server makes files before it needs them.
    read.filter(|segment| segment.bytes[0] != 0).collect()
}

/// Compares a timeline's records; what they are.
fn compare(waldump: &Path, cluster: &Cluster, timeline: u32) -> Vec<Read> {
    let segments = segments(cluster, timeline);
    let (first, last) = (&segments[0].path, &segments[segments.len() - 1].path);
    let theirs = waldump::rows(waldump, first, last);
    let (records, end) = read_in_a_row(&segments);
    for (index, (ours, theirs)) in records.iter().zip(&theirs).enumerate() {
        assert_eq!(ours.row, *theirs, "record {index} of timeline {timeline}");
    }
    assert_eq!(records.len(), theirs.len(), "timeline {timeline}");
    assert!(!matches!(end, SegmentEnd::Broken(_)), "{end:?}");
    summaries::check(&segments, &records);
    for segment in &segments {
        let alone = read_alone(segment);
        let Some(first) = alone.first() else { continue };
        let begin = records.iter().position(|read| read.row == first.row);
        let begin = begin.unwrap_or_else(|| panic!("{}: {first:?}", segment.path.display()));
        for (alone, row) in alone.iter().zip(&records[begin..]) {
            assert_eq!(alone.row, row.row, "{}", segment.path.display());
        }
    }
    let (count, files) = (records.len(), segments.len());
    eprintln!("timeline {timeline}: {count} records in {files} segments");
    records
}

/// The log is one that this test is meant for: records begin and end at each kind of edge.
fn check_awkwardness(records: &[Read], timeline: u32, compressions: &str) {
    const PAGE: u64 = 8192;
    for left in [0, 8, 16, 24, 32, 40, 48] {
        let is_there = records.iter().any(|read| {
            let end = read.end % PAGE;
            end == (PAGE - left) % PAGE && read.begin / PAGE != (read.end + left) / PAGE
        });
        assert!(
            is_there,
            "no record of timeline {timeline} ends {left} bytes before a page"
        );
    }
    let kind = if timeline == 1 {
        "OVERWRITE_CONTRECORD"
    } else {
        "END_OF_RECOVERY"
    };
    let mut texts = vec![kind, "RESTORE_POINT", "SWITCH", "ASSIGNMENT", "PREPARE gid"];
    texts.extend([
        "COMMIT_PREPARED",
        "ABORT_PREPARED",
        "; subxacts:",
        "; rels:",
        "; origin:",
    ]);
    texts.extend(["(FPW for WAL verification)", "compression saved"]);
    let methods: Vec<String> = compressions
        .split(' ')
        .filter(|kind| !matches!(*kind, "on" | "off"))
        .map(|kind| format!("method: {kind}"))
        .collect();
    texts.extend(methods.iter().map(String::as_str));
    for text in texts {
        let is_there = records.iter().any(|read| read.row.contains(text));
        assert!(is_there, "no {text} on timeline {timeline}");
    }
}
