//! Archiving and restoring WAL, killed: invariants 5 and 6.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use testbed::cluster::Cluster;
use testbed::or_not_run;
use testbed::report;
use testbed::wait;
use testbed::workload::Workload;

use crate::archiver::Archiver;
use crate::crash::{check_restored, kill_after, moment, world};

#[test]
fn an_archiver_killed_at_any_moment_has_stored_what_it_acknowledged() {
    let world = or_not_run!(world());
    let mut random = report::random("crash archive");
    let kills = report::count(5, 60);
    let archiver = Archiver::with_wal(&world, "primary", kills * 8 + 40);
    let options = ["--compression", "gzip", "--jobs", "4"];
    let usual = archiver.archive_one(&options);
    let mut killed = 0;
    while killed < kills {
        let Some(path) = archiver.next_ready() else {
            panic!("{killed} of {kills} kills came in time: make more WAL")
        };
        // Early moments more often: a file that went ahead of its turn is answered at once.
        let scale = usual.mul_f64(random.f64());
        let delay = moment(&mut random, scale);
        match kill_after(&mut archiver.command(&options, &path), delay) {
            Some(0) => archiver.acknowledge(&path),
            Some(code) => panic!("archiving {path} failed with {code}"),
            None => killed += 1,
        }
        archiver.check();
    }
    // Killed or not, PostgreSQL asks again until it is told that the file is stored.
    while archiver.next_ready().is_some() {
        archiver.archive_one(&options);
    }
    archiver.check();
}

#[test]
fn a_wal_file_whose_restore_was_killed_is_whole_or_not_there() {
    let world = or_not_run!(world());
    let mut random = report::random("crash wal restore");
    let archiver = Archiver::with_wal(&world, "primary", 4);
    while archiver.next_ready().is_some() {
        archiver.archive_one(&["--compression", "gzip"]);
    }
    let [first, second, ..] = &archiver.status(".done")[..] else {
        panic!("two files were archived")
    };
    let place = world.place("asked.wal");
    let path = place.display().to_string();
    let ended = world.cellarman.run(&["wal", "restore", first, &path]);
    ended.ok();
    for turn in 0..report::count(10, 30) {
        let name = if turn % 2 == 0 { first } else { second };
        let whole = fs::read(archiver.directory.join("pg_wal").join(name)).expect("a segment");
        let _ = fs::remove_file(&place);
        let mut call = world.cellarman.command(&["wal", "restore", name, &path]);
        let code = kill_after(&mut call, moment(&mut random, ended.took));
        let found = fs::read(&place).ok();
        assert!(code.is_none_or(|code| code == 0), "exit code {code:?}");
        assert!(code.is_none() || found.is_some(), "{name} is not there");
        assert!(
            found.is_none_or(|found| found == whole),
            "{name} is not whole"
        );
    }
}

/// What PostgreSQL calls to archive: the program, killed after the next of the delays (in
/// seconds), and simply run when they are used up.
///
/// The exit code is made one that PostgreSQL takes for a passing failure: a kill that it sees
/// ends its archiver, which comes back ten seconds later.
const KILLER: &str = r#"#!/bin/sh
delays=$1
shift
read -r delay <"$delays" || exec "$@"
sed -i 1d "$delays"
"$@" &
child=$!
sleep "$delay"
if kill -KILL "$child" 2>/dev/null; then
    echo "$delay" >>"$delays.killed"
fi
wait "$child" || exit 1
"#;

#[test]
fn postgresql_s_archiver_killed_under_load_loses_nothing() {
    let world = or_not_run!(world());
    let mut random = report::random("crash archiver");
    let kills = usize::try_from(report::count(4, 30)).expect("a count");
    // Most of them come too late on a quick machine: the program has ended.
    let delays = (0..kills * 40).map(|_| format!("{:.3}\n", random.f64().powi(2) * 0.2));
    let delays = world.scratch.write("delays", &delays.collect::<String>());
    let killer = world.scratch.write("killer.sh", KILLER);
    fs::set_permissions(&killer, fs::Permissions::from_mode(0o755)).expect("a script");
    let call = world.archive_command(&["--compression", "zstd", "--jobs", "3"]);
    let (killer, list) = (killer.display(), delays.display());
    let primary = world.primary_with(
        &["-k", "--wal-segsize=1"],
        &format!(
            "archive_mode = on\narchive_command = '{killer} {list} {call}'\nwal_keep_size = 8GB\n\
             archive_timeout = 1"
        ),
    );
    world.back_up(&primary, &["--archive-timeout", "300"]);
    let workload = Workload::start(&primary);
    let archiver = Archiver::of(&world, &primary);
    let mut checked = BTreeSet::new();
    wait::until_true("the kills to come", || {
        archiver.check_new(&mut checked);
        killed(&delays) >= kills
    });
    let came = killed(&delays);
    fs::write(&delays, "").expect("the list of delays");
    let count = workload.stop();
    primary.archive_now();
    archiver.check();
    eprintln!(
        "{came} kills, {} files archived",
        archiver.status(".done").len()
    );
    drop_and_restore(&world, primary, count);
}

fn killed(delays: &std::path::Path) -> usize {
    let list = fs::read_to_string(format!("{}.killed", delays.display()));
    list.map_or(0, |list| list.lines().count())
}

/// The source is gone, and all its rows come back from the archive.
fn drop_and_restore(world: &testbed::world::World, primary: Cluster, count: u64) {
    primary.stop_at_once();
    drop(primary);
    check_restored(world, "restored", &[], count);
}
