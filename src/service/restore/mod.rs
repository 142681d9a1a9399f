//! Restoring a backup: a plan, with reasons, then a run that leaves a cluster ready to start, or
//! nothing.
//!
//! Not here: choosing (`domain::recovery`), and fetching WAL, which the restored server asks for.

pub mod archives;
pub mod chosen;
mod configuration;
pub mod directories;
mod disk_file;
pub mod error;
mod extract;
mod file_systems;
mod finish;
mod marker;
mod members;
pub mod needed_wal;
mod owners;
pub mod places;
pub mod plan;
pub mod recovery_plan;
pub mod request;
pub mod run;
pub mod settings;
mod source;
pub mod space;
#[cfg(any(test, feature = "test-util"))]
pub mod trial;
mod way;
mod whole;
pub mod words;

#[cfg(test)]
mod tests;
