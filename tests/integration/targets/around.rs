//! `cellarman targets --around`: from about when it happened to the transaction, and to a plan.

use serde_json::Value;
use testbed::cluster::Release;
use testbed::world::World;
use testbed::{not_run, or_not_run};

fn json(world: &World, arguments: &[&str]) -> Value {
    let arguments = [&["--json", "targets"], arguments].concat();
    let ended = world.cellarman.run(&arguments);
    assert!(ended.status.success(), "{}", ended.describe());
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// The XIDs and the names of one side, in order.
fn side(around: &Value, side: &str) -> Vec<String> {
    let records = around[side]["records"].as_array().expect("records");
    let called = |record: &Value| match record["xid"].as_u64() {
        Some(xid) => xid.to_string(),
        None => record["restore_point"].as_str().expect("a name").to_owned(),
    };
    records.iter().map(called).collect()
}

#[test]
fn about_when_it_happened_leads_to_the_transaction_and_to_a_plan() {
    let release = or_not_run!(Release::eighteen());
    let world = match World::new(env!("CARGO_BIN_EXE_cellarman"), Ok(release)) {
        Ok(world) => world,
        Err(reason) => not_run!(reason),
    };
    let server = world.primary(&["--wal-segsize=1"]);
    let sql = server.sql();
    sql.run("CREATE TABLE precious (n int)");
    world.back_up(&server, &[]);
    let transaction = |work: &str| {
        sql.value(&format!(
            "BEGIN; {work}; SELECT pg_current_xact_id(); COMMIT"
        ))
    };
    let mut expected: Vec<String> = (0..4)
        .map(|number| transaction(&format!("INSERT INTO precious VALUES ({number})")))
        .collect();
    sql.run("SELECT pg_create_restore_point('before it')");
    expected.push("before it".to_owned());
    let about = sql.value("SELECT clock_timestamp()");
    let disaster = transaction("DELETE FROM precious");
    let after = transaction("INSERT INTO precious VALUES (9)");
    server.archive_now();

    let around = json(&world, &["--around", &about, "--count", "3"]);
    assert_eq!(side(&around, "before"), expected[2..], "{around:#}");
    let behind = side(&around, "after");
    assert_eq!(behind[..2], [disaster.clone(), after], "{around:#}");
    let lsn = around["after"]["records"][0]["lsn"]
        .as_str()
        .expect("an LSN");
    let plan = json(&world, &["--xid", &disaster, "--exclusive"]);
    assert_eq!(plan["stop"]["lsn"], lsn, "{plan:#}");
    // By its position it is the same.
    let by_lsn = json(&world, &["--around", lsn, "--count", "3"]);
    assert_eq!(by_lsn["after"], around["after"]);
    assert_eq!(by_lsn["before"], around["before"]);
    // All there is, and where it ends.
    let all = json(&world, &["--around", lsn, "--count", "1000"]);
    assert_eq!(all["before"]["cut"]["reason"], "edge", "{all:#}");
    assert_eq!(all["after"]["cut"]["reason"], "edge", "{all:#}");
    let table = world.cellarman.run(&["targets", "--around", &about]);
    let lines: Vec<&str> = table.stdout.lines().collect();
    let asked = lines.iter().position(|line| line.contains("<- asked for"));
    let asked = asked.expect("the point that was asked for");
    assert!(
        lines[asked - 1].contains("restore point \"before it\""),
        "{lines:#?}"
    );
    assert!(lines[asked + 1].contains(&disaster), "{lines:#?}");
    assert!(lines[asked + 1].contains("committed"), "{lines:#?}");
    let refused = world.cellarman.run(&["targets", "--around", "about noon"]);
    refused.exits_with(2);
    let elsewhere = world
        .cellarman
        .run(&["targets", "--around", lsn, "--timeline", "7"]);
    elsewhere.exits_with(1);
}
