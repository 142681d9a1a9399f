//! What a restore sees of the way to its target before it begins: damaged backups, and gaps in the log.

use chrono::TimeDelta;

use super::*;
use crate::clock;
use crate::domain::lsn::Lsn;

const LATER_ID: &str = "20261121T064347";
/// Later than the bed's own, and on the same timeline.
const LATER: &str = "begin_time=2026-11-21 06:43:47+00:00\nbegin_wal=000000010000000000000007\n\
    begin_xlog=0/7000028\nend_time=2026-11-21 06:43:49+00:00\n\
    end_wal=000000010000000000000008\nend_xlog=0/8000138\n";

fn segment(timeline: u32, number: u32) -> String {
    format!("{timeline:08X}00000000{number:08X}")
}

fn segments(timeline: u32, numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    let name = |number| segment(timeline, number);
    numbers.into_iter().map(name).collect()
}

/// A bed whose backup needs 3 and 4, with these files of the log after that.
async fn bed_with(names: Vec<String>) -> Bed {
    let bed = Bed::new(Codec::None).await;
    bed.put_wal(names).await;
    bed
}

async fn plan_for(bed: &Bed, target: Target) -> Result<RestorePlan, RestoreError> {
    let mut request = bed.request();
    request.recovery.target = target;
    plan(&bed.repository, &request).await
}

/// What the user is told of the way, if that leads to the target, besides that the log of this
/// server cannot be read.
async fn told(bed: &Bed, target: Target) -> Result<String, RestoreError> {
    let mut warnings = plan_for(bed, target).await?.warnings;
    warnings.retain(|warning| !warning.starts_with("Where recovery stops is not known"));
    Ok(warnings.join("\n"))
}

async fn check_refused(bed: &Bed, target: Target, missing: &str) {
    let error = told(bed, target).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(
        matches!(error, RestoreError::TargetWalMissing { .. }),
        "{error}"
    );
    assert!(error.to_string().contains(missing), "{error}");
}

fn partial(timeline: u32, number: u32) -> String {
    format!("{}.partial", segment(timeline, number))
}

/// Puts the history of a timeline.
async fn put_history(bed: &Bed, timeline: u32, history: &str) {
    let name = format!("{timeline:08X}.history").parse().unwrap();
    let key = bed.repository.layout.wal(&name, Codec::None);
    bed.put(&key, history.as_bytes()).await;
}

fn lsn(text: &str) -> Target {
    Target::Lsn(text.parse().unwrap())
}

#[tokio::test]
async fn a_record_without_archives_is_passed_over_and_named() {
    let bed = bed_with(segments(1, 5..=9)).await;
    let later: BackupId = LATER_ID.parse().unwrap();
    bed.put_record_of(&later, LATER).await;
    let plan = plan_for(&bed, Target::Latest).await.unwrap();
    assert_eq!(plan.backup.id, id());
    assert_eq!(plan.passed_over[0].0, later);
    let warning = plan.warnings.join(" ");
    assert!(
        warning.contains("20261121T064347 was passed over"),
        "{warning}"
    );
    assert!(
        warning.contains("no archive of the data directory"),
        "{warning}"
    );
    for tablespace in [None, Some(16384)] {
        let name = ArchiveName {
            tablespace,
            piece: 0,
        };
        let key = bed.repository.layout.archive(&later, &name, Codec::None);
        bed.put(&key, b"tar").await;
    }
    let key = bed.repository.layout.backup_info(&later);
    let record = bed.repository.get_small(&key).await.unwrap();
    let record = String::from_utf8(record.into()).unwrap();
    let lines = record.split_inclusive('\n');
    let without: String = lines
        .filter(|line| !line.starts_with("begin_wal="))
        .collect();
    bed.put(&key, without.as_bytes()).await;
    let plan = plan_for(&bed, lsn("0/9000028")).await.unwrap();
    assert_eq!(plan.backup.id, id());
    assert!(plan.reasons[0].contains("the last that is whole"));
}

#[tokio::test]
async fn a_record_without_archives_is_not_passed_over_to_another_end() {
    let bed = bed_with(segments(1, [5, 7, 8])).await;
    let later: BackupId = LATER_ID.parse().unwrap();
    bed.put_record_of(&later, LATER).await;
    let check = async |request: RestoreRequest| {
        let error = plan(&bed.repository, &request).await.unwrap_err();
        let is_it =
            matches!(&error, RestoreError::ArchiveMissing { backup, .. } if *backup == later);
        assert!(is_it, "{error}");
    };
    // Its own end.
    let mut request = bed.request();
    request.recovery.target = Target::Immediate;
    check(request).await;
    // It was asked for.
    let mut request = bed.request();
    request.recovery.backup = Some(later.clone());
    check(request).await;
    // From the one before it, recovery ends at a gap.
    let error = bed.plan().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    let text = format!("{} {}", crate::fault::chain(&error), error.hint());
    for part in [LATER_ID, &segment(1, 6), "--accept-gap"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let mut request = bed.request();
    request.accepts_gap = true;
    assert_eq!(
        plan(&bed.repository, &request).await.unwrap().backup.id,
        id()
    );
    // It is the only one on its timeline.
    bed.put_wal(segments(1, [6])).await;
    let on_the_second = "end_wal=000000020000000000000008\ntimeline=2\n\
        begin_wal=000000020000000000000007\n";
    bed.put_record_of(&later, &format!("{LATER}{on_the_second}"))
        .await;
    put_history(&bed, 2, "1\t0/3000050\tno reason\n").await;
    check(bed.request()).await;
}

#[tokio::test]
async fn a_record_that_is_wrong_about_its_end_by_far_is_refused_at_once() {
    let bed = Bed::new(Codec::None).await;
    bed.put_record("end_xlog=FFFFFFFF/FF000000\n").await;
    let error = bed.plan().await.unwrap_err();
    match error {
        RestoreError::WalMissing { segments, .. } => assert_eq!(segments.len(), 5),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_gap_before_the_end_of_the_archive_is_not_taken_for_the_end() {
    let whole = bed_with(segments(1, 5..=9)).await;
    assert_eq!(told(&whole, Target::Latest).await.unwrap(), "");
    // Behind it is more than an archiver sends ahead.
    let long = bed_with(segments(1, [5].into_iter().chain(7..=90))).await;
    check_refused(&long, Target::Latest, &segment(1, 6)).await;
    // A backup was finished behind it.
    let short = bed_with(segments(1, [5, 7, 8])).await;
    let warning = told(&short, Target::Latest).await.unwrap();
    assert!(
        warning.contains(&segment(1, 6)) && warning.contains("sent ahead"),
        "{warning}"
    );
    short.put_record_of(&LATER_ID.parse().unwrap(), LATER).await;
    let mut request = short.request();
    request.recovery.backup = Some(id());
    let error = plan(&short.repository, &request).await.unwrap_err();
    assert!(
        matches!(error, RestoreError::TargetWalMissing { .. }),
        "{error}"
    );
    request.accepts_gap = true;
    let accepted = plan(&short.repository, &request).await.unwrap();
    assert!(accepted.warnings.join(" ").contains(&segment(1, 6)));
    // What makes it consistent is all that counts here.
    request.accepts_gap = false;
    request.recovery.target = Target::Immediate;
    assert!(
        plan(&short.repository, &request)
            .await
            .unwrap()
            .warnings
            .is_empty()
    );
}

#[tokio::test]
async fn a_gap_is_looked_for_along_the_line() {
    let history = "1\t0/6000050\tno reason\n";
    let line = async |names: Vec<String>| {
        let bed = bed_with(names).await;
        put_history(&bed, 2, history).await;
        bed
    };
    let of_second = || segments(2, 6..=8);
    // The segment of the switch was finished on the second; what follows on the first is off the line.
    let mut names = [segments(1, [5, 9]), of_second()].concat();
    names.push(partial(1, 6));
    let bed = line(names).await;
    assert_eq!(told(&bed, Target::Latest).await.unwrap(), "");
    let bed = line(of_second()).await;
    check_refused(&bed, Target::Latest, &segment(1, 5)).await;
    let bed = line(segments(1, [5])).await;
    assert_eq!(told(&bed, Target::Latest).await.unwrap(), "");
}

#[tokio::test]
async fn a_target_in_time_is_held_to_when_the_log_was_put() {
    let now = clock::now();
    let text = |time: DateTime<Utc>| time.format("%Y-%m-%d %H:%M:%S+00:00").to_string();
    let ended = format!("end_time={}\n", text(now - TimeDelta::hours(2)));
    let at = |minutes| Target::Time((now + TimeDelta::minutes(minutes)).fixed_offset());
    let bed = bed_with(segments(1, [5, 6])).await;
    bed.put_record(&ended).await;
    for minutes in [-90, -5, 50] {
        assert_eq!(told(&bed, at(minutes)).await.unwrap(), "", "{minutes}");
    }
    let error = told(&bed, at(90)).await.unwrap_err();
    assert!(
        matches!(error, RestoreError::TargetAfterArchive { .. }),
        "{error}"
    );
    bed.put_wal(segments(1, [8])).await;
    check_refused(&bed, at(90), &segment(1, 7)).await;
    // Nothing tells where these lie.
    for target in [at(-5), Target::Xid(900), Target::Name("n".to_owned())] {
        let warning = told(&bed, target).await.unwrap();
        assert!(
            warning.contains("should the target lie behind"),
            "{warning}"
        );
    }
}

#[tokio::test]
async fn a_target_in_the_log_may_lie_in_a_segment_that_is_unfinished() {
    let bed = bed_with(segments(1, [5, 6])).await;
    let target = Target::Lsn(Lsn::new(0x0700_0100));
    check_refused(&bed, target.clone(), &segment(1, 7)).await;
    bed.put_wal([partial(1, 7)]).await;
    assert_eq!(told(&bed, target).await.unwrap(), "");
    check_refused(&bed, lsn("0/8000100"), &segment(1, 7)).await;
}

/// PostgreSQL looks for a segment on the newest timeline of its line first, and then on those that
/// this left: `XLogFileReadAnyTLI`, src/backend/access/transam/xlogrecovery.c.
#[tokio::test]
async fn a_segment_of_a_switch_reaches_as_far_where_only_the_timeline_that_was_left_has_it() {
    let now = clock::now();
    let ended = (now - TimeDelta::hours(6)).format("%Y-%m-%d %H:%M:%S+00:00");
    let at = |minutes| Target::Time((now + TimeDelta::minutes(minutes)).fixed_offset());
    let one = [(2, "1\t0/6000050\tno reason\n")];
    let twice = [
        (2, "1\t0/6000050\tno reason\n"),
        (3, "1\t0/6000050\tno reason\n2\t0/6000090\tno reason\n"),
    ];
    let at_the_backups_end = [(2, "1\t0/4000150\tno reason\n")];
    for (case, histories, old, new) in [
        ("a failover", &one[..], vec![segment(1, 5)], partial(1, 6)),
        ("a trial", &one, vec![segment(1, 5)], segment(1, 6)),
        (
            "two failovers",
            &twice,
            vec![segment(1, 5), partial(1, 6)],
            partial(2, 6),
        ),
        (
            "a backup that ends there",
            &at_the_backups_end,
            vec![],
            partial(1, 4),
        ),
    ] {
        let bed = bed_with(old.clone()).await;
        bed.put_record(&format!("end_time={ended}\n")).await;
        for (timeline, history) in histories {
            put_history(&bed, *timeline, history).await;
        }
        let old = [segments(1, 3..=4), old].concat();
        bed.date_wal(old, now - TimeDelta::hours(5));
        let error = told(&bed, at(-30)).await.unwrap_err();
        assert!(
            matches!(error, RestoreError::TargetAfterArchive { .. }),
            "{case}: {error}"
        );
        bed.put_wal([new]).await;
        assert_eq!(told(&bed, at(-30)).await.unwrap(), "", "{case}");
        // Later than that nothing was put.
        assert!(told(&bed, at(90)).await.is_err(), "{case}");
    }
}

#[tokio::test]
async fn a_target_in_the_log_may_lie_before_the_switch_in_its_segment() {
    for file in [segment(1, 6), partial(1, 6)] {
        let bed = bed_with(segments(1, [5])).await;
        put_history(&bed, 2, "1\t0/6000050\tno reason\n").await;
        check_refused(&bed, lsn("0/6000040"), &segment(2, 6)).await;
        bed.put_wal([file]).await;
        assert_eq!(told(&bed, lsn("0/6000040")).await.unwrap(), "");
        // What comes then is on the second only.
        check_refused(&bed, lsn("0/6000050"), &segment(2, 6)).await;
        bed.put_wal(segments(2, [7])).await;
        check_refused(&bed, lsn("0/7000050"), &segment(2, 6)).await;
    }
}

#[tokio::test]
async fn a_backup_that_ended_in_a_missing_segment_shows_that_it_was_archived() {
    let bed = bed_with(segments(1, [5, 6, 7, 9])).await;
    let mut request = bed.request();
    request.recovery.backup = Some(id());
    let sent_ahead = plan(&bed.repository, &request).await.unwrap();
    assert!(sent_ahead.warnings.join(" ").contains("sent ahead"));
    bed.put_record_of(&LATER_ID.parse().unwrap(), LATER).await;
    let error = plan(&bed.repository, &request).await.unwrap_err();
    assert!(error.to_string().contains(&segment(1, 8)), "{error}");
}

#[tokio::test]
async fn a_target_after_a_branch_names_the_other_timelines() {
    let now = clock::now();
    let ended = (now - TimeDelta::hours(6)).format("%Y-%m-%d %H:%M:%S+00:00");
    let target = Target::Time((now - TimeDelta::minutes(5)).fixed_offset());
    for (history, is_named) in [
        (None, false),
        // A trial left the first timeline; that went on.
        (Some("1\t0/5000050\tno reason\n"), true),
        // It left it before the backup: the first does not lead anywhere from here.
        (Some("1\t0/2000050\tno reason\n"), false),
    ] {
        let bed = bed_with(segments(1, [5])).await;
        bed.put_record(&format!("end_time={ended}\n")).await;
        bed.date_wal(segments(1, 3..=5), now - TimeDelta::hours(5));
        if let Some(history) = history {
            put_history(&bed, 2, history).await;
        }
        let error = told(&bed, target.clone()).await.unwrap_err();
        let hint = error.hint();
        assert!(hint.contains("eave the target out"), "{hint}");
        let names_it = hint.contains("timeline 1 with --target-timeline");
        assert_eq!(names_it, is_named, "{history:?}: {hint}");
    }
}

/// A standby's backup does not wait for its last segment, and a failover may come before that is full.
#[tokio::test]
async fn the_segment_that_a_backup_ends_in_may_be_the_next_timelines_or_unfinished() {
    let latest = TimelineWish::Latest;
    let first = TimelineWish::Number("1".parse().unwrap());
    for (files, timeline, is_enough) in [
        (vec![], latest, false),
        (vec![segment(2, 4)], latest, true),
        (vec![segment(2, 4)], first, false),
        (vec![partial(1, 4)], latest, true),
        (vec![partial(1, 4)], first, true),
        (vec![partial(1, 3)], latest, false),
    ] {
        let case = format!("{files:?} {timeline:?}");
        let bed = bed_with(files).await;
        put_history(&bed, 2, "1\t0/4000150\tno reason\n").await;
        let name = segment(1, 4).parse().unwrap();
        let last = bed.repository.layout.wal(&name, Codec::None);
        bed.store.delete(&[last]).await.unwrap();
        let mut request = bed.request();
        request.recovery.timeline = timeline;
        match plan(&bed.repository, &request).await {
            Ok(_) => assert!(is_enough, "{case}"),
            Err(error) => {
                assert!(
                    matches!(error, RestoreError::WalMissing { .. }),
                    "{case}: {error}"
                );
                assert!(!is_enough, "{case}: {error}");
            }
        }
    }
}

/// Before 13 a recovery that ends short of its target is none that failed.
#[tokio::test]
async fn a_warning_of_a_gap_tells_what_the_servers_version_does_there() {
    for (version, promotes) in [("120020", true), ("130000", false)] {
        let bed = bed_with(segments(1, [5, 7])).await;
        bed.put_record(&format!("version={version}\n")).await;
        let warning = told(&bed, Target::Xid(900)).await.unwrap();
        assert!(warning.contains(&segment(1, 6)), "{warning}");
        assert_eq!(
            warning.contains("promotes"),
            promotes,
            "{version}: {warning}"
        );
    }
}
