//! Any bytes as the tar of a data directory: an error or files, and never one outside.
#![no_main]

use std::fs;

use cellarman::service::restore::trial;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let outside = tempfile::tempdir().expect("a directory");
    let inside = outside.path().join("inside");
    fs::create_dir(&inside).expect("a directory");
    let _ = trial::unpack(bytes, &inside, true);
    let entries = fs::read_dir(outside.path()).expect("a directory").count();
    assert_eq!(entries, 1, "something landed outside");
});
