//! Base backups, killed: invariant 4.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cellarman::service::maintenance::STALE_AFTER;
use testbed::or_not_run;
use testbed::report;
use testbed::wait;
use testbed::workload::Workload;
use testbed::world::{PATH, SERVER, World};

use crate::bucket::Bucket;
use crate::crash::{check_restored, kill_after, moment, world};

#[test]
fn a_backup_killed_at_any_moment_is_never_done() {
    let world = or_not_run!(world());
    let mut random = report::random("crash backup");
    let primary = world.primary(&["-k"]);
    let workload = Workload::start(&primary);
    workload.advance(50);
    // Slowed down, so that the kills fall into the copy and not only before it.
    let limit = ["--max-bandwidth", "10M"];
    let usual = world.back_up(&primary, &limit).took;
    let words = [
        "backup",
        "create",
        "--immediate-checkpoint",
        limit[0],
        limit[1],
    ];
    let mut killed = BTreeMap::new();
    for _ in 0..report::count(4, 40) {
        let before = backups(&world);
        let delay = moment(&mut random, usual);
        let code = kill_after(&mut world.beside(&primary).command(&words), delay);
        assert!(code.is_none_or(|code| code == 0), "exit code {code:?}");
        let mut new = backups(&world);
        new.retain(|id, _| !before.contains_key(id));
        eprintln!("killed after {delay:?}: {new:?}");
        if code.is_none() {
            killed.extend(new);
        }
    }
    let last_kill = Instant::now();
    eprintln!("uploads under way: {}", uploads_under_way(&world));
    let count = workload.stop();
    primary.archive_now();
    check_restored(&world, "latest", &[], count);
    // The kill of a run that had just said DONE, and was about to end, came too late.
    let is_done = |_: &String, status: &mut String| status == "DONE";
    for id in killed.extract_if(.., is_done).map(|(id, _)| id) {
        check_restored(&world, &id, &["--backup-id", &id], count);
    }

    // Their signs of life are fresh for a while yet: nobody can tell a killed run from a slow one.
    wait::until(STALE_AFTER * 2, || {
        (last_kill.elapsed() > STALE_AFTER + Duration::from_secs(2)).then_some(())
    });
    world.back_up(&primary, &[]);
    let healed = backups(&world);
    for id in killed.keys() {
        assert_eq!(healed.get(id).map(String::as_str), Some("FAILED"), "{id}");
    }
    assert_eq!(uploads_under_way(&world), 0, "uploads were left behind");
}

/// The backups and their status, from the records in the bucket.
pub(super) fn backups(world: &World) -> BTreeMap<String, String> {
    let bucket = Bucket::of(&world.store);
    let prefix = format!("{PATH}/{SERVER}/base/");
    let keys = bucket.list(&prefix).into_keys();
    keys.filter(|key| key.ends_with("/backup.info"))
        .map(|key| {
            let id = key[prefix.len()..].split('/').next().unwrap_or_default();
            let text = String::from_utf8(bucket.get(&key)).expect("UTF-8");
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_else(|| panic!("{key} without {name}"))
                    .to_owned()
            };
            let (status, end_time) = (field("status="), field("end_time="));
            // CloudNativePG takes any backup with both times for a good one.
            assert_eq!(status == "DONE", end_time != "None", "{key}: {text}");
            (id.to_owned(), status)
        })
        .collect()
}

/// How many multipart uploads MinIO holds, looked up on its drive: it lists them by key only.
fn uploads_under_way(world: &World) -> usize {
    let directory = world.scratch.path().join("minio/.minio.sys/multipart");
    let entries = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    entries(&directory)
        .iter()
        .map(|key| entries(key).len())
        .sum()
}
