//! Retention, case by case. Positions are segment numbers, times are days before now.

use super::scene::{SIZE, Scene, backup, failed, history, now, rules, segment};
use super::*;
use crate::domain::backup::BackupKind;
use crate::domain::segment::SegmentName;

/// The plan as text: a line per backup, then one per range of WAL.
pub(super) fn told(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for one in &plan.backups {
        lines.push(match &one.verdict {
            Verdict::Keep(reason) => format!("{} stays: {reason}", one.id),
            Verdict::Delete(reason) => format!("{} goes: {reason}", one.id),
        });
    }
    for range in &plan.wal {
        let number = |name: SegmentName| name.number(SIZE).unwrap().to_u64();
        let (first, last) = (number(range.files.first), number(range.files.last));
        let word = if range.verdict.is_delete() {
            "goes"
        } else {
            "stays"
        };
        lines.push(format!("{}: {first}-{last} {word}", range.timeline()));
    }
    lines
}

pub(super) fn check(scene: &Scene, policy: &str, minimum: u32, expected: &[&str]) {
    let plan = scene.plan(policy, minimum);
    let told = told(&plan);
    let is_same = told.len() == expected.len()
        && told
            .iter()
            .zip(expected)
            .all(|(line, start)| line.starts_with(start));
    assert!(
        is_same,
        "{told:#?}\nexpected {expected:#?}\n{:#?}",
        plan.wal
    );
}

pub(super) fn four() -> Scene {
    Scene::of(vec![
        backup("a", 1, 10, 20),
        backup("b", 1, 20, 10),
        backup("c", 1, 30, 5),
        backup("d", 1, 40, 1),
    ])
    .with_wal(&[(1, 5, 50, 0)])
}

#[test]
fn a_window_keeps_what_ended_in_it_and_the_backup_it_begins_with() {
    check(
        &four(),
        "7d",
        0,
        &[
            "a goes: older than the newest backup from before",
            "b stays: the window's beginning",
            "c stays: ended within",
            "d stays: ended within",
            "1: 5-19 goes",
            "1: 20-50 stays",
        ],
    );
    let all = [
        "a stays",
        "b stays",
        "c stays",
        "d stays",
        "1: 5-9 goes",
        "1: 10-50 stays",
    ];
    check(&four(), "1m", 0, &all);
    check(&four(), "7d", 4, &all);
    check(
        &four(),
        "1d",
        0,
        &[
            "a goes",
            "b goes",
            "c stays",
            "d stays",
            "1: 5-29 goes",
            "1: 30-50 stays",
        ],
    );
}

#[test]
fn a_redundancy_keeps_the_newest_and_the_minimum_raises_it() {
    let two = [
        "a goes: older than the newest 2",
        "b goes",
        "c stays: one of the newest 2",
        "d stays",
        "1: 5-29 goes",
        "1: 30-50 stays",
    ];
    check(&four(), "REDUNDANCY 2", 0, &two);
    check(
        &four(),
        "REDUNDANCY 1",
        2,
        &[
            "a goes",
            "b goes",
            "c stays: needed for the minimum redundancy of 2",
            "d stays: the newest backup",
            "1: 5-29 goes",
            "1: 30-50 stays",
        ],
    );
    let all = [
        "a stays",
        "b stays",
        "c stays",
        "d stays",
        "1: 5-9 goes",
        "1: 10-50 stays",
    ];
    check(&four(), "REDUNDANCY 9", 0, &all);
}

#[test]
fn a_backup_kept_full_keeps_all_wal_from_its_beginning_on() {
    check(
        &four().keeping("a", Keep::Full),
        "REDUNDANCY 1",
        0,
        &[
            "a stays: marked keep full",
            "b goes",
            "c goes",
            "d stays",
            "1: 5-9 goes",
            "1: 10-50 stays",
        ],
    );
}

#[test]
fn a_standalone_backup_keeps_its_own_wal_alone() {
    check(
        &four().keeping("b", Keep::Standalone),
        "REDUNDANCY 1",
        0,
        &[
            "a goes",
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
fn a_standalone_backup_that_the_policy_needs_keeps_all_from_it_on() {
    check(
        &four().keeping("b", Keep::Standalone),
        "7d",
        0,
        &[
            "a goes",
            "b stays: the window's beginning",
            "c stays",
            "d stays",
            "1: 5-19 goes",
            "1: 20-50 stays",
        ],
    );
}

#[test]
fn without_a_done_backup_no_wal_goes() {
    let scene = Scene::of(vec![failed("a", 9)]).with_wal(&[(1, 1, 9, 9)]);
    check(
        &scene,
        "7d",
        0,
        &["a goes: remains of a failed", "1: 1-9 stays"],
    );
    check(
        &Scene::default().with_wal(&[(1, 1, 9, 9)]),
        "7d",
        0,
        &["1: 1-9 stays"],
    );
}

#[test]
fn remains_go_once_they_are_left_alone() {
    let started = Backup {
        status: BackupStatus::Started,
        ..failed("r", 3)
    };
    let scene = Scene::of(vec![
        backup("d", 1, 40, 1),
        failed("f1", 2),
        failed("f2", 2),
        failed("f3", 0),
        failed("f4", 2),
        started.clone(),
        Backup {
            id: "s".parse().unwrap(),
            ..started.clone()
        },
        Backup {
            id: "w".parse().unwrap(),
            status: BackupStatus::WaitingForWals,
            ..started
        },
    ])
    .doing("f1", Activity::BeingDeleted)
    .doing("f4", Activity::Running)
    .doing("r", Activity::Running)
    .doing("s", Activity::Dead);
    check(
        &scene,
        "7d",
        0,
        &[
            "d stays",
            "f1 goes: its deletion was begun",
            "f2 goes: remains of a failed backup",
            "f3 stays: failed; goes a day after its last object was put on",
            "f4 stays: under way",
            "r stays: under way",
            "s stays: killed",
            "w stays: WAITING_FOR_WALS",
        ],
    );
}

#[test]
fn a_backup_under_way_keeps_the_wal_since_it_began() {
    let running = Backup {
        status: BackupStatus::Started,
        end_wal: None,
        end_time: None,
        ..backup("r", 1, 25, 0)
    };
    let scene = Scene::of(vec![backup("d", 1, 40, 1), running])
        .doing("r", Activity::Running)
        .with_wal(&[(1, 5, 50, 0)]);
    check(
        &scene,
        "7d",
        0,
        &["d stays", "r stays", "1: 5-24 goes", "1: 25-50 stays"],
    );
}

#[test]
fn ancestors_lose_what_lies_before_the_oldest_backup_and_stale_branches_go() {
    let scene = Scene::of(vec![backup("old", 1, 10, 30), backup("new", 3, 50, 10)])
        .with_histories(&[
            history(2, &[(1, 20)]),
            history(3, &[(1, 20), (2, 40)]),
            history(4, &[(1, 20), (2, 30)]),
            history(5, &[(1, 20), (2, 40), (3, 60)]),
        ])
        .with_wal(&[
            (1, 5, 19, 30),
            (1, 20, 22, 25),
            (2, 20, 39, 20),
            (2, 40, 44, 0),
            (3, 40, 70, 0),
            (4, 30, 35, 19),
            (5, 60, 80, 0),
            (6, 1, 3, 0),
        ]);
    check(
        &scene,
        "REDUNDANCY 1",
        0,
        &[
            "new stays",
            // Timeline 2 is in use, and no newer backup lies on its line.
            "old stays: timeline 2, which is in use",
            "1: 5-9 goes",
            "1: 10-22 stays",
            "2: 20-44 stays",
            "3: 40-70 stays",
            "4: 30-35 stays",
            "5: 60-80 stays",
            "6: 1-3 stays",
        ],
    );
    let mut stale = scene;
    stale.wal[3].3 = 15;
    check(
        &stale,
        "REDUNDANCY 1",
        0,
        &[
            "new stays",
            "old goes",
            "1: 5-19 goes",
            "1: 20-22 goes",
            "2: 20-39 goes",
            "2: 40-44 goes",
            "3: 40-49 goes",
            "3: 50-70 stays",
            "4: 30-35 goes",
            "5: 60-80 stays",
            "6: 1-3 stays",
        ],
    );
}

#[test]
fn a_branch_in_use_without_a_backup_is_left_alone() {
    let scene = Scene::of(vec![backup("new", 2, 50, 10)])
        .with_histories(&[history(2, &[(1, 40)])])
        .with_wal(&[(1, 30, 39, 30), (1, 40, 60, 0), (2, 40, 70, 0)]);
    check(
        &scene,
        "REDUNDANCY 1",
        0,
        &[
            "new stays",
            "1: 30-39 goes",
            "1: 40-60 stays",
            "2: 40-49 goes",
            "2: 50-70 stays",
        ],
    );
}

#[test]
fn what_others_are_built_on_stays_and_goes_after_them() {
    let child = |name: &str, parent: &str, begin, days| Backup {
        kind: BackupKind::Incremental {
            parent: parent.to_owned(),
        },
        ..backup(name, 1, begin, days)
    };
    let scene = Scene::of(vec![
        backup("a", 1, 10, 30),
        child("b", "a", 12, 29),
        child("c", "b", 14, 28),
        backup("d", 1, 20, 20),
        child("e", "d", 22, 2),
        backup("f", 1, 30, 5),
    ]);
    check(
        &scene,
        "REDUNDANCY 1",
        0,
        &[
            "a goes",
            "b goes",
            "c goes",
            "d stays: backup e is built on it",
            "e stays: incremental",
            "f stays",
        ],
    );
    let order: Vec<String> = scene
        .plan("REDUNDANCY 1", 0)
        .order
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(order, ["c", "b", "a"]);
}

#[test]
fn a_backup_that_begins_after_the_wal_was_counted_keeps_all_it_may_need() {
    let before = four();
    let counted = before.with(|archive| archive.wal.clone());
    let mut after = before;
    after.backups.remove(0);
    // As of a standby that lags behind.
    let late = Backup {
        status: BackupStatus::Started,
        ..backup("e", 1, 15, 0)
    };
    after.backups.push((late, None, Some(Activity::Running)));
    let ranges = after.with(|archive| {
        let archive = Archive {
            wal: &counted,
            ..*archive
        };
        plan_wal(&archive, rules("7d", 0), now())
    });
    let doomed: Vec<SegmentName> = ranges
        .iter()
        .filter(|range| range.verdict.is_delete())
        .map(|range| range.files.last)
        .collect();
    assert_eq!(doomed, [segment(1, 11)], "{ranges:#?}");
}

#[test]
fn a_backup_that_begins_before_its_timeline_needs_the_ancestor() {
    let scene = Scene::of(vec![backup("a", 2, 10, 5)])
        .with_wal(&[(1, 5, 20, 30), (2, 20, 50, 0)])
        .with_histories(&[history(2, &[(1, 20)])]);
    let needed = ["a stays", "1: 5-9 goes", "1: 10-20 stays", "2: 20-50 stays"];
    check(&scene, "REDUNDANCY 1", 0, &needed);
}
