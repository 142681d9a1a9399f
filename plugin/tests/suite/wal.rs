//! Archiving and restoring WAL through a sidecar's socket, with real servers and a real store.

use std::fs;
use std::path::{Path, PathBuf};

use cellarman::cnpgi::wal::wal_client::WalClient;
use cellarman::cnpgi::wal::wal_restore_request::Mode;
use cellarman::cnpgi::wal::{
    SetFirstRequiredRequest, WalArchiveRequest, WalRestoreRequest, WalStatusRequest,
    WalStatusResult,
};
use serde_json::{Value, json};
use testbed::account::Account;
use testbed::cluster::{Cluster, Release};
use testbed::minio::Minio;
use testbed::or_not_run;
use testbed::scratch::Scratch;
use testbed::wait;
use tonic::{Code, Status};

use crate::caller;
use crate::sidecar::{self, Objects, Sidecar, cluster};

/// What most tests need: a store, its ObjectStore, and a stopped server full of WAL.
pub(crate) struct Bed {
    pub(crate) sidecar: Sidecar,
    server: Cluster,
    pub(crate) store: Minio,
    pub(crate) objects: Objects,
    pub(crate) scratch: Scratch,
}

impl Bed {
    pub(crate) fn new() -> Result<Self, String> {
        let release = Release::eighteen()?;
        let scratch = Scratch::new(Account::of_servers()?);
        let store = Minio::start(&scratch)?;
        let objects = Objects::new(&scratch);
        objects.put_store("store-a", &store, &json!({"maxParallel": 1}));
        let server = with_wal(&release, &scratch, "server");
        let pgdata = server.directory().to_path_buf();
        let sidecar = Sidecar::start(&scratch, &objects, ("instance", &pgdata), &[]);
        Ok(Self {
            sidecar,
            server,
            store,
            objects,
            scratch,
        })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.server.directory().join("pg_wal").join(name)
    }

    /// The files that wait to be archived, in order.
    pub(crate) fn ready(&self) -> Vec<String> {
        ready(&self.server)
    }

    /// Archives one and notes that it is, as the server does.
    pub(crate) fn archive(&self, cluster: &Value, name: &str) -> Result<(), Status> {
        self.sidecar.archive(cluster, &self.file(name), None)?;
        let status = self.file("archive_status");
        let (ready, done) = (format!("{name}.ready"), format!("{name}.done"));
        fs::rename(status.join(ready), status.join(done)).expect("the status changes");
        Ok(())
    }

    pub(crate) fn status(&self, cluster: &Value) -> WalStatusResult {
        let mut client = WalClient::new(self.sidecar.channel());
        let request = WalStatusRequest {
            cluster_definition: cluster.to_string().into(),
        };
        let answer = self.sidecar.block(client.status(request));
        answer.expect("a status").into_inner()
    }
}

/// A stopped server with a few segments of 1 MiB to archive.
fn with_wal(release: &Release, scratch: &Scratch, name: &str) -> Cluster {
    let server = Cluster::create(release, scratch, name, &["--wal-segsize=1"]);
    server.configure("archive_mode = on\narchive_command = 'false'");
    server.start();
    let sql = server.sql();
    sql.run("CREATE TABLE t (note text)");
    for _ in 0..5 {
        sql.run("INSERT INTO t SELECT md5(random()::text) FROM generate_series(1, 400)");
        sql.run("SELECT pg_switch_wal()");
    }
    server.stop_at_once();
    server
}

fn ready(server: &Cluster) -> Vec<String> {
    let folder = server.directory().join("pg_wal/archive_status");
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .filter_map(|entry| {
            let name = entry.expect("an entry").file_name().into_string().ok()?;
            Some(name.strip_suffix(".ready")?.to_owned())
        })
        .collect();
    names.sort();
    names
}

#[track_caller]
pub(crate) fn refused(outcome: Result<(), Status>, code: Code, words: &[&str]) {
    let status = outcome.expect_err("a refusal");
    assert_eq!(status.code(), code, "{status}");
    for word in words {
        assert!(status.message().contains(word), "{word}: {status}");
    }
}

#[test]
fn every_kind_of_file_goes_to_the_archive_and_comes_back() {
    let bed = or_not_run!(Bed::new());
    let cluster = cluster(Some(("store-a", "pg")), None);
    let segments = bed.ready();
    let first = segments.first().expect("a segment").clone();
    let label = format!("{first}.00000028.backup");
    let unfinished = format!("{first}.partial");
    fs::copy(bed.file(&first), bed.file(&unfinished)).expect("a copy");
    fs::write(
        bed.file(&label),
        format!(
            "START WAL LOCATION: 0/28 (file {first})\nSTOP WAL LOCATION: 0/30 (file {first})\n"
        ),
    )
    .expect("a label");
    fs::write(
        bed.file("00000002.history"),
        "1\t0/3000000\tno recovery target specified\n",
    )
    .expect("a history");
    for name in &segments {
        bed.archive(&cluster, name).expect("it is archived");
    }
    for name in [label.as_str(), "00000002.history", unfinished.as_str()] {
        bed.scratch.account().own(&bed.file(name));
        let outcome = bed.sidecar.archive(&cluster, &bed.file(name), None);
        outcome.unwrap_or_else(|status| panic!("{name}: {status}"));
    }
    // The server asks again after a crash.
    let again = bed.sidecar.archive(&cluster, &bed.file(&first), None);
    again.expect("it is the same");
    let status = bed.status(&cluster);
    assert_eq!(status.first_wal, first);
    assert_eq!(Some(&status.last_wal), segments.last());
    let destination = bed.file("RECOVERYXLOG");
    for name in segments.iter().chain([&label]) {
        let restored = bed.sidecar.restore(&cluster, name, &destination);
        restored.unwrap_or_else(|status| panic!("{name}: {status}"));
        assert_eq!(
            fs::read(&destination).expect("a file"),
            fs::read(bed.file(name)).expect("a file"),
            "{name}"
        );
    }
    for name in ["00000003.history", "0000000100000000000000FF"] {
        let missing = bed.sidecar.restore(&cluster, name, &destination);
        refused(missing, Code::NotFound, &[name, "not in the archive"]);
    }
    // The same name with other bytes is somebody else's.
    let mut bytes = fs::read(bed.file(&first)).expect("a file");
    *bytes.last_mut().expect("a segment") ^= 1;
    fs::write(bed.file(&first), bytes).expect("a file");
    let conflict = bed.sidecar.archive(&cluster, &bed.file(&first), None);
    refused(
        conflict,
        Code::FailedPrecondition,
        &[&first, "other contents"],
    );
}

#[test]
fn a_request_that_lacks_something_is_refused_by_what_it_lacks() {
    let bed = or_not_run!(Bed::new());
    let own = cluster(Some(("store-a", "pg")), None);
    let file = bed.file(&bed.ready()[0]);
    let archive = |cluster: &Value, file: &Path| bed.sidecar.archive(cluster, file, None);
    refused(
        archive(&own, Path::new("")),
        Code::InvalidArgument,
        &["source_file_name"],
    );
    refused(
        archive(&own, Path::new("/no/such/name")),
        Code::InvalidArgument,
        &["name"],
    );
    refused(
        archive(&own, &bed.file("0000000100000000000000AA")),
        Code::Internal,
        &["0000000100000000000000AA"],
    );
    let none = cluster(None, None);
    refused(
        archive(&none, &file),
        Code::FailedPrecondition,
        &["Cluster pg", "spec.plugins"],
    );
    let absent = cluster(Some(("store-x", "pg")), None);
    refused(
        archive(&absent, &file),
        Code::FailedPrecondition,
        &["ObjectStore store-x", "namespace db", "barmanObjectName"],
    );
    let odd = cluster(Some(("store-a", "a/b")), None);
    refused(
        archive(&odd, &file),
        Code::FailedPrecondition,
        &["serverName", "a/b"],
    );
    let mut client = WalClient::new(bed.sidecar.channel());
    let empty = bed
        .sidecar
        .block(client.archive(WalArchiveRequest::default()));
    refused(
        empty.map(drop),
        Code::InvalidArgument,
        &["cluster_definition"],
    );
    let broken = WalArchiveRequest {
        cluster_definition: "{".into(),
        ..WalArchiveRequest::default()
    };
    let broken = bed.sidecar.block(client.archive(broken));
    refused(broken.map(drop), Code::InvalidArgument, &["cluster"]);
}

#[test]
fn a_restore_that_lacks_something_is_refused_by_what_it_lacks() {
    let bed = or_not_run!(Bed::new());
    let own = cluster(Some(("store-a", "pg")), None);
    let mut client = WalClient::new(bed.sidecar.channel());
    let destination = bed.file("RECOVERYXLOG");
    for (request, word) in [
        (
            sidecar::restore_request(&own, "", &destination),
            "source_wal_name",
        ),
        (
            sidecar::restore_request(&own, "00000002.history", Path::new("")),
            "destination_file_name",
        ),
        (WalRestoreRequest::default(), "cluster_definition"),
    ] {
        let answer = bed.sidecar.block(client.restore(request));
        refused(answer.map(drop), Code::InvalidArgument, &[word]);
    }
}

#[test]
fn the_first_wal_that_is_required_is_noted_and_told() {
    let bed = or_not_run!(Bed::new());
    let own = cluster(Some(("store-a", "pg")), None);
    let mut client = WalClient::new(bed.sidecar.channel());
    let mut required = SetFirstRequiredRequest {
        cluster_definition: own.to_string().into(),
        first_required_wal: "nonsense".to_owned(),
    };
    let answer = bed
        .sidecar
        .block(client.set_first_required(required.clone()));
    refused(answer.map(drop), Code::InvalidArgument, &["nonsense"]);
    required.first_required_wal = "000000010000000000000007".to_owned();
    let answer = bed.sidecar.block(client.set_first_required(required));
    answer.expect("it is noted");
    let noted = bed.status(&own).additional_information;
    assert_eq!(noted["firstRequiredWal"], "000000010000000000000007");
    assert_eq!(bed.status(&own).first_wal, "");
}

#[test]
fn a_new_cluster_stays_out_of_an_archive_that_holds_wal() {
    let bed = or_not_run!(Bed::new());
    let mut cluster = cluster(Some(("store-a", "pg")), None);
    let names = bed.ready();
    let marker = bed.server.directory().join(".check-empty-wal-archive");
    fs::write(&marker, "").expect("a marker");
    bed.archive(&cluster, &names[0])
        .expect("the archive is empty");
    assert!(!marker.exists());
    fs::write(&marker, "").expect("a marker");
    let words = ["must be empty", "Expected empty archive", "serverName"];
    for must_be_empty in [None, Some(true)] {
        let outcome = bed
            .sidecar
            .archive(&cluster, &bed.file(&names[1]), must_be_empty);
        refused(outcome, Code::FailedPrecondition, &words);
        assert!(marker.exists());
    }
    fs::remove_file(&marker).expect("it is removed");
    let outcome = bed
        .sidecar
        .archive(&cluster, &bed.file(&names[1]), Some(true));
    refused(outcome, Code::FailedPrecondition, &words);
    fs::write(&marker, "").expect("a marker");
    let outcome = bed
        .sidecar
        .archive(&cluster, &bed.file(&names[1]), Some(false));
    outcome.expect("the operator says that it need not be empty");
    assert!(!marker.exists());
    fs::write(&marker, "").expect("a marker");
    cluster["metadata"]["annotations"] = json!({"cnpg.io/skipEmptyWalArchiveCheck": "enabled"});
    bed.archive(&cluster, &names[2])
        .expect("the annotation says so");
}

#[test]
fn another_clusters_archive_is_refused_whatever_the_operator_says() {
    let bed = or_not_run!(Bed::new());
    let cluster = cluster(Some(("store-a", "pg")), None);
    bed.archive(&cluster, &bed.ready()[0])
        .expect("the first one");
    let release = or_not_run!(Release::eighteen());
    let stranger = with_wal(&release, &bed.scratch, "stranger");
    let name = ready(&stranger).remove(0);
    let file = stranger.directory().join("pg_wal").join(name);
    for must_be_empty in [None, Some(false)] {
        let outcome = bed.sidecar.archive(&cluster, &file, must_be_empty);
        refused(
            outcome,
            Code::FailedPrecondition,
            &["not this server's own", "serverName"],
        );
    }
}

#[test]
fn a_server_that_can_stream_is_let_go_after_a_while() {
    let mut bed = or_not_run!(Bed::new());
    let mut standby = cluster(Some(("store-a", "pg")), None);
    bed.archive(&standby, &bed.ready()[0])
        .expect("the first one");
    standby["status"]["currentPrimary"] = json!("pg-2");
    bed.store.kill();
    let destination = bed.file("RECOVERYXLOG");
    let outcome = bed
        .sidecar
        .restore(&standby, "0000000100000000000000AA", &destination);
    refused(outcome, Code::Unavailable, &["within 30 s"]);
}

#[test]
fn nobody_waits_for_a_caller_that_has_gone() {
    let mut bed = or_not_run!(Bed::new());
    let mut recovering = cluster(Some(("store-a", "pg")), None);
    let name = bed.ready().remove(0);
    bed.archive(&recovering, &name).expect("the first one");
    recovering["status"]["currentPrimary"] = json!("");
    bed.store.kill();
    let destination = bed.file("RECOVERYXLOG");
    let mut client = WalClient::new(bed.sidecar.channel());
    let request = sidecar::restore_request(&recovering, &name, &destination);
    let log = || bed.sidecar.log();
    bed.sidecar.block(async {
        let call = client.restore(request.clone());
        let told = async {
            while !log().contains("the server waits for WAL") {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            answer = call => panic!("{answer:?}"),
            () = told => {}
        }
    });
    drop(client);
    bed.store.start_again();
    // One that is answered shows that the other is not.
    let other = bed.file("RECOVERYOTHER");
    bed.sidecar
        .restore(&recovering, &name, &other)
        .expect("it is restored");
    assert!(!destination.exists());
    bed.store.kill();
    let channel = bed.sidecar.channel();
    let waiting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let mut client = WalClient::new(channel);
        runtime
            .expect("a runtime")
            .block_on(client.restore(request))
    });
    wait::until_true("the second call to wait", || {
        log().matches("the server waits for WAL").count() == 2
    });
    assert_eq!(bed.sidecar.terminate(), Some(0));
    let answer = waiting.join().expect("a thread");
    refused(answer.map(drop), Code::Unavailable, &["told to end"]);
}

#[test]
fn what_changes_in_the_objects_takes_effect_without_a_restart() {
    let bed = or_not_run!(Bed::new());
    let cluster = cluster(Some(("store-a", "pg")), None);
    let names = bed.ready();
    bed.objects.put_secret("wrong");
    let outcome = bed.sidecar.archive(&cluster, &bed.file(&names[0]), None);
    refused(outcome, Code::PermissionDenied, &["credentials"]);
    bed.objects.put_secret(testbed::minio::CREDENTIALS.1);
    wait::until_true("the new Secret to be used", || {
        bed.archive(&cluster, &names[0]).is_ok()
    });
    let wal = json!({"maxParallel": 100, "compression": "gzip"});
    bed.objects.put_store("store-a", &bed.store, &wal);
    let folder = bed.scratch.path().join("minio/cellar/backups/pg/wals");
    let mut timelines = 2..;
    wait::until_true("the new compression to be used", || {
        let name = format!("{:08X}.history", timelines.next().unwrap_or(2));
        fs::write(bed.file(&name), "1\t0/3000000\tnone\n").expect("a history");
        let outcome = bed.sidecar.archive(&cluster, &bed.file(&name), None);
        outcome.expect("it is archived");
        folder.join(format!("{name}.gz")).exists()
    });
    assert!(
        bed.sidecar.log().contains("was taken for 64"),
        "{}",
        bed.sidecar.log()
    );
}

#[test]
fn a_recovering_server_waits_for_its_store_and_its_sidecar_and_does_not_end_early() {
    let release = or_not_run!(Release::eighteen());
    let scratch = Scratch::new(or_not_run!(Account::of_servers()));
    let mut store = or_not_run!(Minio::start(&scratch));
    let objects = Objects::new(&scratch);
    objects.put_store(
        "store-a",
        &store,
        &json!({"maxParallel": 4, "compression": "snappy"}),
    );
    let origin = Cluster::create(&release, &scratch, "origin", &["--wal-segsize=1"]);
    let copy = scratch.path().join("copy");
    let own = cluster(Some(("store-a", "origin")), None);
    let recovering = cluster(None, Some(("store-a", "origin")));
    let mut sidecar = Sidecar::start(&scratch, &objects, ("instance", &copy), &[]);
    // What is written before the copy need not come from the archive.
    origin.start();
    origin.sql().run("CREATE TABLE t (n int)");
    origin.stop();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(origin.directory())
        .arg(&copy)
        .status();
    assert!(copied.expect("cp").success());
    let command = caller::archive_command(&scratch, &sidecar, &own);
    origin.configure(&format!("archive_mode = on\narchive_command = '{command}'"));
    origin.start();
    let sql = origin.sql();
    for n in 0..12 {
        sql.run(&format!(
            "INSERT INTO t SELECT {n} FROM generate_series(1, 1000)"
        ));
        sql.run("SELECT pg_switch_wal()");
    }
    let last = origin.archive_now();
    drop(sql);
    origin.stop();
    store.kill();
    let recovered = Cluster::adopt(&release, &scratch, "recovered", copy);
    let command = caller::insisting_restore_command(&scratch, &sidecar, &recovering);
    recovered.recover(&format!(
        "restore_command = '{command}'\nrecovery_target_action = promote"
    ));
    std::thread::scope(|scope| {
        let start = scope.spawn(|| recovered.start());
        sidecar.wait_for_log("the server waits for WAL");
        assert!(!recovered.log().contains("archive recovery complete"));
        // The caller can only say no to a server whose sidecar is gone, and that is asked again.
        sidecar.kill();
        sidecar.start_again();
        store.start_again();
        start.join().expect("the server starts");
    });
    recovered.wait_until_recovered();
    assert_eq!(recovered.sql().value("SELECT count(*) FROM t"), "12000");
    assert!(recovered.log().contains(&last), "{}", recovered.log());
    assert_eq!(sidecar.terminate(), Some(0));
}

#[test]
fn what_a_rewind_asks_for_is_answered_and_nothing_is_fetched_ahead() {
    let bed = or_not_run!(Bed::new());
    let mut former = cluster(Some(("store-a", "pg")), None);
    for name in bed.ready() {
        bed.archive(&former, &name).expect("it is archived");
    }
    former["status"]["currentPrimary"] = json!("pg-2");
    let destination = bed.file("000000010000000000000099");
    let name = bed.status(&former).first_wal;
    let mut client = WalClient::new(bed.sidecar.channel());
    let request = WalRestoreRequest {
        mode: Mode::Rewind.into(),
        ..sidecar::restore_request(&former, &name, &destination)
    };
    bed.sidecar
        .block(client.restore(request))
        .expect("it is restored");
    assert!(destination.exists());
    assert!(!bed.file(".cellarman/prefetch.lock").exists());
}
