//! What an archive tells of its lines as a whole, with and without an index, with and without gaps.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use crate::barman::layout::Layout;
use crate::barman::repository::Repository;
use crate::codec::Codec;
use crate::domain::log::stop::{StopRecord, What};
use crate::domain::lsn::Lsn;
use crate::domain::wal_file::WalFileName;
use crate::pgfile::wal::log_builder::{LogBuilder, SEGMENT_BYTES};
use crate::service::targets::around::{self, Cut, Point, Question};
use crate::service::targets::extent::{self, Extent};
use crate::service::targets::list::{self, Listed};
use crate::service::targets::window;
use crate::service::wal_fixture::segment_name;
use crate::service::wal_index::build::{BuildOptions, build};
use crate::store::faulty::{Call, FaultyStore};
use crate::store::memory::MemoryStore;
use crate::store::{ObjectKey, ObjectStore, PutOptions};

/// The first segment, which begins a group of the index.
const FIRST: u64 = 16;

/// How many segments the log has: two groups and a part of one.
const COUNT: u64 = 36;

/// Where a backup begins in its segment: behind the header.
const BEGIN: u64 = 40;

/// The log, and the records that recovery can stop at.
static LOG: LazyLock<(LogBuilder, Vec<StopRecord>)> = LazyLock::new(log);

/// A transaction a second, a restore point after each tenth, and messages between them. At each edge
/// of segments one of the records lies in both.
fn log() -> (LogBuilder, Vec<StopRecord>) {
    let mut log = LogBuilder::new(8192);
    log.start = FIRST * u64::try_from(SEGMENT_BYTES).unwrap();
    log.previous = log.start - 64;
    let mut random = fastrand::Rng::with_seed(6);
    let mut records = Vec::new();
    let end = usize::try_from(COUNT).unwrap() * SEGMENT_BYTES;
    while log.bytes.len() < end - 200_000 {
        fill_to_edge(&mut log);
        log.xid += 1;
        let micros = i64::from(log.xid) * 1_000_000;
        let time = time_of(log.xid);
        let mut main = micros.to_le_bytes().to_vec();
        let (what, written) = if log.xid.is_multiple_of(10) {
            main.resize(72, 0);
            let name = format!("point {}", log.xid).into_bytes();
            main[8..8 + name.len()].copy_from_slice(&name);
            (
                What::RestorePoint { name, time },
                log.record(0, 0x70, &main),
            )
        } else {
            let end = crate::domain::log::stop::TransactionEnd {
                xid: log.xid,
                time,
                is_commit: !log.xid.is_multiple_of(7),
            };
            let info = if end.is_commit { 0 } else { 0x20 };
            (What::TransactionEnd(end), log.record(1, info, &main))
        };
        records.push(StopRecord {
            begin: Lsn::new(written.begin),
            end: Lsn::new(written.end),
            what,
        });
        let bytes = random.usize(50_000..150_000);
        log.record(21, 0, &vec![7; bytes]);
    }
    log.bytes.resize(end, 0);
    (log, records)
}

/// Near the end of a segment, writes what leaves room for the header of the next record alone.
fn fill_to_edge(log: &mut LogBuilder) {
    let left = |log: &LogBuilder| SEGMENT_BYTES - log.bytes.len() % SEGMENT_BYTES;
    if left(log) > 160_000 {
        return;
    }
    while left(log) > 8192 {
        log.record(21, 0, &[7; 4000]);
    }
    while left(log) > 250 {
        log.record(21, 0, &[7; 40]);
    }
    // A header takes 24 bytes, and 2 more tell of main data.
    if let Some(length) = left(log).checked_sub(24 + 24 + 2) {
        log.record(21, 0, &vec![7; length]);
    }
}

/// PostgreSQL's time of so many seconds.
fn time_of(xid: u32) -> DateTime<Utc> {
    let epoch = DateTime::from_timestamp(946_684_800, 0).unwrap();
    epoch + TimeDelta::seconds(i64::from(xid))
}

fn lsn(segment: u64) -> Lsn {
    Lsn::new((FIRST + segment) * u64::try_from(SEGMENT_BYTES).unwrap() + BEGIN)
}

/// The first byte of a segment.
fn edge(segment: u64) -> Lsn {
    Lsn::new(lsn(segment).to_u64() - BEGIN)
}

struct Bed {
    store: Arc<FaultyStore>,
    repository: Repository,
}

impl Bed {
    /// An archive of all of the log but for these segments.
    async fn without(missing: &[u64]) -> Self {
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let layout = Layout::new("p", &"main".parse().unwrap());
        let repository = Repository::new(Arc::<FaultyStore>::clone(&store), layout);
        let bed = Self { store, repository };
        for (index, segment) in LOG.0.segments().enumerate() {
            let index = u64::try_from(index).unwrap();
            if !missing.contains(&index) {
                let name = WalFileName::Segment(segment_name(1, FIRST + index));
                let key = bed.repository.layout.wal(&name, Codec::None);
                bed.put(&key, segment).await;
            }
        }
        bed
    }

    async fn put(&self, key: &ObjectKey, bytes: &[u8]) {
        let bytes = bytes.to_vec().into();
        let options = PutOptions::default();
        self.store.put(key, bytes, &options).await.unwrap();
    }

    /// Puts the record of a backup that begins in one segment and ends in the next.
    async fn back_up(&self, segment: u64) {
        let id = format!("20000101T00{segment:04}").parse().unwrap();
        let text = format!(
            "begin_time=2000-01-01 00:00:00+00:00\nbegin_wal={}\nbegin_xlog={}\n\
             end_time={}\nend_wal={}\nend_xlog={}\nstatus=DONE\nsystemid=77\ntimeline=1\n\
             version=150020\nxlog_segment_size={SEGMENT_BYTES}\n",
            segment_name(1, FIRST + segment),
            lsn(segment),
            backup_end(segment).format("%Y-%m-%d %H:%M:%S+00:00"),
            segment_name(1, FIRST + segment + 1),
            lsn(segment + 1),
        );
        let key = self.repository.layout.backup_info(&id);
        self.put(&key, text.as_bytes()).await;
    }

    async fn index(&self) {
        let options = BuildOptions {
            from: None,
            jobs: 1,
            is_rebuild: false,
        };
        let cancel = CancellationToken::new();
        let built = build(&self.repository, options, &cancel, &|_, _| {}).await;
        assert!(built.unwrap().objects_put > 1);
    }

    async fn extent(&self, on_their_way: &[u64]) -> Extent {
        let names = on_their_way.iter();
        let names: BTreeSet<_> = names.map(|index| segment_name(1, FIRST + index)).collect();
        extent::extent(&self.repository, &names).await.unwrap()
    }
}

/// The end of a backup in time: that of the last transaction before it.
fn backup_end(segment: u64) -> DateTime<Utc> {
    let before = LOG.1.iter().rfind(|record| record.begin < lsn(segment + 1));
    before.unwrap().what.time().unwrap()
}

/// The time of the last record that ends before a segment.
fn last_before(segment: u64) -> DateTime<Utc> {
    let before = LOG.1.iter().rfind(|record| record.end <= edge(segment));
    before.unwrap().what.time().unwrap()
}

/// Whether each case is to be tried with an index, and which.
async fn beds(missing: &[u64], backups: &[u64]) -> [Bed; 3] {
    let beds = [
        Bed::without(missing).await,
        Bed::without(missing).await,
        Bed::without(&[]).await,
    ];
    for bed in &beds {
        for backup in backups {
            bed.back_up(*backup).await;
        }
    }
    beds[1].index().await;
    // Segments were lost after they were put into the index.
    beds[2].index().await;
    for index in missing {
        let name = WalFileName::Segment(segment_name(1, FIRST + index));
        let key = beds[2].repository.layout.wal(&name, Codec::None);
        beds[2].store.delete(&[key]).await.unwrap();
    }
    beds
}

#[tokio::test]
async fn an_extent_ends_before_the_first_gap_behind_the_newest_backup() {
    let last = LOG.1.last().unwrap().what.time().unwrap();
    for (missing, backups, latest, first, count, ends_before) in [
        (&[][..], &[2, 20][..], last, 2, 0, None),
        // Between the backups, and between the last and the end.
        (&[9, 10], &[2, 20], last, 2, 2, None),
        (&[30], &[2, 20], last_before(30), 2, 1, Some(30)),
        (&[9, 30, 33, 34], &[2, 20], last_before(30), 2, 4, Some(30)),
        // Backups that are not whole themselves.
        (&[3], &[2, 20], last, 20, 1, None),
        (&[20], &[2, 20], last_before(20), 2, 1, Some(20)),
    ] {
        for bed in beds(missing, backups).await {
            let expected = Extent {
                timeline: Some(segment_name(1, 1).timeline()),
                first: Some(backup_end(first)),
                latest: Some(latest),
                missing_segments: count,
                ends_before: ends_before.map(|index| segment_name(1, FIRST + index)),
            };
            assert_eq!(bed.extent(&[]).await, expected, "{missing:?} {backups:?}");
            // All that is missing comes in a moment: the log reaches no further for that.
            let coming = Extent {
                missing_segments: 0,
                ends_before: None,
                ..expected
            };
            assert_eq!(bed.extent(missing).await, coming, "{missing:?}");
        }
    }
    let nothing = Bed::without(&[]).await;
    assert_eq!(nothing.extent(&[]).await, Extent::default());
}

#[tokio::test]
async fn an_extent_costs_a_few_requests_whatever_the_length_of_the_log() {
    for bed in beds(&[], &[2]).await {
        let before = bed.store.calls().len();
        bed.extent(&[]).await;
        let calls = bed.store.calls();
        let gets = calls[before..].iter();
        let gets = gets.filter(|(call, key)| *call == Call::Get && !key.contains("backup.info"));
        assert!(gets.count() <= 2, "{calls:?}");
        assert!(calls.len() - before < 12, "{calls:?}");
    }
}

#[tokio::test]
async fn a_window_has_what_its_backups_lead_to_and_nothing_between_a_gap_and_the_next() {
    for bed in beds(&[9, 10, 30], &[2, 20]).await {
        let windows = window::windows(&bed.repository).await.unwrap();
        let survey = &windows[0].survey;
        let (last, end) = survey.end.last_end.unwrap();
        assert_eq!(end.time.max(last_before(30)), last_before(30));
        assert!(last < lsn(30) && last > lsn(28), "{last}");
        assert_eq!((survey.missing_segments, survey.gaps.len()), (3, 2));
        let is_reached = |record: &StopRecord| {
            let is_in = |from: u64, to: u64| record.begin >= lsn(from) && record.end <= edge(to);
            is_in(2, 9) || is_in(20, 30)
        };
        let points = LOG.1.iter().filter(|record| {
            matches!(record.what, What::RestorePoint { .. }) && is_reached(record)
        });
        let expected: Vec<Lsn> = points.map(|record| record.begin).collect();
        let points = survey.restore_points.iter();
        let found: Vec<Lsn> = points.map(|point| point.lsn).collect();
        if survey.unknown_segments == 0 {
            assert_eq!(found, expected);
        } else {
            assert!(found.iter().all(|at| expected.contains(at)), "{found:?}");
        }
    }
}

#[tokio::test]
async fn pages_of_any_length_give_the_same_list_and_each_thing_once() {
    let expected: Vec<Lsn> = {
        let points = LOG.1.iter().filter(|record| {
            let is_there = record.end <= edge(9) || record.begin >= edge(10);
            let is_point = matches!(record.what, What::RestorePoint { .. });
            is_point && record.begin >= lsn(2) && is_there
        });
        let mut all: Vec<Lsn> = points.map(|record| record.begin).collect();
        all.extend([lsn(3), lsn(21)]);
        all.sort();
        all
    };
    assert!(expected.len() > 20, "{}", expected.len());
    for bed in beds(&[9], &[2, 20]).await {
        for count in [1, 7, 1000] {
            let (mut found, mut place) = (Vec::new(), None);
            loop {
                let page = list::list(&bed.repository, place, count).await.unwrap();
                assert!(page.listed.len() <= count);
                found.extend(page.listed);
                assert!(found.len() <= expected.len() + 2, "{count} at a time");
                place = page.next;
                if place.is_none() {
                    break;
                }
            }
            let backups = found.iter().filter(|one| matches!(one, Listed::Backup(_)));
            assert_eq!(backups.count(), 2);
            let found: Vec<Lsn> = found.iter().map(|one| one.key().lsn).collect();
            assert_eq!(found, expected, "{count} at a time");
        }
    }
}

async fn check_around(bed: &Bed, index: usize, point: Point) {
    let question = Question {
        point,
        timeline: None,
        count_max: 12,
    };
    let around = around::around(&bed.repository, question).await.unwrap();
    let before = &LOG.1[index.saturating_sub(12)..index];
    let after = &LOG.1[index..LOG.1.len().min(index + 12)];
    assert_eq!(around.before.records, before, "{point:?}");
    assert_eq!(around.after.records, after, "{point:?}");
    let is_cut = (around.before.cut.is_some(), around.after.cut.is_some());
    assert_eq!(is_cut, (before.len() < 12, after.len() < 12), "{point:?}");
}

#[tokio::test]
async fn around_a_point_are_the_records_next_to_it_those_over_an_edge_included() {
    let size = u64::try_from(SEGMENT_BYTES).unwrap();
    let is_at_edge =
        |record: &StopRecord| record.begin.to_u64() / size != record.end.to_u64() / size;
    let edges = LOG.1.iter().filter(|record| is_at_edge(record)).count();
    assert!(edges > 20, "{edges}");
    for bed in beds(&[], &[0]).await {
        for (index, record) in LOG.1.iter().enumerate() {
            let is_near = LOG.1[index.saturating_sub(1)..=index]
                .iter()
                .any(is_at_edge);
            if is_near || index % 97 == 0 || index + 3 > LOG.1.len() {
                check_around(&bed, index, Point::Lsn(record.begin)).await;
            }
            if index % 97 == 5 && matches!(record.what, What::TransactionEnd(_)) {
                check_around(&bed, index, Point::Time(record.what.time().unwrap())).await;
            }
        }
    }
}

#[tokio::test]
async fn around_a_point_a_gap_is_told_and_not_gone_over() {
    let name = |index| segment_name(1, FIRST + index);
    for bed in beds(&[9, 10], &[2]).await {
        for (segment, is_before) in [(8, false), (9, false), (11, true)] {
            let question = Question {
                point: Point::Lsn(lsn(segment)),
                timeline: None,
                count_max: 40,
            };
            let around = around::around(&bed.repository, question).await.unwrap();
            let gap = Some(Cut::Gap(name(9), name(10)));
            let side = if is_before {
                &around.before
            } else {
                &around.after
            };
            assert_eq!(side.cut, gap, "{segment}");
            let is_over = |record: &StopRecord| (record.begin >= lsn(9)) != is_before;
            assert!(!side.records.iter().any(is_over), "{segment}");
        }
    }
}
