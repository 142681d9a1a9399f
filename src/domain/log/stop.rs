//! Where recovery stops: PostgreSQL's own tests, record by record.
//!
//! Source: `recoveryStopsBefore` and `recoveryStopsAfter`, PostgreSQL 18,
//! src/backend/access/transam/xlogrecovery.c. Versions 13 to 18 decide alike. Not here: `immediate`,
//! which a backup's own end decides, and finding the record.

use chrono::{DateTime, SubsecRound, Utc};

use crate::domain::lsn::Lsn;
use crate::domain::recovery::Target;

/// What recovery stops at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The first end of a transaction after this moment, or at it where that is exclusive.
    Time {
        /// The moment, to the microsecond.
        time: DateTime<Utc>,
        /// Whether transactions that ended at that very moment are replayed.
        is_inclusive: bool,
    },
    /// The end of this transaction, by commit or rollback.
    Xid {
        /// Its id.
        xid: u32,
        /// Whether it is replayed.
        is_inclusive: bool,
    },
    /// The first record that begins here or later.
    Lsn {
        /// The position.
        lsn: Lsn,
        /// Whether that record is replayed.
        is_inclusive: bool,
    },
    /// The first restore point of this name. It is always replayed.
    Name(Vec<u8>),
}

/// Whether the record at which recovery stops is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It is not.
    Before,
    /// It is.
    After,
}

/// A record of the log, as far as recovery may stop at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopRecord {
    /// Its first byte.
    pub begin: Lsn,
    /// The first byte behind it.
    pub end: Lsn,
    /// What it says.
    pub what: What,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A transaction ended; of a prepared one this is the second end.
    TransactionEnd(TransactionEnd),
    /// A restore point.
    RestorePoint {
        /// Its name, in whatever encoding.
        name: Vec<u8>,
        /// When it was made.
        time: DateTime<Utc>,
    },
    /// A checkpoint, which no recovery stops at but for its position.
    Checkpoint {
        /// When it was begun.
        time: DateTime<Utc>,
    },
    /// Anything else.
    Other,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionEnd {
    /// Its id.
    pub xid: u32,
    /// When, by the server's clock, which need not rise.
    pub time: DateTime<Utc>,
    /// Whether by commit.
    pub is_commit: bool,
}

impl What {
    /// The time that it tells.
    pub fn time(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::TransactionEnd(end) => Some(end.time),
            Self::RestorePoint { time, .. } | Self::Checkpoint { time } => Some(*time),
            Self::Other => None,
        }
    }

    /// The end of a transaction that it tells of.
    pub fn transaction_end(&self) -> Option<&TransactionEnd> {
        match self {
            Self::TransactionEnd(end) => Some(end),
            _ => None,
        }
    }

    /// The name of a restore point, as text.
    pub fn restore_point(&self) -> Option<String> {
        match self {
            Self::RestorePoint { name, .. } => Some(String::from_utf8_lossy(name).into_owned()),
            _ => None,
        }
    }
}

impl Stop {
    /// What recovery to `target` stops at; `None` where no record decides.
    pub fn of(target: &Target, is_inclusive: bool) -> Option<Self> {
        match target {
            Target::Latest | Target::Immediate => None,
            Target::Time(time) => Some(Self::Time {
                // As PostgreSQL reads it.
                time: time.to_utc().round_subsecs(6),
                is_inclusive,
            }),
            Target::Xid(xid) => Some(Self::Xid {
                xid: *xid,
                is_inclusive,
            }),
            Target::Lsn(lsn) => Some(Self::Lsn {
                lsn: *lsn,
                is_inclusive,
            }),
            Target::Name(name) => Some(Self::Name(name.clone().into_bytes())),
        }
    }

    /// What no record stops at: for a look at all of the log.
    pub fn never() -> Self {
        Self::Time {
            time: DateTime::<Utc>::MAX_UTC,
            is_inclusive: true,
        }
    }

    /// Whether recovery stops at this record, and on which side of it.
    pub fn side(&self, record: &StopRecord) -> Option<Side> {
        match (self, &record.what) {
            (Self::Time { time, is_inclusive }, What::TransactionEnd(end)) => {
                let is_behind = if *is_inclusive {
                    end.time > *time
                } else {
                    end.time >= *time
                };
                is_behind.then_some(Side::Before)
            }
            (Self::Xid { xid, is_inclusive }, What::TransactionEnd(end)) => {
                (end.xid == *xid).then(|| side(*is_inclusive))
            }
            (Self::Lsn { lsn, is_inclusive }, _) => {
                (record.begin >= *lsn).then(|| side(*is_inclusive))
            }
            (Self::Name(wanted), What::RestorePoint { name, .. }) => {
                (name == wanted).then_some(Side::After)
            }
            _ => None,
        }
    }
}

fn side(is_inclusive: bool) -> Side {
    if is_inclusive {
        Side::After
    } else {
        Side::Before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(micros).unwrap()
    }

    fn record(begin: u64, what: What) -> StopRecord {
        StopRecord {
            begin: Lsn::new(begin),
            end: Lsn::new(begin + 40),
            what,
        }
    }

    fn end(xid: u32, micros: i64) -> What {
        What::TransactionEnd(TransactionEnd {
            xid,
            time: at(micros),
            is_commit: false,
        })
    }

    fn named(name: &str) -> What {
        What::RestorePoint {
            name: name.as_bytes().to_vec(),
            time: at(100),
        }
    }

    #[test]
    fn a_time_stops_before_the_first_transaction_behind_it() {
        for (is_inclusive, micros, stops) in [
            (true, 99, false),
            (true, 100, false),
            (true, 101, true),
            (false, 99, false),
            (false, 100, true),
        ] {
            let stop = Stop::Time {
                time: at(100),
                is_inclusive,
            };
            let expected = stops.then_some(Side::Before);
            assert_eq!(stop.side(&record(8, end(7, micros))), expected, "{micros}");
        }
        let stop = Stop::Time {
            time: at(50),
            is_inclusive: true,
        };
        assert_eq!(stop.side(&record(8, named("a"))), None);
        assert_eq!(stop.side(&record(8, What::Other)), None);
    }

    #[test]
    fn a_transaction_stops_at_its_own_end_alone() {
        for (is_inclusive, side) in [(true, Side::After), (false, Side::Before)] {
            let stop = Stop::Xid {
                xid: 7,
                is_inclusive,
            };
            assert_eq!(stop.side(&record(8, end(7, 1))), Some(side));
            assert_eq!(stop.side(&record(8, end(8, 1))), None);
            assert_eq!(stop.side(&record(8, What::Other)), None);
        }
    }

    #[test]
    fn a_position_stops_at_whatever_begins_there_or_later() {
        for (begin, side) in [
            (99, None),
            (100, Some(Side::After)),
            (101, Some(Side::After)),
        ] {
            let stop = Stop::Lsn {
                lsn: Lsn::new(100),
                is_inclusive: true,
            };
            assert_eq!(stop.side(&record(begin, What::Other)), side);
        }
    }

    #[test]
    fn a_name_stops_behind_its_restore_point() {
        let stop = Stop::Name(b"a".to_vec());
        assert_eq!(stop.side(&record(8, named("a"))), Some(Side::After));
        assert_eq!(stop.side(&record(8, named("ab"))), None);
        assert_eq!(stop.side(&record(8, end(7, 1))), None);
    }
}
