//! An archive that Barman alone has written, verified by us: it has no digests and no manifest.

use serde_json::Value;
use testbed::barman::Barman;
use testbed::cluster::Release;
use testbed::or_not_run;
use testbed::program::Program;
use testbed::world::{PATH, SERVER, World};

use crate::bucket::Bucket;

/// The exit code of damage.
const CORRUPT: i32 = 8;

#[test]
fn a_barman_archive_is_verified_by_decoding_it() {
    let world = World::new(env!("CARGO_BIN_EXE_cellarman"), Release::distribution());
    let world = or_not_run!(world);
    let barman = or_not_run!(Barman::new(&world.scratch, &world.store));
    let url = world.store.url(PATH);
    let archive = barman
        .program("wal-archive")
        .shell_line(&["--gzip", &url, SERVER, "%p"]);
    let settings = format!("archive_mode = on\narchive_command = '{archive}'");
    let primary = world.primary_with(&["-k"], &settings);
    let backup = barman
        .program("backup")
        .with_server(primary.socket_directory());
    let words = ["--gzip", "--immediate-checkpoint", &url, SERVER];
    backup.run(&words).ok();
    primary.archive_now();

    let place = world.scratch.make("verifying").display().to_string();
    let deep = verify(&world.cellarman, &["--deep", "--scratch", &place], 0);
    assert_eq!(
        deep["backups"][0]["restored"]["outcome"], "sound",
        "{deep:#}"
    );
    let told = deep["findings"].to_string();
    assert!(told.contains("no record of its digests"), "{told}");
    assert!(told.contains("no backup_manifest"), "{told}");
    let again = verify(&world.cellarman, &[], 0);
    assert_eq!(again["backups"][0]["is_new"], false);

    let bucket = Bucket::of(&world.store);
    let base = bucket.list(&format!("{PATH}/{SERVER}/base/"));
    let tars: Vec<&String> = base.keys().filter(|key| key.contains(".tar")).collect();
    assert_eq!(
        tars.len(),
        2,
        "the data directory and a tablespace: {base:?}"
    );
    for key in tars {
        let good = bucket.get(key);
        bucket.put(key, good[..good.len() / 2].to_vec());
        verify(&world.cellarman, &[], CORRUPT);
        bucket.delete(key);
        verify(&world.cellarman, &[], CORRUPT);
        bucket.put(key, good);
    }
    let mended = verify(&world.cellarman, &[], 0);
    assert_eq!(mended["backups"][0]["is_new"], true);
}

#[track_caller]
fn verify(program: &Program, options: &[&str], code: i32) -> Value {
    let ended = program.run(&[&["--json", "verify"], options].concat());
    ended.exits_with(code);
    serde_json::from_str(&ended.stdout).expect("one JSON document")
}
