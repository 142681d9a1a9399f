//! Looking after the archive: what the sidecar does by itself, seen in the store and the objects.

use cellarman::domain::backup::BackupStatus;
use serde_json::{Value, json};
use testbed::or_not_run;
use testbed::wait;

use crate::backup_bed::{Bed, OWN, backup};

const EVERY_SECOND: &str = "retentionPolicyIntervalSeconds";

fn condition(bed: &Bed, name: &str) -> Value {
    let store = bed.object("ObjectStore", OWN.0).expect("an ObjectStore");
    let conditions = store["status"]["conditions"].as_array().cloned();
    let mut conditions = conditions.unwrap_or_default().into_iter();
    conditions
        .find(|condition| condition["type"] == name)
        .unwrap_or_default()
}

#[test]
fn retention_deletes_backups_and_their_resources_follow() {
    let bed = or_not_run!(Bed::new(&json!({
        "retention": {"redundancy": 2},
        "instanceSidecarConfiguration": {EVERY_SECOND: 1},
    })));
    bed.put_other_store("store-b");
    let elsewhere = [("barmanObjectName", "store-b"), ("serverName", "copy")];
    bed.take("elsewhere", &elsewhere);
    // Ours in name only: of another Cluster of the same name, gone long ago.
    let mut foreign = backup("foreign", true);
    foreign["status"] = json!({"phase": "completed", "backupId": "20200101T000000",
        "pluginMetadata": {"clusterUID": "gone", "pluginName": crate::sidecar::PLUGIN}});
    bed.objects.put(&foreign);
    for name in ["one", "two", "three"] {
        bed.take(name, &[]);
        bed.server.archive_now();
    }
    wait::until_true("the first backup to be deleted", || bed.states().len() == 2);
    wait::until_true("its Backup to follow", || {
        bed.object("Backup", "one").is_none()
    });
    assert_eq!(bed.states(), [BackupStatus::Done, BackupStatus::Done]);
    for name in ["two", "three", "elsewhere", "foreign"] {
        assert!(bed.object("Backup", name).is_some(), "{name}");
    }
    wait::until_true("an event about it", || {
        let collected = bed.event("BackupsCollected");
        collected.is_some_and(|collected| collected.contains("one"))
    });
    wait::until_true("the status to follow", || {
        bed.window(OWN.0, OWN.1)["backups"] == 2
    });
    assert_eq!(condition(&bed, "Reachable")["status"], "True");
    assert_eq!(condition(&bed, "RetentionHealthy")["status"], "True");
    assert!(bed.window(OWN.0, "other")["lastFailedBackupTime"].is_string());
}

#[test]
fn retention_runs_where_backups_went_and_only_where_all_of_them_are_this_clusters() {
    let bed = or_not_run!(Bed::new(&json!({
        "instanceSidecarConfiguration": {EVERY_SECOND: 1},
    })));
    bed.put_other_store("store-b");
    bed.change("ObjectStore", "store-b", |store| {
        store["spec"]["retention"] = json!({"redundancy": 1});
    });
    let shared = [("barmanObjectName", "store-b"), ("serverName", "shared")];
    // No Backup of this Cluster tells of it: it is another's, for all that is known.
    bed.ask(bed.request("unknown", &shared)).expect("a backup");
    bed.take("beside", &shared);
    bed.take("beside-too", &shared);
    let copy = [("barmanObjectName", "store-b"), ("serverName", "copy")];
    bed.take("one", &copy);
    bed.take("two", &copy);
    wait::until_true(
        "the first of the copies to be deleted, and its Backup",
        || bed.window("store-b", "copy")["backups"] == 1 && bed.object("Backup", "one").is_none(),
    );
    assert!(bed.object("Backup", "two").is_some());
    // The folder is looked at after the other, in the same round.
    wait::until_true("a look at the shared folder", || {
        bed.sidecar
            .log()
            .matches("is not this Cluster's alone")
            .count()
            > 1
    });
    assert_eq!(bed.window("store-b", "shared")["backups"], 3);
    let repository = bed.repository("store-b", "shared");
    let catalog = bed.sidecar.block(repository.list_backups());
    assert_eq!(catalog.expect("a catalog").backups.len(), 3);
    assert_eq!(condition(&bed, "RetentionHealthy")["status"], "True");
}

#[test]
fn another_bucket_behind_the_same_name_costs_no_backup_resource() {
    let bed = or_not_run!(Bed::new(&json!({
        "instanceSidecarConfiguration": {EVERY_SECOND: 1},
    })));
    bed.take("precious", &[]);
    bed.change("ObjectStore", OWN.0, |store| {
        store["spec"]["configuration"]["destinationPath"] = json!(bed.store.url("moved"));
    });
    // The server goes on archiving there, and another backup is taken there.
    bed.sidecar.wait_for_log(&bed.store.url("moved"));
    bed.server.archive_now();
    let there = bed.take("second", &[]);
    assert_eq!(there.metadata["destinationPath"], bed.store.url("moved"));
    wait::until_true("a round there", || {
        bed.window(OWN.0, OWN.1)["backups"] == 1
            && condition(&bed, "Reachable")["message"]
                .as_str()
                .is_some_and(|words| words.contains("1 completed backup."))
    });
    assert!(bed.object("Backup", "precious").is_some());
}

#[test]
fn a_store_that_is_down_is_told_and_costs_nothing() {
    let mut bed = or_not_run!(Bed::new(&json!({
        "retentionPolicy": "1d",
        "instanceSidecarConfiguration": {EVERY_SECOND: 1},
    })));
    bed.take("kept", &[]);
    wait::until_true("a round", || {
        condition(&bed, "Reachable")["status"] == "True"
    });
    bed.store.kill();
    wait::until_true("the outage to be told", || {
        condition(&bed, "Reachable")["status"] == "False"
    });
    assert!(bed.object("Backup", "kept").is_some());
    assert_eq!(bed.window(OWN.0, OWN.1)["backups"], 1);
    bed.store.start_again();
    wait::until_true("its end to be told", || {
        condition(&bed, "Reachable")["status"] == "True"
    });
    wait::until_true("the error to be taken back", || {
        bed.window(OWN.0, OWN.1)["lastError"] == Value::Null
    });
}

#[test]
fn an_object_store_that_comes_late_is_looked_at_without_waiting_for_the_interval() {
    // The interval is half an hour here, and five minutes after an error.
    let bed = or_not_run!(Bed::new(&json!({})));
    wait::until_true("a round", || {
        condition(&bed, "Reachable")["status"] == "True"
    });
    let mut later = bed.object("ObjectStore", OWN.0).expect("an ObjectStore");
    bed.change("Cluster", "pg", |cluster| {
        cluster["spec"]["plugins"][0]["parameters"]["barmanObjectName"] = json!("later");
    });
    bed.sidecar.wait_for_log("ObjectStore later is not in");
    later["metadata"]["name"] = json!("later");
    later["status"] = Value::Null;
    bed.objects.put(&later);
    wait::until_true("the store that came late to be looked at", || {
        let store = bed.object("ObjectStore", "later").expect("an ObjectStore");
        store["status"].to_string().contains("Reachable")
    });
}

#[test]
fn only_the_primary_looks_after_the_archive() {
    let bed = or_not_run!(Bed::new(&json!({
        "instanceSidecarConfiguration": {EVERY_SECOND: 1},
    })));
    let mut cluster = bed.cluster.clone();
    wait::until_true("a round", || {
        condition(&bed, "Reachable")["status"] == "True"
    });
    cluster["status"]["currentPrimary"] = json!("pg-2");
    bed.objects.put(&cluster);
    bed.sidecar.wait_for_log("this is not the primary");
}
