//! What one segment tells of the points that recovery can stop at.
//!
//! A record belongs to the segment that it ends in. Not here: making a summary
//! (`pgfile::wal::summary`) and keeping it (`service::wal_index`).

use chrono::{DateTime, Utc};

use crate::domain::log::outline::{Ends, Outline};
use crate::domain::log::stop::{Stop, TransactionEnd};
use crate::domain::log::xid_set::XidSet;
use crate::domain::lsn::Lsn;
use crate::domain::segment::SegmentName;
use crate::domain::timeline::TimelineId;

/// What a segment tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Which one.
    pub name: SegmentName,
    /// The first byte of the first record that ends in it; `None` when none does.
    pub first_record: Option<Lsn>,
    /// The end of its last record: as far as recovery gets with this segment.
    pub last_record_end: Option<Lsn>,
    /// How its transactions ended; `None` when none did.
    pub ends: Option<Ends>,
    /// The last of them in the order of the log, with the first byte of its record.
    pub last_end: Option<(Lsn, TransactionEnd)>,
    /// Which transactions ended. `recovery_target_xid` finds these, and subtransactions only
    /// among those that were rolled back by themselves.
    pub xids: XidSet,
    /// Which subtransactions ended together with their transactions.
    pub subtransactions: XidSet,
    /// The named points.
    pub restore_points: Vec<RestorePoint>,
    /// The checkpoints.
    pub checkpoints: Vec<Checkpoint>,
    /// The changes of timeline, each with the beginning of the record that makes it.
    pub switches: Vec<Switch>,
    /// How many records that recovery could stop at may be in it and are not in this summary: one
    /// that began in a segment that was not read, or that could not be understood.
    pub unread_records: u64,
    /// Whether all of the segment was read.
    pub is_whole: bool,
}

/// A named point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    /// The first byte of its record.
    pub lsn: Lsn,
    /// When it was made.
    pub time: DateTime<Utc>,
    /// Its name, at most 63 bytes, in the encoding of the database it was made from.
    pub name: Vec<u8>,
}

/// A checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The first byte of its record.
    pub lsn: Lsn,
    /// When it was made, to the second.
    pub time: DateTime<Utc>,
}

/// A change of timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch {
    /// The first byte of its record.
    pub lsn: Lsn,
    /// The timeline that was left.
    pub from: TimelineId,
    /// The new one.
    pub to: TimelineId,
}

impl SegmentSummary {
    /// What it tells in the name of an index object.
    pub fn outline(&self) -> Outline {
        Outline {
            first: self.name,
            count: 1,
            system_id: None,
            ends: self.ends,
            restore_points: u64::try_from(self.restore_points.len()).unwrap_or(u64::MAX),
            unread_records: self.unread_records + u64::from(!self.is_whole),
        }
    }

    /// Whether recovery may stop in this segment at a transaction or a restore point.
    pub fn may_stop(&self, stop: &Stop) -> bool {
        if !self.outline().may_stop(stop) {
            return false;
        }
        let is_blind = self.unread_records > 0 || !self.is_whole;
        is_blind
            || match stop {
                Stop::Xid { xid, .. } => self.xids.contains(*xid),
                Stop::Name(name) => self.restore_points.iter().any(|point| point.name == *name),
                Stop::Time { .. } | Stop::Lsn { .. } => true,
            }
    }
}

/// What segments that follow one another tell together; `None` of none.
pub fn outline_of(segments: &[SegmentSummary]) -> Option<Outline> {
    let mut outlines = segments.iter().map(SegmentSummary::outline);
    let first = outlines.next()?;
    Some(outlines.fold(first, |all, next| Outline {
        first: all.first,
        count: all.count + next.count,
        system_id: all.system_id,
        ends: match (all.ends, next.ends) {
            (Some(ends), Some(more)) => Some(ends.and(more)),
            (ends, more) => ends.or(more),
        },
        restore_points: all.restore_points + next.restore_points,
        unread_records: all.unread_records + next.unread_records,
    }))
}
