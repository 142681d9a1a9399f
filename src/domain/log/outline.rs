//! What the name of an index object tells of the segments in it, so that a listing alone narrows a
//! search and draws the history.
//!
//! A name is the first segment and then fields, each a letter and lower-case hexadecimal numbers:
//! `00000001000000000000000A-n10-s6b...-c64.2-t6....6...-x2da.33e-r1-u1` for 16 segments of the
//! cluster with that system identifier, with 100 commits and 2 rollbacks between two times
//! (microseconds since 1970), of transactions 730 to 830, with one restore point and one record
//! that could not be read. Fields that say nothing are left out.
//! Not here: the contents of the object.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use crate::domain::backup::SystemId;
use crate::domain::log::stop::{Stop, TransactionEnd};
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};

/// What segments that follow one another tell together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// The first of them.
    pub first: SegmentName,
    /// How many; at least 1.
    pub count: u64,
    /// The cluster whose log they are, where that is told.
    pub system_id: Option<SystemId>,
    /// The commits and rollbacks in them.
    pub ends: Option<Ends>,
    /// How many restore points.
    pub restore_points: u64,
    /// How many records that recovery could stop at are not in the summaries.
    pub unread_records: u64,
}

/// Ends of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// How many committed.
    pub commits: u64,
    /// How many were rolled back.
    pub aborts: u64,
    /// The least of their times, by the server's clock.
    pub earliest: DateTime<Utc>,
    /// The greatest.
    pub latest: DateTime<Utc>,
    /// The oldest of their ids, as ids wrap around.
    pub oldest_xid: u32,
    /// The newest.
    pub newest_xid: u32,
}

/// Text that is no outline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no name of an index object")]
pub struct OutlineError {
    text: String,
}

impl Ends {
    /// One end alone.
    pub fn of(end: &TransactionEnd) -> Self {
        Self {
            commits: u64::from(end.is_commit),
            aborts: u64::from(!end.is_commit),
            earliest: end.time,
            latest: end.time,
            oldest_xid: end.xid,
            newest_xid: end.xid,
        }
    }

    /// These and others together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            commits: self.commits + other.commits,
            aborts: self.aborts + other.aborts,
            earliest: self.earliest.min(other.earliest),
            latest: self.latest.max(other.latest),
            oldest_xid: older(self.oldest_xid, other.oldest_xid),
            newest_xid: newer(self.newest_xid, other.newest_xid),
        }
    }

    /// Whether recovery may stop at one of them.
    pub fn may_stop(&self, stop: &Stop) -> bool {
        match stop {
            Stop::Time { time, is_inclusive } => {
                if *is_inclusive {
                    self.latest > *time
                } else {
                    self.latest >= *time
                }
            }
            Stop::Xid { xid, .. } => {
                let (from_oldest, length) = (
                    xid.wrapping_sub(self.oldest_xid),
                    self.newest_xid.wrapping_sub(self.oldest_xid),
                );
                from_oldest <= length
            }
            Stop::Lsn { .. } | Stop::Name(_) => false,
        }
    }
}

/// Of two transactions the one that began first, as `TransactionIdPrecedes` has it; 0 is none.
fn older(one: u32, other: u32) -> u32 {
    match (one, other) {
        (0, xid) | (xid, 0) => xid,
        _ if is_older(other, one) => other,
        _ => one,
    }
}

/// Of two transactions the one that began last; 0 is none.
fn newer(one: u32, other: u32) -> u32 {
    match (one, other) {
        (0, xid) | (xid, 0) => xid,
        _ if is_older(one, other) => other,
        _ => one,
    }
}

/// Whether a transaction is older than another: ids wrap around, and those of one time are never
/// further apart than half of them.
fn is_older(xid: u32, other: u32) -> bool {
    let ahead = other.wrapping_sub(xid);
    ahead != 0 && ahead < 1 << 31
}

impl Outline {
    /// The segments, as numbers; `None` when the name does not fit the size of segments.
    pub fn numbers(&self, size: SegmentSize) -> Option<RangeInclusive<SegmentNumber>> {
        let first = self.first.number(size)?;
        let last = first.plus(self.count.checked_sub(1)?)?;
        Some(first..=last)
    }

    /// Whether recovery may stop in one of the segments at a transaction or a restore point.
    pub fn may_stop(&self, stop: &Stop) -> bool {
        let is_blind = self.unread_records > 0 && !matches!(stop, Stop::Lsn { .. });
        let is_name = matches!(stop, Stop::Name(_));
        is_blind
            || (is_name && self.restore_points > 0)
            || self.ends.is_some_and(|ends| ends.may_stop(stop))
    }
}

impl fmt::Display for Outline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-n{:x}", self.first, self.count)?;
        if let Some(SystemId(id)) = self.system_id {
            write!(f, "-s{id:x}")?;
        }
        if let Some(ends) = &self.ends {
            let (earliest, latest) = (micros(ends.earliest), micros(ends.latest));
            write!(f, "-c{:x}.{:x}", ends.commits, ends.aborts)?;
            write!(f, "-t{earliest:x}.{latest:x}")?;
            write!(f, "-x{:x}.{:x}", ends.oldest_xid, ends.newest_xid)?;
        }
        if self.restore_points > 0 {
            write!(f, "-r{:x}", self.restore_points)?;
        }
        if self.unread_records > 0 {
            write!(f, "-u{:x}", self.unread_records)?;
        }
        Ok(())
    }
}

/// Microseconds since 1970; the log has no times before.
fn micros(time: DateTime<Utc>) -> u64 {
    u64::try_from(time.timestamp_micros()).unwrap_or(0)
}

impl FromStr for Outline {
    type Err = OutlineError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| OutlineError {
            text: text.to_owned(),
        })
    }
}

fn parse(text: &str) -> Option<Outline> {
    let mut fields = text.split('-');
    let first = fields.next()?.parse().ok()?;
    let (mut count, mut system_id) = (0, None);
    let (mut counts, mut times, mut xids) = (None, None, None);
    let (mut restore_points, mut unread_records) = (0, 0);
    for field in fields {
        let (letter, value) = field.split_at_checked(1)?;
        match letter {
            "n" => count = number(value)?,
            "s" => system_id = Some(SystemId(number(value)?)),
            "c" => counts = Some(pair(value)?),
            "t" => times = Some(pair(value)?),
            "x" => xids = Some(pair(value)?),
            "r" => restore_points = number(value)?,
            "u" => unread_records = number(value)?,
            // A later release may say more.
            _ => {}
        }
    }
    let time = |micros: u64| DateTime::from_timestamp_micros(i64::try_from(micros).ok()?);
    let ends = match (counts, times, xids) {
        (Some((commits, aborts)), Some((earliest, latest)), Some((oldest, newest))) => Some(Ends {
            commits,
            aborts,
            earliest: time(earliest)?,
            latest: time(latest)?,
            oldest_xid: u32::try_from(oldest).ok()?,
            newest_xid: u32::try_from(newest).ok()?,
        }),
        (None, None, None) => None,
        _ => return None,
    };
    (count > 0).then_some(Outline {
        first,
        count,
        system_id,
        ends,
        restore_points,
        unread_records,
    })
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

fn pair(text: &str) -> Option<(u64, u64)> {
    let (one, other) = text.split_once('.')?;
    Some((number(one)?, number(other)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(micros).unwrap()
    }

    fn ends(times: (i64, i64), xids: (u32, u32)) -> Ends {
        Ends {
            commits: 100,
            aborts: 2,
            earliest: at(times.0),
            latest: at(times.1),
            oldest_xid: xids.0,
            newest_xid: xids.1,
        }
    }

    fn outline(ends: Option<Ends>) -> Outline {
        Outline {
            first: "00000001000000000000000A".parse().unwrap(),
            count: 16,
            system_id: Some(SystemId(0x6b01_0000_0000_0001)),
            ends,
            restore_points: 0,
            unread_records: 0,
        }
    }

    #[test]
    fn an_outline_reads_back_from_its_name() {
        let mut full = outline(Some(ends(
            (1_700_000_000_000_000, 1_700_000_000_000_001),
            (730, 831),
        )));
        (full.restore_points, full.unread_records) = (1, 3);
        for outline in [full, outline(None)] {
            assert_eq!(outline.to_string().parse(), Ok(outline));
        }
        let text = "00000001000000000000000A-n10-s6b01000000000001-zff";
        assert_eq!(text.parse(), Ok(outline(None)), "of a later release");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "00000001000000000000000A",
            "00000001000000000000000A-n0",
            "00000001000000000000000A-nxx",
            "00000001000000000000000A-n1-sx",
            "00000001000000000000000A-n1-c1.2",
            "00000001000000000000000A-n1-c1.2-t1-x1.2",
            "00000001000000000000000A-n1-",
            "archive.json-n1",
        ] {
            assert!(text.parse::<Outline>().is_err(), "{text}");
        }
    }

    #[test]
    fn ids_that_wrap_around_are_between_their_neighbours() {
        let wrapped = ends((1, 2), (u32::MAX - 1, 5));
        for (xid, may) in [
            (u32::MAX - 2, false),
            (u32::MAX, true),
            (3, true),
            (6, false),
        ] {
            let stop = Stop::Xid {
                xid,
                is_inclusive: true,
            };
            assert_eq!(wrapped.may_stop(&stop), may, "{xid}");
        }
        let both = ends((1, 2), (u32::MAX - 1, u32::MAX)).and(ends((0, 1), (3, 5)));
        assert_eq!((both.oldest_xid, both.newest_xid), (u32::MAX - 1, 5));
        assert_eq!((both.earliest, both.latest), (at(0), at(2)));
        assert_eq!(both.commits, 200);
    }

    #[test]
    fn a_search_passes_over_what_cannot_hold_its_stop() {
        let with_ends = outline(Some(ends((100, 200), (7, 9))));
        let time = |micros, is_inclusive| Stop::Time {
            time: at(micros),
            is_inclusive,
        };
        let name = Stop::Name(b"a".to_vec());
        for (stop, may) in [
            (time(199, true), true),
            (time(200, true), false),
            (time(200, false), true),
            (name.clone(), false),
        ] {
            assert_eq!(with_ends.may_stop(&stop), may, "{stop:?}");
        }
        let mut named = outline(None);
        assert!(!named.may_stop(&time(0, true)));
        named.restore_points = 1;
        assert!(named.may_stop(&name));
        named.unread_records = 1;
        assert!(
            named.may_stop(&time(0, true)),
            "what was not read may be it"
        );
    }
}
