//! From page to page of a segment: where records begin, go on and end, and where they stop.
//!
//! Source: `XLogReadRecord` and what it calls, src/backend/access/transam/xlogreader.c,
//! PostgreSQL 13 to 18. Not here: cutting the bytes into pages (`reader`).

use crate::domain::lsn::Lsn;
use crate::domain::timeline::TimelineId;
use crate::pgfile::wal::assembly::{Assembly, to_u32, to_usize};
use crate::pgfile::wal::page::{PageHeader, SegmentHeader};
use crate::pgfile::wal::reader::{Event, ReaderOptions};
use crate::pgfile::wal::record::{CHECKED_HEADER_BYTES, RECORD_HEADER_BYTES, Record, RecordHeader};
use crate::pgfile::wal::resource_manager::ResourceManager;
use crate::pgfile::wal::stop::{Behind, SegmentEnd, Stop, StopReason};
use crate::pgfile::wal::xlog::SWITCH;

/// No record is longer: 1020 MiB since 16, and what memory can be asked for in one piece before.
const RECORD_BYTES_MAX: u32 = 1 << 30;

/// What goes over from one segment to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// The first byte not yet read.
    pub(super) next_page: Lsn,
    /// The timeline of the last page.
    pub(super) timeline: TimelineId,
    /// Where the last whole record began.
    pub(super) previous: Option<Lsn>,
    pub(super) unfinished: Option<Assembly>,
}

#[derive(Debug)]
enum State {
    /// The next byte begins a record.
    Between,
    /// So many bytes belong to a record that began where nobody looked.
    Skipping(u32),
    Assembling(Assembly),
    /// The rest of the segment is empty.
    Switched,
    Stopped(Stop, Behind),
}

/// The walk through one segment.
#[derive(Debug)]
pub(super) struct Walk {
    options: ReaderOptions,
    segment: SegmentHeader,
    major: u32,
    next_page: Lsn,
    end: Lsn,
    timeline: TimelineId,
    previous: Option<Lsn>,
    state: State,
    pub(super) head_skipped_bytes: u64,
    /// The record that the walk stopped in.
    stopped_in: Option<Assembly>,
}

/// The next multiple of 8, PostgreSQL's alignment of records.
fn aligned(offset: usize) -> usize {
    offset.next_multiple_of(8)
}

impl Walk {
    /// Begins at the first page of a segment that ends at `end`, behind `before` if that led here.
    pub(super) fn new(
        options: ReaderOptions,
        segment: SegmentHeader,
        (major, end): (u32, Lsn),
        before: Option<Position>,
    ) -> Self {
        let before = before.filter(|before| {
            before.next_page == segment.page_address && before.timeline <= segment.timeline
        });
        let mut walk = Self {
            options,
            segment,
            major,
            next_page: segment.page_address,
            end,
            timeline: segment.timeline,
            previous: None,
            state: State::Between,
            head_skipped_bytes: 0,
            stopped_in: None,
        };
        if let Some(before) = before {
            walk.previous = before.previous;
            walk.timeline = before.timeline;
            walk.state = before.unfinished.map_or(State::Between, State::Assembling);
        }
        walk
    }

    /// The segment's header.
    pub(super) fn segment(&self) -> &SegmentHeader {
        &self.segment
    }

    /// Whether the whole segment has been walked through.
    pub(super) fn is_at_end(&self) -> bool {
        self.next_page >= self.end
    }

    /// Reads the next page, which lies within the segment.
    pub(super) fn page(&mut self, page: &[u8], each: &mut impl FnMut(Event<'_>)) {
        let address = self.next_page;
        self.next_page = plus(address, page.len());
        match &mut self.state {
            State::Switched => {}
            State::Stopped(_, behind) => {
                let is_ours = PageHeader::parse(page).is_some_and(|header| {
                    header.magic == self.segment.magic && header.address == address
                });
                if is_ours || *behind == Behind::Written {
                    *behind = Behind::Written;
                } else {
                    *behind = Behind::Foreign;
                }
            }
            _ => {
                if let Err(stop) = self.read(page, address, each) {
                    self.halt(stop);
                }
            }
        }
    }

    fn halt(&mut self, stop: Stop) {
        let halted = State::Stopped(stop, Behind::Nothing);
        if let State::Assembling(assembly) = std::mem::replace(&mut self.state, halted) {
            self.stopped_in = Some(assembly);
        }
    }

    /// How the segment ends, and where the next one goes on from if it does.
    pub(super) fn finish(mut self) -> (SegmentEnd, Option<Position>, Option<Assembly>) {
        let is_done = matches!(self.state, State::Switched | State::Stopped(..));
        if !is_done && !self.is_at_end() {
            self.halt(self.stop(self.next_page, StopReason::NoBytes));
        }
        let position = |unfinished| Position {
            next_page: self.end,
            timeline: self.timeline,
            previous: self.previous,
            unfinished,
        };
        match self.state {
            State::Stopped(stop, behind) => (stop.judged(behind), None, self.stopped_in),
            State::Skipping(_) => (SegmentEnd::Whole, None, None),
            State::Between | State::Switched => (SegmentEnd::Whole, Some(position(None)), None),
            State::Assembling(assembly) => {
                let unfinished = assembly.clone();
                (
                    SegmentEnd::Whole,
                    Some(position(Some(assembly))),
                    Some(unfinished),
                )
            }
        }
    }

    /// A stop at `at`, or at the beginning of the record that is being put together.
    fn stop(&self, at: Lsn, reason: StopReason) -> Stop {
        let at = match &self.state {
            State::Assembling(assembly) => assembly.begin,
            _ => at,
        };
        Stop { at, reason }
    }

    fn read(
        &mut self,
        page: &[u8],
        address: Lsn,
        each: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Stop> {
        let header = self.header(page, address)?;
        each(Event::Page(header));
        if let (true, State::Assembling(given_up)) = (header.is_overwrite(), &self.state) {
            let begin = given_up.begin;
            self.state = State::Between;
            each(Event::GivenUp { begin });
        }
        let offset = self.continuation(page, address, header, each)?;
        if let (State::Between, Some(offset)) = (&self.state, offset) {
            self.records(page, address, offset, each)?;
        }
        Ok(())
    }

    /// The page's header, when the page belongs here.
    fn header(&mut self, page: &[u8], address: Lsn) -> Result<PageHeader, Stop> {
        let wrong = |reason| Err(self.stop(address, reason));
        let Some(header) = PageHeader::parse(page) else {
            return wrong(StopReason::NoBytes);
        };
        if header.magic != self.segment.magic {
            if page.iter().all(|byte| *byte == 0) {
                return wrong(StopReason::Zeros);
            }
            let found = header.magic;
            return wrong(StopReason::Magic { found });
        }
        if header.address != address {
            let found = header.address;
            return wrong(StopReason::Address { found });
        }
        let is_first = address == self.segment.page_address;
        if header.has_unknown_flags() || header.is_long() != is_first {
            let found = header.flags;
            return wrong(StopReason::Flags { found });
        }
        let timeline = TimelineId::new(header.timeline).filter(|found| *found >= self.timeline);
        self.timeline = timeline.ok_or_else(|| {
            let (found, previous) = (header.timeline, self.timeline);
            self.stop(address, StopReason::Timeline { found, previous })
        })?;
        Ok(header)
    }

    /// Reads the rest of a record at the page's beginning; where the next record may begin, or
    /// `None` when the page has no room for one.
    fn continuation(
        &mut self,
        page: &[u8],
        address: Lsn,
        header: PageHeader,
        each: &mut impl FnMut(Event<'_>),
    ) -> Result<Option<usize>, Stop> {
        let begin = header.bytes();
        let taken = to_usize(header.remaining_bytes).min(page.len() - begin);
        let missing = match &self.state {
            State::Assembling(assembly) => Some(assembly.total_bytes - assembly.held_bytes),
            State::Skipping(missing) => Some(*missing),
            // Only the beginning of a segment may continue what nobody has seen begin.
            _ if !header.is_continuation() => return Ok(Some(begin)),
            _ if address == self.segment.page_address && self.previous.is_none() => None,
            _ => return Err(self.stop(address, StopReason::UnexpectedContinuation)),
        };
        if !header.is_continuation() {
            return Err(self.stop(address, StopReason::NoContinuation { page: address }));
        }
        let found = header.remaining_bytes;
        if found == 0 || missing.is_some_and(|missing| missing != found) {
            let missing = missing.unwrap_or(1);
            let reason = StopReason::ContinuationLength {
                page: address,
                found,
                missing,
            };
            return Err(self.stop(address, reason));
        }
        let next = aligned(begin + taken);
        if !matches!(self.state, State::Assembling(_)) {
            self.head_skipped_bytes += u64::from(to_u32(taken));
            self.state = match found - to_u32(taken) {
                0 => State::Between,
                missing => State::Skipping(missing),
            };
            return Ok(Some(next));
        }
        self.append(&page[begin..begin + taken])?;
        if found > to_u32(taken) {
            return Ok(None);
        }
        let may_follow = self.assembled(plus(address, next), each)?;
        Ok(may_follow.then_some(next))
    }

    /// Adds to the record that is being put together.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let State::Assembling(assembly) = &mut self.state else {
            return Ok(());
        };
        if !assembly.append(bytes, self.options) {
            return Ok(());
        }
        let (header, begin) = (assembly.record_header(), assembly.begin);
        self.check_previous(header, begin)?;
        self.manager(header, begin).map(|_| ())
    }

    /// Hands out the record that has been put together; whether another may follow it here.
    fn assembled(&mut self, end: Lsn, each: &mut impl FnMut(Event<'_>)) -> Result<bool, Stop> {
        let State::Assembling(assembly) = &self.state else {
            return Ok(true);
        };
        let header = assembly.record_header();
        if self.options.check_crc {
            let made = assembly.checksum();
            if made != header.checksum {
                let found = header.checksum;
                return Err(self.stop(assembly.begin, StopReason::Checksum { found, made }));
            }
        }
        let manager = self.manager(header, assembly.begin)?;
        let is_switch = manager == ResourceManager::XLOG && header.kind() == SWITCH;
        each(Event::Record(Record {
            begin: assembly.begin,
            end: if is_switch { self.end } else { end },
            header,
            manager,
            major: self.major,
            body: assembly.body(),
        }));
        self.previous = Some(assembly.begin);
        self.state = if is_switch {
            State::Switched
        } else {
            State::Between
        };
        Ok(!is_switch)
    }

    /// Reads the records that begin on the page, from `offset` on.
    fn records(
        &mut self,
        page: &[u8],
        address: Lsn,
        mut offset: usize,
        each: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Stop> {
        while let Some((length, _)) = page.get(offset..).and_then(<[u8]>::split_first_chunk) {
            let begin = plus(address, offset);
            let total_bytes = u32::from_le_bytes(*length);
            self.check_length(total_bytes, begin)?;
            let rest = &page[offset..];
            let Some(record) = rest.get(..to_usize(total_bytes)) else {
                self.state = State::Assembling(Assembly::new(begin, total_bytes));
                return self.append(rest);
            };
            offset = aligned(offset + record.len());
            if !self.whole(record, begin, plus(address, offset), each)? {
                self.state = State::Switched;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Hands out a record that lies whole on a page; whether another may follow it.
    fn whole(
        &mut self,
        record: &[u8],
        begin: Lsn,
        end: Lsn,
        each: &mut impl FnMut(Event<'_>),
    ) -> Result<bool, Stop> {
        let Some((fixed, body)) = record.split_first_chunk() else {
            let found = to_u32(record.len());
            return Err(self.stop(begin, StopReason::Length { found }));
        };
        let header = RecordHeader::parse(fixed);
        self.check_previous(header, begin)?;
        let manager = self.manager(header, begin)?;
        if self.options.check_crc {
            let made = crc32c::crc32c_append(crc32c::crc32c(body), &fixed[..CHECKED_HEADER_BYTES]);
            if made != header.checksum {
                let found = header.checksum;
                return Err(self.stop(begin, StopReason::Checksum { found, made }));
            }
        }
        let is_switch = manager == ResourceManager::XLOG && header.kind() == SWITCH;
        self.previous = Some(begin);
        each(Event::Record(Record {
            begin,
            end: if is_switch { self.end } else { end },
            header,
            manager,
            major: self.major,
            body: Some(body),
        }));
        Ok(!is_switch)
    }

    fn check_length(&self, found: u32, begin: Lsn) -> Result<(), Stop> {
        match found {
            0 => Err(self.stop(begin, StopReason::Zeros)),
            _ if to_usize(found) < RECORD_HEADER_BYTES || found > RECORD_BYTES_MAX => {
                Err(self.stop(begin, StopReason::Length { found }))
            }
            _ => Ok(()),
        }
    }

    fn check_previous(&self, header: RecordHeader, begin: Lsn) -> Result<(), Stop> {
        let found = header.previous;
        let is_right = match self.previous {
            Some(previous) => found == previous,
            None => found < begin,
        };
        if is_right {
            return Ok(());
        }
        Err(self.stop(begin, StopReason::Previous { found }))
    }

    fn manager(&self, header: RecordHeader, begin: Lsn) -> Result<ResourceManager, Stop> {
        let found = header.manager;
        ResourceManager::new(found, self.major)
            .ok_or_else(|| self.stop(begin, StopReason::ResourceManager { found }))
    }
}

/// Within a segment, whose end is an LSN.
fn plus(lsn: Lsn, bytes: usize) -> Lsn {
    Lsn::new(lsn.to_u64() + u64::try_from(bytes).expect("no more than a page"))
}
