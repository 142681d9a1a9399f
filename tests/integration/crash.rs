//! The program killed at random moments: what was acknowledged stays, what was not never looks done.
//!
//! `CELLARMAN_SEED` repeats a run; a full one kills fifty times.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cellarman::service::maintenance::STALE_AFTER;
use testbed::cluster::{Cluster, Release};
use testbed::or_not_run;
use testbed::report;
use testbed::wait;
use testbed::workload::{self, Workload};
use testbed::world::{PATH, SERVER, World};

use crate::archiver::Archiver;
use crate::bucket::Bucket;

/// Starts a command, kills it after `delay` unless it ends before, and says how it ended:
/// its exit code, or nothing when the kill was in time.
fn kill_after(command: &mut Command, delay: Duration) -> Option<i32> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let deadline = Instant::now() + delay;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return status.code();
        }
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("a child of ours");
    child.wait().expect("a child of ours").code()
}

/// A moment between now and a little after `usual`, the time that the whole run takes.
fn moment(random: &mut fastrand::Rng, usual: Duration) -> Duration {
    usual.mul_f64(random.f64() * 1.05)
}

#[test]
fn an_archiver_killed_at_any_moment_has_stored_what_it_acknowledged() {
    let world = or_not_run!(World::new(
        env!("CARGO_BIN_EXE_cellarman"),
        Release::distribution()
    ));
    let mut random = report::random("crash archive");
    let kills = report::count(5, 20);
    let archiver = Archiver::with_wal(&world, "primary", kills * 16);
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
    let world = or_not_run!(World::new(
        env!("CARGO_BIN_EXE_cellarman"),
        Release::distribution()
    ));
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
    for turn in 0..report::count(10, 20) {
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

#[test]
fn a_backup_killed_at_any_moment_is_never_done() {
    let world = or_not_run!(World::new(
        env!("CARGO_BIN_EXE_cellarman"),
        Release::distribution()
    ));
    let mut random = report::random("crash backup");
    let primary = world.primary(&["-k"]);
    let workload = Workload::start(&primary);
    workload.advance(50);
    // Slowed down, so that the kills fall into the copy and not only before it.
    let limit = ["--max-bandwidth", "10M"];
    let usual = world.back_up(&primary, &limit).took;
    let words = [
        "backup",
        "create",
        "--immediate-checkpoint",
        limit[0],
        limit[1],
    ];
    let mut killed = BTreeMap::new();
    for _ in 0..report::count(4, 15) {
        let before = backups(&world);
        let delay = moment(&mut random, usual);
        let code = kill_after(&mut world.beside(&primary).command(&words), delay);
        assert!(code.is_none_or(|code| code == 0), "exit code {code:?}");
        let mut new = backups(&world);
        new.retain(|id, _| !before.contains_key(id));
        eprintln!("killed after {delay:?}: {new:?}");
        if code.is_none() {
            killed.extend(new);
        }
    }
    let last_kill = Instant::now();
    eprintln!("uploads under way: {}", uploads_under_way(&world));
    let count = workload.stop();
    primary.archive_now();
    check_restored(&world, "latest", &[], count);
    // The kill of a run that had just said DONE, and was about to end, came too late.
    let is_done = |_: &String, status: &mut String| status == "DONE";
    for id in killed.extract_if(.., is_done).map(|(id, _)| id) {
        check_restored(&world, &id, &["--backup-id", &id], count);
    }

    // Their signs of life are fresh for a while yet: nobody can tell a killed run from a slow one.
    wait::until(STALE_AFTER * 2, || {
        (last_kill.elapsed() > STALE_AFTER + Duration::from_secs(2)).then_some(())
    });
    world.back_up(&primary, &[]);
    let healed = backups(&world);
    for id in killed.keys() {
        assert_eq!(healed.get(id).map(String::as_str), Some("FAILED"), "{id}");
    }
    assert_eq!(uploads_under_way(&world), 0, "uploads were left behind");
}

/// The archive's end comes back, from the backup that the options choose.
fn check_restored(world: &World, name: &str, options: &[&str], count: u64) {
    check_recovered(&world.restore(name, options), count);
}

/// The cluster recovers to the archive's end.
fn check_recovered(restored: &Cluster, count: u64) {
    restored.start_with(&["archive_mode=off"]);
    restored.wait_until_recovered();
    assert_eq!(workload::verify(&restored.sql()), count);
}

/// The backups and their status, from the records in the bucket.
fn backups(world: &World) -> BTreeMap<String, String> {
    let bucket = Bucket::of(&world.minio);
    let prefix = format!("{PATH}/{SERVER}/base/");
    let keys = bucket.list(&prefix).into_keys();
    keys.filter(|key| key.ends_with("/backup.info"))
        .map(|key| {
            let id = key[prefix.len()..].split('/').next().unwrap_or_default();
            let text = String::from_utf8(bucket.get(&key)).expect("UTF-8");
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_else(|| panic!("{key} without {name}"))
                    .to_owned()
            };
            let (status, end_time) = (field("status="), field("end_time="));
            // CloudNativePG takes any backup with both times for a good one.
            assert_eq!(status == "DONE", end_time != "None", "{key}: {text}");
            (id.to_owned(), status)
        })
        .collect()
}

/// How many multipart uploads MinIO holds, looked up on its drive: it lists them by key only.
fn uploads_under_way(world: &World) -> usize {
    let directory = world.scratch.path().join("minio/.minio.sys/multipart");
    let entries = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    entries(&directory)
        .iter()
        .map(|key| entries(key).len())
        .sum()
}

#[test]
fn a_restore_killed_at_any_moment_leaves_nothing_to_start() {
    let world = or_not_run!(World::new(
        env!("CARGO_BIN_EXE_cellarman"),
        Release::distribution()
    ));
    let mut random = report::random("crash restore");
    let primary = world.primary(&["-k"]);
    let workload = Workload::start(&primary);
    workload.advance(100);
    world.back_up(&primary, &[]);
    let count = workload.stop();
    primary.archive_now();
    let words = world.restore_words("whole", &[]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let whole = world.cellarman.run(&words);
    whole.ok();
    let mut usual = whole.took;
    let mut killed = 0;
    let kills = report::count(5, 15);
    for attempt in 0..kills * 3 {
        let name = format!("killed-{attempt}");
        let words = world.restore_words(&name, &[]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let delay = moment(&mut random, usual);
        if let Some(code) = kill_after(&mut world.cellarman.command(&words), delay) {
            assert_eq!(code, 0, "a restore failed");
            usual = usual.min(delay);
            continue;
        }
        killed += 1;
        eprintln!("killed after {delay:?}");
        if is_whole(&world.place(&name)) {
            check_recovered(&world.adopt(&name), count);
        } else {
            check_restored(&world, &name, &[], count);
        }
        if killed == kills {
            return;
        }
    }
    panic!("only {killed} of {kills} kills came in time");
}

/// Whether a killed restore had come to its end: the control file, without which no server starts,
/// appears after all else is durable, and after a note in the marker.
fn is_whole(directory: &Path) -> bool {
    let is_startable = directory.join("global/pg_control").exists();
    let marker = fs::read_to_string(directory.join("cellarman_restore_unfinished"));
    let is_noted = marker.is_ok_and(|text| text.contains("pg_control_blake3"));
    let is_marked = directory.join("cellarman_restore_unfinished").exists();
    assert!(
        !is_startable || is_noted || !is_marked,
        "a restore killed half-way left a database: {}",
        directory.display()
    );
    is_startable
}
