//! A bucket of Google, served by fake-gcs-server: what either tool wrote, the other restores.
//!
//! One codec: the others do not know what store they are on (`base_backups.rs`).

use testbed::barman::Barman;
use testbed::cluster::{Cluster, Release};
use testbed::fake_gcs::FakeGcs;
use testbed::or_not_run;
use testbed::storage::Storage;
use testbed::workload::{self, Workload};
use testbed::world::{PATH, SERVER, World};

/// The server whose archive Barman writes.
const BARMANS: &str = "barmans";

#[test]
fn backups_go_both_ways_through_a_bucket_of_google() {
    let binary = env!("CARGO_BIN_EXE_cellarman");
    let world = or_not_run!(World::<FakeGcs>::on_store(binary, Release::distribution()));
    let barman = or_not_run!(Barman::new(&world.scratch, &world.store));
    let url = world.store.url(PATH);
    let ours = world.archive_command(&["--compression", "gzip"]);
    let archive = barman.program("wal-archive");
    let theirs = archive.shell_line(&["--gzip", &url, BARMANS, "%p"]);
    let archiving = format!("archive_mode = on\narchive_command = '{ours} && {theirs}'");
    let primary = world.primary_with(&["-k"], &archiving);
    let workload = Workload::start(&primary);
    workload.advance(50);
    world.back_up(&primary, &["--compression", "gzip"]);
    barman
        .program("backup")
        .with_server(primary.socket_directory())
        .run(&["--gzip", "--immediate-checkpoint", &url, BARMANS])
        .ok();
    workload.advance(50);
    let count = workload.stop();
    primary.archive_now();
    assert_eq!(restored_by_barman(&world, &barman, &url), count);
    assert_eq!(restored_by_us(&world), count);
}

fn restored_by_barman(world: &World<FakeGcs>, barman: &Barman, url: &str) -> u64 {
    let directory = world.place("by-barman");
    let path = directory.display().to_string();
    let tablespace = format!("cold:{path}.cold");
    barman
        .run(
            "restore",
            &["--tablespace", &tablespace, url, SERVER, "last", &path],
        )
        .ok();
    // Our manifest travelled with the files.
    world.verify_backup(&directory);
    let restored = world.adopt("by-barman");
    let restore = barman.program("wal-restore");
    let restore = restore.shell_line(&[url, SERVER, "%f", "%p"]);
    restored.recover(&format!("restore_command = '{restore}'"));
    start_and_count(&restored)
}

fn restored_by_us(world: &World<FakeGcs>) -> u64 {
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
