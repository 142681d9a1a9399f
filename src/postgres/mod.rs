//! The live server, by SQL, and its data directory, by files.

pub mod amcheck;
pub mod client;
pub mod connect;
pub mod datadir;
mod excluded;
pub mod facts;
pub mod query;
pub mod relation;
