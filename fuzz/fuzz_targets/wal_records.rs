//! Any bytes as a segment, and with the first page's header set right, so that records are met;
//! every record is taken apart, and what pieces the bytes come in makes no difference.
#![no_main]

use cellarman::domain::log::summary::SegmentSummary;
use cellarman::pgfile::wal::reader::{Bodies, Event, ReaderOptions, SegmentReader};
use cellarman::pgfile::wal::summary::SegmentSummarizer;
use cellarman::pgfile::wal::transaction::TransactionRecord;
use cellarman::pgfile::wal::xlog::XlogRecord;
use libfuzzer_sys::fuzz_target;

fn take_apart(bytes: &[u8]) {
    let options = ReaderOptions {
        check_crc: false,
        bodies: Bodies::All,
    };
    let mut reader = SegmentReader::new(options, None);
    let _ = reader.push(bytes, |event| {
        if let Event::Record(record) = event {
            let _ = record.parts().map(|parts| parts.blocks().count());
            let _ = TransactionRecord::parse(&record);
            let _ = XlogRecord::parse(&record);
        }
    });
    let _ = reader.finish();
}

fn summary(bytes: &[u8], piece: usize) -> Option<SegmentSummary> {
    let mut summarizer = SegmentSummarizer::new(false, None);
    for piece in bytes.chunks(piece) {
        summarizer.push(piece).ok()?;
    }
    let name = "000000010000000000000001".parse().ok()?;
    Some(summarizer.finish(name, 1000).ok()?.summary)
}

fuzz_target!(|bytes: &[u8]| {
    let mut right = bytes.to_vec();
    let magics = [0xD106_u16, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118];
    if let (Some(first), true) = (bytes.first(), right.len() >= 40) {
        let magic = magics[usize::from(*first) % magics.len()];
        right[0..2].copy_from_slice(&magic.to_le_bytes());
        right[2] |= 2;
        right[4] |= 1;
        right[8..16].copy_from_slice(&(1_u64 << 24).to_le_bytes());
        right[32..36].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        right[36..40].copy_from_slice(&1024_u32.to_le_bytes());
    }
    for bytes in [bytes, &right] {
        take_apart(bytes);
        assert_eq!(summary(bytes, 1 << 20), summary(bytes, 77));
    }
});
