//! The summaries of segments against the records that `pg_waldump` gave too.
//!
//! Not here: the records themselves.

use cellarman::domain::log::summary::SegmentSummary;
use cellarman::domain::lsn::Lsn;
use cellarman::pgfile::wal::summary::SegmentSummarizer;

use crate::wal_records::ours::{Read, Segment};

/// A 0.2 % of 16 MiB, for both sets of a segment.
const SET_BYTES_MAX: usize = 16 << 10;

/// Checks the summaries of segments that follow each other.
pub(super) fn check(segments: &[Segment], records: &[Read]) {
    let mut rest = records;
    let mut carry = None;
    for segment in segments {
        let mut summarizer = SegmentSummarizer::new(false, carry.take());
        for piece in segment.bytes.chunks(256 << 10) {
            summarizer.push(piece).expect("a segment");
        }
        let name = segment.path.file_name().expect("a name");
        let name = name.to_string_lossy().parse().expect("a segment's name");
        let whole = summarizer.finish(name, SET_BYTES_MAX).expect("a header");
        carry = whole.carry;
        let (summary, header) = (whole.summary, whole.header);
        let end = header.page_address.to_u64() + header.segment_size.bytes();
        // A switch ends where its segment does, and so does a record that just fits.
        let count = rest.partition_point(|read| read.end <= end);
        let (own, later) = rest.split_at(count);
        rest = later;
        let is_first = segment.path == segments[0].path;
        let unread = u64::from(whole.head_skipped_bytes > 0);
        assert_eq!(summary.unread_records, unread);
        check_one(&summary, own, &segment.path.display().to_string());
        // Only of the first segment the one before is not there.
        assert!(is_first || whole.head_skipped_bytes == 0);
    }
    assert!(rest.is_empty(), "{} records of no segment", rest.len());
}

fn check_one(summary: &SegmentSummary, own: &[Read], name: &str) {
    let first = own.first().map(|read| read.begin);
    assert_eq!(summary.first_record.map(Lsn::to_u64), first, "{name}");
    let last = own.last().map(|read| read.end);
    assert_eq!(summary.last_record_end.map(Lsn::to_u64), last, "{name}");
    let saying =
        |text: &str| -> Vec<&Read> { own.iter().filter(|read| read.row.contains(text)).collect() };
    let (commits, aborts) = (saying(" | COMMIT"), saying(" | ABORT"));
    let counts = summary
        .ends
        .map_or((0, 0), |ends| (ends.commits, ends.aborts));
    assert_eq!(counts, (count_of(&commits), count_of(&aborts)), "{name}");
    assert_eq!(
        summary.checkpoints.len(),
        saying(" | CHECKPOINT_O").len() + saying(" | CHECKPOINT_S").len(),
        "{name}"
    );
    let ended = [commits, aborts].concat();
    check_xids(summary, &ended, name);
    let names: Vec<String> = summary
        .restore_points
        .iter()
        .map(|point| format!("RESTORE_POINT {}", String::from_utf8_lossy(&point.name)))
        .collect();
    let rows = saying(" | RESTORE_POINT");
    assert_eq!(names.len(), rows.len(), "{name}");
    for (name, read) in names.iter().zip(rows) {
        assert!(read.row.ends_with(name), "{name}: {}", read.row);
    }
    let switches = summary.switches.len();
    assert_eq!(switches, saying(" | END_OF_RECOVERY").len(), "{name}");
}

fn count_of(rows: &[&Read]) -> u64 {
    u64::try_from(rows.len()).expect("a count")
}

/// The ids of transactions that ended, from the rows alone.
fn check_xids(summary: &SegmentSummary, ended: &[&Read], name: &str) {
    let mut xids: Vec<u32> = ended.iter().map(|read| xid_of(&read.row)).collect();
    xids.retain(|xid| *xid != 0);
    xids.sort_unstable();
    xids.dedup();
    assert!(
        summary.xids.is_exact() && summary.subtransactions.is_exact(),
        "{name}"
    );
    assert_eq!(
        summary.xids.len(),
        u64::try_from(xids.len()).expect("a count"),
        "{name}"
    );
    assert!(xids.iter().all(|xid| summary.xids.contains(*xid)), "{name}");
    let Some(ends) = summary.ends else {
        assert!(ended.is_empty(), "{name}");
        return;
    };
    assert_eq!(Some(&ends.oldest_xid), xids.first(), "{name}");
    assert_eq!(Some(&ends.newest_xid), xids.last(), "{name}");
    let last = ended
        .iter()
        .max_by_key(|read| read.begin)
        .map(|read| read.begin);
    let found = summary.last_end.map(|(lsn, _)| lsn.to_u64());
    assert_eq!(found, last, "{name}");
    let times = ended.iter().map(|read| time_of(&read.row));
    let (earliest, latest) = (times.clone().min(), times.max());
    let text = |time: chrono::DateTime<chrono::Utc>| time.format("%F %T%.6f UTC").to_string();
    assert_eq!(Some(text(ends.earliest)), earliest, "{name}");
    assert_eq!(Some(text(ends.latest)), latest, "{name}");
    for read in ended {
        let listed = read
            .row
            .split_once("; subxacts: ")
            .map_or("", |(_, list)| list);
        let listed = listed.split(';').next().unwrap_or_default();
        for xid in listed.split(' ').filter_map(|xid| xid.parse().ok()) {
            assert!(summary.subtransactions.contains(xid), "{name}: {xid}");
        }
    }
}

/// The transaction that a row ends: of a prepared one the number in its description.
fn xid_of(row: &str) -> u32 {
    let said = row.split_once(" | ").map_or("", |(_, said)| said);
    let prepared = said.split_once("_PREPARED ").map(|(_, rest)| rest);
    let own = || row.split_once(" tx=").map_or("", |(_, rest)| rest);
    let digits = prepared.unwrap_or_else(own);
    let end = digits.find(|c: char| !c.is_ascii_digit());
    digits[..end.unwrap_or(digits.len())]
        .parse()
        .expect("an id")
}

fn time_of(row: &str) -> String {
    let said = row.split_once(" | ").map_or("", |(_, said)| said);
    let time = said.split(';').next().unwrap_or_default();
    // Kind, perhaps the id, then date, time and zone: the last three words.
    let words: Vec<&str> = time.split(' ').collect();
    words[words.len() - 3..].join(" ")
}
