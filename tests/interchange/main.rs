//! The same bucket used by Cellarman and by Barman Cloud, both ways, on MinIO and on emulators.

mod azure;
mod base_backups;
mod expire;
mod gcs;
mod harness;
mod wal;
