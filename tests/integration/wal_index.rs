//! The index of the WAL that a server archives: made meanwhile, and made again from the archive.
//!
//! Not here: whether recovery stops where the index says (`targets`).

use std::collections::BTreeMap;

use serde_json::Value;
use testbed::cluster::Release;
use testbed::or_not_run;
use testbed::sql::Sql;
use testbed::world::{PATH, SERVER, World};

use crate::bucket::Bucket;

/// Some log: messages over the edges of segments, transactions, and one with many parts.
fn load(sql: &Sql, round: u32) {
    sql.run(&format!(
        "SELECT pg_logical_emit_message(false, 'load', repeat('x', {}))",
        40_000 + 7919 * (round % 50)
    ));
    sql.run(&format!("INSERT INTO marks VALUES ({round})"));
    sql.run(
        "DO $$ BEGIN FOR i IN 1..200 LOOP BEGIN INSERT INTO marks VALUES (-i); \
         EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$",
    );
    sql.run("INSERT INTO marks SELECT generate_series(1, 3000)");
}

fn prefix() -> String {
    format!("{PATH}/{SERVER}/cellarman/index/")
}

fn sizes(objects: &BTreeMap<String, u64>) -> u64 {
    objects.values().sum()
}

fn build(world: &World) -> Value {
    let ended = world.cellarman.run(&["--json", "index", "build"]);
    ended.ok();
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// What the program says of these targets.
fn answers(world: &World, targets: &[[String; 2]]) -> Vec<String> {
    let answer = |[kind, value]: &[String; 2]| {
        let ended = world.cellarman.run(&["--json", "targets", kind, value]);
        format!("{:?}: {}", ended.status.code(), ended.stdout)
    };
    targets.iter().map(answer).collect()
}

#[test]
fn an_index_made_while_archiving_is_that_which_is_built_and_finds_what_reading_finds() {
    let binary = env!("CARGO_BIN_EXE_cellarman");
    let world = or_not_run!(World::new(binary, Release::distribution()));
    let server = world.primary(&["--wal-segsize=1"]);
    let bucket = Bucket::of(&world.store);
    let sql = server.sql();
    sql.run("CREATE TABLE marks (n int)");
    for round in 0..150 {
        load(&sql, round);
    }
    server.archive_now();
    world.back_up(&server, &[]);
    let mut targets = vec![["--name".to_owned(), "never made".to_owned()]];
    for round in 0..4 {
        load(&sql, round);
        let name = format!("point {round}");
        sql.run(&format!("SELECT pg_create_restore_point('{name}')"));
        let xid =
            sql.value("BEGIN; INSERT INTO marks VALUES (0); SELECT pg_current_xact_id(); COMMIT");
        let (lsn, time) = (
            sql.value("SELECT pg_current_wal_insert_lsn()"),
            sql.value("SELECT clock_timestamp()"),
        );
        for (kind, value) in [
            ("--name", name),
            ("--xid", xid),
            ("--lsn", lsn),
            ("--time", time),
        ] {
            targets.push([kind.to_owned(), value]);
        }
        sql.run("INSERT INTO marks VALUES (1)");
    }
    server.archive_now();
    server.stop();

    let made = bucket.list(&prefix());
    let with_made = answers(&world, &targets);
    for key in made.keys() {
        bucket.delete(key);
    }
    let by_reading = answers(&world, &targets);
    let built = build(&world);
    let again = bucket.list(&prefix());
    let by_built = answers(&world, &targets);
    let segments = built["segments"].as_u64().expect("a count");
    eprintln!(
        "{segments} segments, {} and {} objects of {} bytes: {:.3} % of the log",
        made.len(),
        again.len(),
        sizes(&again),
        100.0 * f64::from(u32::try_from(sizes(&again)).expect("small"))
            / f64::from(u32::try_from(segments << 20).expect("small")),
    );
    assert!(segments > 48, "{segments}");
    assert!(sizes(&again) * 500 < segments << 20);
    assert_eq!(built["read"], built["segments"]);
    assert_eq!(built["not_indexed"], Value::Array(Vec::new()));
    // The server made some log before it archived any: a record may come over that edge.
    let of_the_edge = built["unread_records"].as_u64().expect("a count");
    assert!(of_the_edge <= 1, "{built}");
    let of_16 = |objects: &BTreeMap<String, u64>| -> Vec<String> {
        let keys = objects.keys().filter(|key| key.contains("-n10-")).cloned();
        keys.collect()
    };
    assert!(of_16(&made).len() >= 2, "{made:?}");
    assert_eq!(of_16(&made), of_16(&again));
    assert_eq!(by_reading, by_built);
    assert_eq!(with_made, by_built);
    assert_eq!(build(&world)["read"], of_the_edge);
}
