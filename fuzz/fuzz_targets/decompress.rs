//! Any bytes as an object in each of the codecs.
#![no_main]

use std::io::{self, Read};

use cellarman::codec::Codec;
use cellarman::codec::decompress::decompressor;
use libfuzzer_sys::fuzz_target;

/// Compressed zeros would be read for ever.
const BYTES_MAX: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    for codec in Codec::ALL {
        let read = decompressor(bytes, codec)
            .and_then(|reader| io::copy(&mut reader.take(BYTES_MAX), &mut io::sink()));
        drop(read);
    }
});
