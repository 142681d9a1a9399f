//! What a segment tells of the points that recovery can stop at, gathered in one pass.
//!
//! A record belongs to the segment that it ends in. When the one before was not read, the rest of
//! a record at the beginning is passed over: the summary then says how many bytes, and what it
//! says of transactions may lack that one. Not here: keeping summaries (an index), and finding an
//! exact record, for which the segment itself is read again.

use crate::domain::log::outline::Ends;
use crate::domain::log::stop::{StopRecord, TransactionEnd, What};
use crate::domain::log::summary::{Checkpoint, RestorePoint, SegmentSummary, Switch};
use crate::domain::log::xid_set::XidSetBuilder;
use crate::domain::lsn::Lsn;
use crate::domain::segment::SegmentName;
use crate::pgfile::wal::page::SegmentHeader;
use crate::pgfile::wal::reader::{
    Bodies, Carry, Event, ReaderError, ReaderOptions, SegmentReader, Unfinished,
};
use crate::pgfile::wal::record::{Record, RecordError};
use crate::pgfile::wal::resource_manager::ResourceManager;
use crate::pgfile::wal::stop::SegmentEnd;
use crate::pgfile::wal::transaction::{End, TransactionRecord};
use crate::pgfile::wal::xlog::{Timelines, XlogRecord};

/// What one pass over a segment gives.
#[derive(Debug, Clone)]
pub struct Summarized {
    /// What it tells of the points that recovery can stop at.
    pub summary: SegmentSummary,
    /// Its own header.
    pub header: SegmentHeader,
    /// How many bytes at the beginning belong to a record whose own beginning was not seen.
    pub head_skipped_bytes: u64,
    /// The record that begins in it, or before, and does not end in it.
    pub unfinished: Option<Unfinished>,
    /// Whether all of it was read, and where it stopped otherwise.
    pub end: SegmentEnd,
    /// What the next segment needs.
    pub carry: Option<Carry>,
}

/// Makes the summary of one segment while its bytes go by.
#[derive(Debug)]
pub struct SegmentSummarizer {
    reader: SegmentReader,
    gathered: Gathered,
}

/// What the records met so far tell.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    first_record: Option<Lsn>,
    last_record_end: Option<Lsn>,
    ends: Option<Ends>,
    last_end: Option<(Lsn, TransactionEnd)>,
    xids: XidSetBuilder,
    subtransactions: XidSetBuilder,
    restore_points: Vec<RestorePoint>,
    checkpoints: Vec<Checkpoint>,
    switches: Vec<Switch>,
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

    /// The summary of the segment in the file `name`, each set of ids in it of at most
    /// `set_bytes_max` bytes, and what the next segment needs.
    ///
    /// # Errors
    /// There was not even a header.
    pub fn finish(
        self,
        name: SegmentName,
        set_bytes_max: usize,
    ) -> Result<Summarized, ReaderError> {
        let header = self.reader.segment().copied();
        let finished = self.reader.finish()?;
        // A reader that finished has read a header.
        let header = header.ok_or(ReaderError::Long)?;
        let mut summary = self.gathered.finish(name, set_bytes_max);
        // What ends here unseen may be anything.
        summary.unread_records += u64::from(finished.head_skipped_bytes > 0);
        summary.is_whole = finished.end == SegmentEnd::Whole;
        Ok(Summarized {
            summary,
            header,
            head_skipped_bytes: finished.head_skipped_bytes,
            unfinished: finished.unfinished,
            end: finished.end,
            carry: finished.carry,
        })
    }
}

impl Gathered {
    /// A summary of these records alone.
    pub(super) fn finish(self, name: SegmentName, set_bytes_max: usize) -> SegmentSummary {
        SegmentSummary {
            name,
            first_record: self.first_record,
            last_record_end: self.last_record_end,
            ends: self.ends,
            last_end: self.last_end,
            xids: self.xids.finish().within(set_bytes_max),
            subtransactions: self.subtransactions.finish().within(set_bytes_max),
            restore_points: self.restore_points,
            checkpoints: self.checkpoints,
            switches: self.switches,
            unread_records: self.unread_records,
            is_whole: false,
        }
    }

    pub(super) fn take(&mut self, event: Event<'_>) {
        match event {
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
            Event::Page(_) | Event::GivenUp { .. } => {}
        }
    }

    fn take_transaction(&mut self, record: &Record<'_>) -> Result<(), RecordError> {
        match TransactionRecord::parse(record)? {
            Some(TransactionRecord::Commit(end)) => {
                self.take_end(record.begin, &end, true);
            }
            Some(TransactionRecord::Abort(end)) => {
                self.take_end(record.begin, &end, false);
            }
            _ => {}
        }
        Ok(())
    }

    fn take_end(&mut self, lsn: Lsn, end: &End<'_>, is_commit: bool) {
        let (xid, time) = (end.xid, end.time);
        let last = TransactionEnd {
            xid,
            time,
            is_commit,
        };
        let one = Ends::of(&last);
        self.ends = Some(self.ends.map_or(one, |ends| ends.and(one)));
        self.last_end = Some((lsn, last));
        // A transaction that only ends what others prepared, or wrote nothing, has no id.
        if xid != 0 {
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
                let time = checkpoint.time;
                self.checkpoints.push(Checkpoint { lsn, time });
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
            let (from, to) = (timelines.previous, timelines.current);
            self.switches.push(Switch { lsn, from, to });
        }
    }
}

/// A record as what recovery may stop at. One whose body cannot be understood is none of those.
pub fn stop_record(record: &Record<'_>) -> StopRecord {
    let what = match record.manager {
        ResourceManager::TRANSACTION => match TransactionRecord::parse(record) {
            Ok(Some(TransactionRecord::Commit(end))) => transaction_end(&end, true),
            Ok(Some(TransactionRecord::Abort(end))) => transaction_end(&end, false),
            _ => What::Other,
        },
        ResourceManager::XLOG => match XlogRecord::parse(record) {
            Ok(Some(XlogRecord::RestorePoint { time, name })) => What::RestorePoint {
                name: name.to_vec(),
                time,
            },
            Ok(Some(XlogRecord::Checkpoint(checkpoint))) => What::Checkpoint {
                time: checkpoint.time,
            },
            _ => What::Other,
        },
        _ => What::Other,
    };
    StopRecord {
        begin: record.begin,
        end: record.end,
        what,
    }
}

fn transaction_end(end: &End<'_>, is_commit: bool) -> What {
    What::TransactionEnd(TransactionEnd {
        xid: end.xid,
        time: end.time,
        is_commit,
    })
}
