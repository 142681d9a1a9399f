//! What holds of every plan, whatever the archive.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::scene::{Scene, backup, days_ago, failed, history, now, rules, segment, tli};
use super::*;
use crate::domain::segment::{SegmentName, SegmentNumber};

/// The branches of a cluster, as they were, whether or not their histories can be read.
#[derive(Debug, Clone)]
struct Branches {
    /// Of timelines 2 and up: each ancestor with the segment of the switch.
    lines: Vec<Vec<(u32, u64)>>,
}

impl Branches {
    fn line(&self, timeline: u32) -> &[(u32, u64)] {
        usize::try_from(timeline)
            .ok()
            .and_then(|timeline| self.lines.get(timeline.checked_sub(2)?))
            .map_or(&[], Vec::as_slice)
    }

    fn first_segment(&self, timeline: u32) -> u64 {
        self.line(timeline).last().map_or(0, |(_, switch)| *switch)
    }

    fn timelines(&self) -> impl Iterator<Item = u32> {
        1..2 + u32::try_from(self.lines.len()).unwrap()
    }

    /// The segments with which a recovery along `target` goes on from one on `timeline`: on that
    /// and each later timeline of the line up to the switch away from it. `None` off the line.
    fn path(&self, target: u32, timeline: u32, begin: u64) -> Option<BTreeSet<(u32, u64)>> {
        let line = self.line(target);
        let on_line = |tli: u32| -> Option<u64> {
            if tli == target {
                return Some(u64::MAX);
            }
            line.iter()
                .find(|(one, _)| *one == tli)
                .map(|(_, switch)| *switch)
        };
        if on_line(timeline)? < begin {
            return None;
        }
        let mut path = BTreeSet::new();
        for tli in self.timelines().filter(|tli| *tli >= timeline) {
            if let Some(switch) = on_line(tli) {
                let first = begin.max(self.first_segment(tli));
                path.extend((first..=switch.min(LAST)).map(|number| (tli, number)));
            }
        }
        Some(path)
    }
}

const LAST: u64 = 60;

fn any_branches() -> impl Strategy<Value = Branches> {
    prop::collection::vec((any::<prop::sample::Index>(), 1u64..50), 0..4).prop_map(|forks| {
        let mut branches = Branches { lines: Vec::new() };
        for (parent, fork) in forks {
            let parents: Vec<u32> = branches.timelines().collect();
            let parent = *parent.get(&parents);
            let mut line = branches.line(parent).to_vec();
            let switch = fork.max(branches.first_segment(parent));
            line.push((parent, switch));
            branches.lines.push(line);
        }
        branches
    })
}

#[derive(Debug, Clone)]
struct Case {
    branches: Branches,
    scene: Scene,
    policy: String,
    minimum: u32,
}

fn any_keep() -> impl Strategy<Value = Option<Keep>> {
    prop_oneof![
        6 => Just(None),
        1 => Just(Some(Keep::Full)),
        1 => Just(Some(Keep::Standalone)),
    ]
}

fn any_policy() -> impl Strategy<Value = String> {
    prop_oneof![
        (1u32..40).prop_map(|days| format!("{days}d")),
        (1u32..6).prop_map(|count| format!("REDUNDANCY {count}")),
    ]
}

prop_compose! {
    fn any_case()(
        branches in any_branches(),
        rows in prop::collection::vec(
            (any::<prop::sample::Index>(), 0u64..LAST, 0i64..60, any_keep(), 0u8..10), 0..9),
        puts in prop::collection::vec((0i64..60, any::<bool>(), 0u64..20), 5),
        unreadable in prop::option::weighted(0.15, 0i64..60),
        policy in any_policy(),
        minimum in 0u32..4,
    ) -> Case {
        let timelines: Vec<u32> = branches.timelines().collect();
        let mut scene = Scene::default();
        for (index, (timeline, begin, days, keep, kind)) in rows.into_iter().enumerate() {
            let timeline = *timeline.get(&timelines);
            let begin = begin.max(branches.first_segment(timeline));
            let name = format!("{}-{index}", 100 - days);
            let one = match kind {
                0 => failed(&name, days),
                1 => Backup { status: BackupStatus::Started, end_wal: None, ..backup(&name, timeline, begin, days) },
                _ => backup(&name, timeline, begin, days),
            };
            if kind == 2 {
                scene.lacking.push(one.id.clone());
            }
            scene.backups.push((one, keep, None));
        }
        for (timeline, (days, is_known, fewer)) in timelines.into_iter().zip(puts) {
            let first = branches.first_segment(timeline);
            // A backup that is DONE has its WAL in the archive.
            let ends = scene.backups.iter().filter(|(b, _, _)| b.timeline == Some(tli(timeline)));
            let ends = ends.map(|(b, _, _)| number(b.begin_wal) + 1).max();
            let last = LAST.saturating_sub(fewer).max(ends.unwrap_or(0));
            scene.wal.push((timeline, first, last, days));
            if is_known && timeline > 1 {
                scene.histories.push(history(timeline, branches.line(timeline)));
            }
        }
        if let Some(days) = unreadable {
            scene.unreadable.push(BackupId::at(days_ago(days)));
        }
        Case { branches, scene, policy, minimum }
    }
}

fn doomed_wal(plan: &Plan) -> impl Fn(u32, u64) -> bool {
    let doomed = plan.wal.iter().filter(|range| range.verdict.is_delete());
    let doomed: Vec<(SegmentName, SegmentName)> = doomed
        .map(|range| (range.files.first, range.files.last))
        .collect();
    move |timeline, number| {
        let name = segment(timeline, number);
        doomed
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&name))
    }
}

fn number(name: Option<SegmentName>) -> u64 {
    let number = name.and_then(|name| name.number(scene::SIZE));
    number.map_or(0, SegmentNumber::to_u64)
}

proptest! {
    #[test]
    fn every_backup_that_stays_can_be_recovered_from_as_far_as_before(case in any_case()) {
        let plan = case.scene.plan(&case.policy, case.minimum);
        let is_doomed = doomed_wal(&plan);
        for (backup, _, _) in &case.scene.backups {
            let verdict = plan.backups.iter().find(|one| one.id == backup.id);
            let verdict = &verdict.unwrap().verdict;
            if verdict.is_delete() || backup.status == BackupStatus::Failed {
                continue;
            }
            let timeline = backup.timeline.unwrap().to_u32();
            let (begin, end) = (number(backup.begin_wal), number(backup.end_wal));
            if *verdict == Verdict::Keep(KeepReason::Marked(Keep::Standalone)) {
                for number in begin..=end {
                    prop_assert!(!is_doomed(timeline, number), "{} needs {number}", backup.id);
                }
                continue;
            }
            for target in case.branches.timelines() {
                for (on, number) in case.branches.path(target, timeline, begin).unwrap_or_default() {
                    prop_assert!(
                        !is_doomed(on, number),
                        "{} needs {on}/{number} on the way to {target}: {plan:#?}", backup.id
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_carried_out_leaves_nothing_to_do(case in any_case()) {
        let plan = case.scene.plan(&case.policy, case.minimum);
        let is_doomed = doomed_wal(&plan);
        let mut after = case.scene.clone();
        after.backups.retain(|(backup, _, _)| !plan.order.contains(&backup.id));
        after.wal.clear();
        for (timeline, first, last, days) in &case.scene.wal {
            for number in (*first..=*last).filter(|number| !is_doomed(*timeline, *number)) {
                after.wal.push((*timeline, number, number, *days));
            }
        }
        let again = after.plan(&case.policy, case.minimum);
        prop_assert!(again.is_empty(), "{plan:#?}\nand then\n{again:#?}");
    }

    #[test]
    fn what_barmans_rules_keep_stays(case in any_case()) {
        let plan = case.scene.plan(&case.policy, case.minimum);
        let rules = rules(&case.policy, case.minimum);
        let done = case.scene.backups.iter().map(|(backup, keep, _)| (backup, keep));
        // Those without their archives take nobody's place.
        let is_counted = |b: &Backup| {
            b.status == BackupStatus::Done && !case.scene.lacking.contains(&b.id)
        };
        let mut done: Vec<_> = done.filter(|(b, _)| is_counted(b)).collect();
        done.sort_by_key(|(b, _)| std::cmp::Reverse((b.end_time, b.id.clone())));
        let mut is_found = false;
        for (place, (backup, keep)) in done.iter().enumerate() {
            let is_kept = match rules.policy {
                RetentionPolicy::Redundancy(count) => place < usize::try_from(count.get()).unwrap(),
                RetentionPolicy::RecoveryWindow { .. } => !is_found,
            } || place < usize::try_from(case.minimum).unwrap() || keep.is_some();
            let start = rules.policy.window_start(now());
            is_found |= start.is_some_and(|start| backup.end_time.unwrap() < start);
            prop_assert!(!is_kept || !plan.order.contains(&backup.id), "{}", backup.id);
        }
        prop_assert!(plan.backups.windows(2).all(|pair| pair[0].id < pair[1].id));
        prop_assert!(plan.wal.iter().all(|range| range.timeline() >= tli(1)));
    }
}
