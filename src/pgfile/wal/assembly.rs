//! A record that lies on several pages, put together piece by piece.
//!
//! Not here: which piece comes next (`walk`).

use crate::domain::lsn::Lsn;
use crate::pgfile::wal::reader::{Bodies, ReaderOptions};
use crate::pgfile::wal::record::{CHECKED_HEADER_BYTES, RECORD_HEADER_BYTES, RecordHeader};

/// No body over page edges is kept that is longer; such a one is read as if it was not asked for.
const BODY_BYTES_MAX: usize = 64 << 20;

/// A record of which a beginning has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assembly {
    pub(super) begin: Lsn,
    pub(super) total_bytes: u32,
    pub(super) held_bytes: u32,
    header: [u8; RECORD_HEADER_BYTES],
    /// Of the body so far.
    checksum: u32,
    /// Empty when it is not kept.
    body: Vec<u8>,
    is_kept: bool,
}

impl Assembly {
    pub(super) fn new(begin: Lsn, total_bytes: u32) -> Self {
        Self {
            begin,
            total_bytes,
            held_bytes: 0,
            header: [0; RECORD_HEADER_BYTES],
            checksum: 0,
            body: Vec::new(),
            is_kept: true,
        }
    }

    /// One that was put aside: its header as far as it was held, and its body if that was kept.
    pub(super) fn restored(
        (begin, total_bytes, held_bytes): (Lsn, u32, u32),
        header: [u8; RECORD_HEADER_BYTES],
        body: Option<&[u8]>,
    ) -> Option<Self> {
        let body_bytes = to_usize(held_bytes).saturating_sub(RECORD_HEADER_BYTES);
        let is_sound = held_bytes <= total_bytes
            && body.is_none_or(|body| body.len() == body_bytes)
            && to_usize(total_bytes) >= RECORD_HEADER_BYTES;
        is_sound.then(|| Self {
            begin,
            total_bytes,
            held_bytes,
            header,
            checksum: body.map_or(0, crc32c::crc32c),
            body: body.unwrap_or_default().to_vec(),
            is_kept: body.is_some(),
        })
    }

    /// The bytes of its header, of which those not held are zeros.
    pub(super) fn header_bytes(&self) -> &[u8; RECORD_HEADER_BYTES] {
        &self.header
    }

    /// The header, when all of it is held.
    pub(super) fn whole_header(&self) -> Option<RecordHeader> {
        (to_usize(self.held_bytes) >= RECORD_HEADER_BYTES).then(|| self.record_header())
    }

    /// The header, of which what is not held reads as zeros.
    pub(super) fn record_header(&self) -> RecordHeader {
        RecordHeader::parse(&self.header)
    }

    /// Takes the next bytes; whether the header is whole with them and was not before.
    pub(super) fn append(&mut self, bytes: &[u8], options: ReaderOptions) -> bool {
        let held = to_usize(self.held_bytes);
        let missing = RECORD_HEADER_BYTES.saturating_sub(held).min(bytes.len());
        let (fixed, body) = bytes.split_at(missing);
        self.header[held.min(RECORD_HEADER_BYTES)..][..missing].copy_from_slice(fixed);
        self.held_bytes += to_u32(bytes.len());
        let is_header_read = missing > 0 && held + missing == RECORD_HEADER_BYTES;
        if is_header_read {
            let manager = self.header[17];
            self.is_kept = match options.bodies {
                Bodies::All => true,
                Bodies::OfRecovery => Bodies::is_of_recovery(manager),
            };
        }
        if options.check_crc {
            self.checksum = crc32c::crc32c_append(self.checksum, body);
        }
        if self.is_kept && self.body.len() + body.len() > BODY_BYTES_MAX {
            self.is_kept = false;
            self.body = Vec::new();
        }
        if self.is_kept {
            self.body.extend_from_slice(body);
        }
        is_header_read
    }

    /// What the bytes of a whole record make, if checksums are wanted.
    pub(super) fn checksum(&self) -> u32 {
        crc32c::crc32c_append(self.checksum, &self.header[..CHECKED_HEADER_BYTES])
    }

    /// The body so far, if it is kept.
    pub(super) fn body(&self) -> Option<&[u8]> {
        self.is_kept.then_some(&self.body)
    }
}

/// Lengths of records fit, for they are at most [`RECORD_BYTES_MAX`].
pub(super) fn to_usize(bytes: u32) -> usize {
    usize::try_from(bytes).expect("32 bits fit on every machine that PostgreSQL runs on")
}

pub(super) fn to_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("no more than a page")
}
