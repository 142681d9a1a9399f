//! The record over the edge between two segments that were read apart.
//!
//! It belongs to the segment that it ends in, whose summary lacks it. What the first segment
//! leaves and the first pages of the second are enough to add it. Not here: keeping the two until
//! both are there (`service::wal_index`).

use crate::domain::log::summary::SegmentSummary;
use crate::pgfile::wal::page::{
    PAGE_HEADER_BYTES, PageHeader, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use crate::pgfile::wal::reader::{Bodies, Carry, Event, ReaderOptions, SegmentReader};
use crate::pgfile::wal::summary::Gathered;

/// How many bytes from a segment's beginning hold the rest of the record that goes on in it, whole
/// pages all: 0 when none does, and more than the segment has when the record does not end there.
///
/// `first` is the segment's beginning; `None` when it is none, or less than its header.
pub fn head_bytes(first: &[u8]) -> Option<u64> {
    let segment = SegmentHeader::parse(first).ok()?;
    let page = PageHeader::parse(first)?;
    if !page.is_continuation() {
        return Some(0);
    }
    let bytes = u64::from(segment.block_size);
    let room = |header: usize| bytes.checked_sub(u64::try_from(header).ok()?);
    let (room_first, room) = (room(SEGMENT_HEADER_BYTES)?, room(PAGE_HEADER_BYTES)?);
    let behind = u64::from(page.remaining_bytes).saturating_sub(room_first);
    // Pages without room are no pages, and then nothing ends.
    let pages = 1 + behind.checked_next_multiple_of(room)? / room;
    Some(pages * bytes)
}

/// The summary with the record that goes on in `head`, the first pages of its segment, from the
/// segment that left `carry`; `None` when the two do not fit, and then nothing is known of it.
///
/// It is what reading the segment with `carry` would have given.
pub fn join(summary: &SegmentSummary, head: &[u8], carry: Carry) -> Option<SegmentSummary> {
    let start = PageHeader::parse(head)?.address;
    let options = ReaderOptions {
        check_crc: carry.has_body(),
        bodies: Bodies::OfRecovery,
    };
    let mut reader = SegmentReader::new(options, Some(carry));
    let mut gathered = Gathered::default();
    let pushed = reader.push(head, |event| {
        if let Event::Record(record) = event
            && record.begin < start
        {
            gathered.take(event);
        }
    });
    pushed.ok()?;
    let edge = gathered.finish(summary.name, usize::MAX);
    edge.first_record?;
    let later = summary.clone();
    let mut all = SegmentSummary {
        first_record: edge.first_record,
        last_record_end: later.last_record_end.or(edge.last_record_end),
        ends: match (edge.ends, later.ends) {
            (Some(one), Some(other)) => Some(one.and(other)),
            (one, other) => one.or(other),
        },
        last_end: later.last_end.or(edge.last_end),
        xids: edge.xids.and(later.xids),
        subtransactions: edge.subtransactions.and(later.subtransactions),
        unread_records: later.unread_records.saturating_sub(1) + edge.unread_records,
        ..edge
    };
    all.restore_points.extend(later.restore_points);
    all.checkpoints.extend(later.checkpoints);
    all.switches.extend(later.switches);
    all.is_whole = later.is_whole;
    Some(all)
}
