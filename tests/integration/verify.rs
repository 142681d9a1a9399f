//! `cellarman verify` on archives of real servers: what is sound is said to be and not read again,
//! and each thing that is damaged or missing is named.

use std::fs::File;
use std::os::unix::fs::FileExt;

use cellarman::fault::Kind;
use serde_json::Value;
use testbed::cluster::{Cluster, Release};
use testbed::or_not_run;
use testbed::process::Ended;
use testbed::workload::Workload;
use testbed::world::{PATH, SERVER, World};

use crate::bucket::Bucket;

fn world(release: Result<Release, String>) -> Result<World, String> {
    World::new(env!("CARGO_BIN_EXE_cellarman"), release)
}

/// Verifies, and checks how that ended. The document.
#[track_caller]
fn verify(world: &World, options: &[&str], kind: Option<Kind>) -> Value {
    let words = [&["--json", "verify"], options].concat();
    let ended = world.cellarman.run(&words);
    ended.exits_with(kind.map_or(0, |kind| kind.exit_code().into()));
    let document: Value = serde_json::from_str(&ended.stdout).expect("one JSON document");
    assert_eq!(document["is_ok"], kind.is_none(), "{}", ended.describe());
    document
}

/// The findings of a severity, as text.
fn findings<'a>(document: &'a Value, severity: &str) -> Vec<&'a str> {
    let all = document["findings"].as_array().expect("findings").iter();
    all.filter(|it| it["severity"] == severity)
        .map(|it| it["text"].as_str().expect("text"))
        .collect()
}

/// Which backups were looked at in this run.
fn looked_at(document: &Value) -> Vec<bool> {
    let backups = document["backups"].as_array().expect("backups").iter();
    backups
        .map(|it| it["is_new"].as_bool().expect("a flag"))
        .collect()
}

/// Two backups with WAL between them; the names of three segments in a row there.
fn two_backups(world: &World, primary: &Cluster) -> Vec<String> {
    let workload = Workload::start(primary);
    workload.advance(50);
    world.back_up(primary, &["--compression", "none", "--name", "before"]);
    let segments = (0..3).map(|_| primary.archive_now()).collect();
    world.back_up(primary, &["--compression", "gzip", "--name", "after"]);
    workload.stop();
    primary.archive_now();
    segments
}

#[test]
fn what_is_sound_is_read_once_and_what_is_damaged_or_missing_is_named() {
    let world = or_not_run!(world(Release::distribution()));
    let primary = world.primary(&["-k"]);
    two_backups(&world, &primary);
    assert_eq!(looked_at(&verify(&world, &[], None)), [true, true]);
    assert_eq!(looked_at(&verify(&world, &[], None)), [false, false]);
    assert_eq!(looked_at(&verify(&world, &["--all"], None)), [true, true]);
    let one = verify(&world, &["--backup-id", "after"], None);
    assert_eq!(looked_at(&one), [true]);

    let bucket = Bucket::of(&world.store);
    let of = |prefix: &str| bucket.list(&format!("{PATH}/{SERVER}/{prefix}"));
    let kept = of("cellarman/verify/");
    assert_eq!(kept.len(), 3, "two results and a summary: {kept:?}");
    check_damaged_tars(&world, &bucket);
}

#[test]
fn wal_that_is_missing_in_the_middle_is_named_as_a_range() {
    let world = or_not_run!(world(Release::distribution()));
    let primary = world.primary(&["-k"]);
    let segments = two_backups(&world, &primary);
    verify(&world, &[], None);
    let bucket = Bucket::of(&world.store);
    let of = |prefix: &str| bucket.list(&format!("{PATH}/{SERVER}/{prefix}"));
    // Two segments of three.
    let wals = of("wals/");
    let lost: Vec<&String> = wals
        .keys()
        .filter(|key| segments[..2].iter().any(|name| key.contains(name.as_str())))
        .collect();
    assert_eq!(lost.len(), 2, "{wals:?}");
    let bodies: Vec<Vec<u8>> = lost.iter().map(|key| bucket.get(key)).collect();
    for key in &lost {
        bucket.delete(key);
    }
    let document = verify(&world, &[], Some(Kind::Corrupt));
    let expected = format!(
        "WAL {} to {} is missing (2 segments)",
        segments[0], segments[1]
    );
    assert_eq!(findings(&document, "damaged"), [expected]);
    assert_eq!(document["wal"]["segments_missing"], 2);
    let concerned = &document["wal"]["missing"][0]["backups"];
    assert_eq!(concerned.as_array().map(Vec::len), Some(1), "{concerned}");
    let summary = bucket.get(&format!("{PATH}/{SERVER}/cellarman/verify/summary.json"));
    let summary: Value = serde_json::from_slice(&summary).expect("JSON");
    assert_eq!(summary["wal_segments_missing"], 2, "{summary}");
    for (key, body) in lost.iter().zip(bodies) {
        bucket.put(key, body);
    }
    verify(&world, &[], None);
}

/// Damages each tar in three ways, and puts it back.
fn check_damaged_tars(world: &World, bucket: &Bucket) {
    let tars: Vec<String> = bucket
        .list(&format!("{PATH}/{SERVER}/base/"))
        .into_keys()
        .filter(|key| key.contains(".tar"))
        .collect();
    for key in &tars {
        let name = key.rsplit('/').next().expect("a name");
        let good = bucket.get(key);
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        for (what, bytes) in [
            ("has other bytes than were stored", Some(flipped)),
            ("bytes, and", Some(good[..good.len() / 2].to_vec())),
            ("is missing", None),
        ] {
            match bytes {
                Some(bytes) => bucket.put(key, bytes),
                None => bucket.delete(key),
            }
            let document = verify(world, &[], Some(Kind::Corrupt));
            let damaged = findings(&document, "damaged");
            let is_told = damaged
                .iter()
                .any(|it| it.starts_with(name) && it.contains(what));
            assert!(is_told, "{key} {what}: {damaged:?}");
            let looked = looked_at(&document);
            let count = looked.iter().filter(|is_new| **is_new).count();
            assert_eq!(count, 1, "only the changed one is read: {looked:?}");
        }
        bucket.put(key, good);
        let looked = looked_at(&verify(world, &[], None));
        let count = looked.iter().filter(|is_new| **is_new).count();
        assert_eq!(count, 1, "what was put back is read: {looked:?}");
    }
}

#[test]
fn a_server_or_a_backup_that_is_not_there_is_not_found_to_be_well() {
    let world = or_not_run!(world(Release::distribution()));
    let code = Kind::NotFound.exit_code().into();
    world.cellarman.run(&["verify"]).exits_with(code);
    let unknown = ["verify", "--backup-id", "20260101T000000"];
    world.cellarman.run(&unknown).exits_with(code);
}

/// Verifies by restores, in a directory that is empty again afterwards.
#[track_caller]
fn verify_deep(world: &World, options: &[&str], kind: Option<Kind>) -> Value {
    let place = world.place("verifying");
    if !place.exists() {
        world.scratch.make("verifying");
    }
    let path = place.display().to_string();
    let words = [&["--deep", "--scratch", &path], options].concat();
    let document = verify(world, &words, kind);
    let left: Vec<_> = std::fs::read_dir(&place).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?}");
    document
}

#[test]
fn a_server_is_started_on_a_backup_and_finds_no_fault() {
    let world = or_not_run!(world(Release::distribution()));
    let primary = world.primary(&["-k"]);
    two_backups(&world, &primary);
    let document = verify_deep(&world, &[], None);
    for backup in document["backups"].as_array().expect("backups") {
        assert_eq!(backup["restored"]["outcome"], "sound", "{document:#}");
    }
    assert_eq!(findings(&document, "note"), [""; 0], "{document:#}");
    let again = verify_deep(&world, &[], None);
    assert_eq!(looked_at(&again), [false, false]);
    assert_eq!(again["backups"][0]["restored"]["outcome"], "sound");
    primary.sql().run("SELECT 1");
}

#[test]
fn a_page_that_was_damaged_in_the_source_is_found_by_a_server_on_the_copy() {
    let world = or_not_run!(world(Release::distribution()));
    let primary = world.primary(&[]);
    let sql = primary.sql();
    sql.run("CREATE TABLE broken AS SELECT i FROM generate_series(1, 5000) i");
    sql.run("CREATE INDEX broken_index ON broken (i)");
    let path = sql.value("SELECT pg_relation_filepath('broken_index')");
    drop(sql);
    primary.stop();
    let index = File::options()
        .write(true)
        .open(primary.directory().join(path))
        .expect("an index");
    index.write_all_at(&[0; 8192], 2 * 8192).expect("a page");
    primary.start();
    world.back_up(&primary, &["--name", "damaged"]);
    primary.archive_now();
    // Its bytes are those that were stored.
    verify(&world, &[], None);
    let found = |document: &Value| {
        let damaged = findings(document, "damaged");
        damaged.iter().any(|it| it.contains("public.broken_index"))
    };
    let document = verify_deep(&world, &[], Some(Kind::Corrupt));
    assert!(found(&document), "{document:#}");
    assert_eq!(document["backups"][0]["restored"]["outcome"], "damaged");
    // And is not forgotten by a run that restores nothing.
    let document = verify(&world, &[], Some(Kind::Corrupt));
    assert!(found(&document), "{document:#}");
}

#[test]
fn a_server_that_is_not_installed_is_named_and_is_no_good_news() {
    let world = or_not_run!(world(Release::other_debian(17)));
    let primary = world.primary(&[]);
    world.back_up(&primary, &[]);
    primary.archive_now();
    let document = verify_deep(&world, &[], Some(Kind::NotVerified));
    let told = findings(&document, "not-verified");
    let is_named = |it: &&str| it.starts_with("there is no postgres of version 17 in ");
    assert!(told.iter().any(is_named), "{told:?}");
    assert_eq!(document["backups"][0]["tars"]["outcome"], "sound");

    let programs = world.release.tool("postgres").expect("a server");
    let folder = programs.parent().expect("a folder").display().to_string();
    let with_path = world.cellarman.clone().with_variable("PATH", &folder);
    let place = world.place("verifying").display().to_string();
    let ended: Ended = with_path.run(&["--json", "verify", "--deep", "--scratch", &place]);
    ended.ok();
    let document: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(document["backups"][0]["restored"]["outcome"], "sound");
}
