//! Any text as a `backup.info`: an error or a record, and what is written of it reads the same.
#![no_main]

use cellarman::barman::backup_info::BackupInfo;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(info) = BackupInfo::parse(text) else {
        return;
    };
    let id = "20261121T054347".parse().expect("an id");
    let _ = info.to_backup(&id);
    let written = info.to_text();
    let read = BackupInfo::parse(&written).expect("what was written reads");
    assert_eq!(read.to_text(), written);
});
