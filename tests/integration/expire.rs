//! Expiring what a real server left: what stays can be restored to the end, and what went says so.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use cellarman::fault::Kind;
use serde_json::Value;
use testbed::cluster::{Cluster, Release};
use testbed::or_not_run;
use testbed::process::Ended;
use testbed::workload::{self, Workload};
use testbed::world::{PATH, SERVER, World};

use crate::bucket::Bucket;

/// A history beside what is expired. Its branch left before the first backup.
const HISTORY: &str = "00000002.history";

/// One backup as `backup list` tells of it.
struct Listed {
    id: String,
    begin_wal: String,
    end_wal: String,
    end_lsn: String,
}

fn listed(world: &World) -> BTreeMap<String, Listed> {
    let ended = world.cellarman.run(&["--json", "backup", "list"]);
    ended.ok();
    let document: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let backups = document["backups"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let one = |backup: &Value| {
        let found = Listed {
            id: text(&backup["id"]),
            begin_wal: text(&backup["begin_wal"]),
            end_wal: text(&backup["end_wal"]),
            end_lsn: text(&backup["end_lsn"]),
        };
        (text(&backup["name"]), found)
    };
    backups.map(one).collect()
}

/// All objects but the cache of the catalog, which any command renews.
fn objects(world: &World) -> BTreeMap<String, u64> {
    let mut objects = Bucket::of(&world.store).list(&format!("{PATH}/{SERVER}/"));
    objects.retain(|key, _| !key.contains("/cellarman/catalog"));
    objects
}

/// The names of the WAL files among them: segments, and what belongs to one.
fn wal_names(objects: &BTreeMap<String, u64>) -> BTreeSet<String> {
    let wal = format!("{PATH}/{SERVER}/wals/");
    let keys = objects.keys().filter(|key| key.starts_with(&wal));
    let names = keys.map(|key| Bucket::wal_name(key));
    names
        .filter(|name| *name != HISTORY)
        .map(str::to_owned)
        .collect()
}

/// What was written while three backups were made.
struct Written {
    /// The transactions that the kept backup may hold.
    kept: RangeInclusive<u64>,
    /// A time after the first backup and before the second.
    early: String,
    end: u64,
}

/// Three backups, some segments between each and the next, the second marked as standalone.
fn write(world: &World, primary: &Cluster) -> Written {
    let workload = Workload::start(primary);
    let go_on = || {
        for _ in 0..2 {
            workload.advance(20);
            primary.archive_now();
        }
    };
    go_on();
    world.back_up(primary, &["--name", "one"]);
    go_on();
    let early = primary.sql().value("SELECT clock_timestamp()");
    go_on();
    let before = *workload.hold();
    world.back_up(primary, &["--name", "two"]);
    let after = *workload.hold();
    let keep = ["backup", "keep", "two", "--standalone"];
    world.cellarman.run(&keep).ok();
    go_on();
    world.back_up(primary, &["--name", "three"]);
    go_on();
    let end = workload.stop();
    primary.archive_now();
    Written {
        kept: before..=after,
        early,
        end,
    }
}

#[test]
fn what_expiring_leaves_is_restored_and_what_it_deletes_is_told() {
    let release = Release::distribution();
    let world = or_not_run!(World::new(env!("CARGO_BIN_EXE_cellarman"), release));
    let primary = world.primary(&["-k"]);
    let written = write(&world, &primary);
    primary.stop();
    let history = format!("{PATH}/{SERVER}/wals/{HISTORY}");
    let text = "1\t0/1000100\tno reason\n";
    Bucket::of(&world.store).put(&history, text.into());
    let backups = listed(&world);

    let before = objects(&world);
    let expected = expire_both_ways(&world, &before);
    let after = objects(&world);
    assert!(after.contains_key(&history), "a history went");
    assert_eq!(expected, [backups["one"].id.as_str()]);
    check_wal(&backups, &wal_names(&before), &wal_names(&after));

    let current = ["--target-timeline", "1"];
    check(&world, "end", &current, &(written.end..=written.end));
    let second = backups["two"].id.as_str();
    let immediate = [&current[..], &["--backup-id", second, "--target-immediate"]].concat();
    check(&world, "kept", &immediate, &written.kept);
    check_refusals(&world, &backups, &written);
    let to_the_end = [&current[..], &["--backup-id", second, "--accept-gap"]].concat();
    check(&world, "gap", &to_the_end, &written.kept);
}

/// Expires to one backup, dry first: that prints the same and changes nothing. The ids that went.
fn expire_both_ways(world: &World, before: &BTreeMap<String, u64>) -> Vec<String> {
    let words = ["expire", "--retention", "REDUNDANCY 1"];
    let dry = [&words[..], &["--dry-run"]].concat();
    let foretold = world.cellarman.run(&dry);
    foretold.ok();
    assert_eq!(objects(world), *before, "a dry run changed something");
    let done = world.cellarman.run(&words);
    done.ok();
    eprintln!("{}", done.stdout);
    let (foretold, done) = (after_headline(&foretold), after_headline(&done));
    assert!(foretold.contains("To delete: 1 backup and "), "{foretold}");
    let last = done.strip_prefix(foretold);
    let last = last.unwrap_or_else(|| panic!("foretold was\n{foretold}\nand done\n{done}"));
    assert!(last.starts_with("Deleted 1 backup and "), "{last}");

    let again = world.cellarman.run(&[&["--json"][..], &words].concat());
    again.ok();
    let again: Value = serde_json::from_str(&again.stdout).expect("JSON");
    assert_eq!(again["done"]["backups"], Value::Array(Vec::new()));
    assert_eq!(again["done"]["wal_files"], 0);
    let verdicts = again["backups"].as_array().expect("a list").iter();
    assert!(verdicts.clone().all(|one| one["verdict"] == "keep"));
    let left: BTreeSet<&str> = verdicts.filter_map(|one| one["id"].as_str()).collect();
    let base = format!("{PATH}/{SERVER}/base/");
    let ids = before.keys().filter_map(|key| key.strip_prefix(&base));
    let ids: BTreeSet<&str> = ids.filter_map(|key| key.split('/').next()).collect();
    ids.difference(&left).map(|&id| id.to_owned()).collect()
}

fn after_headline(ended: &Ended) -> &str {
    ended.stdout.split_once('\n').expect("a headline").1
}

/// What the kept backup needs is there, and all from the last backup on, and nothing else.
fn check_wal(
    backups: &BTreeMap<String, Listed>,
    before: &BTreeSet<String>,
    after: &BTreeSet<String>,
) {
    let (second, third) = (&backups["two"], &backups["three"]);
    let is_needed = |name: &&String| {
        let segment = &name[..24];
        (second.begin_wal.as_str()..=second.end_wal.as_str()).contains(&segment)
            || segment >= third.begin_wal.as_str()
    };
    let needed: BTreeSet<String> = before.iter().filter(is_needed).cloned().collect();
    assert_eq!(*after, needed, "of {before:?}");
    // Some went before the kept backup, and some after it.
    assert!(before.contains(&backups["one"].begin_wal));
    let is_between = |name: &String| name[..24] > *second.end_wal && name[..24] < *third.begin_wal;
    assert!(before.iter().any(is_between), "{before:?}");
}

fn check(world: &World, name: &str, options: &[&str], expected: &RangeInclusive<u64>) {
    let restored = world.restore(name, options);
    restored.start_with(&["archive_mode=off"]);
    restored.wait_until_recovered();
    let found = workload::verify(&restored.sql());
    let log = restored.log();
    assert!(
        expected.contains(&found),
        "{name}: {found}, not {expected:?}\n{log}"
    );
}

/// Whatever needs what has gone is refused before anything is made, and told why.
fn check_refusals(world: &World, backups: &BTreeMap<String, Listed>, written: &Written) {
    let first = backups["one"].id.as_str();
    // Just behind the kept backup, whose own WAL alone was kept.
    let gone = backups["two"].end_lsn.as_str();
    let (high, low) = gone.split_once('/').expect("an LSN");
    let low = u32::from_str_radix(low, 16).expect("an LSN");
    let gone = format!("{high}/{:X}", low + (20 << 20));
    let second = backups["two"].id.as_str();
    let cases: [(&[&str], Kind, [&str; 2]); 5] = [
        (
            &["--backup-id", first],
            Kind::NotFound,
            [first, "backup list"],
        ),
        (
            &["--backup-id", "one"],
            Kind::NotFound,
            ["one", "backup list"],
        ),
        // There is a gap, where recovery would end as if the archive did.
        (
            &["--backup-id", second, "--target-timeline", "1"],
            Kind::Refused,
            [
                "lacks WAL on the way to the end of the archive",
                "--accept-gap",
            ],
        ),
        (
            &["--target-time", &written.early, "--target-timeline", "1"],
            Kind::Refused,
            ["lies before the earliest", "hint: "],
        ),
        (
            &["--target-lsn", &gone, "--target-timeline", "1"],
            Kind::Refused,
            ["0000000100000000", "hint: "],
        ),
    ];
    for (options, kind, words) in cases {
        let call = world.restore_words("refused", options);
        let call: Vec<&str> = call.iter().map(String::as_str).collect();
        let ended = world.cellarman.run(&call);
        eprintln!("{}", ended.describe());
        ended.exits_with(i32::from(kind.exit_code()));
        for word in words {
            assert!(ended.stderr.contains(word), "{word}: {}", ended.describe());
        }
        assert!(!world.place("refused").exists(), "a directory was made");
    }
}
