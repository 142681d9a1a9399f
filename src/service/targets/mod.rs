//! Where an archive can be gone back to: the stops that its log holds, and how they are found.
//!
//! Not here: making the index that narrows the search (`wal_index`), and restoring.

pub mod around;
pub mod begins;
pub mod extent;
pub mod line_files;
#[cfg(test)]
mod line_tests;
pub mod list;
pub mod locate;
mod names;
pub mod resolve;
pub mod scan;
pub mod survey;
#[cfg(test)]
mod tests;
pub mod window;
