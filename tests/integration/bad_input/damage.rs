//! Damaged files, damaged objects, a store that is gone: refused, with the right exit code, and
//! nothing left behind that could be taken for good.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use testbed::or_not_run;
use testbed::workload::{self, Workload};
use testbed::world::{PATH, SERVER, World};

use crate::archiver::Archiver;
use crate::bad_input::world;
use crate::bucket::Bucket;

/// What PostgreSQL takes as fatal, and not as the end of WAL.
const FATAL: i32 = 126;

#[test]
fn the_archive_takes_only_whole_files_of_its_own_server() {
    let world = or_not_run!(world());
    let archiver = Archiver::with_wal(&world, "primary", 3);
    let stranger = Archiver::with_wal(&world, "stranger", 1);
    let path = archiver.next_ready().expect("a file that is ready");
    let file = archiver.directory.join(&path);
    let whole = fs::read(&file).expect("a segment");
    let refuse = |what: &str, bytes: &[u8], code: i32| {
        fs::write(&file, bytes).expect("a file");
        let ended = archiver.archive(&[], &path);
        assert_eq!(
            ended.status.code(),
            Some(code),
            "{what}: {}",
            ended.describe()
        );
        assert!(
            ended.stderr.contains("hint: "),
            "{what}: {}",
            ended.describe()
        );
    };
    refuse("half a segment", &whole[..whole.len() / 2], 8);
    refuse("nothing", &[], 8);
    let other = stranger.next_ready().expect("a file that is ready");
    let other = fs::read(stranger.directory.join(other)).expect("a segment");
    refuse("another cluster's", &other, 7);
    let keys = archiver.bucket.list(&format!("{PATH}/{SERVER}/wals/"));
    assert!(keys.is_empty(), "something was stored: {keys:?}");

    fs::write(&file, &whole).expect("a file");
    archiver.archive(&[], &path).ok();
    archiver.archive(&[], &path).ok();
    archiver.archive(&["--compression", "gzip"], &path).ok();
    let mut changed = whole.clone();
    *changed.last_mut().expect("a byte") ^= 1;
    refuse("other bytes under the same name", &changed, 7);
    fs::write(&file, &whole).expect("a file");
    archiver.check();
    archiver.archive(&[], "pg_wal/archive_status").exits_with(2);
    // The other cluster has a system identifier of its own.
    let theirs = stranger.next_ready().expect("a file that is ready");
    stranger.archive(&[], &theirs).exits_with(7);
}

#[test]
fn wal_restore_says_not_found_only_when_the_store_said_so() {
    let mut world = or_not_run!(world());
    let directory = {
        let archiver = Archiver::with_wal(&world, "primary", 9);
        for codec in ["none", "gzip", "bzip2", "xz", "snappy", "zstd", "lz4"] {
            archiver.archive_one(&["--compression", codec]);
        }
        archiver.directory.clone()
    };
    let restore = |world: &World, name: &str| {
        let place = world.place("asked.wal").display().to_string();
        let ended = world.cellarman.run(&["wal", "restore", name, &place]);
        (ended, fs::read(&place).ok())
    };
    let bucket = Bucket::of(&world.store);
    for (key, size) in bucket.list(&format!("{PATH}/{SERVER}/wals/")) {
        let name = key.rsplit('/').next().expect("a name");
        let name = name.split('.').next().expect("a name");
        let (ended, restored) = restore(&world, name);
        ended.ok();
        let original = fs::read(directory.join("pg_wal").join(name)).expect("a segment");
        assert!(restored == Some(original), "{key}");
        fs::remove_file(world.place("asked.wal")).expect("it was restored");

        let mut cut = bucket.get(&key);
        cut.truncate(usize::try_from(size / 2).expect("a size"));
        bucket.put(&key, cut);
        let (ended, restored) = restore(&world, name);
        let is_fatal = ended.status.code().is_some_and(|code| code >= FATAL);
        assert!(is_fatal, "{key}: {}", ended.describe());
        assert!(restored.is_none(), "{key}: half a segment was restored");
    }
    let (ended, restored) = restore(&world, "0000000100000000000000EE");
    ended.exits_with(1);
    assert!(restored.is_none());
    world.store.kill();
    let (ended, _) = restore(&world, "0000000100000000000000EE");
    let is_fatal = ended.status.code().is_some_and(|code| code >= FATAL);
    assert!(is_fatal, "{}", ended.describe());
}

#[test]
fn a_store_that_is_gone_does_not_end_a_recovery() {
    let mut world = or_not_run!(world());
    let primary = world.primary(&[]);
    let workload = Workload::start(&primary);
    workload.advance(50);
    world.back_up(&primary, &[]);
    workload.advance(50);
    let count = workload.stop();
    primary.archive_now();
    let restored = world.restore("restored", &[]);
    world.store.kill();
    let ended = restored.try_start(&["archive_mode=off"]);
    assert!(
        !ended.status.success(),
        "it recovered without its WAL: {}",
        restored.log()
    );
    assert!(restored.log().contains("FATAL"), "{}", restored.log());
    world.store.start_again();
    restored.start_with(&["archive_mode=off"]);
    restored.wait_until_recovered();
    assert_eq!(workload::verify(&restored.sql()), count);
}

#[test]
fn a_damaged_backup_is_not_restored() {
    let world = or_not_run!(world());
    let primary = world.primary(&["-k"]);
    let workload = Workload::start(&primary);
    workload.advance(50);
    world.back_up(&primary, &["--compression", "none"]);
    let count = workload.stop();
    primary.archive_now();
    let bucket = Bucket::of(&world.store);
    let base = bucket.list(&format!("{PATH}/{SERVER}/base/"));
    let archives = base.keys().filter(|key| key.contains(".tar"));
    for (number, key) in archives.enumerate() {
        let good = bucket.get(key);
        let middle = good.len() / 2;
        let mut flipped = good.clone();
        flipped[middle] ^= 1;
        let cut = good[..middle].to_vec();
        for (what, bytes) in [
            ("flipped", Some(flipped)),
            ("cut", Some(cut)),
            ("gone", None),
        ] {
            match bytes {
                Some(bytes) => bucket.put(key, bytes),
                None => bucket.delete(key),
            }
            let name = format!("{what}-{number}");
            assert_fails(&world, &name, key);
        }
        bucket.put(key, good);
    }
    let restored = world.restore("mended", &[]);
    restored.start_with(&["archive_mode=off"]);
    restored.wait_until_recovered();
    assert_eq!(workload::verify(&restored.sql()), count);
}

/// A restore fails, names what is wrong, and leaves no database.
fn assert_fails(world: &World, name: &str, key: &str) {
    let words = world.restore_words(name, &[]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ended = world.cellarman.run(&words);
    assert!(!ended.status.success(), "{name}: {}", ended.describe());
    let names_it = |name: Option<&OsStr>| {
        name.is_some_and(|name| ended.stderr.contains(&*name.to_string_lossy()))
    };
    // `16384.tar`, or of an archive that is not there only `16384`.
    assert!(
        names_it(Path::new(key).file_stem()),
        "{name}: {}",
        ended.describe()
    );
    let control = world.place(name).join("global/pg_control");
    assert!(
        !control.exists(),
        "{name}: a failed restore left a pg_control"
    );
}
