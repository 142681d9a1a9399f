//! What a segment tells of the points that recovery can stop at, gathered in one pass.
//!
//! A record belongs to the segment that it ends in. When the one before was not read, the rest of
//! a record at the beginning is passed over: the summary then says how many bytes, and what it
//! says of transactions may lack that one. Not here: keeping summaries (an index), and finding an
//! exact record, for which the segment itself is read again.

use chrono::{DateTime, Utc};

use crate::domain::lsn::Lsn;
use crate::domain::timeline::TimelineId;
use crate::pgfile::wal::page::SegmentHeader;
use crate::pgfile::wal::reader::{
    Bodies, Carry, Event, ReaderError, ReaderOptions, SegmentReader, Unfinished,
};
use crate::pgfile::wal::record::{Record, RecordError};
use crate::pgfile::wal::resource_manager::ResourceManager;
use crate::pgfile::wal::stop::SegmentEnd;
use crate::pgfile::wal::transaction::{End, TransactionRecord};
use crate::pgfile::wal::xid_set::{XidSet, XidSetBuilder};
use crate::pgfile::wal::xlog::{Checkpoint, Timelines, XlogRecord};

/// What a segment tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Its own header.
    pub segment: SegmentHeader,
    /// The first byte of its first record; `None` when no record ends in it.
    pub first_record: Option<Lsn>,
    /// The end of its last record: as far as recovery gets with this segment.
    pub last_record_end: Option<Lsn>,
    /// The timelines of its pages, each with the first page that is of it.
    pub timelines: Vec<(Lsn, TimelineId)>,
    /// How many transactions committed, prepared ones included.
    pub commits: u64,
    /// How many transactions, and subtransactions by themselves, were rolled back.
    pub aborts: u64,
    /// When the transactions ended; `None` when none did.
    pub ends: Option<TransactionEnds>,
    /// Which transactions ended. `recovery_target_xid` finds these, and subtransactions only
    /// among those that were rolled back by themselves.
    pub xids: XidSet,
    /// Which subtransactions ended together with their transactions.
    pub subtransactions: XidSet,
    /// The named points.
    pub restore_points: Vec<RestorePoint>,
    /// The checkpoints, each with the beginning of its record.
    pub checkpoints: Vec<(Lsn, Checkpoint)>,
    /// The changes of timeline, each with the beginning of the record that makes it.
    pub timeline_switches: Vec<(Lsn, Timelines)>,
    /// How many bytes at the beginning belong to a record whose own beginning was not seen.
    pub head_skipped_bytes: u64,
    /// The record that begins here and does not end here.
    pub unfinished: Option<Unfinished>,
    /// How many records of transactions, checkpoints or restore points could not be read, for
    /// what they say is nothing that is known here or longer than is kept.
    pub unread_records: u64,
    /// Whether all of the segment was read, and where it stopped otherwise.
    pub end: SegmentEnd,
}

/// When transactions ended, by the clock of the server, which need not rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionEnds {
    /// The least of the times.
    pub earliest: DateTime<Utc>,
    /// The greatest of the times.
    pub latest: DateTime<Utc>,
    /// The oldest transaction, as ids wrap around.
    pub oldest_xid: u32,
    /// The newest transaction.
    pub newest_xid: u32,
    /// The last one in the order of the log.
    pub last: TransactionEnd,
}

/// One transaction's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionEnd {
    /// The first byte of its record.
    pub lsn: Lsn,
    /// The transaction.
    pub xid: u32,
    /// When.
    pub time: DateTime<Utc>,
    /// Whether it committed.
    pub is_commit: bool,
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

/// Makes the summary of one segment while its bytes go by.
#[derive(Debug)]
pub struct SegmentSummarizer {
    reader: SegmentReader,
    gathered: Gathered,
}

#[derive(Debug, Default)]
struct Gathered {
    first_record: Option<Lsn>,
    last_record_end: Option<Lsn>,
    timelines: Vec<(Lsn, TimelineId)>,
    commits: u64,
    aborts: u64,
    ends: Option<TransactionEnds>,
    xids: XidSetBuilder,
    subtransactions: XidSetBuilder,
    restore_points: Vec<RestorePoint>,
    checkpoints: Vec<(Lsn, Checkpoint)>,
    timeline_switches: Vec<(Lsn, Timelines)>,
    unread_records: u64,
}

impl SegmentSummarizer {
    /// Of a segment by itself, or after the one that left `carry`.
    pub fn new(check_crc: bool, carry: Option<Carry>) -> Self {
        let options = ReaderOptions {
            check_crc,
            bodies: Bodies::OfRecovery,
        };
        Self {
            reader: SegmentReader::new(options, carry),
            gathered: Gathered::default(),
        }
    }

    /// Takes the next bytes; see [`SegmentReader::push`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ReaderError> {
        self.reader.push(bytes, |event| self.gathered.take(event))
    }

    /// The summary, each set of ids in it of at most `set_bytes_max` bytes, and what the next
    /// segment needs.
    ///
    /// # Errors
    /// There was not even a header.
    pub fn finish(
        self,
        set_bytes_max: usize,
    ) -> Result<(SegmentSummary, Option<Carry>), ReaderError> {
        let segment = self.reader.segment().copied();
        let finished = self.reader.finish()?;
        // A reader that finished has read a header.
        let segment = segment.ok_or(ReaderError::Long)?;
        let gathered = self.gathered;
        let summary = SegmentSummary {
            segment,
            first_record: gathered.first_record,
            last_record_end: gathered.last_record_end,
            timelines: gathered.timelines,
            commits: gathered.commits,
            aborts: gathered.aborts,
            ends: gathered.ends,
            xids: gathered.xids.finish().within(set_bytes_max),
            subtransactions: gathered.subtransactions.finish().within(set_bytes_max),
            restore_points: gathered.restore_points,
            checkpoints: gathered.checkpoints,
            timeline_switches: gathered.timeline_switches,
            head_skipped_bytes: finished.head_skipped_bytes,
            unfinished: finished.unfinished,
            unread_records: gathered.unread_records,
            end: finished.end,
        };
        Ok((summary, finished.carry))
    }
}

impl Gathered {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Page(header) => {
                if let Some(timeline) = TimelineId::new(header.timeline)
                    && self.timelines.last().is_none_or(|last| last.1 != timeline)
                {
                    self.timelines.push((header.address, timeline));
                }
            }
            Event::Record(record) => {
                self.first_record.get_or_insert(record.begin);
                self.last_record_end = Some(record.end);
                let taken = match record.manager {
                    ResourceManager::TRANSACTION => self.take_transaction(&record),
                    ResourceManager::XLOG => self.take_xlog(&record),
                    _ => Ok(()),
                };
                if taken.is_err() {
                    self.unread_records += 1;
                }
            }
            Event::GivenUp { .. } => {}
        }
    }

    fn take_transaction(&mut self, record: &Record<'_>) -> Result<(), RecordError> {
        match TransactionRecord::parse(record)? {
            Some(TransactionRecord::Commit(end)) => {
                self.commits += 1;
                self.take_end(record.begin, &end, true);
            }
            Some(TransactionRecord::Abort(end)) => {
                self.aborts += 1;
                self.take_end(record.begin, &end, false);
            }
            _ => {}
        }
        Ok(())
    }

    fn take_end(&mut self, lsn: Lsn, end: &End<'_>, is_commit: bool) {
        let (xid, time) = (end.xid, end.time);
        let last = TransactionEnd {
            lsn,
            xid,
            time,
            is_commit,
        };
        let ends = self.ends.get_or_insert(TransactionEnds {
            earliest: time,
            latest: time,
            oldest_xid: xid,
            newest_xid: xid,
            last,
        });
        ends.earliest = ends.earliest.min(time);
        ends.latest = ends.latest.max(time);
        ends.last = last;
        // A transaction that only ends what others prepared, or wrote nothing, has no id.
        if xid != 0 {
            if ends.oldest_xid == 0 || is_older(xid, ends.oldest_xid) {
                ends.oldest_xid = xid;
            }
            if ends.newest_xid == 0 || is_older(ends.newest_xid, xid) {
                ends.newest_xid = xid;
            }
            self.xids.insert(xid);
        }
        for xid in end.subtransactions.iter() {
            self.subtransactions.insert(xid);
        }
    }

    fn take_xlog(&mut self, record: &Record<'_>) -> Result<(), RecordError> {
        let lsn = record.begin;
        match XlogRecord::parse(record)? {
            Some(XlogRecord::RestorePoint { time, name }) => {
                let name = name.to_vec();
                self.restore_points.push(RestorePoint { lsn, time, name });
            }
            Some(XlogRecord::Checkpoint(checkpoint)) => {
                self.take_timelines(lsn, checkpoint.timelines);
                self.checkpoints.push((lsn, checkpoint));
            }
            Some(XlogRecord::EndOfRecovery { timelines, .. }) => {
                self.take_timelines(lsn, timelines);
            }
            _ => {}
        }
        Ok(())
    }

    fn take_timelines(&mut self, lsn: Lsn, timelines: Timelines) {
        if timelines.is_switch() {
            self.timeline_switches.push((lsn, timelines));
        }
    }
}

/// Whether a transaction is older than another, as `TransactionIdPrecedes` has it: ids wrap
/// around, and those of one time are never further apart than half of them.
fn is_older(xid: u32, other: u32) -> bool {
    let ahead = other.wrapping_sub(xid);
    ahead != 0 && ahead < 1 << 31
}
