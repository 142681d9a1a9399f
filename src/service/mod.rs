//! The use cases, each on the layers below and none on another's insides.
//!
//! What destroys or restores is a plan first, a value with reasons, and then a run.

pub mod base_backup;
pub mod catalog;
pub mod maintenance;
pub mod restore;
pub mod running;
pub mod wal_archive;
pub mod wal_restore;
