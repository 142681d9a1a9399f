//! Restoring a backup: a plan, with reasons, then a run that leaves a cluster ready to start, or
//! nothing.
//!
//! Not here: choosing (`domain::recovery`), and fetching WAL, which the restored server asks for.

mod configuration;
pub mod directories;
pub mod error;
mod extract;
mod finish;
mod members;
mod owners;
pub mod places;
pub mod plan;
pub mod run;
pub mod settings;
pub mod space;
pub mod words;

#[cfg(test)]
mod tests;
