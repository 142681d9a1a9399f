//! The repository in the layout that Barman Cloud writes and reads.
//!
//! Not here: which store it lies on, and what to do with a backup.

pub mod backup_info;
pub mod index_object;
pub mod layout;
pub mod literal;
pub mod repository;
pub mod stored_objects;
pub mod timestamp;
