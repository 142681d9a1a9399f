//! What is found in a log, with an index, without one, and with a part of one: always the same.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::barman::layout::Layout;
use crate::barman::repository::Repository;
use crate::codec::Codec;
use crate::domain::backup::SystemId;
use crate::domain::log::reach::{Located, StopPoint};
use crate::domain::log::stop::{Stop, StopRecord, What};
use crate::domain::log::xid_set::XidSetBuilder;
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::domain::timeline::{Ancestor, TimelineHistory, TimelineId};
use crate::domain::wal_file::WalFileName;
use crate::pgfile::wal::reader::{Bodies, Event, ReaderOptions, SegmentReader};
use crate::pgfile::wal::summary::stop_record;
use crate::service::targets::line_files::LineFiles;
use crate::service::targets::locate::{LocateError, Log, LogStart};
use crate::service::wal_fixture::{SEGMENT_BYTES, segment_name};
use crate::service::wal_index::build::{BuildOptions, build};
use crate::service::wal_index::tests::{FIRST, LOG};
use crate::store::memory::MemoryStore;
use crate::store::{ListRequest, ObjectKey, PutOptions};

fn size() -> SegmentSize {
    SegmentSize::new(u64::from(SEGMENT_BYTES)).unwrap()
}

fn number(number: u64) -> SegmentNumber {
    segment_name(1, number).number(size()).unwrap()
}

fn start(segment: SegmentNumber) -> LogStart {
    LogStart {
        segment,
        size: size(),
        system_id: Some(SystemId(77)),
    }
}

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn repository() -> Repository {
    let layout = Layout::new("p", &"main".parse().unwrap());
    Repository::new(Arc::new(MemoryStore::new()), layout)
}

async fn put(repository: &Repository, key: &ObjectKey, body: Vec<u8>) {
    let options = PutOptions::default();
    let put = repository.store.put(key, body.into(), &options);
    put.await.unwrap();
}

async fn put_empty(repository: &Repository, name: WalFileName, codec: Codec) {
    let key = repository.layout.wal(&name, codec);
    put(repository, &key, b"x".to_vec()).await;
}

/// An archive with the log of the index's tests.
async fn with_log() -> Repository {
    let repository = repository();
    for (segment, number) in LOG.segments().zip(FIRST..) {
        let name = WalFileName::Segment(segment_name(1, number));
        let key = repository.layout.wal(&name, Codec::None);
        put(&repository, &key, segment.to_vec()).await;
    }
    repository
}

async fn index(repository: &Repository) {
    let options = BuildOptions {
        from: None,
        jobs: 2,
        is_rebuild: false,
    };
    let cancel = CancellationToken::new();
    let built = build(repository, options, &cancel, &|_, _| {})
        .await
        .unwrap();
    assert_eq!(built.unread_records, 0);
}

async fn index_keys(repository: &Repository) -> Vec<ObjectKey> {
    let request = ListRequest {
        prefix: repository.layout.private("index/").as_str().to_owned(),
        ..ListRequest::default()
    };
    let page = repository.store.list(&request).await.unwrap();
    page.objects.into_iter().map(|object| object.key).collect()
}

/// All records of the log that recovery could stop at, with their segments.
fn records() -> Vec<(StopRecord, SegmentName)> {
    let options = ReaderOptions {
        check_crc: true,
        bodies: Bodies::OfRecovery,
    };
    let mut records = Vec::new();
    let mut carry = None;
    for (segment, number) in LOG.segments().zip(FIRST..) {
        let mut reader = SegmentReader::new(options, carry.take());
        let take = |event: Event<'_>| {
            if let Event::Record(record) = event {
                records.push((stop_record(&record), segment_name(1, number)));
            }
        };
        reader.push(segment, take).unwrap();
        carry = reader.finish().unwrap().carry;
    }
    records
}

/// Stops before, at and behind what some of the records say.
fn stops(records: &[(StopRecord, SegmentName)]) -> Vec<Stop> {
    let mut stops = vec![Stop::Name(b"one".to_vec()), Stop::Name(b"none".to_vec())];
    let ends = records.iter().filter_map(|(record, _)| match &record.what {
        What::TransactionEnd(end) => Some((record.begin, *end)),
        _ => None,
    });
    for (lsn, end) in ends.step_by(41) {
        for is_inclusive in [true, false] {
            let (xid, time) = (end.xid, end.time);
            stops.push(Stop::Xid { xid, is_inclusive });
            stops.push(Stop::Xid {
                xid: xid + 1,
                is_inclusive,
            });
            stops.push(Stop::Time { time, is_inclusive });
            stops.push(Stop::Lsn { lsn, is_inclusive });
        }
    }
    stops
}

/// The first of the records from `from` on at which recovery stops.
fn first(records: &[(StopRecord, SegmentName)], from: Lsn, stop: &Stop) -> Option<StopPoint> {
    let mut from_there = records.iter().filter(|(record, _)| record.begin >= from);
    from_there.find_map(|(record, segment)| {
        let side = stop.side(record)?;
        Some(StopPoint {
            record: record.clone(),
            side,
            segment: *segment,
        })
    })
}

/// Every stop is found where reading all of the log finds it, from the `begin`th segment on.
async fn check(repository: &Repository, begin: u64) {
    let records = records();
    let line = TimelineHistory::root(TimelineId::FIRST);
    let begin = number(begin);
    let from = begin.start(size()).unwrap();
    let log = Log::open(repository, &line, start(begin)).await.unwrap();
    for stop in stops(&records) {
        let expected = first(&records, from, &stop);
        let found = match log.locate(from, &stop).await.unwrap() {
            Located::At(point) => Some(point),
            Located::Nowhere(end) => {
                let last = records.last().map(|(record, _)| record.end);
                assert_eq!(end.last_record_end, last, "{stop:?}");
                None
            }
        };
        assert_eq!(found, expected, "{stop:?}");
    }
}

#[tokio::test]
async fn what_is_found_through_the_index_is_what_reading_finds() {
    let repository = with_log().await;
    // So few segments that they are read.
    check(&repository, FIRST + 22).await;
    index(&repository).await;
    check(&repository, FIRST + 22).await;
    check(&repository, FIRST).await;
    check(&repository, FIRST + 9).await;
    // A damaged object and a hole.
    let keys = index_keys(&repository).await;
    put(&repository, &keys[2], b"damaged".to_vec()).await;
    check(&repository, FIRST + 9).await;
    repository.store.delete(&keys[2..3]).await.unwrap();
    check(&repository, FIRST + 9).await;
}

#[tokio::test]
async fn what_an_earlier_cluster_left_in_the_index_tells_nothing() {
    let repository = with_log().await;
    index(&repository).await;
    for outline in repository.index_outlines(None).await.unwrap() {
        let mut object = repository.index_object(&outline).await.unwrap();
        // Its name comes first.
        object.system_id = SystemId(1);
        for segment in &mut object.segments {
            (segment.ends, segment.last_end) = (None, None);
            segment.xids = XidSetBuilder::default().finish();
            segment.restore_points.clear();
        }
        let lying = object.outline().unwrap();
        let bytes = object.to_bytes().unwrap();
        let put = repository.put_index_object(&lying, bytes);
        put.await.unwrap();
    }
    check(&repository, FIRST).await;
}

#[tokio::test]
async fn the_log_ends_at_a_segment_of_another_cluster_and_says_so() {
    let repository = with_log().await;
    let name = segment_name(1, FIRST + 20);
    let mut foreign = LOG.segments().nth(20).unwrap().to_vec();
    foreign[24..32].copy_from_slice(&5_u64.to_le_bytes());
    let key = repository
        .layout
        .wal(&WalFileName::Segment(name), Codec::None);
    put(&repository, &key, foreign).await;
    let line = TimelineHistory::root(TimelineId::FIRST);
    let log = Log::open(&repository, &line, start(number(FIRST)))
        .await
        .unwrap();
    let from = number(FIRST).start(size()).unwrap();
    let end = log.locate(from, &Stop::never()).await.unwrap().end();
    let (segment, reason) = end.broken.unwrap();
    assert_eq!(segment, name);
    let expected = "it is of the cluster with system identifier 5, and the archive of 77";
    assert_eq!(reason, expected);
}

#[tokio::test]
async fn a_log_that_is_not_in_the_index_is_not_read_for_ever() {
    let repository = with_log().await;
    let line = TimelineHistory::root(TimelineId::FIRST);
    let mut log = Log::open(&repository, &line, start(number(FIRST)))
        .await
        .unwrap();
    log.read_max = 20;
    let from = number(FIRST).start(size()).unwrap();
    let stop = Stop::Name(b"none".to_vec());
    let error = log.locate(from, &stop).await.unwrap_err();
    let LocateError::NotIndexed { next } = error else {
        panic!("{error}");
    };
    assert_eq!(next, segment_name(1, FIRST + 20));
}

#[tokio::test]
async fn the_files_of_a_line_are_those_of_its_timelines_up_to_where_it_left_them() {
    let repository = repository();
    for number in [1, 2, 3, 5, 6] {
        let name = WalFileName::Segment(segment_name(1, number));
        put_empty(&repository, name, Codec::Gzip).await;
    }
    put_empty(
        &repository,
        WalFileName::Partial(segment_name(1, 3)),
        Codec::None,
    )
    .await;
    for number in [3, 4, 7] {
        let name = WalFileName::Segment(segment_name(2, number));
        put_empty(&repository, name, Codec::Zstd).await;
    }
    put_empty(
        &repository,
        WalFileName::Partial(segment_name(2, 8)),
        Codec::Zstd,
    )
    .await;
    let left = Ancestor {
        timeline: timeline(1),
        switched_at: Lsn::new(3 * u64::from(SEGMENT_BYTES) + 100),
    };
    let line = TimelineHistory::new(timeline(2), vec![left]).unwrap();
    let begin = (number(0), size());
    let files = LineFiles::list(&repository, &line, begin, None)
        .await
        .unwrap();
    let file = |at| files.file(number(at));
    let timelines = [1, 2, 3, 4, 7, 8].map(|at| file(at).unwrap().segment.timeline().to_u32());
    assert_eq!(timelines, [1, 1, 2, 2, 2, 2]);
    assert_eq!(file(2).unwrap().codec, Codec::Gzip);
    assert!(!file(3).unwrap().is_partial && file(8).unwrap().is_partial);
    assert!([0, 5, 6, 9].iter().all(|at| file(*at).is_none()));
    assert_eq!(
        files.gaps(),
        [(number(0), number(0)), (number(5), number(6))]
    );
    assert_eq!(files.last_without_gap(number(1)), Some(number(4)));
    assert_eq!(files.last_without_gap(number(5)), None);
    assert_eq!((files.last(), files.count()), (Some(number(8)), 6));
    assert_eq!(files.name(number(2)), Some(segment_name(1, 2)));
    assert_eq!(files.name(number(3)), Some(segment_name(2, 3)));

    let root = TimelineHistory::root(timeline(1));
    let files = LineFiles::list(&repository, &root, begin, None)
        .await
        .unwrap();
    assert_eq!(files.count(), 5);
    assert!(!files.file(number(3)).unwrap().is_partial);
}
