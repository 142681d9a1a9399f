//! Backups through a sidecar's socket, with a real server and a real store.

use std::fs::File;
use std::os::unix::fs::FileExt;

use cellarman::cnpgi::backup::BackupCapabilitiesRequest;
use cellarman::cnpgi::backup::backup_capability::Type;
use cellarman::cnpgi::backup::backup_capability::rpc::Type as RpcType;
use cellarman::cnpgi::backup::backup_client::BackupClient;
use cellarman::domain::backup::BackupStatus;
use cellarman::domain::segment::{SegmentName, SegmentSize};
use serde_json::{Value, json};
use testbed::or_not_run;
use testbed::wait;
use tonic::Code;

use crate::backup_bed::{Bed, OWN, backup};

#[test]
fn a_backup_tells_all_about_itself() {
    let bed = or_not_run!(Bed::new(&json!({})));
    let mut client = BackupClient::new(bed.sidecar.channel());
    let answer = client.get_capabilities(BackupCapabilitiesRequest {});
    let answer = bed.sidecar.block(answer).expect("capabilities");
    let capabilities = answer.into_inner().capabilities;
    let Some(Type::Rpc(rpc)) = capabilities[0].r#type else {
        panic!("no capability");
    };
    assert_eq!(rpc.r#type(), RpcType::Backup);

    let result = bed.take("first", &[("colour", "blue")]);
    assert!(result.backup_name.starts_with("backup-2"), "{result:?}");
    assert_eq!(result.backup_id.len(), 15);
    assert!(result.started_at > 1_700_000_000 && result.stopped_at >= result.started_at);
    assert!(result.begin_wal.len() == 24 && result.end_wal >= result.begin_wal);
    assert!(result.begin_lsn.contains('/') && result.end_lsn.contains('/'));
    assert!(result.backup_label_file.starts_with(b"START WAL LOCATION"));
    assert!(result.online && result.instance_id == "pg-1");
    for (key, value) in [
        ("timeline", "1"),
        ("name", crate::sidecar::PLUGIN),
        ("pluginName", crate::sidecar::PLUGIN),
        ("displayName", "BarmanCloudInstance"),
        ("clusterUID", "6f0c"),
        ("objectStore", OWN.0),
        ("serverName", OWN.1),
        ("destinationPath", &bed.store.url("backups")),
    ] {
        assert_eq!(result.metadata[key], value, "{key}");
    }
    assert_eq!(bed.states(), [BackupStatus::Done]);
    let unknown = bed.event("UnknownParameters").expect("an event");
    assert!(unknown.contains("colour"), "{unknown}");

    let window = bed.window(OWN.0, OWN.1);
    assert_eq!(window["backups"], 1);
    assert!(window["firstRecoverabilityPoint"].is_string(), "{window}");
    assert_eq!(
        window["firstRecoverabilityPoint"],
        window["lastSuccessfulBackupTime"]
    );
    // What was there before is there still.
    let other = bed.window(OWN.0, "other");
    assert_eq!(
        other,
        json!({"lastFailedBackupTime": "2026-01-02T03:04:05Z"})
    );
    let store = bed.object("ObjectStore", OWN.0).expect("an ObjectStore");
    assert_eq!(store["status"]["later"], 1);
}

#[test]
fn what_keeps_a_backup_from_being_taken_is_said_first() {
    let mut bed = or_not_run!(Bed::new(&json!({})));
    let broken = |field: &str| {
        let mut request = bed.request("b", &[]);
        if field == "cluster" {
            request.cluster_definition = "{".into();
        } else {
            request.backup_definition = "{".into();
        }
        request
    };
    let mut storeless = bed.request("b", &[]);
    storeless.cluster_definition = json!({"metadata": {"name": "pg"}}).to_string().into();
    for (request, code, words) in [
        (
            broken("cluster"),
            Code::InvalidArgument,
            "the cluster definition cannot be read",
        ),
        (
            broken("backup"),
            Code::InvalidArgument,
            "the backup definition cannot be read",
        ),
        (storeless, Code::InvalidArgument, "no ObjectStore is named"),
        (
            bed.request("b", &[("barmanObjectName", "nowhere")]),
            Code::FailedPrecondition,
            "ObjectStore nowhere is not in namespace db",
        ),
        (
            bed.request("b", &[("serverName", "a/b")]),
            Code::FailedPrecondition,
            "serverName \"a/b\" cannot be used",
        ),
    ] {
        let status = bed.ask(request).expect_err("a refusal");
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().starts_with(words), "{status}");
    }
    let failed = bed.event("BackupFailed").expect("an event");
    assert!(
        failed.starts_with("Backup b failed: ObjectStore nowhere"),
        "{failed}"
    );

    bed.server.stop();
    let status = bed.ask(bed.request("c", &[])).expect_err("a refusal");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let window = bed.window(OWN.0, OWN.1);
    assert!(window["lastFailedBackupTime"].is_string(), "{window}");
    assert_eq!(window["lastError"]["message"], status.message());
    assert_eq!(window["lastSuccessfulBackupTime"], Value::Null);

    bed.store.kill();
    let status = bed.ask(bed.request("d", &[])).expect_err("a refusal");
    assert!(!status.message().is_empty(), "{status}");
}

#[test]
fn a_backup_to_another_store_has_its_wal_beside_it() {
    let bed = or_not_run!(Bed::new(&json!({})));
    bed.put_other_store("store-b");
    let parameters = [("barmanObjectName", "store-b"), ("serverName", "copy")];
    let result = bed.take("elsewhere", &parameters);
    assert_eq!(result.metadata["objectStore"], "store-b");
    assert_eq!(result.metadata["serverName"], "copy");
    // plugin-barman-cloud would take it for one that is gone from the Cluster's own archive.
    assert!(!result.metadata.contains_key("pluginName"));
    assert_eq!(bed.states(), []);
    assert_eq!(bed.window("store-b", "copy")["backups"], 1);
    assert_eq!(bed.window(OWN.0, OWN.1)["backups"], 0);

    let repository = bed.repository("store-b", "copy");
    let begin: SegmentName = result.begin_wal.parse().expect("a segment");
    let end: SegmentName = result.end_wal.parse().expect("a segment");
    let size = SegmentSize::new(1 << 20).expect("a size");
    let there = bed
        .sidecar
        .block(repository.archived_segments(begin, end, size));
    let there = there.expect("a listing");
    assert!(there.contains(&begin) && there.contains(&end), "{there:?}");
    let catalog = bed.sidecar.block(repository.list_backups());
    let backups = catalog.expect("a catalog").backups;
    assert_eq!(backups[0].backup.status, BackupStatus::Done);
    assert_eq!(backups[0].backup.id.as_str(), result.backup_id);
}

#[test]
fn a_backup_that_is_not_to_wait_for_its_wal_says_so_and_is_done_without_it() {
    let bed = or_not_run!(Bed::new(&json!({})));
    bed.put_other_store("store-b");
    bed.server.archive_now();
    let asked = |name: &str, parameters: &[(&str, &str)]| {
        let mut request = bed.request(name, parameters);
        let mut backup = backup(name, true);
        backup["spec"]["onlineConfiguration"]["waitForArchive"] = json!(false);
        request.backup_definition = backup.to_string().into();
        bed.ask(request).expect("a backup")
    };
    let is_archived = |folder: &str, server: &str, wal: &str| {
        let wal: SegmentName = wal.parse().expect("a segment");
        let size = SegmentSize::new(1 << 20).expect("a size");
        let repository = bed.repository(folder, server);
        let there = repository.archived_segments(wal, wal, size);
        bed.sidecar.block(there).expect("a listing").contains(&wal)
    };
    let sql = bed.server.sql();
    let command = sql.value("SHOW archive_command");
    sql.run("ALTER SYSTEM SET archive_command = 'false'");
    sql.run("SELECT pg_reload_conf()");
    let hasty = asked("hasty", &[]);
    assert_eq!(hasty.metadata["waitedForArchive"], "false");
    assert_eq!(bed.states(), [BackupStatus::Done]);
    assert!(!is_archived("backups", OWN.1, &hasty.end_wal));
    let news = bed.event("WalNotAwaited").expect("an event");
    assert!(news.contains(&hasty.end_wal), "{news}");

    sql.run(&format!(
        "ALTER SYSTEM SET archive_command = '{}'",
        command.replace('\'', "''")
    ));
    sql.run("SELECT pg_reload_conf()");
    // WAL comes to another archive with the backup, or never: it is waited for all the same.
    let elsewhere = asked("elsewhere", &[("barmanObjectName", "store-b")]);
    assert!(!elsewhere.metadata.contains_key("waitedForArchive"));
    assert!(is_archived("store-b", OWN.1, &elsewhere.begin_wal));
    assert!(is_archived("store-b", OWN.1, &elsewhere.end_wal));
    wait::until_true("the WAL of the first to come", || {
        is_archived("backups", OWN.1, &hasty.end_wal)
    });
}

#[test]
fn damaged_pages_are_told_and_the_backup_is_taken() {
    let bed = or_not_run!(Bed::new(&json!({})));
    let sql = bed.server.sql();
    sql.run("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
    sql.run("CHECKPOINT");
    let path = sql.value("SELECT pg_relation_filepath('t')");
    let file = File::options()
        .write(true)
        .open(bed.server.directory().join(&path))
        .expect("the table's file");
    file.write_all_at(b"damage", 4000)
        .expect("the damage is done");
    bed.take("damaged", &[]);
    assert_eq!(bed.states(), [BackupStatus::Done]);
    let news = bed.event("DamagedPages").expect("an event");
    assert!(
        news.contains(": 1, in files: 1") && news.contains(&path),
        "{news}"
    );
}

#[test]
fn a_killed_sidecar_leaves_nothing_that_passes_for_a_backup() {
    let mut bed = or_not_run!(Bed::new(&json!({})));
    // A spread checkpoint of a server with work to write takes longer than this test.
    bed.server
        .sql()
        .run("CREATE TABLE t AS SELECT generate_series(1, 200000) AS id");
    let mut request = bed.request("killed", &[]);
    request.backup_definition = backup("killed", false).to_string().into();
    let mut client = BackupClient::new(bed.sidecar.channel());
    let (told, answer) = std::sync::mpsc::channel();
    bed.sidecar.spawn(async move {
        told.send(client.backup(request).await).ok();
    });
    bed.sidecar
        .wait_for_log("waiting for the server's checkpoint");
    let second = bed.ask(bed.request("second", &[])).expect_err("a refusal");
    assert!(second.message().starts_with("another backup"), "{second}");
    bed.sidecar.kill();
    let killed = answer.recv().expect("an answer");
    killed.expect_err("the connection is gone");
    assert_eq!(bed.states(), [BackupStatus::Started]);

    bed.sidecar.start_again();
    bed.take("after", &[]);
    let states = bed.states();
    assert_eq!(states.len(), 2);
    assert_ne!(states[0], BackupStatus::Done);
    assert_eq!(states[1], BackupStatus::Done);
    assert_eq!(bed.window(OWN.0, OWN.1)["backups"], 1);
}

#[test]
fn a_caller_that_goes_away_takes_its_backup_with_it() {
    let bed = or_not_run!(Bed::new(&json!({})));
    bed.server
        .sql()
        .run("CREATE TABLE t AS SELECT generate_series(1, 200000) AS id");
    let mut request = bed.request("left", &[]);
    request.backup_definition = backup("left", false).to_string().into();
    let mut client = BackupClient::new(bed.sidecar.channel());
    let caller = bed.sidecar.spawn(async move {
        let _answer = client.backup(request).await;
    });
    bed.sidecar
        .wait_for_log("waiting for the server's checkpoint");
    caller.abort();
    wait::until_true("the backup to be given up", || {
        bed.states() == [BackupStatus::Failed]
    });
    wait::until_true("the failure to be reported", || {
        bed.window(OWN.0, OWN.1)["lastFailedBackupTime"].is_string()
    });
    bed.take("next", &[]);
    assert_eq!(bed.states(), [BackupStatus::Failed, BackupStatus::Done]);
}
