//! The same bucket used by Cellarman and by Barman Cloud, both ways, on MinIO.

mod azure;
mod base_backups;
mod harness;
mod wal;
