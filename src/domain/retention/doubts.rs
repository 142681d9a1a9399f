//! Retention where something is damaged or not certain, case by case.

use super::scene::{Scene, backup, history};
use super::tests::{check, four, told};
use super::*;
use crate::domain::backup::{BackupKind, SystemId};
use crate::domain::segment::SegmentSize;

#[test]
fn a_marked_backup_whose_deletion_began_keeps_its_wal() {
    let mut scene = four();
    for name in [0, 1] {
        let backup = &mut scene.backups[name].0;
        backup.status = BackupStatus::Failed;
        backup.end_time = None;
    }
    let scene = scene
        .keeping("b", Keep::Standalone)
        .doing("a", Activity::BeingDeleted)
        .doing("b", Activity::BeingDeleted);
    check(
        &scene,
        "REDUNDANCY 1",
        0,
        &[
            "a goes: its deletion was begun",
            "b stays: marked keep standalone",
            "c goes",
            "d stays",
            "1: 5-19 goes",
            "1: 20-21 stays",
            "1: 22-39 goes",
            "1: 40-50 stays",
        ],
    );
}

#[test]
fn an_unreadable_record_is_kept_and_keeps_what_it_may_need() {
    // The ids tell the time: 2026-11-21 is today here.
    let mut scene = Scene::of(vec![
        backup("20261101T000000", 1, 10, 20),
        backup("20261111T000000", 1, 20, 10),
        backup("20261120T000000", 1, 40, 1),
    ])
    .with_wal(&[(1, 5, 50, 0), (2, 7, 9, 30)])
    .with_histories(&[history(2, &[(1, 6)])]);
    let judged = |scene: &Scene, wal: &[&str]| {
        let told = told(&scene.plan("REDUNDANCY 1", 0));
        let unreadable = format!("{} stays: its record cannot be read", scene.unreadable[0]);
        for line in wal.iter().chain([&unreadable.as_str()]) {
            assert!(told.iter().any(|told| told.starts_with(line)), "{told:#?}");
        }
    };
    scene.unreadable = vec!["20261115T000000".parse().unwrap()];
    judged(&scene, &["1: 5-19 goes", "1: 20-50 stays", "2: 7-9 stays"]);
    // Not certainly later: local time may be a day off.
    scene.unreadable = vec!["20261111T120000".parse().unwrap()];
    judged(&scene, &["1: 5-9 goes", "1: 10-50 stays"]);
    scene.unreadable = vec!["by hand".parse().unwrap()];
    judged(&scene, &["1: 5-50 stays", "2: 7-9 stays"]);
}

#[test]
fn a_timeline_whose_history_is_not_to_be_had_keeps_what_it_may_descend_from() {
    // 2 left 1 at 20, and 3 left 1 at 30: of 3 that is not known.
    let scene = |histories: &[TimelineHistory]| {
        Scene::of(vec![
            backup("a", 1, 10, 30),
            backup("b", 1, 18, 28),
            backup("c", 1, 25, 26),
            backup("d", 1, 35, 24),
            backup("e", 2, 22, 10),
            backup("f", 2, 26, 2),
        ])
        .with_histories(&[history(2, &[(1, 20)])])
        .with_histories(histories)
        .with_wal(&[(1, 5, 40, 20), (2, 20, 50, 0), (3, 30, 50, 0)])
    };
    check(
        &scene(&[]),
        "REDUNDANCY 1",
        0,
        &[
            "a goes",
            "b goes",
            "c stays: timeline 3, which is in use, may be recovered from it",
            "d goes",
            "e goes",
            "f stays",
            "1: 5-24 goes",
            "1: 25-40 stays",
            "2: 20-25 goes",
            "2: 26-50 stays",
            "3: 30-50 stays",
        ],
    );
    let told = told(&scene(&[history(3, &[(1, 30)])]).plan("REDUNDANCY 1", 0));
    assert!(told[2].starts_with("c stays: timeline 3, which is in use, is recovered from it"));
}

#[test]
fn several_clusters_or_sizes_keep_all_wal() {
    let mut scene = four();
    scene.backups[3].0.system_id = Some(SystemId(8));
    let all = ["a goes", "b goes", "c stays", "d stays", "1: 5-50 stays"];
    check(&scene, "REDUNDANCY 2", 0, &all);
    // Those that go do not count.
    let one = [
        "a goes",
        "b goes",
        "c goes",
        "d stays",
        "1: 5-39 goes",
        "1: 40-50 stays",
    ];
    check(&scene, "REDUNDANCY 1", 0, &one);
    // Nor does one that needs its own WAL alone.
    scene.backups[0].1 = Some(Keep::Standalone);
    let own = [
        "a stays",
        "b goes",
        "c goes",
        "d stays",
        "1: 5-9 goes",
        "1: 10-11 stays",
        "1: 12-39 goes",
        "1: 40-50 stays",
    ];
    check(&scene, "REDUNDANCY 1", 0, &own);
    let mut scene = four();
    scene.backups[2].0.segment_size = SegmentSize::new(64 << 20).unwrap();
    check(&scene, "REDUNDANCY 2", 0, &all);
}

#[test]
fn a_backup_without_its_archives_takes_nobodys_place() {
    check(
        &four().lacking("d").lacking("b"),
        "REDUNDANCY 1",
        0,
        &[
            "a goes",
            "b goes: older than the newest backup",
            "c stays: the newest backup",
            "d stays: does not count",
            "1: 5-29 goes",
            "1: 30-50 stays",
        ],
    );
    check(
        &four().lacking("b"),
        "7d",
        0,
        &[
            "a stays: the window's beginning",
            "b stays: does not count",
            "c stays",
            "d stays",
            "1: 5-9 goes",
            "1: 10-50 stays",
        ],
    );
    // Where no other is there, nothing is certain.
    let alone = Scene::of(vec![backup("a", 1, 10, 20)]).lacking("a");
    check(
        &alone.with_wal(&[(1, 5, 50, 0)]),
        "REDUNDANCY 1",
        0,
        &["a stays: does not count", "1: 5-50 stays"],
    );
}

#[test]
fn odd_records_stay() {
    let scene = Scene::of(vec![
        Backup {
            end_time: None,
            ..backup("a", 1, 10, 30)
        },
        Backup {
            kind: BackupKind::Snapshot,
            ..backup("b", 1, 20, 20)
        },
        backup("c", 1, 30, 10),
        backup("d", 1, 40, 1),
    ])
    .with_wal(&[(1, 5, 50, 0)]);
    check(
        &scene,
        "REDUNDANCY 1",
        0,
        &[
            "a stays: its record does not tell",
            "b stays: consists of volume snapshots",
            "c goes",
            "d stays",
            "1: 5-9 goes",
            "1: 10-50 stays",
        ],
    );
}

#[test]
fn a_history_without_ancestors_tells_nothing() {
    let scene = Scene::of(vec![backup("a", 1, 10, 20), backup("b", 2, 30, 2)])
        .with_wal(&[(1, 10, 15, 15), (2, 15, 50, 0)])
        .with_histories(&[history(2, &[])]);
    let all = ["a stays", "b stays", "1: 10-15 stays", "2: 15-50 stays"];
    check(&scene, "1m", 0, &all);
}
