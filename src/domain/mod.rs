//! PostgreSQL's coordinates, backups and the choices made on them: values and arithmetic.
//!
//! Not here: I/O, async, clocks, formats of files. `now` is an argument.

pub mod backup;
pub mod log;
pub mod lsn;
pub mod recovery;
pub mod retention;
pub mod segment;
pub mod timeline;
pub mod version;
pub mod wal_file;
