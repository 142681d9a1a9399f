//! A host that is full, read-only, or in use.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use cellarman::fault::Kind;
use testbed::or_not_run;
use testbed::process;
use testbed::small_disk::SmallDisk;
use testbed::workload::Workload;

use crate::bad_input::{Host, SEGMENT, assert_refused, world};
use crate::bucket::Bucket;
use crate::crash::check_restored;

#[test]
fn wal_and_a_full_disk() {
    let host = or_not_run!(Host::new());
    let disk = or_not_run!(SmallDisk::mount(&host.scratch, "small", 8 << 10));
    let wal = host.wal.display().to_string();
    // The store is full: nothing is acknowledged, and nothing half-made stands under the name.
    let store = disk.place("store");
    let program = host.with_store(&["--store", &store], &[]);
    program.run(&["check", "--create"]).ok();
    let ended = program.run(&["wal", "archive", "--compression", "none", &wal]);
    assert_refused(&ended, Kind::Local, &[&store, SEGMENT]);
    let ended = program.run(&["wal", "restore", SEGMENT, &host.place("asked.wal")]);
    ended.exits_with(1);
    // What fits goes in, once there is room.
    program
        .run(&["wal", "archive", "--compression", "gzip", &wal])
        .ok();
    // The destination is full: fatal, never "not found", and nothing of the file is there.
    let asked = disk.place("asked.wal");
    let ended = program.run(&["wal", "restore", SEGMENT, &asked]);
    assert_refused(&ended, Kind::Local, &["small/", "No space left"]);
    assert!(!Path::new(&asked).exists(), "half a segment was restored");
    let asked = host.place("asked.wal");
    program.run(&["wal", "restore", SEGMENT, &asked]).ok();
    assert!(
        fs::read(asked).ok() == fs::read(&host.wal).ok(),
        "other bytes"
    );
}

#[test]
fn a_restore_and_a_full_disk() {
    let world = or_not_run!(world());
    let disk = or_not_run!(SmallDisk::mount(&world.scratch, "small", 12 << 10));
    let primary = world.primary(&["-k"]);
    let workload = Workload::start(&primary);
    workload.advance(20);
    world.back_up(&primary, &["--compression", "gzip"]);
    let count = workload.stop();
    primary.archive_now();
    let (directory, tablespace) = (disk.place("restored"), disk.place("cold"));
    let mapping = format!("cold={tablespace}");
    let words = ["restore", "--pgdata", &directory, "--tablespace", &mapping];
    // Known before anything is written, from our own record of what the tars hold.
    let ended = world.cellarman.run(&words);
    assert_refused(&ended, Kind::Local, &["bytes free", &disk.place("")[..]]);
    assert!(!Path::new(&directory).exists(), "a directory was made");
    // Without that record it comes to light on the way, and nothing is left.
    let bucket = Bucket::of(&world.store);
    let record = bucket
        .list("")
        .into_keys()
        .find(|key| key.ends_with("objects.json"));
    bucket.delete(&record.expect("our record"));
    let ended = world.cellarman.run(&words);
    assert_refused(&ended, Kind::Local, &["No space left", &directory]);
    for place in [&directory, &tablespace] {
        let left = fs::read_dir(place).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{place} holds what a failed restore left");
    }
    check_restored(&world, "restored-elsewhere", &[], count);
}

#[test]
fn a_limit_on_files_ends_a_restore_and_leaves_nothing() {
    let world = or_not_run!(world());
    let primary = world.primary(&["-k"]);
    Workload::start(&primary).advance(20);
    world.back_up(&primary, &[]);
    let directory = world.place("restored").display().to_string();
    let words = world.restore_words("restored", &[]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let call = world.cellarman.command(&words);
    // With the signal ignored the limit, of 64 blocks of 512 bytes, is an error of each write.
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "sh"])
        .arg(call.get_program())
        .args(call.get_args())
        .env_clear()
        .envs(
            call.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir("/tmp");
    world.scratch.account().apply(&mut limited);
    let ended = process::run(&mut limited);
    assert_refused(&ended, Kind::Local, &["File too large", &directory]);
    assert!(
        !Path::new(&directory).exists(),
        "a failed restore left something"
    );
}

fn set_mode(path: &str, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("a directory");
}

#[test]
fn a_read_only_destination_is_named() {
    let world = or_not_run!(world());
    let host = or_not_run!(Host::new());
    let primary = world.primary(&["-k"]);
    Workload::start(&primary).advance(20);
    world.back_up(&primary, &[]);
    let segment = primary.archive_now();
    let closed = world.scratch.make("closed").display().to_string();
    set_mode(&closed, 0o555);
    let inside = format!("{closed}/restored");
    let mapping = format!("cold={}", world.place("cold-elsewhere").display());
    let words = ["restore", "--pgdata", &inside, "--tablespace", &mapping];
    assert_refused(&world.cellarman.run(&words), Kind::Local, &[&inside]);
    let asked = format!("{closed}/asked.wal");
    let ended = world.cellarman.run(&["wal", "restore", &segment, &asked]);
    assert_refused(&ended, Kind::Local, &[&closed, "Permission denied"]);
    assert_eq!(fs::read_dir(&closed).expect("a directory").count(), 0);
    assert!(
        !world.place("cold-elsewhere").exists(),
        "a tablespace was made"
    );
    // A store that is read-only takes no WAL, and still gives it.
    let store = host.place("store");
    let program = host.with_store(&["--store", &store], &[]);
    program.run(&["check", "--create"]).ok();
    let wal = host.wal.display().to_string();
    program.run(&["wal", "archive", &wal]).ok();
    let other = host.wal.with_file_name("000000010000000000000002");
    fs::rename(&host.wal, &other).expect("a segment");
    let folders = ["", "/main", "/main/wals", "/main/wals/0000000100000000"];
    for folder in folders {
        set_mode(&format!("{store}{folder}"), 0o555);
    }
    let asked = host.place("asked.wal");
    program.run(&["wal", "restore", SEGMENT, &asked]).ok();
    fs::rename(&other, &host.wal).expect("a segment");
    program.run(&["wal", "archive", &wal]).ok();
    let ended = program.run(&["backup", "keep", "20260101T000000"]);
    assert_refused(&ended, Kind::NotFound, &["20260101T000000"]);
    let history = host
        .scratch
        .write("wal/00000002.history", "1\t0/1000000\tsome reason\n");
    let ended = program.run(&["wal", "archive", &history.display().to_string()]);
    assert_refused(&ended, Kind::Local, &["00000002.history"]);
    for folder in folders {
        set_mode(&format!("{store}{folder}"), 0o755);
    }
}

#[test]
fn a_destination_in_use_stays_as_it_is() {
    let world = or_not_run!(world());
    let primary = world.primary(&["-k"]);
    Workload::start(&primary).advance(20);
    world.back_up(&primary, &[]);
    let own = primary.directory().display().to_string();
    let full = world.scratch.make("full").display().to_string();
    fs::write(format!("{full}/letter"), "dear").expect("a file");
    let file = world.scratch.write("file", "dear").display().to_string();
    let free = world.place("free").display().to_string();
    let elsewhere = format!("cold={}", world.place("free.cold").display());
    let in_full = format!("cold={full}");
    for (directory, mapping, named) in [
        (&full, &elsewhere, &full),
        (&own, &elsewhere, &own),
        (&free, &in_full, &full),
    ] {
        let words = ["restore", "--pgdata", directory, "--tablespace", mapping];
        assert_refused(&world.cellarman.run(&words), Kind::Refused, &[named]);
    }
    let words = ["restore", "--pgdata", &file, "--tablespace", &elsewhere];
    let ended = world.cellarman.run(&words);
    let kind = if ended.status.code() == Some(11) {
        Kind::Local
    } else {
        Kind::Refused
    };
    assert_refused(&ended, kind, &[&file]);
    // The source's own place of the tablespace, which it still uses.
    let ended = world.cellarman.run(&["restore", "--pgdata", &free]);
    assert_refused(&ended, Kind::Refused, &["cold"]);
    assert_eq!(
        fs::read_to_string(format!("{full}/letter")).ok().as_deref(),
        Some("dear")
    );
    assert_eq!(fs::read_to_string(&file).ok().as_deref(), Some("dear"));
    assert!(!Path::new(&free).exists() && !world.place("free.cold").exists());
    primary
        .sql()
        .run("INSERT INTO counter SELECT 1 WHERE false");
}
