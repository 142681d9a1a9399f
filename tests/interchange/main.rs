//! The same bucket used by Cellarman and by Barman Cloud, both ways, on MinIO and on emulators.

mod azure;
mod base_backups;
#[expect(dead_code, reason = "the files of these archives are read by others")]
#[path = "../integration/bucket.rs"]
mod bucket;
mod expire;
mod gcs;
mod harness;
mod verify;
mod wal;
