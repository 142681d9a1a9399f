//! The log as a place to go back to: what its segments tell, and where recovery stops in it.
//!
//! Not here: reading the log's bytes (`pgfile::wal`), and keeping what was read (`service::wal_index`).

pub mod chart;
pub mod outline;
pub mod reach;
pub mod stop;
pub mod summary;
pub mod xid_set;
