//! Which recoveries a history that cannot be read stands in the way of, case by case.

use crate::domain::backup::Backup;
use crate::domain::recovery::tests::{backup, history, mib, number, request, tli};
use crate::domain::recovery::{Choice, Refusal, Request, Target, TimelineWish, choose};
use crate::domain::timeline::KnownTimelines;
use crate::fault::{Fault, Kind};

/// 1 until 30, then 2 until 60, then 3; and 4, which left 1 at 25.
fn chosen(unreadable: u32, wish: TimelineWish, backup_id: Option<&str>) -> Result<Choice, Refusal> {
    let of = |timeline, ancestors: &[(u32, u64)]| history(timeline, ancestors);
    let mut histories = vec![
        of(2, &[(1, mib(30))]),
        of(3, &[(1, mib(30)), (2, mib(60))]),
        of(4, &[(1, mib(25))]),
    ];
    histories.retain(|line| line.timeline() != tli(unreadable));
    let timelines = KnownTimelines {
        histories,
        unreadable: vec![tli(unreadable)],
    };
    let backups: [Backup; 3] = [backup("a", 1, 10), backup("b", 2, 40), backup("c", 4, 70)];
    let request = Request {
        backup: backup_id.map(|id| id.parse().unwrap()),
        ..request(Target::Latest, wish)
    };
    choose(&backups, &timelines, &request)
}

#[test]
fn plans_that_do_not_need_it_are_made() {
    let latest = TimelineWish::Latest;
    for (unreadable, wish, backup_id, expected) in [
        (2, latest, None, ("c", 4)),
        (3, latest, None, ("c", 4)),
        (4, number(3), None, ("b", 3)),
        (4, number(1), None, ("a", 1)),
        (4, TimelineWish::Current, Some("b"), ("b", 2)),
        // The line of 2 is known from 3's.
        (2, number(3), None, ("b", 3)),
    ] {
        let choice = chosen(unreadable, wish, backup_id).unwrap();
        let found = (choice.backup.as_str(), choice.timeline.to_u32());
        assert_eq!(found, expected, "without {unreadable}, {wish:?}");
    }
}

#[test]
fn plans_that_need_it_are_refused_and_name_it() {
    let latest = TimelineWish::Latest;
    for (unreadable, wish, backup_id) in [
        (2, number(2), None),
        (4, number(4), None),
        // It might be the latest.
        (4, latest, None),
        (3, latest, Some("b")),
        (4, latest, Some("c")),
    ] {
        let refusal = chosen(unreadable, wish, backup_id).unwrap_err();
        assert_eq!(refusal.kind(), Kind::Corrupt, "{refusal}");
        let named = format!("the history of timeline {unreadable} cannot be read");
        assert!(refusal.to_string().starts_with(&named), "{refusal}");
    }
    let refusal = chosen(4, TimelineWish::Current, Some("c")).unwrap_err();
    assert!(
        refusal
            .to_string()
            .contains("timeline 4, whose history cannot be read")
    );
}
