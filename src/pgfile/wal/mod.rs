//! The write-ahead log as records: pages, records over their edges, and what records say.
//!
//! [`reader`] takes a segment's bytes as they come and hands out [`record`]s; [`transaction`] and
//! [`xlog`] read those that recovery can stop at, [`block`] says which blocks any record changes,
//! and [`summary`] keeps of a segment what an index needs; [`seam`] adds what two segments that
//! were read apart tell together. Not here: replaying anything.

mod assembly;
pub mod block;
mod carry;
mod cursor;
#[cfg(test)]
pub(crate) mod log_builder;
pub mod page;
pub mod reader;
pub mod record;
pub mod resource_manager;
pub mod seam;
pub mod stop;
pub mod summary;
#[cfg(test)]
mod tests;
pub mod transaction;
mod walk;
pub mod xlog;
