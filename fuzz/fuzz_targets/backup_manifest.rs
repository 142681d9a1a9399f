//! Any bytes as a `backup_manifest`: an error or files, and what is written of them reads the same.
#![no_main]

use cellarman::pgfile::manifest::ManifestBuilder;
use cellarman::pgfile::manifest_reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut files = Vec::new();
    if manifest_reader::read(bytes, |file| files.push(file)).is_err() {
        return;
    }
    let mut builder = ManifestBuilder::new(2, 7).expect("a manifest in memory");
    for file in &files {
        builder
            .add_file(&file.path, file.size, 0, 0)
            .expect("a file of it");
    }
    let written = builder.finish(&[]).expect("its end");
    let mut again = Vec::new();
    manifest_reader::read(written, |file| again.push(file)).expect("what was written reads");
    assert_eq!(again, files);
});
