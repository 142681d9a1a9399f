//! Any bytes as the beginning of a WAL segment, and as the name of a WAL file.
#![no_main]

use cellarman::barman::layout::Layout;
use cellarman::domain::segment::SegmentName;
use cellarman::pgfile::wal::page::SegmentHeader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = SegmentHeader::parse(bytes) {
        let _ = header.version();
        let name: SegmentName = "000000010000000A000000FF".parse().expect("a name");
        let _ = header.belongs_to(name);
    }
    if let Some((name, codec)) = str::from_utf8(bytes).ok().and_then(Layout::parse_wal) {
        let written = format!("{name}{}", codec.suffix());
        assert_eq!(Layout::parse_wal(&written), Some((name, codec)));
        if let Some(segment) = name.segment() {
            let _ = segment.folder();
        }
    }
});
