//! What holds of every choice of a backup, whatever the archive.

use proptest::prelude::*;

use crate::domain::backup::{Backup, BackupStatus};
use crate::domain::lsn::Lsn;
use crate::domain::recovery::TimelineWish;
use crate::domain::recovery::tests::{at, backup, choose, lsn, mib, number, request, tli};
use crate::domain::timeline::{Ancestor, TimelineHistory};

prop_compose! {
    fn any_backups()(
        rows in prop::collection::vec((1u32..5, 1u32..60, any::<bool>()), 0..8)
    ) -> Vec<Backup> {
        let one = |(index, (timeline, end, is_done)): (usize, (u32, u32, bool))| Backup {
            status: if is_done { BackupStatus::Done } else { BackupStatus::Failed },
            ..backup(&format!("b{index}"), timeline, end)
        };
        rows.into_iter().enumerate().map(one).collect()
    }
}

prop_compose! {
    /// Timelines 2 to 4, each with a parent below it and a fork.
    fn any_histories()(
        forks in prop::collection::vec((0usize..3, 1u32..60), 3)
    ) -> Vec<TimelineHistory> {
        let mut lines = vec![TimelineHistory::root(tli(1))];
        for (child, (parent, fork)) in (2u32..).zip(forks) {
            let parent = &lines[parent % lines.len()];
            let mut ancestors = parent.ancestors().to_vec();
            let last = ancestors.last().map_or(0, |a| a.switched_at.to_u64());
            ancestors.push(Ancestor {
                timeline: parent.timeline(),
                switched_at: Lsn::new(mib(fork).max(last)),
            });
            lines.push(TimelineHistory::new(tli(child), ancestors).unwrap());
        }
        lines.split_off(1)
    }
}

fn any_wish() -> impl Strategy<Value = TimelineWish> {
    prop_oneof![
        Just(TimelineWish::Latest),
        Just(TimelineWish::Current),
        (1u32..6).prop_map(number),
    ]
}

proptest! {
    #[test]
    fn what_is_chosen_can_serve_and_nothing_on_its_line_is_nearer(
        backups in any_backups(),
        histories in any_histories(),
        wish in any_wish(),
        target_minute in 0u32..70,
        by_time: bool,
    ) {
        let target = if by_time { at(target_minute.into()) } else { lsn(target_minute) };
        let mut lines = histories.clone();
        lines.insert(0, TimelineHistory::root(tli(1)));
        let serves = |b: &Backup, line: &TimelineHistory| {
            b.status == BackupStatus::Done
                && line.holds(b.timeline.unwrap(), b.end_lsn.unwrap())
                && b.end_lsn.unwrap().to_u64() <= mib(target_minute)
        };
        if let Ok(choice) = choose(&backups, &histories, &request(target, wish)) {
            let line = lines.iter().find(|l| l.timeline() == choice.timeline).unwrap();
            let chosen = backups.iter().find(|b| b.id == choice.backup).unwrap();
            prop_assert!(serves(chosen, line));
            if wish != TimelineWish::Current {
                let nearest = backups.iter().filter(|b| serves(b, line));
                prop_assert_eq!(chosen.end_lsn, nearest.map(|b| b.end_lsn).max().unwrap());
            }
            if wish == TimelineWish::Latest {
                let newer = lines.iter().filter(|l| l.timeline() > choice.timeline);
                prop_assert!(newer.flat_map(|l| backups.iter().map(move |b| (b, l))).all(|(b, l)| !serves(b, l)));
            }
            prop_assert_eq!(choice.passed_over.len(), backups.len() - 1);
        } else {
            let wished = lines.iter().filter(|l| match wish {
                TimelineWish::Number(timeline) => l.timeline() == timeline,
                _ => true,
            });
            for line in wished {
                prop_assert!(backups.iter().all(|b| !serves(b, line)));
            }
            }
    }
}
