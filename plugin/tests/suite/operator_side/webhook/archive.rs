//! Targets in a real archive: of PostgreSQL, in MinIO.

use serde_json::{Value, json};
use testbed::cluster::Release;
use testbed::or_not_run;
use testbed::world::World;
use tokio::runtime::Runtime;

use super::{Webhook, cluster, denied, filled, review, untouched};
use crate::restore::built_beside;

/// Two backups, and what lies between them and behind.
struct Bed {
    runtime: Runtime,
    webhook: Webhook,
    first: String,
    second: String,
    /// A transaction that committed between the backups, and when.
    xid: String,
    committed: String,
    /// When the last one committed.
    last_commit: String,
    world: World,
}

impl Bed {
    fn new() -> Result<Self, String> {
        let world = World::new(&built_beside("cellarman")?, Release::eighteen())?;
        let primary = world.primary(&["--set=track_commit_timestamp=on"]);
        let sql = primary.sql();
        let point = |name: &str| {
            sql.run("CREATE TABLE IF NOT EXISTS t (x int)");
            sql.run("INSERT INTO t VALUES (1)");
            sql.run(&format!("SELECT pg_create_restore_point('{name}')"));
        };
        world.back_up(&primary, &[]);
        point("noon");
        point("twice");
        let xid = sql.value("INSERT INTO t VALUES (2) RETURNING pg_current_xact_id()");
        let committed = sql.value(&format!("SELECT pg_xact_commit_timestamp('{xid}')"));
        world.back_up(&primary, &[]);
        point("evening");
        point("twice");
        sql.run("INSERT INTO t VALUES (3)");
        let last_commit = sql.value("SELECT timestamp FROM pg_last_committed_xact()");
        primary.archive_now();
        primary.stop();
        let backups = world.cellarman.run(&["backup", "list", "--json"]);
        backups.ok();
        let backups: Value = serde_json::from_str(&backups.stdout).expect("JSON");
        let mut ids = ids(&backups);
        ids.sort();
        let [first, second] = <[String; 2]>::try_from(ids).expect("two backups");
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let webhook = runtime.block_on(Webhook::start());
        webhook.put_store(&world.store.endpoint());
        Ok(Self {
            runtime,
            webhook,
            first,
            second,
            xid,
            committed,
            last_commit,
            world,
        })
    }

    fn create(&self, target: &Value) -> Value {
        self.runtime.block_on(self.webhook.create(target))
    }

    fn review(&self, review: &Value) -> Value {
        self.runtime.block_on(self.webhook.review(review))
    }
}

/// The ids in a list of backups.
fn ids(backups: &Value) -> Vec<String> {
    let all = backups.as_array().or_else(|| backups["backups"].as_array());
    let all = all.expect("a list").iter();
    all.map(|backup| backup["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[test]
fn a_target_that_needs_its_backup_gets_it_and_others_are_left_alone() {
    let bed = or_not_run!(Bed::new());
    let (first, second) = (bed.first.as_str(), bed.second.as_str());
    for (target, backup) in [
        (json!({"targetName": "noon"}), first),
        (json!({"targetName": "evening"}), second),
        (
            json!({"targetName": "noon", "backupID": "", "targetTLI": "1"}),
            first,
        ),
        (json!({"targetXID": bed.xid}), first),
        (json!({"targetXID": bed.xid, "exclusive": true}), first),
        (json!({"targetImmediate": true}), second),
    ] {
        let response = bed.create(&target);
        assert_eq!(response["allowed"], true, "{target}: {response}");
        assert!(response["warnings"].is_null(), "{target}: {response}");
        assert_eq!(filled(&response).as_deref(), Some(backup), "{target}");
    }
    for target in [
        json!({"targetName": "noon", "backupID": first}),
        json!({"targetName": "evening", "backupID": first}),
        json!({"targetImmediate": true, "backupID": first}),
        json!({"targetTime": bed.committed}),
        json!({"targetTime": bed.last_commit, "exclusive": true}),
        json!({"targetTLI": "latest"}),
        json!({}),
    ] {
        untouched(&bed.create(&target));
    }
}

#[test]
fn a_target_that_is_not_reached_is_refused_with_the_reason() {
    let bed = or_not_run!(Bed::new());
    let (first, second) = (bed.first.as_str(), bed.second.as_str());
    let missing = "20200101T000000";
    for (target, words) in [
        (
            json!({"targetName": "none"}),
            &["\"none\"", "nearest", "\"evening\""][..],
        ),
        (
            json!({"targetName": "noon", "backupID": second}),
            &["\"noon\" comes before", second, "an earlier backup"],
        ),
        (
            json!({"targetName": "noon", "backupID": missing}),
            &[missing],
        ),
        (
            json!({"targetName": "noon", "targetTLI": "7"}),
            &["timeline 7"],
        ),
        (
            json!({"targetName": "twice"}),
            &["several places", first, second],
        ),
        (json!({"targetXID": "4000000000"}), &["4000000000"]),
        (
            json!({"targetLSN": "FF/0"}),
            &["FF/0", "end of the archive"],
        ),
        (
            json!({"targetTime": "2020-01-01 00:00:00"}),
            &["2020-01-01", "earliest"],
        ),
        (
            json!({"targetTime": "tomorrow"}),
            &["recoveryTarget.targetTime"],
        ),
    ] {
        denied(&bed.create(&target), words);
    }
}

/// PostgreSQL would replay all, meet no transaction that ended later, and fail.
#[test]
fn a_time_behind_the_last_transaction_is_refused_with_the_last_that_there_is() {
    let bed = or_not_run!(Bed::new());
    let behind = cellarman::clock::now().format("%Y-%m-%d %H:%M:%S%.6f+00");
    let response = bed.create(&json!({"targetTime": behind.to_string()}));
    // To the second: the zones of the two may differ.
    let last = &bed.last_commit[14..19];
    denied(
        &response,
        &["after the last transaction", "committed", last],
    );
}

#[test]
fn what_is_none_of_its_business_is_let_through_unseen() {
    let bed = or_not_run!(Bed::new());
    let nowhere = json!({"targetName": "none"});
    denied(&bed.create(&nowhere), &["none"]);
    bed.webhook.api.calls();
    for operation in ["UPDATE", "DELETE", "CONNECT", ""] {
        untouched(&bed.review(&review(operation, &cluster(&nowhere))));
    }
    let recovery = "/spec/bootstrap/recovery";
    let plugin = "/spec/externalClusters/0/plugin";
    for patch in [
        json!([{"op": "replace", "path": format!("{plugin}/name"), "value": "else"}]),
        json!([{"op": "add", "path": format!("{plugin}/enabled"), "value": false}]),
        json!([{"op": "remove", "path": plugin}]),
        json!([{"op": "replace", "path": format!("{recovery}/source"), "value": "else"}]),
        json!([{"op": "add", "path": format!("{recovery}/volumeSnapshots"), "value": {"storage": {}}}]),
        json!([{"op": "add", "path": format!("{recovery}/backup"), "value": {"name": "b"}}]),
        json!([{"op": "remove", "path": format!("{recovery}/recoveryTarget")}]),
        json!([{"op": "remove", "path": recovery}]),
        json!([{"op": "remove", "path": "/spec/bootstrap"}]),
    ] {
        let mut other = cluster(&nowhere);
        let patch: json_patch::Patch = serde_json::from_value(patch).expect("a patch");
        json_patch::patch(&mut other, &patch).expect("it is patched");
        untouched(&bed.review(&review("CREATE", &other)));
    }
    for (pointer, value) in [
        ("/request/kind/group", "else"),
        ("/request/kind/kind", "Backup"),
        ("/request/subResource", "status"),
    ] {
        let mut other = review("CREATE", &cluster(&nowhere));
        other["request"]["subResource"] = json!("");
        *other.pointer_mut(pointer).expect("a field") = json!(value);
        untouched(&bed.review(&other));
    }
    assert_eq!(bed.webhook.api.calls(), Vec::<String>::new());
}

#[test]
fn a_store_that_goes_away_refuses_nothing() {
    let mut bed = or_not_run!(Bed::new());
    let target = json!({"targetName": "noon"});
    assert!(filled(&bed.create(&target)).is_some());
    bed.world.store.kill();
    let response = bed.create(&target);
    super::unchecked(&response, &["endpointURL"]);
}
