//! The choice of a backup, case by case.

use super::*;
use crate::domain::backup::{BackupKind, BackupStatus, SystemId};
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::{Ancestor, TimelineHistory};

pub(super) fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn id(name: &str) -> BackupId {
    name.parse().unwrap()
}

fn minute(minute: i64) -> DateTime<FixedOffset> {
    DateTime::from_timestamp(1_795_240_000 + minute * 60, 0)
        .unwrap()
        .fixed_offset()
}

pub(super) fn history(timeline: u32, ancestors: &[(u32, u64)]) -> TimelineHistory {
    let ancestor = |(timeline, lsn): &(u32, u64)| Ancestor {
        timeline: tli(*timeline),
        switched_at: Lsn::new(*lsn),
    };
    TimelineHistory::new(tli(timeline), ancestors.iter().map(ancestor).collect()).unwrap()
}

/// A DONE backup on `timeline` that ends at minute `end` and at LSN `end` MiB.
pub(super) fn backup(name: &str, timeline: u32, end: u32) -> Backup {
    let lsn = Lsn::new(mib(end));
    let size = SegmentSize::DEFAULT;
    Backup {
        id: id(name),
        name: None,
        status: BackupStatus::Done,
        kind: BackupKind::Full,
        begin_time: Some(minute(i64::from(end) - 1)),
        end_time: Some(minute(i64::from(end))),
        begin_lsn: Some(Lsn::new(mib(end) - 1000)),
        end_lsn: Some(lsn),
        begin_wal: None,
        end_wal: SegmentName::new(tli(timeline), SegmentNumber::holding(lsn, size), size),
        timeline: Some(tli(timeline)),
        system_id: Some(SystemId(7)),
        version: Some(150_020),
        segment_size: size,
        tablespaces: Vec::new(),
        cluster_size: None,
        error: None,
    }
}

pub(super) fn mib(count: u32) -> u64 {
    u64::from(count) << 20
}

pub(super) fn request(target: Target, timeline: TimelineWish) -> Request {
    Request {
        target,
        inclusive: true,
        timeline,
        backup: None,
        may_end_later: false,
    }
}

pub(super) fn at(minutes: i64) -> Target {
    Target::Time(minute(minutes))
}

pub(super) fn lsn(count: u32) -> Target {
    Target::Lsn(Lsn::new(mib(count)))
}

const LATEST: TimelineWish = TimelineWish::Latest;

pub(super) fn number(timeline: u32) -> TimelineWish {
    TimelineWish::Number(tli(timeline))
}

/// The choice where every history can be read.
pub(super) fn choose(
    backups: &[Backup],
    histories: &[TimelineHistory],
    request: &Request,
) -> Result<Choice, Refusal> {
    let timelines = KnownTimelines {
        histories: histories.to_vec(),
        unreadable: Vec::new(),
    };
    super::choose(backups, &timelines, request)
}

/// Checks that the request gives `name` on `timeline`.
fn check(
    backups: &[Backup],
    histories: &[TimelineHistory],
    request: &Request,
    expected: (&str, u32),
) {
    match choose(backups, histories, request) {
        Ok(choice) => {
            let found = (choice.backup.as_str(), choice.timeline.to_u32());
            assert_eq!(found, expected, "{request:?}\n{choice:?}");
        }
        Err(refusal) => panic!("{request:?}\n{refusal}"),
    }
}

fn refusal(backups: &[Backup], histories: &[TimelineHistory], request: &Request) -> Refusal {
    choose(backups, histories, request).unwrap_err()
}

/// One line with two promotions: 1 until 30, 2 until 60, then 3.
fn promoted() -> (Vec<Backup>, Vec<TimelineHistory>) {
    let backups = vec![
        backup("a", 1, 10),
        backup("b", 1, 20),
        backup("c", 2, 40),
        backup("d", 3, 70),
    ];
    let histories = vec![
        history(2, &[(1, mib(30))]),
        history(3, &[(1, mib(30)), (2, mib(60))]),
    ];
    (backups, histories)
}

/// A recovery to minute 25 made timeline 3 out of timeline 1, past which timeline 2 had gone on.
///
/// `a`, `b` lie before the fork, `late` on 1 after it, `side` on 2, `new` on 3.
fn forked() -> (Vec<Backup>, Vec<TimelineHistory>) {
    let backups = vec![
        backup("a", 1, 10),
        backup("b", 1, 20),
        backup("late", 1, 28),
        backup("side", 2, 80),
        backup("new", 3, 50),
    ];
    let histories = vec![history(2, &[(1, mib(30))]), history(3, &[(1, mib(25))])];
    (backups, histories)
}

#[test]
fn across_promotions_the_last_backup_before_the_target_is_chosen() {
    let (backups, histories) = promoted();
    for (target, expected) in [
        (Target::Latest, ("d", 3)),
        (Target::Immediate, ("d", 3)),
        (at(70), ("d", 3)),
        (at(69), ("c", 3)),
        (at(39), ("b", 3)),
        (at(10), ("a", 3)),
        (at(1000), ("d", 3)),
        (lsn(70), ("d", 3)),
        (lsn(69), ("c", 3)),
        (lsn(10), ("a", 3)),
    ] {
        check(&backups, &histories, &request(target, LATEST), expected);
    }
}

#[test]
fn a_target_exactly_at_the_end_of_a_backup_can_be_reached_from_it() {
    let (backups, histories) = promoted();
    for inclusive in [true, false] {
        for target in [lsn(20), at(20)] {
            let request = Request {
                inclusive,
                ..request(target, LATEST)
            };
            check(&backups, &histories, &request, ("b", 3));
        }
    }
    let one_before = Target::Lsn(Lsn::new(mib(20) - 1));
    check(&backups, &histories, &request(one_before, LATEST), ("a", 3));
}

#[test]
fn times_are_compared_whatever_their_zone() {
    let (backups, histories) = promoted();
    let zone = FixedOffset::east_opt(5 * 3600 + 1800).unwrap();
    let target = Target::Time(minute(20).with_timezone(&zone));
    check(&backups, &histories, &request(target, LATEST), ("b", 3));
}

#[test]
fn a_timeline_asked_for_is_followed_through_its_ancestors() {
    let (backups, histories) = promoted();
    for (timeline, target, expected) in [
        (1, Target::Latest, ("b", 1)),
        (2, Target::Latest, ("c", 2)),
        (3, Target::Latest, ("d", 3)),
        (3, at(65), ("c", 3)),
        (2, at(1000), ("c", 2)),
        (1, lsn(15), ("a", 1)),
    ] {
        check(
            &backups,
            &histories,
            &request(target, number(timeline)),
            expected,
        );
    }
}

#[test]
fn backups_on_an_abandoned_branch_are_passed_over() {
    let (backups, histories) = forked();
    for (target, wish, expected) in [
        // `side` ends last of all, and `late` after the fork: neither leads to timeline 3.
        (Target::Latest, LATEST, ("new", 3)),
        (at(45), LATEST, ("b", 3)),
        (lsn(45), LATEST, ("b", 3)),
        (Target::Latest, number(2), ("side", 2)),
        (at(45), number(2), ("late", 2)),
        (Target::Latest, number(1), ("late", 1)),
        (Target::Latest, TimelineWish::Current, ("side", 2)),
    ] {
        check(&backups, &histories, &request(target, wish), expected);
    }
    let choice = choose(&backups, &histories, &request(Target::Latest, LATEST)).unwrap();
    let why_not = |name: &str| {
        let found = choice.passed_over.iter().find(|(b, _)| *b == id(name));
        found.unwrap().1.clone()
    };
    assert!(why_not("side").contains("not on the line of timeline 3"));
    assert!(why_not("late").contains("after the line of timeline 3 left"));
    assert!(why_not("b").contains("earlier"));
}

#[test]
fn a_backup_that_ends_exactly_at_the_fork_is_on_both_lines() {
    let backups = [backup("a", 1, 30)];
    let histories = [history(2, &[(1, mib(30))]), history(3, &[(1, mib(30) - 1)])];
    let to = |timeline| request(Target::Latest, number(timeline));
    check(&backups, &histories, &to(2), ("a", 2));
    assert!(matches!(
        refusal(&backups, &histories, &to(3)),
        Refusal::NoCandidate { .. }
    ));
}

#[test]
fn latest_is_the_highest_timeline_that_some_backup_leads_to() {
    // Timeline 4 forked off timeline 1 before the only backup, which is on timeline 2.
    let backups = [backup("c", 2, 40)];
    let histories = [
        history(2, &[(1, mib(30))]),
        history(3, &[(1, mib(30)), (2, mib(50))]),
        history(4, &[(1, mib(5))]),
    ];
    let wish = request(Target::Latest, LATEST);
    check(&backups, &histories, &wish, ("c", 3));
    let choice = choose(&backups, &histories, &wish).unwrap();
    assert!(choice.reasons.iter().any(|reason| reason.contains("of 4,")));
}

#[test]
fn a_backup_asked_for_leads_to_the_highest_timeline_that_holds_it() {
    let (backups, histories) = forked();
    for (name, wish, timeline) in [
        ("a", LATEST, 3),
        ("late", LATEST, 2),
        ("side", LATEST, 2),
        ("a", TimelineWish::Current, 1),
        ("a", number(2), 2),
    ] {
        let request = Request {
            backup: Some(id(name)),
            ..request(Target::Immediate, wish)
        };
        check(&backups, &histories, &request, (name, timeline));
    }
}

#[test]
fn a_backup_asked_for_that_cannot_serve_is_refused_with_the_reason() {
    let (mut backups, histories) = forked();
    backups[1].status = BackupStatus::Failed;
    backups[1].error = Some("disk full".to_owned());
    for (name, target, wish, reason) in [
        (
            "b",
            Target::Latest,
            LATEST,
            "it is FAILED, not DONE: disk full",
        ),
        ("new", at(49), LATEST, "after the target"),
        ("new", lsn(49), LATEST, "after the target"),
        (
            "late",
            Target::Latest,
            number(3),
            "after the line of timeline 3 left",
        ),
        (
            "side",
            Target::Latest,
            number(3),
            "not on the line of timeline 3",
        ),
    ] {
        let request = Request {
            backup: Some(id(name)),
            ..request(target, wish)
        };
        match refusal(&backups, &histories, &request) {
            Refusal::Unfit { reason: found, .. } => assert!(found.contains(reason), "{found}"),
            other => panic!("{other:?}"),
        }
    }
    let request = Request {
        backup: Some(id("none")),
        ..request(Target::Latest, LATEST)
    };
    assert_eq!(
        refusal(&backups, &histories, &request),
        Refusal::UnknownBackup { id: id("none") }
    );
}

#[test]
fn transactions_and_names_need_a_single_candidate_or_a_backup() {
    let (backups, histories) = promoted();
    for target in [Target::Xid(745), Target::Name("before".to_owned())] {
        let wish = request(target.clone(), LATEST);
        match refusal(&backups, &histories, &wish) {
            Refusal::Ambiguous { candidates, .. } => {
                assert_eq!(candidates, ["a", "b", "c", "d"].map(id));
            }
            other => panic!("{other:?}"),
        }
        let given = Request {
            backup: Some(id("b")),
            ..wish.clone()
        };
        check(&backups, &histories, &given, ("b", 3));
        let mut failed = backups.clone();
        for backup in &mut failed[1..] {
            backup.status = BackupStatus::Failed;
        }
        check(&failed, &histories, &wish, ("a", 3));
        check(&backups[3..], &histories, &wish, ("d", 3));
    }
}

#[test]
fn a_target_before_the_first_end_names_what_can_be_reached_at_the_earliest() {
    let (backups, histories) = forked();
    let refused = refusal(&backups, &histories, &request(at(9), LATEST));
    let text = refused.to_string();
    assert!(matches!(refused, Refusal::TooEarly { .. }));
    assert!(
        text.contains(&utc(minute(9))) && text.contains(&utc(minute(10))),
        "{text}"
    );
    // On timeline 3 alone the same holds; on a line whose first backup is later, that one counts.
    let refused = refusal(&backups[3..], &histories, &request(at(49), number(3)));
    assert!(refused.to_string().contains(&utc(minute(50))));
    let refused = refusal(&backups, &histories, &request(lsn(9), LATEST));
    assert!(refused.to_string().contains("0/A00000"), "{refused}");
}

#[test]
fn without_a_candidate_each_backup_has_its_reason() {
    let mut backups: Vec<Backup> = ["a", "b", "c", "d", "e", "f"]
        .map(|name| backup(name, 1, 10))
        .into();
    backups[0].status = BackupStatus::Started;
    backups[1].status = BackupStatus::Failed;
    backups[2].status = BackupStatus::WaitingForWals;
    backups[3].kind = BackupKind::Snapshot;
    backups[4].kind = BackupKind::Incremental {
        parent: "p".to_owned(),
    };
    backups[5].end_lsn = None;
    match refusal(&backups, &[], &request(at(20), LATEST)) {
        Refusal::NoCandidate { passed_over, .. } => {
            for ((_, reason), part) in passed_over.iter().zip([
                "STARTED",
                "FAILED",
                "WAITING_FOR_WALS",
                "snapshots",
                "incremental on p",
                "where it ends",
            ]) {
                assert!(reason.contains(part), "{reason}");
            }
        }
        other => panic!("{other:?}"),
    }
    let mut timeless = backup("a", 1, 10);
    timeless.end_time = None;
    let refused = refusal(&[timeless], &[], &request(at(20), LATEST));
    assert!(refused.to_string().contains("when it ends"), "{refused}");
}

#[test]
fn nothing_and_the_unknown_are_refused_as_such() {
    let (backups, histories) = promoted();
    assert_eq!(
        refusal(&[], &[], &request(Target::Latest, LATEST)),
        Refusal::NoBackup
    );
    let refused = refusal(&backups, &histories, &request(Target::Latest, number(9)));
    assert!(refused.to_string().contains("1, 2, 3"), "{refused}");
}

#[test]
fn a_timeline_without_a_history_file_is_followed_as_the_current_one() {
    let backups = [backup("a", 5, 10)];
    let choice = choose(&backups, &[], &request(Target::Latest, LATEST)).unwrap();
    assert_eq!(choice.timeline, tli(5));
    assert_eq!(choice.recovery_target_timeline(), "current");
    let histories = [history(5, &[(4, 1)])];
    let choice = choose(&backups, &histories, &request(Target::Latest, LATEST)).unwrap();
    assert_eq!(choice.recovery_target_timeline(), "5");
    let choice = choose(&[backup("a", 1, 10)], &[], &request(Target::Latest, LATEST)).unwrap();
    assert_eq!(choice.recovery_target_timeline(), "1");
}

#[test]
fn a_backup_of_a_standby_that_changed_timeline_ends_on_the_later() {
    let mut moved = backup("a", 2, 40);
    moved.timeline = Some(tli(1));
    let histories = [history(2, &[(1, mib(30))])];
    check(
        &[moved],
        &histories,
        &request(Target::Latest, LATEST),
        ("a", 2),
    );
}

#[test]
fn a_damaged_backup_is_passed_over_and_still_tells_whose_archive_it_is() {
    let past = |backups: &[Backup], damaged: &str| {
        let timelines = KnownTimelines::default();
        let damaged = [(id(damaged), "it has no tars".to_owned())];
        let request = request(Target::Latest, LATEST);
        choose_past(backups, &timelines, &request, &damaged)
    };
    let choice = past(&[backup("a", 1, 10), backup("b", 1, 20)], "b").unwrap();
    assert_eq!(choice.backup, id("a"));
    assert_eq!(choice.passed_over, [(id("b"), "it has no tars".to_owned())]);
    assert!(choice.reasons[0].contains("the newest that is whole"));
    let mut old = backup("a", 1, 10);
    old.system_id = Some(SystemId(1));
    match past(&[old, backup("b", 1, 20)], "b").unwrap_err() {
        Refusal::NoCandidate { passed_over, .. } => {
            assert!(passed_over[0].1.contains("another cluster"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cluster_that_had_the_name_before_is_passed_over() {
    let mut old = backup("old", 1, 90);
    old.system_id = Some(SystemId(1));
    old.end_time = Some(minute(1));
    let backups = [old, backup("new", 1, 10)];
    for target in [Target::Latest, lsn(1000), Target::Xid(9)] {
        check(&backups, &[], &request(target, LATEST), ("new", 1));
    }
    let asked = Request {
        backup: Some(id("old")),
        ..request(Target::Latest, LATEST)
    };
    check(&backups, &[], &asked, ("old", 1));
}
