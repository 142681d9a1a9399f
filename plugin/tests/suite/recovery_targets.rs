//! Where an archive can be gone back to, through a sidecar's socket.

use cellarman::api::recovery_targets as wire;
use cellarman::api::recovery_targets::recovery_targets_client::RecoveryTargetsClient;
use cellarman::api::recovery_targets::resolve_request::Target;
use cellarman::api::recovery_targets::resolve_response::Outcome;
use cellarman::api::recovery_targets::unreachable::Reason;
use cellarman::barman::repository::Repository;
use cellarman::codec::Codec;
use cellarman::domain::wal_file::WalFileName;
use prost_types::Timestamp;
use serde_json::json;
use testbed::or_not_run;
use testbed::wait;
use tonic::{Code, Status};

use crate::backup_bed::{Bed, OWN};
use crate::sidecar::Sidecar;

/// Asks for the windows.
pub(crate) fn windows(
    sidecar: &Sidecar,
    archive: Option<wire::Archive>,
) -> Result<Vec<wire::TimelineWindow>, Status> {
    let mut client = RecoveryTargetsClient::new(sidecar.channel());
    let answer = sidecar.block(client.window(wire::WindowRequest { archive }));
    answer.map(|answer| answer.into_inner().timelines)
}

/// Asks for a plan.
pub(crate) fn resolve(sidecar: &Sidecar, request: wire::ResolveRequest) -> Result<Outcome, Status> {
    let mut client = RecoveryTargetsClient::new(sidecar.channel());
    let answer = sidecar.block(client.resolve(request))?.into_inner();
    Ok(answer.outcome.expect("an outcome"))
}

fn list(sidecar: &Sidecar, request: wire::ListRequest) -> Result<wire::ListResponse, Status> {
    let mut client = RecoveryTargetsClient::new(sidecar.channel());
    let answer = sidecar.block(client.list(request));
    answer.map(tonic::Response::into_inner)
}

/// A request of this target and nothing else.
pub(crate) fn request(target: Target) -> wire::ResolveRequest {
    wire::ResolveRequest {
        target: Some(target),
        ..wire::ResolveRequest::default()
    }
}

#[track_caller]
fn plan(bed: &Bed, request: wire::ResolveRequest) -> wire::Plan {
    match resolve(&bed.sidecar, request).expect("an answer") {
        Outcome::Plan(plan) => plan,
        Outcome::Unreachable(unreachable) => panic!("{unreachable:?}"),
    }
}

#[track_caller]
fn unreachable(bed: &Bed, request: wire::ResolveRequest) -> wire::Unreachable {
    match resolve(&bed.sidecar, request).expect("an answer") {
        Outcome::Plan(plan) => panic!("{plan:?}"),
        Outcome::Unreachable(unreachable) => unreachable,
    }
}

fn name(text: &str) -> wire::ResolveRequest {
    request(Target::Name(text.to_owned()))
}

fn time(seconds: i64) -> wire::ResolveRequest {
    request(Target::Time(Timestamp { seconds, nanos: 0 }))
}

/// All pages of the list.
fn pages(bed: &Bed, page_size: u32) -> Vec<wire::Listed> {
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = wire::ListRequest {
            archive: None,
            page_size,
            page_token,
        };
        let page = list(&bed.sidecar, request).expect("a page");
        let size = usize::try_from(page_size).expect("few");
        assert!(page_size == 0 || page.listed.len() <= size);
        listed.extend(page.listed);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return listed;
        }
    }
}

/// What a thing of the list is called.
fn called(listed: &wire::Listed) -> String {
    match listed.what.as_ref().expect("a thing") {
        wire::listed::What::Backup(backup) => backup.backup_id.clone(),
        wire::listed::What::RestorePoint(point) => point.name.clone(),
    }
}

/// A bed with two backups, restore points between and behind them, and a transaction.
struct History {
    bed: Bed,
    backups: [String; 2],
    xid: u64,
}

impl History {
    fn make() -> Result<Self, String> {
        let bed = Bed::new(
            &json!({"instanceSidecarConfiguration": {"retentionPolicyIntervalSeconds": 1}}),
        )?;
        let sql = bed.server.sql();
        let point = |name: &str| sql.run(&format!("SELECT pg_create_restore_point('{name}')"));
        sql.run("CREATE TABLE happened (n int)");
        let first = bed.take("one", &[]).backup_id;
        point("noon");
        point("twice");
        let xid = sql
            .value("BEGIN; INSERT INTO happened VALUES (1); SELECT pg_current_xact_id(); COMMIT");
        bed.server.archive_now();
        let second = bed.take("two", &[]).backup_id;
        point("twice");
        sql.run("INSERT INTO happened VALUES (2)");
        bed.server.archive_now();
        Ok(Self {
            bed,
            backups: [first, second],
            xid: xid.parse().expect("an id"),
        })
    }
}

#[test]
fn windows_lists_and_plans_are_told_on_the_socket() {
    let history = or_not_run!(History::make());
    check_window(&history);
    check_list(&history);
    check_plan_of_a_name(&history);
    check_plans(&history);
}

fn check_window(history: &History) {
    let (bed, backups) = (&history.bed, &history.backups);
    let timelines = windows(&bed.sidecar, None).expect("windows");
    let [window] = &timelines[..] else {
        panic!("{timelines:?}");
    };
    let ids: Vec<&String> = window.backups.iter().map(|one| &one.backup_id).collect();
    assert_eq!(ids, [&backups[0], &backups[1]]);
    assert_eq!((window.timeline, window.missing_segments), (1, 0));
    assert!(window.gaps.is_empty() && window.segments > 2, "{window:?}");
    let time_of = |position: &Option<wire::Position>| position.as_ref().and_then(|one| one.time);
    let (first, latest) = (time_of(&window.first), time_of(&window.latest));
    assert!(
        first.map(|one| one.seconds) <= latest.map(|one| one.seconds),
        "{window:?}"
    );
    let commits = &window.commits.as_ref().expect("commits").commits;
    assert!(commits.iter().sum::<u64>() >= 2, "{commits:?}");
    let same = wire::Archive {
        object_store: OWN.0.to_owned(),
        server_name: String::new(),
    };
    assert_eq!(
        windows(&bed.sidecar, Some(same)).expect("windows"),
        timelines
    );
}

fn check_list(history: &History) {
    let (bed, backups) = (&history.bed, &history.backups);
    let all = pages(bed, 0);
    let names: Vec<String> = all.iter().map(called).collect();
    assert_eq!(names, [&backups[0], "noon", "twice", &backups[1], "twice"]);
    for size in [1, 2, 4] {
        assert_eq!(pages(bed, size), all, "{size} at a time");
    }
}

fn check_plan_of_a_name(history: &History) {
    let noon = plan(&history.bed, name("noon"));
    assert_eq!((&noon.backup_id, noon.timeline), (&history.backups[0], 1));
    let stop = noon.stop.expect("a stop");
    assert_eq!(stop.side(), wire::stop::Side::After);
    assert!(
        matches!(stop.what, Some(wire::stop::What::RestorePoint(point)) if point.name == "noon")
    );
    let wal = noon.wal.expect("WAL");
    assert_eq!(wal.segments.expect("segments").last, stop.segment);
    assert!(!wal.open_ended && wal.count > 0 && noon.fetch_bytes > 0);
    let settings: Vec<_> = noon
        .settings
        .iter()
        .map(|one| (&one.name[..], &one.value[..]))
        .collect();
    let expected = [
        ("recovery_target_name", "noon"),
        ("recovery_target_inclusive", "on"),
        ("recovery_target_timeline", "1"),
    ];
    assert_eq!(settings, expected);
    assert!(!noon.reasons.is_empty() && !noon.reworded);
}

fn check_plans(history: &History) {
    let (bed, backups) = (&history.bed, &history.backups);
    let xid = wire::ResolveRequest {
        exclusive: true,
        ..request(Target::Xid(history.xid))
    };
    let stop = plan(bed, xid).stop.expect("a stop");
    assert_eq!(stop.side(), wire::stop::Side::Before);
    let Some(wire::stop::What::Transaction(end)) = stop.what else {
        panic!("{stop:?}");
    };
    assert!(u64::from(end.xid) == history.xid && end.committed);
    let lsn = end.position.expect("a position").lsn;
    let at = plan(bed, request(Target::Lsn(lsn)));
    assert_eq!(at.stop.expect("a stop").end_lsn, stop.end_lsn);
    let of_second = wire::ResolveRequest {
        backup_id: backups[1].clone(),
        ..name("twice")
    };
    assert_eq!(plan(bed, of_second).backup_id, backups[1]);
    let whole = plan(bed, request(Target::End(())));
    assert!(whole.wal.expect("WAL").open_ended && whole.stop.is_none());
    let immediate = plan(bed, request(Target::Immediate(())));
    assert!(!immediate.wal.expect("WAL").open_ended);
}

#[test]
fn what_cannot_be_reached_is_an_answer_with_a_reason_a_sentence_and_a_hint() {
    let history = or_not_run!(History::make());
    let bed = &history.bed;
    let on_nine = wire::ResolveRequest {
        timeline: "9".to_owned(),
        ..name("noon")
    };
    let from = |id: &str, target: wire::ResolveRequest| wire::ResolveRequest {
        backup_id: id.to_owned(),
        ..target
    };
    let second = &history.backups[1];
    for (request, reason) in [
        (time(1_000_000_000), Reason::BeforeBackupEnd),
        (time(4_000_000_000), Reason::AfterEnd),
        (request(Target::Lsn("FF/0".to_owned())), Reason::AfterEnd),
        (name("never"), Reason::UnknownTarget),
        (name("twice"), Reason::Ambiguous),
        (on_nine, Reason::UnknownTimeline),
        (from("20200101T000000", name("noon")), Reason::UnknownBackup),
        (from("never-made", name("noon")), Reason::UnknownBackup),
        (
            from(second, request(Target::Xid(history.xid))),
            Reason::BeforeBackupEnd,
        ),
    ] {
        let told = unreachable(bed, request.clone());
        assert_eq!(told.reason(), reason, "{request:?}: {told:?}");
        assert!(
            told.message.ends_with('.') && told.hint.ends_with('.'),
            "{told:?}"
        );
        assert!(
            !format!("{} {}", told.message, told.hint).contains("--"),
            "{told:?}"
        );
    }
    // The gap comes behind the second backup, and before the last segment.
    let repository = bed.repository("backups", OWN.1);
    let wal = plan(bed, request(Target::End(()))).wal.expect("WAL");
    let lost = lose_segment_behind(bed, &repository, &wal.segments.expect("segments").last);
    let told = unreachable(bed, time(4_000_000_000));
    assert_eq!(told.reason(), Reason::Gap, "{told:?}");
    let gap = told.gap.expect("a gap");
    assert_eq!((&gap.first, &gap.last), (&lost, &lost));
    let timelines = windows(&bed.sidecar, None).expect("windows");
    assert_eq!(
        (timelines[0].missing_segments, &timelines[0].gaps[0]),
        (1, &gap)
    );
    wait::until_true("the status to follow", || {
        let window = bed.window(OWN.0, OWN.1);
        window["missingWalSegments"] == 1 && window["firstMissingWal"] == lost
    });
    let window = bed.window(OWN.0, OWN.1);
    assert!(window["latestRestorableTime"].is_string() && window["secondsBehind"].is_u64());
    bed.take("three", &[]);
    wait::until_true("a new backup to end the cut", || {
        let window = bed.window(OWN.0, OWN.1);
        window["missingWalSegments"] == 1 && window["firstMissingWal"].is_null()
    });
}

/// Archives some more, and loses the segment behind this one.
fn lose_segment_behind(bed: &Bed, repository: &Repository, behind: &str) -> String {
    let sql = bed.server.sql();
    for number in 10..13 {
        sql.run(&format!("INSERT INTO happened VALUES ({number})"));
        bed.server.archive_now();
    }
    let size = cellarman::domain::segment::SegmentSize::new(1 << 20).expect("a size");
    let from: cellarman::domain::segment::SegmentName = behind.parse().expect("a name");
    let segments = std::iter::successors(from.next(size), |name| name.next(size)).take(8);
    let lost = bed.sidecar.block(async {
        for name in segments {
            let key = repository
                .layout
                .wal(&WalFileName::Segment(name), Codec::Gzip);
            let next = WalFileName::Segment(name.next(size).expect("a name"));
            let next = repository.layout.wal(&next, Codec::Gzip);
            let store = &repository.store;
            if store.head(&key).await.is_ok() && store.head(&next).await.is_ok() {
                store.delete(&[key]).await.expect("it is deleted");
                return Some(name);
            }
        }
        None
    });
    lost.expect("a segment with another behind it").to_string()
}

fn archive(object_store: &str, server_name: &str) -> wire::Archive {
    wire::Archive {
        object_store: object_store.to_owned(),
        server_name: server_name.to_owned(),
    }
}

fn of(object_store: &str, server_name: &str) -> wire::ResolveRequest {
    wire::ResolveRequest {
        archive: Some(archive(object_store, server_name)),
        ..time(0)
    }
}

#[track_caller]
fn refused<T>(outcome: Result<T, Status>, code: Code, words: &str) {
    let status = outcome.map(drop).expect_err(words);
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(words), "{words}: {status}");
}

#[test]
fn requests_that_make_no_sense_are_refused_and_what_is_not_there_is_named() {
    let bed = or_not_run!(Bed::new(&json!({})));
    bed.take("one", &[]);
    bed.take("two", &[]);
    let exclusive = wire::ResolveRequest {
        exclusive: true,
        ..name("noon")
    };
    let newest = wire::ResolveRequest {
        timeline: "newest".to_owned(),
        ..time(0)
    };
    for (request, words) in [
        (wire::ResolveRequest::default(), "target"),
        (request(Target::Lsn("3".to_owned())), "0/3000060"),
        (request(Target::Xid(2)), "xid"),
        (name(&"n".repeat(64)), "name"),
        (time(i64::MAX), "time"),
        (exclusive, "exclusive"),
        (newest, "timeline"),
        (of("", "pg"), "archive.object_store"),
    ] {
        let outcome = resolve(&bed.sidecar, request);
        refused(outcome, Code::InvalidArgument, words);
    }
    check_tokens(&bed);
    let absent = resolve(&bed.sidecar, of("absent", ""));
    refused(absent, Code::FailedPrecondition, "ObjectStore absent");
    // A server that is not there has nothing to go back to, and that is no failure.
    let nobody = Some(archive(OWN.0, "nobody"));
    assert!(windows(&bed.sidecar, nobody).expect("none").is_empty());
    let mut cluster = bed.cluster.clone();
    cluster["spec"]["plugins"] = json!([]);
    bed.objects.put(&cluster);
    let unnamed = windows(&bed.sidecar, None);
    refused(unnamed, Code::FailedPrecondition, "names no ObjectStore");
}

fn check_tokens(bed: &Bed) {
    let page = |archive: Option<wire::Archive>, page_token: &str| {
        let request = wire::ListRequest {
            archive,
            page_size: 1,
            page_token: page_token.to_owned(),
        };
        list(&bed.sidecar, request)
    };
    let good = page(None, "").expect("a page").next_page_token;
    assert!(!good.is_empty());
    let changed: String = good.chars().rev().collect();
    for token in ["x", &changed] {
        refused(page(None, token), Code::InvalidArgument, "page_token");
    }
    let other = Some(archive(OWN.0, "other"));
    refused(page(other, &good), Code::InvalidArgument, "page_token");
}

#[test]
fn a_store_that_is_away_is_no_answer_about_targets() {
    let mut bed = or_not_run!(Bed::new(&json!({})));
    bed.take("one", &[]);
    bed.store.kill();
    let status = resolve(&bed.sidecar, request(Target::Immediate(()))).expect_err("no answer");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}
