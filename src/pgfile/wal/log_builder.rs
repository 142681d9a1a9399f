//! A log for tests, written as PostgreSQL writes it: records over pages and segments.
//!
//! Not here: what records say; real ones come from servers, in `tests/integration`.

use crate::domain::lsn::Lsn;

/// What a record for tests is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) previous: u64,
    pub(crate) total_bytes: u32,
    pub(crate) body: Vec<u8>,
}

/// Writes a log from the start of a segment on.
#[derive(Debug, Clone)]
pub(crate) struct LogBuilder {
    pub(crate) magic: u16,
    pub(crate) timeline: u32,
    pub(crate) page_bytes: usize,
    pub(crate) start: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) previous: u64,
    /// The transaction of the next record.
    pub(crate) xid: u32,
    pub(crate) written: Vec<Written>,
}

pub(crate) const SEGMENT_BYTES: usize = 1 << 20;

fn u64_of(number: usize) -> u64 {
    u64::try_from(number).unwrap()
}

fn u32_of(number: usize) -> u32 {
    u32::try_from(number).unwrap()
}

impl LogBuilder {
    /// Of PostgreSQL 15, from the third segment on.
    pub(crate) fn new(page_bytes: usize) -> Self {
        Self {
            magic: 0xD110,
            timeline: 1,
            page_bytes,
            start: u64_of(3 * SEGMENT_BYTES),
            bytes: Vec::new(),
            previous: u64_of(3 * SEGMENT_BYTES - 64),
            xid: 700,
            written: Vec::new(),
        }
    }

    pub(crate) fn position(&self) -> u64 {
        self.start + u64_of(self.bytes.len())
    }

    /// Begins a page that continues a record with so many bytes, or none.
    pub(crate) fn page(&mut self, flags: u16, remaining: usize) {
        assert!(self.bytes.len().is_multiple_of(self.page_bytes));
        let address = self.position();
        let is_first = self.bytes.len().is_multiple_of(SEGMENT_BYTES);
        let flags = flags | if is_first { 2 } else { 0 };
        self.bytes.extend(self.magic.to_le_bytes());
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend(address.to_le_bytes());
        self.bytes.extend(u32_of(remaining).to_le_bytes());
        self.bytes.extend([0; 4]);
        if is_first {
            self.bytes.extend(77_u64.to_le_bytes());
            self.bytes.extend(u32_of(SEGMENT_BYTES).to_le_bytes());
            self.bytes.extend(u32_of(self.page_bytes).to_le_bytes());
        }
    }

    /// Writes a record with `main` as its main data.
    pub(crate) fn record(&mut self, manager: u8, info: u8, main: &[u8]) -> &Written {
        let mut body = Vec::new();
        match u8::try_from(main.len()) {
            Ok(0) => {}
            Ok(length) => body.extend([255, length]),
            Err(_) => {
                body.push(254);
                body.extend(u32_of(main.len()).to_le_bytes());
            }
        }
        body.extend(main);
        self.raw_record(manager, info, body)
    }

    pub(crate) fn raw_record(&mut self, manager: u8, info: u8, body: Vec<u8>) -> &Written {
        if self.bytes.len().is_multiple_of(self.page_bytes) {
            self.page(0, 0);
        }
        let total_bytes = u32_of(24 + body.len());
        let mut record = Vec::new();
        record.extend(total_bytes.to_le_bytes());
        record.extend(self.xid.to_le_bytes());
        record.extend(self.previous.to_le_bytes());
        record.extend([info, manager, 0, 0]);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&body), &record);
        record.extend(checksum.to_le_bytes());
        record.extend(&body);
        let begin = self.position();
        let mut rest = &record[..];
        loop {
            let room = self.page_bytes - self.bytes.len() % self.page_bytes;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.bytes.extend(now);
            rest = later;
            if rest.is_empty() {
                break;
            }
            self.page(1, rest.len());
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.written.push(Written {
            begin,
            end: self.position(),
            previous: self.previous,
            total_bytes,
            body,
        });
        self.previous = begin;
        self.written.last().unwrap()
    }

    /// Fills up with zeros to the end of the segment.
    pub(crate) fn fill(&mut self) {
        let whole = self.bytes.len().next_multiple_of(SEGMENT_BYTES);
        self.bytes.resize(whole, 0);
    }

    pub(crate) fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(SEGMENT_BYTES)
    }

    pub(crate) fn offset(&self, lsn: Lsn) -> usize {
        usize::try_from(lsn.to_u64() - self.start).unwrap()
    }
}
