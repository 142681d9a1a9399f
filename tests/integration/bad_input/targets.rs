//! Targets that cannot be reached, and backups that are not there.

use std::path::Path;

use cellarman::fault::Kind;
use testbed::cluster::Cluster;
use testbed::or_not_run;
use testbed::workload::{self, Workload};
use testbed::world::{PATH, SERVER, World};

use crate::bad_input::{assert_refused, world};
use crate::bucket::Bucket;
use crate::crash::check_restored;

/// A restore with these options is refused before anything is made.
#[track_caller]
fn refuse(world: &World, options: &[&str], kind: Kind, words: &[&str]) {
    let call = world.restore_words("refused", options);
    let call: Vec<&str> = call.iter().map(String::as_str).collect();
    assert_refused(&world.cellarman.run(&call), kind, words);
    assert!(
        !world.place("refused").exists(),
        "{options:?}: a directory was made"
    );
    assert!(
        !world.place("refused.cold").exists(),
        "{options:?}: a directory was made"
    );
}

#[test]
fn targets_that_cannot_be_are_refused_by_name() {
    let world = or_not_run!(world());
    refuse(&world, &[], Kind::NotFound, &["there is no backup"]);
    let primary = world.primary(&["-k"]);
    let workload = Workload::start(&primary);
    workload.advance(20);
    world.back_up(&primary, &[]);
    let count = workload.stop();
    primary.archive_now();
    let unknown = "20200101T000000";
    for (options, kind, words) in [
        (
            &["--target-time", "2001-01-01"][..],
            Kind::Refused,
            ["2001-01-01", "earliest"],
        ),
        (
            &["--target-lsn", "0/100"],
            Kind::Refused,
            ["0/100", "earliest"],
        ),
        (
            &["--target-timeline", "9"],
            Kind::Refused,
            ["timeline 9", "holds"],
        ),
        (
            &["--backup-id", unknown],
            Kind::NotFound,
            [unknown, "backup list"],
        ),
        (
            &["--target-time", "tomorrow"],
            Kind::Usage,
            ["tomorrow", "--help"],
        ),
        (
            &["--target-lsn", "nowhere"],
            Kind::Usage,
            ["nowhere", "--help"],
        ),
        (&["--target-xid", "-1"], Kind::Usage, ["-1", "--help"]),
        (
            &["--target-timeline", "new"],
            Kind::Usage,
            ["new", "--help"],
        ),
        (
            &["--target-name", "a", "--target-xid", "5"],
            Kind::Usage,
            ["--target-xid", "--help"],
        ),
        (&["--tablespace", "hot=/x"], Kind::Usage, ["hot", "cold"]),
    ] {
        if kind == Kind::Usage && words[1] == "--help" {
            let call = world.restore_words("refused", options);
            let call: Vec<&str> = call.iter().map(String::as_str).collect();
            let ended = world.cellarman.run(&call);
            ended.exits_with(i32::from(Kind::Usage.exit_code()));
            let is_named = words.iter().all(|word| ended.stderr.contains(word));
            assert!(is_named, "{options:?}: {}", ended.describe());
            continue;
        }
        refuse(&world, options, kind, &words);
    }
    check_restored(&world, "restored", &[], count);
}

/// A server that cannot come to its target ends, and does not become a primary without it.
#[track_caller]
fn assert_stops_short(restored: &Cluster) {
    let ended = restored.try_start(&["archive_mode=off"]);
    let is_short = || {
        let log = restored.log();
        log.contains("recovery ended before configured recovery target was reached")
    };
    testbed::wait::until_true("the recovery to end", || {
        is_short() || !restored.directory().join("postmaster.pid").exists()
    });
    assert!(is_short(), "{}\n{}", ended.describe(), restored.log());
    assert!(
        !restored
            .log()
            .contains("database system is ready to accept connections\n")
    );
}

#[test]
fn a_target_that_never_was_ends_the_recovery_short_of_it() {
    let world = or_not_run!(world());
    let primary = world.primary(&["-k"]);
    let workload = Workload::start(&primary);
    workload.advance(20);
    world.back_up(&primary, &[]);
    workload.advance(20);
    workload.stop();
    primary.archive_now();
    for (name, target, words) in [
        (
            "position",
            ["--target-lsn", "FF/0"],
            ["FF/0", "behind the end of the archive"],
        ),
        (
            "late",
            ["--target-time", "2099-01-01 00:00:00"],
            ["2099-01-01", "after the last transaction in the archive"],
        ),
        (
            "point",
            ["--target-name", "never-made"],
            ["never-made", "nowhere in the log"],
        ),
        (
            "transaction",
            ["--target-xid", "999999"],
            ["999999", "nowhere in the log"],
        ),
    ] {
        refuse(&world, &target, Kind::Refused, &words);
        // And the refusal is right.
        let forced = [&target[..], &["--accept-gap"]].concat();
        let restored = world.restore(name, &forced);
        assert_stops_short(&restored);
    }
}

/// The first segment that the one backup needs, by its record.
fn begin_wal(world: &World) -> String {
    let bucket = Bucket::of(&world.store);
    let mut keys = bucket.list(&format!("{PATH}/{SERVER}/base/")).into_keys();
    let record = keys.rfind(|key| key.ends_with("/backup.info"));
    let text = String::from_utf8(bucket.get(&record.expect("a record"))).expect("UTF-8");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("begin_wal="));
    line.expect("its first segment").to_owned()
}

#[test]
fn a_target_behind_a_gap_is_not_reached_and_nothing_passes_for_it() {
    let world = or_not_run!(world());
    let primary = world.primary(&["-k"]);
    let workload = Workload::start(&primary);
    workload.advance(20);
    world.back_up(&primary, &[]);
    let needed = begin_wal(&world);
    primary.archive_now();
    workload.advance(20);
    let gap = primary.archive_now();
    workload.advance(20);
    let count = workload.stop();
    let target = primary.sql().value("SELECT pg_current_wal_lsn()");
    primary.archive_now();
    let bucket = Bucket::of(&world.store);
    let wals = bucket.list(&format!("{PATH}/{SERVER}/wals/"));
    let key_of = |name: &str| {
        wals.keys()
            .find(|key| key.contains(name))
            .expect("archived")
    };
    let lost = bucket.get(key_of(&gap));
    bucket.delete(key_of(&gap));
    // Told beforehand, for the target says where in the log it lies.
    refuse(
        &world,
        &["--target-lsn", &target],
        Kind::Refused,
        &[&gap, "lacks"],
    );
    let listed = world.cellarman.run(&["wal", "gaps"]);
    listed.exits_with(i32::from(Kind::Corrupt.exit_code()));
    assert!(listed.stdout.contains(&gap), "{}", listed.describe());
    // As is one that is nowhere before it. The server finds out, and does not pass for recovered.
    let nowhere = ["--target-name", "never-made"];
    refuse(
        &world,
        &nowhere,
        Kind::Refused,
        &[&gap, "lacks", "never-made"],
    );
    let forced = [&nowhere[..], &["--accept-gap"]].concat();
    let restored = world.restore("named", &forced);
    assert_stops_short(&restored);
    // What lies before the gap is reached.
    let before = world.restore("before", &["--target-immediate"]);
    before.start_with(&["archive_mode=off"]);
    before.wait_until_recovered();
    assert!(workload::verify(&before.sql()) < count);
    // And without the log of its own copy the backup is refused at once.
    let kept = bucket.get(key_of(&needed));
    bucket.delete(key_of(&needed));
    refuse(&world, &[], Kind::Refused, &[&needed, "lacks"]);
    bucket.put(key_of(&needed), kept);
    bucket.put(key_of(&gap), lost);
    world.cellarman.run(&["wal", "gaps"]).ok();
    check_restored(&world, "mended", &["--target-lsn", &target], count);
    assert!(Path::new(&world.place("mended")).exists());
}
