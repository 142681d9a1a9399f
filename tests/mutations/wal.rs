//! Damaged segments of WAL: read as far as they go, in whatever pieces they come.
//!
//! Not here: whether what is read of whole ones is right (`tests/integration/wal_records`).

use cellarman::domain::log::outline::Ends;
use cellarman::domain::log::summary::SegmentSummary;
use cellarman::domain::lsn::Lsn;
use cellarman::pgfile::wal::reader::{Bodies, Event, ReaderOptions, SegmentReader};
use cellarman::pgfile::wal::summary::{SegmentSummarizer, Summarized};
use cellarman::pgfile::wal::transaction::TransactionRecord;
use cellarman::pgfile::wal::xlog::XlogRecord;
use proptest::prelude::*;

use crate::damage::check;
use crate::fixture;

const SEGMENTS: [&str; 3] = ["segment-13.zst", "segment-15.zst", "segment-18.zst"];

/// The records are in the first quarter: a switch leaves the rest empty.
const BYTES: usize = 256 << 10;

fn summarized(bytes: &[u8], check_crc: bool, piece: usize) -> Option<Summarized> {
    let mut summarizer = SegmentSummarizer::new(check_crc, None);
    for piece in bytes.chunks(piece) {
        summarizer.push(piece).ok()?;
    }
    let name = "000000010000000000000001".parse().expect("a name");
    summarizer.finish(name, 1_000).ok()
}

fn summary(bytes: &[u8], piece: usize) -> Option<SegmentSummary> {
    Some(summarized(bytes, false, piece)?.summary)
}

/// Takes every record apart; where they begin.
fn take_apart(bytes: &[u8], check_crc: bool) -> Vec<Lsn> {
    let mut begins = Vec::new();
    let options = ReaderOptions {
        check_crc,
        bodies: Bodies::All,
    };
    let mut reader = SegmentReader::new(options, None);
    let _ = reader.push(bytes, |event| {
        if let Event::Record(record) = event {
            begins.push(record.begin);
            let _ = record.parts().map(|parts| parts.blocks().count());
            let _ = TransactionRecord::parse(&record);
            let _ = XlogRecord::parse(&record);
        }
    });
    begins
}

#[test]
fn a_damaged_segment_is_refused_or_read_as_far_as_it_goes() {
    let files = SEGMENTS.map(|name| fixture(name)[..BYTES].to_vec());
    check("segment", (1_000, 20_000), &files, |bytes| {
        take_apart(bytes, false);
        prop_assert_eq!(summary(bytes, 1 << 20), summary(bytes, 1_001));
        let checked = take_apart(bytes, true);
        prop_assert!(checked.is_sorted_by(|one, next| one < next));
        Ok(())
    });
}

#[test]
fn the_real_segments_are_read() {
    for (name, xid, end) in [
        ("segment-13.zst", 566, "0/B00000"),
        ("segment-15.zst", 805, "0/A00000"),
        ("segment-18.zst", 833, "0/A00000"),
    ] {
        let summarized = summarized(&fixture(name), true, 8_192).expect(name);
        let summary = &summarized.summary;
        assert!(summary.is_whole, "{name}");
        let counted = |ends: Ends| (ends.commits, ends.aborts);
        assert_eq!(summary.ends.map(counted), Some((8, 12)), "{name}");
        assert_eq!(summary.checkpoints.len(), 2, "{name}");
        assert_eq!(summary.restore_points.len(), 1, "{name}");
        let point = &summary.restore_points[0].name;
        assert_eq!(point, "Łódź, a \"point\"".as_bytes(), "{name}");
        let (_, last) = summary.last_end.expect(name);
        assert_eq!((last.xid, last.is_commit), (xid, true), "{name}");
        let end: Lsn = end.parse().expect("an LSN");
        assert_eq!(summary.last_record_end, Some(end), "{name}");
        assert_eq!(summarized.head_skipped_bytes, 0, "{name}");
        assert_eq!(summarized.unfinished, None, "{name}");
        assert_eq!(summary.unread_records, 0, "{name}");
        assert!(
            summary.xids.contains(xid) && summary.xids.is_exact(),
            "{name}"
        );
        // 60 of the 70 were not rolled back, and one came with each two-phase commit.
        assert_eq!(summary.subtransactions.len(), 61, "{name}");
    }
}
