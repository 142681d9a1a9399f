//! Little-endian fields one after the other, as records hold them: packed, and never trusted.
//!
//! Not here: what the fields mean.

use chrono::{DateTime, Utc};

/// Microseconds from the Unix epoch to 2000-01-01, from which PostgreSQL counts.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// What is left to be read. Every method gives `None` when that is too little, and takes nothing then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// `count` items of `item_bytes` each.
    pub(super) fn items(&mut self, count: u32, item_bytes: usize) -> Option<&'a [u8]> {
        self.take(usize::try_from(count).ok()?.checked_mul(item_bytes)?)
    }

    /// The bytes before the next zero, which is taken too.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.0.iter().position(|byte| *byte == 0)?;
        let text = self.take(length)?;
        self.take(1)?;
        Some(text)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A `TimestampTz`: microseconds since 2000.
    pub(super) fn time(&mut self) -> Option<DateTime<Utc>> {
        let mut ahead = *self;
        let micros = i64::from_le_bytes(ahead.array()?);
        let time = DateTime::from_timestamp_micros(micros.checked_add(EPOCH_MICROS)?)?;
        *self = ahead;
        Some(time)
    }

    /// A `pg_time_t`: seconds since 1970.
    pub(super) fn unix_time(&mut self) -> Option<DateTime<Utc>> {
        let mut ahead = *self;
        let time = DateTime::from_timestamp(i64::from_le_bytes(ahead.array()?), 0)?;
        *self = ahead;
        Some(time)
    }
}
