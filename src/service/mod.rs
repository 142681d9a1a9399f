//! The use cases, each on the layers below and none on another's insides.
//!
//! What destroys or restores is a plan first, a value with reasons, and then a run.

pub mod base_backup;
pub mod catalog;
pub mod check;
pub(crate) mod durable_file;
pub mod expire;
pub mod maintenance;
pub(crate) mod object_read;
pub mod restore;
pub mod running;
pub mod store_clock;
pub mod targets;
pub mod verify;
pub mod wal_archive;
#[cfg(test)]
pub(crate) mod wal_fixture;
pub mod wal_index;
pub mod wal_restore;
pub mod wal_state;
