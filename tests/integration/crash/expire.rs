//! Expirations, killed: invariant 4 in its second half. What is kept stays restorable, nothing
//! half-deleted looks DONE, and the next run leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};

use testbed::or_not_run;
use testbed::report;
use testbed::workload::Workload;
use testbed::world::{PATH, SERVER, World};

use crate::bucket::Bucket;
use crate::crash::backup::backups;
use crate::crash::{check_restored, kill_after, moment, world};

/// The copies of the oldest backup, so that there is much to delete.
const COPIES: u32 = 8;

const EXPIRE: [&str; 3] = ["expire", "--retention", "REDUNDANCY 1"];

/// The server's folder in the bucket, object by object.
struct Baseline {
    bucket: Bucket,
    objects: BTreeMap<String, Vec<u8>>,
    /// The one backup that stays.
    kept: String,
}

fn prefix(rest: &str) -> String {
    format!("{PATH}/{SERVER}/{rest}")
}

/// The backup whose folder a key below `base/` lies in.
fn id_of(key: &str) -> Option<&str> {
    let rest = key.strip_prefix(&prefix("base/"))?;
    rest.split('/').next()
}

impl Baseline {
    /// Three true backups, and copies of the first one.
    ///
    /// The number of transactions at the archive's end comes with it.
    fn make(world: &World) -> (Self, u64) {
        let primary = world.primary(&["-k", "--wal-segsize=1"]);
        let workload = Workload::start(&primary);
        for _ in 0..3 {
            workload.advance(20);
            world.back_up(&primary, &["--compression", "zstd"]);
        }
        let count = workload.stop();
        primary.archive_now();
        let bucket = Bucket::of(&world.store);
        let keys = bucket.list(&prefix("")).into_keys();
        let mut objects: BTreeMap<_, _> = keys.map(|key| (key.clone(), bucket.get(&key))).collect();
        let ids: BTreeSet<String> = objects
            .keys()
            .filter_map(|key| id_of(key))
            .map(str::to_owned)
            .collect();
        let (oldest, kept) = (
            ids.first().expect("three"),
            ids.last().expect("three").clone(),
        );
        let of_oldest = |key: &str| id_of(key) == Some(oldest);
        let models: Vec<_> = objects
            .clone()
            .into_iter()
            .filter(|(key, _)| of_oldest(key))
            .collect();
        for copy in 0..COPIES {
            for (key, bytes) in &models {
                let mut bytes = bytes.clone();
                // Of what is deleted only the record is ever read.
                if !key.ends_with("backup.info") {
                    bytes.truncate(100);
                }
                let id = format!("2026010{}T000000", copy + 1);
                objects.insert(key.replace(oldest.as_str(), &id), bytes);
            }
        }
        let made = Self {
            bucket,
            objects,
            kept,
        };
        made.put_back();
        (made, count)
    }

    /// Puts back what is gone or changed.
    fn put_back(&self) {
        let there = self.bucket.list(&prefix(""));
        for (key, bytes) in &self.objects {
            if key.ends_with("backup.info") || !there.contains_key(key) {
                self.bucket.put(key, bytes.clone());
            }
        }
    }

    /// The keys without which a backup cannot be restored.
    fn needed_by(&self, id: &str) -> BTreeSet<&str> {
        let record = &self.objects[&prefix(&format!("base/{id}/backup.info"))];
        let record = String::from_utf8_lossy(record);
        let value = |name: &str| {
            let line = record.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{id} without {name}"))
                .to_owned()
        };
        let (begin, end) = (value("begin_wal="), value("end_wal="));
        // What is kept can also be recovered to everything behind it.
        let is_needed_wal = |key: &str| {
            let name = Bucket::wal_name(key);
            let is_before_end = id == self.kept || name <= end.as_str();
            key.starts_with(&prefix("wals/"))
                && name.len() == 24
                && name >= begin.as_str()
                && is_before_end
        };
        let keys = self.objects.keys().map(String::as_str);
        keys.filter(|key| id_of(key) == Some(id) || is_needed_wal(key))
            .collect()
    }

    /// What looks DONE can be restored, and the one to keep looks so.
    fn check_killed(&self, world: &World) {
        let there = self.bucket.list(&prefix(""));
        let all = backups(world);
        assert_eq!(
            all.get(&self.kept).map(String::as_str),
            Some("DONE"),
            "{all:?}"
        );
        for (id, _) in all.iter().filter(|(_, status)| *status == "DONE") {
            let missing: Vec<&str> = self
                .needed_by(id)
                .into_iter()
                .filter(|key| !there.contains_key(*key))
                .collect();
            assert!(missing.is_empty(), "{id} is DONE without {missing:?}");
        }
        // The record goes last: objects without one would never be found again.
        for key in there.keys() {
            let id = id_of(key).unwrap_or(&self.kept);
            assert!(all.contains_key(id), "{key} is orphaned");
        }
    }

    /// Nothing but the one backup is left, and the log from its begin.
    fn check_ended(&self, world: &World) {
        self.check_killed(world);
        let there = self.bucket.list(&prefix(""));
        let begin = self
            .needed_by(&self.kept)
            .into_iter()
            .find(|key| key.starts_with(&prefix("wals/")));
        for key in there.keys() {
            let is_of_another = key.contains("/base/") || key.contains("/backups/2");
            assert!(!is_of_another || key.contains(&self.kept), "{key} is left");
            let is_early = key.starts_with(&prefix("wals/"))
                && Bucket::wal_name(key).len() == 24
                && Some(key.as_str()) < begin;
            assert!(!is_early, "{key} is left");
        }
    }
}

#[test]
fn an_expiration_killed_at_any_moment_goes_on_where_it_was() {
    let world = or_not_run!(world());
    let mut random = report::random("crash expire");
    let (baseline, count) = Baseline::make(&world);
    let whole = world.cellarman.run(&EXPIRE);
    whole.ok();
    baseline.check_ended(&world);
    let (mut killed, kills) = (0, report::count(5, 30));
    for _ in 0..kills * 4 {
        if killed == kills {
            break;
        }
        baseline.put_back();
        let delay = moment(&mut random, whole.took);
        match kill_after(&mut world.cellarman.command(&EXPIRE), delay) {
            None => killed += 1,
            Some(code) => assert_eq!(code, 0, "an expiration failed"),
        }
        baseline.check_killed(&world);
        eprintln!("killed after {delay:?}: {:?}", backups(&world));
        world.cellarman.run(&EXPIRE).ok();
        baseline.check_ended(&world);
    }
    assert_eq!(killed, kills, "too few kills came in time");
    check_restored(&world, "restored", &[], count);
}
