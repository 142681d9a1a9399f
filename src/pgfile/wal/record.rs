//! A record: its header, its place, and the parts that its body falls into.
//!
//! Source: `XLogRecord` and the headers behind it, src/include/access/xlogrecord.h, and
//! `DecodeXLogRecord`, src/backend/access/transam/xlogreader.c, PostgreSQL 13 to 18. Not here:
//! putting records together over pages (`walk`), and what their main data says.

use crate::domain::lsn::Lsn;
use crate::fault::{Fault, Kind};
use crate::pgfile::wal::block::{BlockReferences, Item};
use crate::pgfile::wal::resource_manager::ResourceManager;

/// The bytes of a record's header, and the least that a record has.
pub const RECORD_HEADER_BYTES: usize = 24;

/// How much of the header its checksum covers, after the body: all but the checksum.
pub(super) const CHECKED_HEADER_BYTES: usize = 20;

/// The bits of `info` that belong to the resource manager.
const MANAGER_INFO: u8 = 0xF0;

/// The fixed beginning of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// The length of the whole record, this header included, in bytes.
    pub total_bytes: u32,
    /// The transaction that wrote it; 0 for none.
    pub xid: u32,
    /// Where the record before it begins; 0/0 for the first of a cluster.
    pub previous: Lsn,
    /// What kind of record it is, in the upper half; flags of the log itself below.
    pub info: u8,
    /// The number of the resource manager that wrote it.
    pub manager: u8,
    /// The CRC-32C of body and header, in this order.
    pub checksum: u32,
}

/// A record of the log, borrowed from the bytes that it was read from.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its first byte.
    pub begin: Lsn,
    /// Where the next one may begin: PostgreSQL's own word for a record's end. After a switch of
    /// segments the beginning of the next segment.
    pub end: Lsn,
    /// Its header.
    pub header: RecordHeader,
    /// Who wrote it.
    pub manager: ResourceManager,
    /// The major version of the server that wrote it.
    pub major: u32,
    /// What follows its header; `None` when it lies on several pages and was not asked for.
    pub body: Option<&'a [u8]>,
}

/// The body of a record, taken apart.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    /// What its resource manager says in it.
    pub main_data: &'a [u8],
    /// The replication origin that the change came from.
    pub origin: Option<u16>,
    /// The transaction that the writer is a subtransaction of, where the record says so.
    pub top_level_xid: Option<u32>,
    blocks: BlockReferences<'a>,
}

/// The body of a record is not what records have. Its checksum, if it was checked, is right, so
/// this is of a server that is not known here, or no damage but malice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record at {at} holds no {what}")]
pub struct RecordError {
    /// Where it begins.
    pub at: Lsn,
    /// What could not be read of it.
    pub what: &'static str,
}

impl Fault for RecordError {
    fn kind(&self) -> Kind {
        Kind::Corrupt
    }
}

impl RecordHeader {
    /// The fields of these bytes, whatever they are.
    pub(super) fn parse(bytes: &[u8; RECORD_HEADER_BYTES]) -> Self {
        Self {
            total_bytes: u32::from_le_bytes(field(bytes, 0)),
            xid: u32::from_le_bytes(field(bytes, 4)),
            previous: Lsn::new(u64::from_le_bytes(field(bytes, 8))),
            info: bytes[16],
            manager: bytes[17],
            checksum: u32::from_le_bytes(field(bytes, 20)),
        }
    }

    /// What kind of record it is, a number of its resource manager's.
    pub fn kind(self) -> u8 {
        self.info & MANAGER_INFO
    }
}

impl<'a> Record<'a> {
    /// Takes the body apart, without copying.
    pub fn parts(&self) -> Result<Parts<'a>, RecordError> {
        let wrong = |what| RecordError {
            at: self.begin,
            what,
        };
        let body = self.body.ok_or(wrong("body that was kept"))?;
        let mut headers = BlockReferences::new(body, self.major);
        let mut parts = Parts {
            main_data: &[],
            origin: None,
            top_level_xid: None,
            blocks: headers.clone(),
        };
        let mut main_bytes = 0;
        loop {
            match headers.item().map_err(wrong)? {
                None => break,
                Some(Item::Block(_)) => {}
                Some(Item::Origin(origin)) => parts.origin = Some(origin),
                Some(Item::TopLevelXid(xid)) => parts.top_level_xid = Some(xid),
                Some(Item::MainData(bytes)) => main_bytes = bytes,
            }
        }
        // The blocks' images and data come first, then the main data, to the very end.
        parts.main_data = headers.main_data(main_bytes).ok_or(wrong("whole data"))?;
        Ok(parts)
    }
}

impl<'a> Parts<'a> {
    /// The blocks that the record changes, in its own order.
    pub fn blocks(&self) -> BlockReferences<'a> {
        self.blocks.clone()
    }
}

fn field<const N: usize>(header: &[u8; RECORD_HEADER_BYTES], offset: usize) -> [u8; N] {
    header[offset..]
        .first_chunk()
        .copied()
        .expect("offsets are constants within the header")
}
