//! PostgreSQL's files as bytes and as values, both ways.
//!
//! Pure, and safe on any input: nothing here panics or allocates more than a small multiple of
//! what it was given. Not here: reading those files from anywhere.

pub mod backup_label;
pub mod control;
pub mod data_page;
pub mod history;
pub mod manifest;
pub mod manifest_reader;
pub mod wal;
