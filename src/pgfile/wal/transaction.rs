//! The records of transactions: which ended when, with which subtransactions.
//!
//! Source: src/include/access/xact.h and `ParseCommitRecord`, `ParseAbortRecord` and
//! `ParsePrepareRecord`, src/backend/access/rmgrdesc/xactdesc.c, PostgreSQL 13 to 18. Not here:
//! what else a transaction wrote.

use chrono::{DateTime, Utc};

use crate::domain::lsn::Lsn;
use crate::pgfile::wal::block::RelationFiles;
use crate::pgfile::wal::cursor::Cursor;
use crate::pgfile::wal::record::{Record, RecordError};
use crate::pgfile::wal::resource_manager::ResourceManager;

/// The kinds of record, and the bit beside them that says that flags follow the time.
const KIND: u8 = 0x70;
const COMMIT: u8 = 0x00;
const PREPARE: u8 = 0x10;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;
const ASSIGNMENT: u8 = 0x50;
const INVALIDATIONS: u8 = 0x60;
const HAS_FLAGS: u8 = 0x80;

/// The flags: each but the last ones announces a part, in the order of [`End::parse`].
const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBTRANSACTIONS: u32 = 1 << 1;
const HAS_RELATIONS: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_PREPARED_XID: u32 = 1 << 4;
const HAS_ORIGIN: u32 = 1 << 5;
const HAS_GID: u32 = 1 << 7;
const HAS_DROPPED_STATS: u32 = 1 << 8;

/// The bytes of what is counted in a record.
const XID_BYTES: usize = 4;
const RELATION_BYTES: usize = 12;
const INVALIDATION_BYTES: usize = 16;

/// What a transaction's record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionRecord<'a> {
    /// The transaction is committed, or was prepared and is now.
    Commit(End<'a>),
    /// The transaction is rolled back, or was prepared and is now; or a subtransaction is.
    Abort(End<'a>),
    /// The transaction is prepared for two-phase commit.
    Prepare(Prepared<'a>),
    /// These are subtransactions of a transaction that is still running.
    Assignment {
        /// The transaction.
        top_level_xid: u32,
        /// Its subtransactions, some of them.
        subtransactions: Xids<'a>,
    },
    /// Caches were made invalid in the midst of a transaction, for logical decoding (14 and later).
    Invalidations,
}

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End<'a> {
    /// The transaction: of a prepared one its own, not that of the command that ended it.
    pub xid: u32,
    /// When, by the clock of the server that did it.
    pub time: DateTime<Utc>,
    /// The subtransactions that ended the same way.
    pub subtransactions: Xids<'a>,
    /// The database, where the record says so.
    pub database: Option<u32>,
    /// The relations whose files are removed with it.
    pub dropped_relations: Relations<'a>,
    /// Whether it was prepared before.
    pub was_prepared: bool,
    /// The name it was prepared under, where the record says so.
    pub gid: Option<&'a [u8]>,
    /// Where the change came from when it was replicated.
    pub origin: Option<Origin>,
}

/// A transaction that is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared<'a> {
    /// The transaction.
    pub xid: u32,
    /// When.
    pub time: DateTime<Utc>,
    /// The name that it is to be committed or rolled back by, a string of at most 199 bytes in
    /// the server's encoding.
    pub gid: &'a [u8],
    /// The database.
    pub database: u32,
    /// Its subtransactions.
    pub subtransactions: Xids<'a>,
}

/// Where a replicated transaction was committed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Its place in the log there.
    pub lsn: Lsn,
    /// When.
    pub time: DateTime<Utc>,
}

/// Transaction ids in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Xids<'a>(&'a [u8]);

/// Relations in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Relations<'a>(&'a [u8]);

impl<'a> TransactionRecord<'a> {
    /// What the record says, if it is one of transactions.
    ///
    /// # Errors
    /// It is one of transactions and says something else than those of its version do.
    pub fn parse(record: &Record<'a>) -> Result<Option<Self>, RecordError> {
        if record.manager != ResourceManager::TRANSACTION {
            return Ok(None);
        }
        let wrong = |what| RecordError {
            at: record.begin,
            what,
        };
        let main = Cursor(record.parts()?.main_data);
        let end = || End::parse(record, main).ok_or(wrong("end of a transaction"));
        let read = match record.header.info & KIND {
            COMMIT | COMMIT_PREPARED => Self::Commit(end()?),
            ABORT | ABORT_PREPARED => Self::Abort(end()?),
            PREPARE => Prepared::parse(record.major, main)
                .map(Self::Prepare)
                .ok_or(wrong("prepared transaction"))?,
            ASSIGNMENT => assignment(main).ok_or(wrong("assignment of subtransactions"))?,
            INVALIDATIONS if record.major >= 14 => Self::Invalidations,
            _ => return Err(wrong("known kind of a transaction's record")),
        };
        Ok(Some(read))
    }
}

fn assignment(mut main: Cursor<'_>) -> Option<TransactionRecord<'_>> {
    let top_level_xid = main.u32()?;
    let count = main.u32()?;
    Some(TransactionRecord::Assignment {
        top_level_xid,
        subtransactions: Xids(main.items(count, XID_BYTES)?),
    })
}

impl<'a> End<'a> {
    fn parse(record: &Record<'a>, mut main: Cursor<'a>) -> Option<Self> {
        let kind = record.header.info & KIND;
        let is_commit = matches!(kind, COMMIT | COMMIT_PREPARED);
        let mut end = Self {
            xid: record.header.xid,
            time: main.time()?,
            subtransactions: Xids::default(),
            database: None,
            dropped_relations: Relations::default(),
            was_prepared: matches!(kind, COMMIT_PREPARED | ABORT_PREPARED),
            gid: None,
            origin: None,
        };
        let mut flags = 0;
        if record.header.info & HAS_FLAGS != 0 {
            flags = main.u32()?;
        }
        if flags & HAS_DATABASE != 0 {
            end.database = Some(main.u32()?);
            main.u32()?;
        }
        if flags & HAS_SUBTRANSACTIONS != 0 {
            let count = main.u32()?;
            end.subtransactions = Xids(main.items(count, XID_BYTES)?);
        }
        if flags & HAS_RELATIONS != 0 {
            let count = main.u32()?;
            end.dropped_relations = Relations(main.items(count, RELATION_BYTES)?);
        }
        if flags & HAS_DROPPED_STATS != 0 && record.major >= 15 {
            let count = main.u32()?;
            main.items(count, dropped_stats_bytes(record.major))?;
        }
        if flags & HAS_INVALIDATIONS != 0 && is_commit {
            let count = main.u32()?;
            main.items(count, INVALIDATION_BYTES)?;
        }
        if flags & HAS_PREPARED_XID != 0 {
            end.xid = main.u32()?;
            if flags & HAS_GID != 0 {
                end.gid = Some(main.text()?);
            }
        }
        if flags & HAS_ORIGIN != 0 {
            end.origin = Some(Origin {
                lsn: Lsn::new(main.u64()?),
                time: main.time()?,
            });
        }
        Some(end)
    }
}

/// The statistics of an object that is dropped, whose number has 64 bits since 18.
fn dropped_stats_bytes(major: u32) -> usize {
    if major >= 18 { 16 } else { 12 }
}

impl<'a> Prepared<'a> {
    fn parse(major: u32, main: Cursor<'a>) -> Option<Self> {
        let mut fields = main;
        fields.take(8)?; // magic number and length of the state file
        let xid = fields.u32()?;
        let database = fields.u32()?;
        let time = fields.time()?;
        fields.take(4)?; // owner
        let subtransactions = fields.u32()?;
        // Counts of relations and, since 15, of statistics to be dropped, and of invalidations;
        // then a flag and its padding.
        fields.take(if major >= 15 { 20 } else { 12 } + 2)?;
        let gid_bytes = fields.u16()?;
        fields.take(16)?; // origin
        // What follows is aligned to 8, as the fields before it are.
        let gid = fields.take(usize::from(gid_bytes).next_multiple_of(8))?;
        Some(Self {
            xid,
            time,
            gid: Cursor(gid).text()?,
            database,
            subtransactions: Xids(fields.items(subtransactions, XID_BYTES)?),
        })
    }
}

impl Xids<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len() / XID_BYTES
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them, in the record's order, which is the rising one.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let mut rest = Cursor(self.0);
        std::iter::from_fn(move || rest.u32())
    }
}

impl Relations<'_> {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = RelationFiles> {
        let mut rest = Cursor(self.0);
        std::iter::from_fn(move || RelationFiles::read(&mut rest))
    }
}
