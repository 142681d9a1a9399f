//! Base backups of either tool, restored by the other and started: one test for each codec that
//! Barman has for them.

use std::path::Path;

use serde_json::Value;
use testbed::barman::Barman;
use testbed::cluster::{Cluster, Release};
use testbed::or_not_run;
use testbed::program::Program;
use testbed::workload::{self, Workload};
use testbed::world::{PATH, SERVER, World};

/// The server whose archive Barman writes.
const BARMANS: &str = "barmans";

macro_rules! codecs {
    ($($name:ident $codec:literal)*) => {$(
        #[test]
        fn $name() {
            let world = World::new(env!("CARGO_BIN_EXE_cellarman"), Release::distribution());
            let world = or_not_run!(world);
            let barman = or_not_run!(Barman::new(&world.scratch, &world.store));
            check(&world, &barman, $codec);
        }
    )*};
}

codecs! {
    uncompressed_backups_go_both_ways "none"
    gzip_backups_go_both_ways "gzip"
    bzip2_backups_go_both_ways "bzip2"
    snappy_backups_go_both_ways "snappy"
    lz4_backups_go_both_ways "lz4"
}

/// Barman's option for a codec.
fn flag(codec: &str) -> Vec<String> {
    (codec != "none")
        .then(|| format!("--{codec}"))
        .into_iter()
        .collect()
}

fn check(world: &World, barman: &Barman, codec: &str) {
    let url = world.store.url(PATH);
    let primary = world.primary_with(&["-k"], &archiving_twice(world, barman, codec));
    let workload = Workload::start(&primary);
    workload.advance(50);
    world.back_up(&primary, &["--compression", codec]);
    let mut words = flag(codec);
    words.extend(["--immediate-checkpoint", &url, BARMANS].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let backup = barman
        .program("backup")
        .with_server(primary.socket_directory());
    backup.run(&words).ok();
    workload.advance(50);
    let count = workload.stop();
    primary.archive_now();

    assert_eq!(restored_by_barman(world, barman), count);
    assert_eq!(restored_by_us(world), count);
    delete_by_barman(world, barman);
    delete_by_us(world, barman);
}

/// Each WAL file goes to an archive of each tool.
fn archiving_twice(world: &World, barman: &Barman, codec: &str) -> String {
    let ours = world
        .cellarman
        .shell_line(&["wal", "archive", "--compression", codec, "%p"]);
    let mut words = flag(codec);
    words.extend([world.store.url(PATH), BARMANS.to_owned(), "%p".to_owned()]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let theirs = barman.program("wal-archive").shell_line(&words);
    format!("archive_mode = on\narchive_command = '{ours} && {theirs}'")
}

/// The backups of a server as Barman lists them: their ids and status.
fn barmans_list(barman: &Barman, url: &str, server: &str) -> Vec<(String, String)> {
    let ended = barman.run("backup-list", &["--format", "json", url, server]);
    ended.ok();
    let list: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let backups = list["backups_list"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    backups
        .map(|backup| (text(&backup["backup_id"]), text(&backup["status"])))
        .collect()
}

/// The only backup of a server, which Barman takes for a good one.
fn only_backup(world: &World, barman: &Barman, server: &str) -> String {
    let backups = barmans_list(barman, &world.store.url(PATH), server);
    let [(id, status)] = backups.as_slice() else {
        unreachable!("one backup was taken, not {backups:?}");
    };
    assert_eq!(status, "DONE", "{id}");
    id.clone()
}

fn restored_by_barman(world: &World, barman: &Barman) -> u64 {
    let url = world.store.url(PATH);
    let id = only_backup(world, barman, SERVER);
    let directory = world.place("by-barman");
    let path = directory.display().to_string();
    let tablespace = format!("cold:{path}.cold");
    barman
        .run(
            "restore",
            &["--tablespace", &tablespace, &url, SERVER, &id, &path],
        )
        .ok();
    // Our manifest travelled with the files.
    world.verify_backup(&directory);
    let restored = world.adopt("by-barman");
    let restore = barman
        .program("wal-restore")
        .shell_line(&[&url, SERVER, "%f", "%p"]);
    restored.recover(&format!("restore_command = '{restore}'"));
    start_and_count(&restored)
}

fn restored_by_us(world: &World) -> u64 {
    let words = world.restore_words("by-us", &[]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    world.cellarman_for(BARMANS).run(&words).ok();
    start_and_count(&world.adopt("by-us"))
}

fn start_and_count(restored: &Cluster) -> u64 {
    restored.start_with(&["archive_mode=off"]);
    restored.wait_until_recovered();
    workload::verify(&restored.sql())
}

fn delete_by_barman(world: &World, barman: &Barman) {
    let url = world.store.url(PATH);
    let id = only_backup(world, barman, SERVER);
    barman.run("backup-delete", &["-b", &id, &url, SERVER]).ok();
    assert!(barmans_list(barman, &url, SERVER).is_empty());
    assert_no_objects(world, SERVER, &id);
}

fn delete_by_us(world: &World, barman: &Barman) {
    let id = only_backup(world, barman, BARMANS);
    let program: Program = world.cellarman_for(BARMANS);
    program.run(&["backup", "delete", &id]).ok();
    assert!(barmans_list(barman, &world.store.url(PATH), BARMANS).is_empty());
    assert_no_objects(world, BARMANS, &id);
}

/// Nothing of the backup is left: MinIO keeps a directory for as long as an object is in it.
fn assert_no_objects(world: &World, server: &str, id: &str) {
    let directory = world
        .scratch
        .path()
        .join("minio")
        .join(testbed::minio::BUCKET)
        .join(Path::new(PATH))
        .join(server)
        .join("base")
        .join(id);
    assert!(
        !directory.exists(),
        "{} is still there",
        directory.display()
    );
}
