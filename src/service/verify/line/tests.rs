//! What is needed and not there, on one timeline and across several.

use super::*;
use crate::barman::backup_info::BackupInfo;
use crate::clock;
use crate::domain::backup::BackupStatus;

const SIZE: SegmentSize = SegmentSize::DEFAULT;

fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// A position in a segment: not at its start.
fn lsn(segment: u64) -> Lsn {
    Lsn::new(segment * SIZE.bytes() + 0x100)
}

fn number(segment: u64) -> SegmentNumber {
    SegmentNumber::holding(lsn(segment), SIZE)
}

/// A backup that began and ended on a timeline, in these segments, hours ago.
fn need(id: &str, timeline: u32, (begin, end): (u64, u64)) -> Need {
    let info = BackupInfo {
        status: BackupStatus::Done,
        begin_wal: SegmentName::new(tli(timeline), number(begin), SIZE),
        begin_xlog: Some(lsn(begin)),
        end_wal: SegmentName::new(tli(timeline), number(end), SIZE),
        end_xlog: Some(lsn(end)),
        end_time: Some((clock::now() - TimeDelta::hours(3)).fixed_offset()),
        ..BackupInfo::default()
    };
    Need::of(&info.to_backup(&id.parse().unwrap()), None).unwrap()
}

/// The segments of each timeline, put hours ago.
fn archived(segments: &[(u32, &[u64])]) -> Archived {
    let mut archived = Archived::new(SIZE);
    for (timeline, numbers) in segments {
        for segment in *numbers {
            let put = clock::now() - TimeDelta::hours(2);
            archived.add(tli(*timeline), number(*segment), put);
        }
    }
    archived
}

fn history(timeline: u32, ancestors: &[(u32, u64)]) -> TimelineHistory {
    let ancestors = ancestors.iter().map(|(timeline, segment)| Ancestor {
        timeline: tli(*timeline),
        switched_at: lsn(*segment),
    });
    TimelineHistory::new(tli(timeline), ancestors.collect()).unwrap()
}

fn lines(needs: &[Need], histories: &[TimelineHistory], archived: &Archived) -> Lines {
    let needs: Vec<&Need> = needs.iter().collect();
    check(&needs, histories, archived, clock::now())
}

/// What is missing as `timeline/first-last of backups`.
fn told(found: &Lines) -> Vec<String> {
    let text = |name: SegmentName| name.number(SIZE).unwrap().to_u64();
    let missing = found.missing.iter().map(|it| {
        let backups: Vec<&str> = it.backups.iter().map(BackupId::as_str).collect();
        let (first, last) = (text(it.first), text(it.last));
        let way = if it.is_on_its_way { " on its way" } else { "" };
        assert_eq!(it.count, last - first + 1);
        let timeline = it.first.timeline();
        format!("{timeline}/{first}-{last} of {}{way}", backups.join("+"))
    });
    missing.collect()
}

#[test]
fn each_gap_is_told_with_the_backups_that_cannot_get_beyond_it() {
    let needs = [need("a", 1, (2, 3)), need("b", 1, (6, 6))];
    for (segments, expected) in [
        (&[2, 3, 4, 5, 6, 7][..], &[][..]),
        (&[1, 2, 3, 4, 5, 6], &[]),
        (&[2, 3, 5, 6, 7], &["1/4-4 of a"]),
        (&[2, 3, 6, 7], &["1/4-5 of a"]),
        (&[2, 3, 4, 5, 6, 8], &["1/7-7 of a+b"]),
        (&[3, 4, 5, 6, 9], &["1/2-2 of a", "1/7-8 of a+b"]),
        // Nothing is there at all, and each must at least become consistent.
        (&[], &["1/2-3 of a", "1/6-6 of a+b"]),
    ] {
        let found = lines(&needs, &[], &archived(&[(1, segments)]));
        assert_eq!(told(&found), expected, "{segments:?}");
    }
}

#[test]
fn a_standalone_backup_needs_no_more_than_what_makes_it_consistent() {
    let mut alone = need("a", 1, (2, 3));
    alone.is_standalone = true;
    let needs = [alone, need("b", 1, (8, 8))];
    let found = lines(&needs, &[], &archived(&[(1, &[2, 3, 8, 9])]));
    assert_eq!(told(&found), [""; 0]);
    let found = lines(&needs, &[], &archived(&[(1, &[2, 5, 8, 9])]));
    assert_eq!(told(&found), ["1/3-3 of a"]);
}

#[test]
fn what_lies_behind_a_gap_since_a_moment_may_have_been_sent_ahead() {
    let mut fresh = archived(&[(1, &[2, 3, 4])]);
    fresh.add(tli(1), number(7), clock::now());
    let found = lines(&[need("a", 1, (2, 3))], &[], &fresh);
    assert_eq!(told(&found), ["1/5-6 of a on its way"]);
    // A backup that began behind it was not taken before it was archived.
    let needs = [need("a", 1, (2, 3)), need("b", 1, (7, 7))];
    assert_eq!(told(&lines(&needs, &[], &fresh)), ["1/5-6 of a"]);
}

#[test]
fn the_log_is_followed_across_timelines() {
    let needs = [need("a", 1, (2, 3))];
    let second = history(2, &[(1, 5)]);
    let third = history(3, &[(1, 5), (2, 8)]);
    for (histories, segments, expected) in [
        // The segment of the switch is finished on the later timeline.
        (
            vec![second.clone()],
            vec![(1, &[2, 3, 4][..]), (2, &[5, 6])],
            &[][..],
        ),
        (
            vec![second.clone()],
            vec![(1, &[2, 3, 4, 5]), (2, &[6, 7])],
            &["2/5-5 of a"],
        ),
        // What two lines share is told once.
        (
            vec![second.clone(), third.clone()],
            vec![(1, &[2, 4]), (2, &[5, 6, 7]), (3, &[8, 9])],
            &["1/3-3 of a"],
        ),
        (
            vec![second.clone(), third.clone()],
            vec![(1, &[2, 3, 4]), (2, &[5, 7]), (3, &[8, 10])],
            &["2/6-6 of a", "3/9-9 of a"],
        ),
        // The old primary went on.
        (
            vec![second],
            vec![(1, &[2, 3, 4, 5, 7]), (2, &[5, 6])],
            &["1/6-6 of a"],
        ),
    ] {
        let found = lines(&needs, &histories, &archived(&segments));
        assert_eq!(told(&found), expected, "{segments:?}");
        assert_eq!(found.without_history, []);
    }
}

#[test]
fn the_end_of_a_backup_may_lie_unfinished_or_on_another_timeline() {
    let needs = [need("a", 1, (2, 5))];
    let second = [history(2, &[(1, 5)])];
    let mut partial = archived(&[(1, &[2, 3, 4])]);
    assert_eq!(told(&lines(&needs, &[], &partial)), ["1/5-5 of a"]);
    partial.add_partial(tli(1), number(5));
    assert_eq!(told(&lines(&needs, &[], &partial)), [""; 0]);
    let promoted = archived(&[(1, &[2, 3, 4]), (2, &[5, 6])]);
    assert_eq!(told(&lines(&needs, &second, &promoted)), [""; 0]);
    let promoted = archived(&[(1, &[2, 3, 4, 5])]);
    assert_eq!(told(&lines(&needs, &second, &promoted)), [""; 0]);
}

#[test]
fn a_timeline_without_a_history_is_told_where_a_backup_could_lead_to_it() {
    let segments = archived(&[(1, &[2, 3]), (3, &[4])]);
    let found = lines(&[need("a", 1, (2, 3))], &[], &segments);
    assert_eq!(found.without_history, [tli(3)]);
    // An archive may begin on a later timeline.
    let found = lines(&[need("a", 3, (4, 4))], &[], &segments);
    assert_eq!(found.without_history, []);
}

#[test]
fn a_line_is_told_from_its_first_segment_to_its_last() {
    let needs = [need("a", 1, (2, 3))];
    let segments = archived(&[(1, &[2, 3, 4]), (2, &[5, 7])]);
    let found = lines(&needs, &[history(2, &[(1, 5)])], &segments);
    let name = |timeline, at| SegmentName::new(tli(timeline), number(at), SIZE);
    let line = |timeline, head, missing| Line {
        timeline: tli(timeline),
        begin: name(1, 2).unwrap(),
        head,
        missing,
    };
    let expected = [line(1, name(1, 4), 0), line(2, name(2, 7), 1)];
    assert_eq!(found.lines, expected);
}
