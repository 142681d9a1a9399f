//! Tests of the reader on logs made here, edge by edge; `tests/integration` has those of servers.

use crate::domain::lsn::Lsn;
use crate::pgfile::wal::log_builder::{LogBuilder, SEGMENT_BYTES, Written};
use crate::pgfile::wal::reader::{
    Bodies, Carry, Event, Finished, ReaderError, ReaderOptions, SegmentReader,
};
use crate::pgfile::wal::stop::{SegmentEnd, Stop, StopReason};

const ALL: ReaderOptions = ReaderOptions {
    check_crc: true,
    bodies: Bodies::All,
};
const PAGE: usize = 1024;

/// The resource manager `LogicalMessage`.
const MESSAGE: u8 = 21;

/// Reads a segment in pieces of `piece` bytes; its records as they were written.
fn read(
    segment: &[u8],
    piece: usize,
    options: ReaderOptions,
    carry: Option<Carry>,
) -> (Vec<Written>, Finished) {
    let mut records = Vec::new();
    let mut reader = SegmentReader::new(options, carry);
    for bytes in segment.chunks(piece) {
        reader
            .push(bytes, |event| {
                if let Event::Record(record) = event {
                    records.push(Written {
                        begin: record.begin.to_u64(),
                        end: record.end.to_u64(),
                        previous: record.header.previous.to_u64(),
                        total_bytes: record.header.total_bytes,
                        body: record.body.unwrap_or_default().to_vec(),
                    });
                }
            })
            .unwrap();
    }
    (records, reader.finish().unwrap())
}

fn read_whole(segment: &[u8]) -> (Vec<Written>, Finished) {
    read(segment, SEGMENT_BYTES, ALL, None)
}

/// A log of records of these sizes, cut off at the end of its last whole segment.
fn log_of(page_bytes: usize, sizes: impl Iterator<Item = usize>) -> LogBuilder {
    let mut log = LogBuilder::new(page_bytes);
    for size in sizes {
        let byte = u8::try_from(size % 251).unwrap();
        log.record(MESSAGE, 0, &vec![byte; size]);
    }
    let whole = log.bytes.len() / SEGMENT_BYTES * SEGMENT_BYTES;
    log.bytes.truncate(whole);
    log
}

fn check_reading(log: &LogBuilder, piece: usize) {
    let mut found = Vec::new();
    let mut carry = None;
    for segment in log.segments() {
        let (records, finished) = read(segment, piece, ALL, carry.take());
        assert_eq!(finished.end, SegmentEnd::Whole);
        assert_eq!(finished.head_skipped_bytes, 0);
        found.extend(records);
        carry = finished.carry;
    }
    let last = found.last().unwrap().end;
    let unread = usize::try_from(log.position() - last).unwrap();
    assert!(unread < 40_000, "{unread} bytes were not read");
    assert_eq!(found[..], log.written[..found.len()]);
}

#[test]
fn records_are_read_wherever_pages_and_pieces_end() {
    // Every length up to three pages, so that records begin and end at each offset of a page.
    let log = log_of(PAGE, 0..3 * PAGE);
    assert!(log.segments().count() >= 4);
    for piece in [SEGMENT_BYTES, 256 << 10, 8192, 1000, 1024, 1, 41] {
        check_reading(&log, piece);
    }
    for page_bytes in [2048, 8192, 65536] {
        check_reading(&log_of(page_bytes, (0..9000).step_by(13)), 100_000);
    }
}

#[test]
fn a_record_longer_than_a_segment_is_read() {
    let log = log_of(8192, [10, 3 << 20, 20].into_iter().chain([30_000; 70]));
    check_reading(&log, SEGMENT_BYTES);
    // Without its beginning it is passed over to its end.
    let segment = log.segments().nth(1).unwrap();
    let (records, finished) = read_whole(segment);
    assert_eq!(records, []);
    let headers = 40 + 127 * 24;
    assert_eq!(
        finished.head_skipped_bytes,
        u64::try_from(SEGMENT_BYTES - headers).unwrap()
    );
}

#[test]
fn a_segment_whose_beginning_continues_a_record_is_read_from_the_next_one_on() {
    let log = log_of(PAGE, 0..3 * PAGE);
    let mut unfinished = None;
    let mut count = 0;
    for segment in log.segments() {
        let (records, finished) = read_whole(segment);
        assert_eq!(finished.end, SegmentEnd::Whole);
        let first = records.first().unwrap();
        let index = log.written.iter().position(|w| w.begin == first.begin);
        let index = index.unwrap();
        assert_eq!(records[..], log.written[index..index + records.len()]);
        if let Some(crate::pgfile::wal::reader::Unfinished {
            begin,
            total_bytes,
            held_bytes,
            ..
        }) = unfinished
        {
            let missed = &log.written[index - 1];
            assert_eq!(Lsn::new(missed.begin), begin);
            assert_eq!(missed.total_bytes, total_bytes);
            let held: u64 = held_bytes.into();
            assert_eq!(u64::from(total_bytes) - held, finished.head_skipped_bytes);
            count += 1;
        }
        unfinished = finished.unfinished;
    }
    assert!(count > 2);
}

#[test]
fn a_summary_joined_over_its_edge_is_that_of_reading_on() {
    use crate::pgfile::wal::seam::{head_bytes, join};
    use crate::pgfile::wal::summary::SegmentSummarizer;

    let mut log = LogBuilder::new(PAGE);
    // Ends of transactions and messages, so that either goes over an edge, at any offset.
    for number in 0..30_000_u32 {
        log.xid = 700 + number;
        let mut main = 5_000_000_i64.to_le_bytes().to_vec();
        main.resize(usize::try_from(8 + number % 700).unwrap(), 0);
        match number % 3 {
            0 => drop(log.record(MESSAGE, 0, &main)),
            _ => drop(log.record(1, 0, &main)),
        }
    }
    let segment_name = crate::service::wal_fixture::segment_name;
    let summarize = |segment: &[u8], number, carry| {
        let mut summarizer = SegmentSummarizer::new(true, carry);
        summarizer.push(segment).unwrap();
        let name = segment_name(1, number);
        summarizer.finish(name, usize::MAX).unwrap()
    };
    let whole = log.bytes.len() / SEGMENT_BYTES * SEGMENT_BYTES;
    log.bytes.truncate(whole);
    let (mut carry, mut carry_apart, mut count): (Option<Carry>, Option<Carry>, _) =
        (None, None, 0);
    for (segment, number) in log.segments().zip(3..) {
        let on = summarize(segment, number, carry.take());
        let apart = summarize(segment, number, None);
        let bytes = usize::try_from(head_bytes(&segment[..40]).unwrap()).unwrap();
        if let Some(carry) = carry_apart.take().filter(|_| bytes > 0) {
            let stored = carry.to_bytes(1 << 20).unwrap();
            assert_eq!(carry.to_bytes(stored.len() - 1), None);
            for length in 0..stored.len() {
                let _ = Carry::from_bytes(&stored[..length]);
            }
            let carry = Carry::from_bytes(&stored).unwrap();
            let joined = join(&apart.summary, &segment[..bytes], carry.clone());
            assert_eq!(joined.unwrap(), on.summary);
            // What was damaged is not taken.
            let mut damaged = segment[..bytes].to_vec();
            damaged[40] ^= 1;
            let joined = join(&apart.summary, &damaged, carry.clone());
            assert_eq!(joined.is_none(), carry.has_body());
            let mut elsewhere = segment[..bytes].to_vec();
            elsewhere[8..16].copy_from_slice(&0x7000_0000_u64.to_le_bytes());
            assert_eq!(join(&apart.summary, &elsewhere, carry), None);
            count += 1;
        } else {
            assert_eq!(apart.summary, on.summary);
        }
        (carry, carry_apart) = (on.carry, apart.carry);
    }
    assert!(count > 2, "{count}");
}

#[test]
fn a_carry_of_another_place_is_passed_over() {
    let log = log_of(PAGE, 0..3 * PAGE);
    let segments: Vec<_> = log.segments().collect();
    let (_, first) = read_whole(segments[0]);
    let (records, finished) = read(segments[2], SEGMENT_BYTES, ALL, first.carry);
    assert_eq!(finished.end, SegmentEnd::Whole);
    assert_eq!(records, read_whole(segments[2]).0);
}

#[test]
fn a_switch_ends_the_segment() {
    let mut log = LogBuilder::new(8192);
    log.record(MESSAGE, 0, b"before");
    log.record(0, 0x40, b"");
    log.fill();
    let next = log.position();
    log.record(MESSAGE, 0, b"after");
    log.fill();
    let segments: Vec<_> = log.segments().collect();
    let (records, finished) = read_whole(segments[0]);
    assert_eq!(finished.end, SegmentEnd::Whole);
    assert_eq!(records[1].end, next);
    let (records, finished) = read(segments[1], 8192, ALL, finished.carry);
    assert_eq!(records, log.written[2..]);
    let at = Lsn::new(records[0].end);
    let reason = StopReason::Zeros;
    assert_eq!(finished.end, SegmentEnd::Ends(Stop { at, reason }));
}

#[test]
fn a_record_that_was_given_up_is_told_and_what_follows_is_read() {
    let mut log = LogBuilder::new(PAGE);
    log.record(MESSAGE, 0, &[1; 900]);
    let (previous, begin) = (log.previous, log.position());
    log.record(MESSAGE, 0, &[2; 900]);
    log.written.pop();
    log.bytes.truncate(PAGE);
    log.previous = previous;
    log.page(8, 0);
    log.record(0, 0xD0, &[0; 16]);
    log.fill();
    let mut events = Vec::new();
    let mut reader = SegmentReader::new(ALL, None);
    reader
        .push(&log.bytes, |event| match event {
            Event::Page(_) => {}
            Event::Record(record) => events.push((record.begin.to_u64(), true)),
            Event::GivenUp { begin } => events.push((begin.to_u64(), false)),
        })
        .unwrap();
    let expected = [
        (log.written[0].begin, true),
        (begin, false),
        (log.written[1].begin, true),
    ];
    assert_eq!(events, expected);
}

/// A log of two pages and a bit in a segment that is otherwise `behind`.
fn log_before(behind: impl Fn(&mut LogBuilder)) -> LogBuilder {
    let mut log = LogBuilder::new(8192);
    for size in [100, 9000, 50, 7500, 40] {
        log.record(MESSAGE, 0, &vec![7; size]);
    }
    let whole = log.bytes.len().next_multiple_of(8192);
    log.bytes.resize(whole, 0);
    behind(&mut log);
    log
}

/// Pages as a recycled file keeps them: those of ten segments before.
fn recycled(log: &mut LogBuilder) {
    let mut old = LogBuilder::new(8192);
    old.start -= u64::try_from(2 * SEGMENT_BYTES).unwrap();
    while old.bytes.len() < SEGMENT_BYTES {
        old.record(MESSAGE, 0, &[9; 500]);
    }
    let begin = log.bytes.len();
    log.bytes.extend(&old.bytes[begin..SEGMENT_BYTES]);
}

#[track_caller]
fn check_end(log: &LogBuilder, expected: SegmentEnd) {
    let (_, finished) = read_whole(&log.bytes);
    assert_eq!(finished.end, expected);
}

#[test]
fn zeros_and_recycled_pages_are_the_end_of_the_log() {
    let zeros = log_before(LogBuilder::fill);
    let stop = Stop {
        at: Lsn::new(zeros.written[4].end),
        reason: StopReason::Zeros,
    };
    check_end(&zeros, SegmentEnd::Ends(stop));
    check_end(&log_before(recycled), SegmentEnd::Ends(stop));
    // A record that was being written when the server crashed.
    let mut torn = log_before(recycled);
    let at = torn.written[3].begin;
    let page = (torn.offset(Lsn::new(at)) + 8192) / 8192 * 8192;
    let old = torn.bytes[page + 8192..][..8192].to_vec();
    torn.bytes[page..page + 8192].copy_from_slice(&old);
    let (records, finished) = read_whole(&torn.bytes);
    assert_eq!(records.len(), 3);
    assert!(matches!(finished.end, SegmentEnd::Ends(stop) if stop.at.to_u64() == at));
    assert_eq!(finished.unfinished.unwrap().begin, Lsn::new(at));
    assert!(finished.carry.is_none());
}

#[test]
fn damage_is_told_from_the_end_by_what_follows_it() {
    let mut log = log_before(LogBuilder::fill);
    let body = log.offset(Lsn::new(log.written[0].begin)) + 50;
    log.bytes[body] ^= 1;
    let (records, finished) = read_whole(&log.bytes);
    assert_eq!(records, []);
    let SegmentEnd::Broken(stop) = finished.end else {
        panic!("{:?}", finished.end)
    };
    assert!(matches!(stop.reason, StopReason::Checksum { .. }));
    assert_eq!(stop.at, Lsn::new(log.written[0].begin));
    // The last record of the log, with nothing of it behind: torn, not damaged.
    let mut log = log_before(recycled);
    let body = log.offset(Lsn::new(log.written[4].begin)) + 30;
    log.bytes[body] ^= 1;
    let (records, finished) = read_whole(&log.bytes);
    assert_eq!(records.len(), 4);
    assert!(matches!(finished.end, SegmentEnd::Ends(_)));
    // A page of zeros with the log behind it.
    let mut log = log_of(8192, [3000; 700].into_iter());
    log.bytes[5 * 8192..6 * 8192].fill(0);
    let (_, finished) = read_whole(&log.bytes[..SEGMENT_BYTES]);
    assert!(matches!(finished.end, SegmentEnd::Broken(stop) if stop.reason == StopReason::Zeros));
}

#[test]
fn each_field_that_is_wrong_is_named() {
    let log = log_of(8192, [3000; 700].into_iter());
    let segment = &log.bytes[..SEGMENT_BYTES];
    let second = log.offset(Lsn::new(log.written[1].begin));
    let page = 8192;
    let check = |at: usize, byte: u8, is_right: fn(&StopReason) -> bool| {
        let mut bytes = segment.to_vec();
        bytes[at] = byte;
        let (_, finished) = read_whole(&bytes);
        let SegmentEnd::Broken(stop) = finished.end else {
            panic!("{at} {byte}: {:?}", finished.end)
        };
        assert!(is_right(&stop.reason), "{at} {byte}: {stop}");
    };
    check(second, 7, |r| matches!(r, StopReason::Checksum { .. }));
    check(second + 1, 0, |r| matches!(r, StopReason::Checksum { .. }));
    check(second + 3, 0x41, |r| matches!(r, StopReason::Length { .. }));
    check(second + 8, 1, |r| matches!(r, StopReason::Previous { .. }));
    check(second + 17, 99, |r| {
        matches!(r, StopReason::ResourceManager { found: 99 })
    });
    check(page, 1, |r| matches!(r, StopReason::Magic { .. }));
    check(page + 2, 0, |r| {
        matches!(r, StopReason::NoContinuation { .. })
    });
    check(page + 2, 3, |r| matches!(r, StopReason::Flags { .. }));
    check(page + 2, 0x11, |r| matches!(r, StopReason::Flags { .. }));
    check(page + 4, 0, |r| matches!(r, StopReason::Timeline { .. }));
    check(page + 8, 1, |r| matches!(r, StopReason::Address { .. }));
    check(page + 16, 9, |r| {
        matches!(r, StopReason::ContinuationLength { .. })
    });
}

#[test]
fn a_timeline_that_falls_is_refused() {
    let mut log = LogBuilder::new(8192);
    log.timeline = 2;
    log.record(MESSAGE, 0, &[1; 8000]);
    log.timeline = 1;
    log.record(MESSAGE, 0, &[1; 8000]);
    log.fill();
    let (_, finished) = read_whole(&log.bytes);
    let SegmentEnd::Ends(stop) = finished.end else {
        panic!("{:?}", finished.end)
    };
    assert!(matches!(stop.reason, StopReason::Timeline { found: 1, .. }));
}

#[test]
fn unchecked_records_and_unwanted_bodies_are_passed_over() {
    let options = ReaderOptions {
        check_crc: false,
        bodies: Bodies::OfRecovery,
    };
    let mut log = LogBuilder::new(8192);
    log.record(MESSAGE, 0, &[3; 9000]);
    log.record(1, 0, &[4; 9000]);
    log.record(MESSAGE, 0, &[5; 50]);
    log.fill();
    let body = log.offset(Lsn::new(log.written[2].begin)) + 30;
    log.bytes[body] ^= 1;
    let (records, _) = read(&log.bytes, SEGMENT_BYTES, options, None);
    assert_eq!(records.len(), 3);
    assert!(records[0].body.is_empty());
    assert_eq!(records[1].body, log.written[1].body);
    assert_eq!(records[2].body.len(), log.written[2].body.len());
}

#[test]
fn what_is_no_segment_or_more_than_one_is_refused() {
    let log = log_of(8192, [3000; 700].into_iter());
    let refused = |bytes: &[u8]| {
        let mut reader = SegmentReader::new(ALL, None);
        let pushed = reader.push(bytes, |_| {});
        pushed
            .and_then(|()| reader.finish().map(|_| ()))
            .unwrap_err()
    };
    let change = |at: usize, byte: u8| {
        let mut bytes = log.bytes[..8192].to_vec();
        bytes[at] = byte;
        bytes
    };
    assert!(matches!(refused(&[]), ReaderError::Header(_)));
    assert!(matches!(refused(&log.bytes[..39]), ReaderError::Header(_)));
    assert!(matches!(
        refused(&change(0, 0)),
        ReaderError::Version { .. }
    ));
    assert!(matches!(
        refused(&change(9, 1)),
        ReaderError::Address { .. }
    ));
    assert!(matches!(
        refused(&change(37, 0)),
        ReaderError::PageSize { .. }
    ));
    assert_eq!(refused(&log.bytes[..=SEGMENT_BYTES]), ReaderError::Long);
    let (_, finished) = read_whole(&log.bytes[..SEGMENT_BYTES / 2 + 5]);
    assert!(matches!(finished.end, SegmentEnd::Ends(stop) if stop.reason == StopReason::NoBytes));
}
