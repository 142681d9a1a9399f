//! Any bytes as `pg_control`, and with the checksum set right, so that what lies behind is met.
#![no_main]

use cellarman::pgfile::control::{CHECKSUM_OFFSETS, ControlFile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = ControlFile::parse(bytes);
    for (_, offset) in CHECKSUM_OFFSETS {
        let mut bytes = bytes.to_vec();
        if bytes.len() >= offset + 4 {
            let checksum = crc32c::crc32c(&bytes[..offset]);
            bytes[offset..offset + 4].copy_from_slice(&checksum.to_le_bytes());
            let _ = ControlFile::parse(&bytes);
        }
    }
});
