//! Records of backups that are odd, and archives that are damaged in every codec.

use cellarman::fault::Kind;
use testbed::workload::Workload;
use testbed::world::{PATH, SERVER, World};
use testbed::{or_not_run, report};

use crate::bad_input::{assert_refused, world};
use crate::bucket::Bucket;
use crate::crash::check_restored;

/// One backup and what it takes to restore it.
fn backed_up(world: &World, options: &[&str]) -> (u64, String) {
    let primary = world.primary(&["-k"]);
    let workload = Workload::start(&primary);
    workload.advance(20);
    world.back_up(&primary, options);
    let count = workload.stop();
    primary.archive_now();
    primary.stop();
    let bucket = Bucket::of(&world.store);
    let keys = bucket.list(&format!("{PATH}/{SERVER}/base/")).into_keys();
    let mut records = keys.filter(|key| key.ends_with("/backup.info"));
    (count, records.next().expect("a record"))
}

fn without(text: &str, key: &str) -> String {
    let is_other = |line: &&str| !line.starts_with(&format!("{key}="));
    let lines: Vec<&str> = text.lines().filter(is_other).collect();
    lines.join(
        "
",
    ) + "
"
}

fn with(text: &str, key: &str, value: &str) -> String {
    format!("{}{key}={value}\n", without(text, key))
}

/// What no reader can take for a record.
fn unreadable(good: &str) -> [(&'static str, Vec<u8>); 7] {
    [
        ("20991231T000001", b"rubbish\n".to_vec()),
        ("20991231T000002", vec![0xFF, 0xFE, 0, 1, 2]),
        ("20991231T000003", with(good, "status", "FINE").into()),
        ("20991231T000004", with(good, "timeline", "0").into()),
        (
            "20991231T000005",
            with(good, "xlog_segment_size", "17").into(),
        ),
        (
            "20991231T000006",
            with(good, "tablespaces", "[('a', ").into(),
        ),
        ("20991231T000007", with(good, "systemid", "-1").into()),
    ]
}

/// Of [`unfit`], those whose record says enough to be chosen, and which then fail: without a
/// begin, without a timeline, and of a server that is too old. All are without tars.
const WHOLE: [&str; 3] = ["20991231T000012", "20991231T000015", "20991231T000016"];

/// What lacks something that a restore needs.
fn unfit(good: &str) -> [(&'static str, Vec<u8>); 6] {
    [
        ("20991231T000011", Vec::new()),
        (WHOLE[0], without(good, "begin_wal").into()),
        ("20991231T000013", without(good, "end_xlog").into()),
        ("20991231T000014", without(good, "status").into()),
        (WHOLE[1], without(good, "timeline").into()),
        (WHOLE[2], with(good, "version", "110022").into()),
    ]
}

#[test]
fn odd_records_are_named_and_do_not_stop_the_rest() {
    let world = or_not_run!(world());
    let (count, record) = backed_up(&world, &["--compression", "gzip"]);
    let bucket = Bucket::of(&world.store);
    let good = String::from_utf8(bucket.get(&record)).expect("UTF-8");
    let (unreadable, unfit) = (unreadable(&good), unfit(&good));
    let key_of = |id: &str| format!("{PATH}/{SERVER}/base/{id}/backup.info");
    for (id, bytes) in unreadable.iter().chain(&unfit) {
        bucket.put(&key_of(id), bytes.clone());
    }
    let listed = world.cellarman.run(&["backup", "list"]);
    listed.ok();
    for (id, _) in &unreadable {
        let line = format!("{id} is unreadable: ");
        assert!(listed.stdout.contains(&line), "{id}: {}", listed.describe());
        let ended = world.cellarman.run(&["backup", "show", id]);
        assert_refused(&ended, Kind::Corrupt, &[id]);
    }
    for (id, _) in unreadable.iter().chain(&unfit) {
        let call = world.restore_words("refused", &["--backup-id", id]);
        let call: Vec<&str> = call.iter().map(String::as_str).collect();
        let ended = world.cellarman.run(&call);
        let code = ended.status.code().expect("an exit code");
        let is_known = [1, 8, 10, 12].contains(&code);
        let is_told = ended.stderr.contains(id) && ended.stderr.contains("\nhint: ");
        let is_panic = ended.stderr.contains("panicked");
        assert!(is_known && is_told && !is_panic, "{}", ended.describe());
        assert!(!world.place("refused").exists(), "{id}: something was made");
    }
    // Newer than the good one as they say they are, none of the others is chosen.
    for id in WHOLE {
        bucket.delete(&key_of(id));
    }
    check_restored(&world, "restored", &[], count);
    let there = bucket.list("");
    for (id, _) in unreadable {
        assert!(there.contains_key(&key_of(id)), "{id} is gone");
    }
}

#[test]
fn a_damaged_archive_is_refused_in_every_codec() {
    let codecs = ["none", "gzip", "bzip2", "snappy", "lz4", "zstd", "xz"];
    let codecs = if report::is_full() {
        &codecs[..]
    } else {
        &codecs[..2]
    };
    for codec in codecs {
        let world = or_not_run!(world());
        let (count, record) = backed_up(&world, &["--compression", codec]);
        let bucket = Bucket::of(&world.store);
        let folder = record.trim_end_matches("backup.info");
        let objects = bucket.list(folder);
        let is_largest =
            |(_, size): &(&String, &u64)| **size == *objects.values().max().unwrap_or(&0);
        let (archive, _) = objects.iter().find(is_largest).expect("an archive");
        let good = bucket.get(archive);
        let ours = bucket.list(&format!("{PATH}/{SERVER}/cellarman/"));
        let digests = ours
            .keys()
            .find(|key| key.ends_with("objects.json"))
            .expect("our record");
        let kept = bucket.get(digests);
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 0x10;
        // At a boundary of blocks a plain tar looks whole but for its end.
        let half = good[..good.len() / 1024 * 512].to_vec();
        let cases = [("flipped", flipped), ("half", half), ("empty", Vec::new())];
        for (what, bytes) in cases {
            for is_recorded in [true, false] {
                // Nothing but the end of the tar, or the codec, tells of a backup by another tool.
                if what == "flipped" && !is_recorded && matches!(*codec, "none" | "xz") {
                    continue;
                }
                bucket.put(archive, bytes.clone());
                if is_recorded {
                    bucket.put(digests, kept.clone());
                } else {
                    bucket.delete(digests);
                }
                let call = world.restore_words("refused", &[]);
                let call: Vec<&str> = call.iter().map(String::as_str).collect();
                let ended = world.cellarman.run(&call);
                let name = archive.rsplit('/').next().expect("a name");
                let words = [name];
                assert_refused(&ended, Kind::Corrupt, &words);
                let control = world.place("refused").join("global/pg_control");
                assert!(!control.exists(), "{codec}, {what}: a pg_control was left");
            }
        }
        bucket.put(archive, good);
        bucket.put(digests, kept);
        check_restored(&world, "mended", &[], count);
    }
}
