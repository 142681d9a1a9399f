//! Making the index of the log: while segments are archived, and from an archive that has none.
//!
//! An index object holds up to 16 segments of one timeline, aligned by their numbers, so that
//! whoever makes it comes to the same one. Archiving makes it from the bytes in hand: each
//! segment's summary waits beside the log until its group is complete. All of it can be lost at
//! any time: [`build`] makes it again from the log. Not here: searching in it (`targets`).

pub mod build;
pub(crate) mod gather;
pub(crate) mod group;
pub(crate) mod pending;
pub(crate) mod put;
#[cfg(test)]
pub(crate) mod tests;

use crate::domain::segment::SegmentSize;

/// The most that one set of ids may take, in bytes: with two of them, in base64 through zstd, a
/// segment's part of the index is below 0.2 % of its size.
pub(crate) fn set_bytes_max(size: SegmentSize) -> usize {
    usize::try_from(size.bytes() / 1200).unwrap_or(usize::MAX)
}
