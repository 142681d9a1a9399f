//! Archiving and restoring WAL while something fails: the store, the disk, the sidecar itself.
//!
//! Not here: bad requests (`wal`), and a whole server's recovery meanwhile.

use std::fs;
use std::sync::mpsc;
use std::thread;

use cellarman::cnpgi::wal::wal_client::WalClient;
use serde_json::json;
use testbed::or_not_run;
use testbed::small_disk::SmallDisk;
use tonic::Code;

use crate::sidecar::{self, Sidecar, cluster};
use crate::wal::{Bed, refused};

#[test]
fn a_store_that_is_away_fails_the_call_and_loses_nothing() {
    let mut bed = or_not_run!(Bed::new());
    let cluster = cluster(Some(("store-a", "pg")), None);
    let names = bed.ready();
    bed.archive(&cluster, &names[0]).expect("the first one");
    bed.store.kill();
    let outcome = bed.sidecar.archive(&cluster, &bed.file(&names[1]), None);
    refused(outcome, Code::Unavailable, &["backups/pg/wals"]);
    bed.store.start_again();
    for name in &names[1..] {
        bed.archive(&cluster, name).expect("the store is back");
    }
    assert_eq!(Some(&bed.status(&cluster).last_wal), names.last());
}

#[test]
fn a_full_disk_holds_up_a_recovery_and_no_archiving() {
    let mut bed = or_not_run!(Bed::new());
    let disk = or_not_run!(SmallDisk::mount(&bed.scratch, "small", 8 << 10));
    let cluster = cluster(Some(("store-a", "pg")), None);
    let mut recovering = cluster.clone();
    recovering["status"]["currentPrimary"] = json!("");
    // Another data directory of the same server, with one of its WAL files.
    let names = bed.ready();
    let pg_wal = disk.path().join("pg_wal");
    fs::create_dir_all(pg_wal.join("archive_status")).expect("a folder");
    fs::copy(bed.file(&names[0]), pg_wal.join(&names[0])).expect("a copy");
    for path in ["", "archive_status", &names[0]] {
        bed.scratch.account().own(&pg_wal.join(path));
    }
    bed.archive(&cluster, &names[1]).expect("the second one");
    bed.sidecar.kill();
    let filler = disk.path().join("filler");
    let written = fs::write(&filler, vec![1; 8 << 20]);
    assert!(written.is_err(), "there is room left");
    bed.sidecar = Sidecar::start(&bed.scratch, &bed.objects, ("instance", disk.path()), &[]);
    // What is remembered and marked on the way has no room.
    bed.sidecar
        .archive(&cluster, &pg_wal.join(&names[0]), None)
        .expect("it is archived all the same");
    let destination = pg_wal.join("RECOVERYXLOG");
    let request = sidecar::restore_request(&recovering, &names[1], &destination);
    let mut client = WalClient::new(bed.sidecar.channel());
    let (sender, answer) = mpsc::channel();
    bed.sidecar.spawn(async move {
        // Nobody listens only where the test has failed.
        let _ = sender.send(client.restore(request).await.map(drop));
    });
    bed.sidecar.wait_for_log("the server waits for WAL");
    assert!(bed.sidecar.log().contains("No space left"));
    assert!(answer.try_recv().is_err(), "the recovery was told an end");
    fs::remove_file(filler).expect("room");
    answer.recv().expect("an answer").expect("it is restored");
    assert!(fs::read(&destination).ok() == fs::read(bed.file(&names[1])).ok());
}

#[test]
fn a_sidecar_killed_in_the_middle_leaves_nothing_in_the_way() {
    let mut bed = or_not_run!(Bed::new());
    let cluster = cluster(Some(("store-a", "pg")), None);
    let recovering = {
        let mut recovering = cluster.clone();
        recovering["status"]["currentPrimary"] = json!("");
        recovering
    };
    let names = bed.ready();
    bed.archive(&cluster, &names[0]).expect("the first one");
    bed.store.kill();
    let channel = bed.sidecar.channel();
    let archive = sidecar::archive_request(&cluster, &bed.file(&names[1]), None);
    let destination = bed.file("RECOVERYXLOG");
    let restore = sidecar::restore_request(&recovering, &names[0], &destination);
    let calls = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let (mut one, mut other) = (WalClient::new(channel.clone()), WalClient::new(channel));
            let (archived, restored) = tokio::join!(one.archive(archive), other.restore(restore));
            archived.is_err() && restored.is_err()
        })
    });
    bed.sidecar.wait_for_log("the server waits for WAL");
    bed.sidecar.kill();
    assert!(calls.join().expect("a thread"));
    assert!(!destination.exists());
    bed.store.start_again();
    bed.sidecar.start_again();
    for name in &names[1..] {
        bed.archive(&cluster, name).expect("it is archived");
    }
    let restored = bed.sidecar.restore(&recovering, &names[0], &destination);
    restored.expect("it is restored");
    assert_eq!(
        fs::read(&destination).expect("a file"),
        fs::read(bed.file(&names[0])).expect("a file")
    );
    let left = bed.file(".cellarman/tmp");
    assert_eq!(fs::read_dir(left).expect("a folder").count(), 0);
}
