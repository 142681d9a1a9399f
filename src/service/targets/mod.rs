//! Where an archive can be gone back to: the stops that its log holds, and how they are found.
//!
//! Not here: making the index that narrows the search (`wal_index`), and restoring.

pub mod line_files;
pub mod locate;
mod names;
pub mod resolve;
pub mod scan;
pub mod survey;
#[cfg(test)]
mod tests;
pub mod window;
