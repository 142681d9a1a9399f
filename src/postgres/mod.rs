//! The live server, by SQL, and its data directory, by files.

pub mod client;
pub mod connect;
pub mod datadir;
pub mod query;
