//! Any text as the file that names the store.
#![no_main]

use std::fs;

use cellarman::config::{self, Source};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.yaml");
    fs::write(&path, text).expect("a file");
    let _ = config::load(&Source::File(path), &|_| None);
});
