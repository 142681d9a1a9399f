//! One target of one history: the plan, then PostgreSQL itself.
//!
//! Not here: where targets come from (`history`).

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;

use cellarman::fault::Kind;
use cellarman::service::restore::words;
use chrono::{DateTime, FixedOffset, TimeDelta};
use serde_json::Value;
use testbed::cluster::Cluster;
use testbed::wait;
use testbed::world::World;

use crate::targets::history::{History, Target, lsn};

/// What PostgreSQL says where it does not get to its target.
const FAILURES: [&str; 2] = [
    "recovery ended before configured recovery target was reached",
    "requested recovery stop point is before consistent recovery point",
];

/// Asks for the plan, and sees whether PostgreSQL does the same.
pub(crate) fn check(world: &World, history: &History, target: &Target, number: u32) {
    let mut words = vec!["--json".to_owned(), "targets".to_owned()];
    words.extend(options(target, "--"));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ended = world.cellarman.run(&words);
    eprintln!("{number}: {target:?}");
    let name = format!("tried{number}");
    match ended.status.code() {
        Some(0) => {
            let plan: Value = serde_json::from_str(&ended.stdout).expect("JSON");
            eprintln!("  plan: {} {}", plan["backup_id"], plan["stop"]);
            let is_known = !plan["stop"].is_null() || plan["target"]["kind"] == "lsn";
            assert!(
                target.kind == "immediate" || is_known,
                "where recovery stops is not known: {}",
                ended.stdout
            );
            arrives(world, history, (target, &plan), &name);
        }
        code => {
            eprintln!("  {}", ended.stderr.trim());
            assert_eq!(
                code,
                Some(i32::from(Kind::Refused.exit_code())),
                "{}",
                ended.describe()
            );
            if !ended.stderr.contains("is in several places") {
                fails(world, history, target, &name);
            }
        }
    }
}

/// The options that name a target, each beginning with `prefix`.
fn options(target: &Target, prefix: &str) -> Vec<String> {
    let mut options = vec![format!("{prefix}{}", target.kind)];
    if target.kind != "immediate" {
        options.push(target.value.clone());
    }
    if target.is_exclusive {
        options.push("--exclusive".to_owned());
    }
    options
}

/// The server stops where the plan says, with the rows of that moment.
fn arrives(world: &World, history: &History, (target, plan): (&Target, &Value), name: &str) {
    let options = options(target, "--target-");
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let restored = world.restore(name, &options);
    restored.start_with(&["archive_mode=off"]);
    restored.wait_until_recovered();
    let log = restored.log();
    let (words, reached) = expected(plan);
    assert!(
        log.contains(&words),
        "{words:?} is not in the log\n{plan:#}\n{log}"
    );
    if let Some(reached) = reached {
        check_rows(&restored, history, reached);
    }
    clean(world, restored, name);
}

/// What the server logs where it stops, and up to where it has replayed.
fn expected(plan: &Value) -> (String, Option<u64>) {
    let stop = &plan["stop"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if stop.is_null() {
        let value = text(&plan["target"]["value"]);
        if value.is_empty() {
            return ("consistent recovery state reached".to_owned(), None);
        }
        // A time in a quiet stretch, put as the position behind it.
        let words = format!("recovery stopping before WAL location (LSN) \"{value}\"");
        return (words, Some(lsn(&value)));
    }
    let side = text(&stop["side"]);
    let reached = if side == "before" { "lsn" } else { "end_lsn" };
    let words = match (stop["xid"].as_u64(), &plan["target"]["kind"]) {
        (_, kind) if kind == "lsn" => {
            format!(
                "recovery stopping {side} WAL location (LSN) \"{}\"",
                text(&stop["lsn"])
            )
        }
        (_, kind) if kind == "name" => {
            format!(
                "recovery stopping at restore point \"{}\"",
                text(&stop["restore_point"])
            )
        }
        (xid, _) => {
            let xid = xid.expect("the end of a transaction");
            let how = if stop["committed"] == true {
                "commit"
            } else {
                "abort"
            };
            format!("recovery stopping {side} {how} of transaction {xid}")
        }
    };
    (words, Some(lsn(&text(&stop[reached]))))
}

fn check_rows(restored: &Cluster, history: &History, reached: u64) {
    let found = restored.sql().rows("SELECT n FROM happened WHERE n >= 0");
    let found: BTreeSet<u32> = found.iter().map(|n| n.parse().expect("a number")).collect();
    for row in &history.rows {
        let is_found = found.contains(&row.number);
        if row.commit.end <= reached {
            assert!(is_found, "row {} is lost", row.number);
        }
        if row.commit.start >= reached {
            assert!(!is_found, "row {} came later", row.number);
        }
    }
}

/// PostgreSQL, told all the same, fails: whatever backup of the line it begins at.
///
/// From a backup begun after a target in time it gets to the backup's end, whatever came between.
fn fails(world: &World, history: &History, target: &Target, name: &str) {
    let time = (target.kind == "time").then(|| moment(&target.value));
    let backups = history.backups.iter().enumerate();
    for (index, (backup, begun_at)) in backups {
        // It is told to the second.
        let begun_at = moment(begun_at) + TimeDelta::seconds(1);
        if time.is_some_and(|time| begun_at > time) {
            continue;
        }
        let name = format!("{name}-{index}");
        let options = ["--target-immediate", "--backup-id", backup];
        let words = world.restore_words(&name, &options);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if world.cellarman.run(&words).status.code() != Some(0) {
            // Without the log of its own copy it leads nowhere.
            continue;
        }
        let restored = world.adopt(&name);
        let settings = format!(
            "recovery_target = ''\nrecovery_target_{} = '{}'\nrecovery_target_inclusive = {}\n\
             recovery_target_timeline = '{}'\nrecovery_target_action = 'promote'\n",
            target.kind,
            target.value.replace('\'', "''"),
            !target.is_exclusive,
            history.timelines(),
        );
        let path = restored.directory().join("postgresql.auto.conf");
        let mut file = OpenOptions::new().append(true).open(path).expect("a file");
        file.write_all(settings.as_bytes()).expect("settings");
        let ended = restored.try_start(&["archive_mode=off"]);
        let failed = || FAILURES.iter().any(|words| restored.log().contains(words));
        wait::until_true("the recovery to end", || {
            let log = restored.log();
            failed()
                || log.contains("archive recovery complete")
                || !restored.directory().join("postmaster.pid").exists()
        });
        assert!(
            failed(),
            "from backup {backup} it gets there\n{}\n{}",
            ended.describe(),
            restored.log()
        );
        clean(world, restored, &name);
    }
}

fn moment(text: &str) -> DateTime<FixedOffset> {
    words::parse_time(text).expect("a time")
}

/// Many restores would fill the disk.
fn clean(world: &World, restored: Cluster, name: &str) {
    drop(restored);
    for place in [name.to_owned(), format!("{name}.cold")] {
        fs::remove_dir_all(world.place(&place)).expect("a directory");
    }
}
