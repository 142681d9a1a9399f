//! Any text as a `backup_label`.
#![no_main]

use cellarman::pgfile::backup_label::BackupLabel;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = BackupLabel::parse(text);
});
