//! What a restore brings back is what was there: each kind of target, checked row by row.
//!
//! Timelines and standbys are in `timelines.rs`.

use std::ops::RangeInclusive;

use testbed::cluster::{Cluster, Release};
use testbed::workload::{self, Workload};
use testbed::world::World;
use testbed::{or_not_run, report};

/// A recovery and the transactions it must bring back.
struct Case {
    name: &'static str,
    options: Vec<String>,
    expected: RangeInclusive<u64>,
}

fn case(name: &'static str, options: &[&str], expected: RangeInclusive<u64>) -> Case {
    Case {
        name,
        options: options.iter().map(|&option| option.to_owned()).collect(),
        expected,
    }
}

/// A pair of cases around the commit of transaction `n`: with it, and without it.
fn around(names: [&'static str; 2], option: &str, value: &str, n: u64) -> [Case; 2] {
    [
        case(names[0], &[option, value], n..=n),
        case(names[1], &[option, value, "--exclusive"], n - 1..=n - 1),
    ]
}

#[test]
fn each_target_brings_back_its_rows_on_the_distributions_postgresql() {
    let world = or_not_run!(World::new(
        env!("CARGO_BIN_EXE_cellarman"),
        Release::distribution()
    ));
    check_targets(&world, &["-k"], &ALL);
}

#[test]
fn each_target_brings_back_its_rows_on_postgresql_18() {
    let world = or_not_run!(World::new(
        env!("CARGO_BIN_EXE_cellarman"),
        Release::eighteen()
    ));
    // Small segments: the archive goes through many files, and crosses from one to the next.
    check_targets(&world, &["--wal-segsize=1"], &ALL);
}

#[test]
fn targets_bring_back_their_rows_on_postgresql_13() {
    let world = or_not_run!(World::new(
        env!("CARGO_BIN_EXE_cellarman"),
        Release::other_debian(13)
    ));
    check_targets(&world, &["-k"], some_unless_full());
}

#[test]
fn targets_bring_back_their_rows_on_postgresql_17() {
    let world = or_not_run!(World::new(
        env!("CARGO_BIN_EXE_cellarman"),
        Release::other_debian(17)
    ));
    check_targets(&world, &["--wal-segsize=64"], some_unless_full());
}

/// The other tests have `pg_verifybackup` judge every restore where there is one: this one says so
/// when there is none for 18.
#[test]
fn pg_verifybackup_of_postgresql_18_finds_a_restore_whole() {
    let release = or_not_run!(Release::eighteen());
    or_not_run!(release.needed_tool("pg18client", "pg_verifybackup"));
    let world = or_not_run!(World::new(env!("CARGO_BIN_EXE_cellarman"), Ok(release)));
    let primary = world.primary(&[]);
    world.back_up(&primary, &[]);
    primary.archive_now();
    world.restore("judged", &[]);
}

/// The cases checked on every version.
const SOME: [&str; 3] = ["immediate", "time-exclusive", "end"];
const ALL: [&str; 9] = [
    "immediate",
    "time",
    "time-exclusive",
    "xid",
    "xid-exclusive",
    "lsn",
    "lsn-exclusive",
    "name",
    "end",
];

fn some_unless_full() -> &'static [&'static str] {
    if report::is_full() { &ALL } else { &SOME }
}

fn check_targets(world: &World, initdb: &[&str], names: &[&str]) {
    let primary = world.primary(initdb);
    // Gives the exact time of a commit, which no clock read beside it can.
    primary.configure("track_commit_timestamp = on");
    primary.stop();
    primary.start();
    let workload = Workload::start(&primary);
    workload.advance(100);
    let before = *workload.hold();
    world.back_up(&primary, &[]);
    let after = *workload.hold();
    let mut cases = vec![case("immediate", &["--target-immediate"], before..=after)];
    cases.extend(mark(&primary, &workload));
    workload.advance(50);
    let end = workload.stop();
    primary.archive_now();
    cases.push(case("end", &[], end..=end));
    assert!(cases.iter().all(|case| ALL.contains(&case.name)));
    for name in names {
        let case = cases.iter().find(|case| case.name == *name);
        check(world, case.expect("a case of that name"));
    }
}

/// Marks each kind of target under load, some transactions apart.
fn mark(primary: &Cluster, workload: &Workload) -> Vec<Case> {
    let sql = primary.sql();
    let mut cases = Vec::new();

    let (n, xid) = commit_next(primary, workload, "SELECT pg_current_xact_id()");
    let time = sql.value(&format!("SELECT pg_xact_commit_timestamp('{xid}'::xid)"));
    cases.extend(around(
        ["time", "time-exclusive"],
        "--target-time",
        &time,
        n,
    ));

    let (n, xid) = commit_next(primary, workload, "SELECT pg_current_xact_id()");
    cases.extend(around(["xid", "xid-exclusive"], "--target-xid", &xid, n));

    // Where the next record will begin: the commit itself.
    let (n, lsn) = commit_next(primary, workload, "SELECT pg_current_wal_insert_lsn()");
    cases.extend(around(["lsn", "lsn-exclusive"], "--target-lsn", &lsn, n));

    workload.advance(50);
    let held = workload.hold();
    sql.run("SELECT pg_create_restore_point('noon')");
    cases.push(case("name", &["--target-name", "noon"], *held..=*held));
    cases
}

/// Commits the workload's next transaction with `question` as its last statement; its number and
/// the answer.
fn commit_next(primary: &Cluster, workload: &Workload, question: &str) -> (u64, String) {
    workload.advance(50);
    let mut held = workload.hold();
    *held += 1;
    let answer = primary.sql().value(&format!(
        "BEGIN; {} {question}; COMMIT",
        workload::statements(*held)
    ));
    (*held, answer)
}

fn check(world: &World, case: &Case) {
    let mut options: Vec<&str> = case.options.iter().map(String::as_str).collect();
    if !options.is_empty() {
        options.extend(["--target-action", "promote"]);
    }
    eprintln!("{}: {options:?} must give {:?}", case.name, case.expected);
    let restored = world.restore(case.name, &options);
    restored.start_with(&["archive_mode=off"]);
    restored.wait_until_recovered();
    let found = workload::verify(&restored.sql());
    assert!(
        case.expected.contains(&found),
        "{}: {found} transactions came back, expected {:?}\n{}",
        case.name,
        case.expected,
        restored.log()
    );
}
