//! The log's records about itself: checkpoints, restore points, ends of timelines.
//!
//! Source: `CheckPoint` and the kinds of record, src/include/catalog/pg_control.h, and the other
//! records, src/include/access/xlog_internal.h and xlogdesc.c, PostgreSQL 13 to 18. What is read
//! of them lies in the same place in all of these. Not here: `pg_control` (`pgfile::control`).

use chrono::{DateTime, Utc};

use crate::domain::lsn::Lsn;
use crate::domain::timeline::TimelineId;
use crate::pgfile::wal::cursor::Cursor;
use crate::pgfile::wal::record::{Record, RecordError};
use crate::pgfile::wal::resource_manager::ResourceManager;

/// The kinds of record.
const CHECKPOINT_SHUTDOWN: u8 = 0x00;
const CHECKPOINT_ONLINE: u8 = 0x10;
pub(super) const SWITCH: u8 = 0x40;
const BACKUP_END: u8 = 0x50;
const PARAMETER_CHANGE: u8 = 0x60;
const RESTORE_POINT: u8 = 0x70;
const END_OF_RECOVERY: u8 = 0x90;
const OVERWRITE_CONTRECORD: u8 = 0xD0;
const CHECKPOINT_REDO: u8 = 0xE0;

/// The room that a restore point's name has, the zero at its end included.
const NAME_BYTES: usize = 64;

/// What a record of the log about itself says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XlogRecord<'a> {
    /// A checkpoint.
    Checkpoint(Checkpoint),
    /// Recovery from the checkpoint that is now being made begins here (17 and later).
    CheckpointRedo,
    /// The rest of the segment is empty.
    Switch,
    /// The backup that began at `start` has been copied: recovery from it is consistent here.
    BackupEnd {
        /// Where the backup began.
        start: Lsn,
    },
    /// A setting was changed that standbys must follow.
    ParameterChange,
    /// A named point that recovery can stop at.
    RestorePoint {
        /// When it was made.
        time: DateTime<Utc>,
        /// Its name, 1 to 63 bytes in the encoding of the database it was made from.
        name: &'a [u8],
    },
    /// Recovery ended, by a promotion that needed no checkpoint.
    EndOfRecovery {
        /// When.
        time: DateTime<Utc>,
        /// The switch of timelines.
        timelines: Timelines,
    },
    /// The record that began at `begin` was given up, and this follows in its place.
    OverwriteContrecord {
        /// Where it began.
        begin: Lsn,
        /// When.
        time: DateTime<Utc>,
    },
    /// Anything else, images of blocks above all.
    Other,
}

/// A checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whether the server was shutting down, or ended its recovery: nothing else was written
    /// meanwhile, and a change of timelines takes effect with it.
    pub is_shutdown: bool,
    /// Where recovery from it begins to read.
    pub redo: Lsn,
    /// Its timeline and the one before.
    pub timelines: Timelines,
    /// The next transaction id to be given out, with its epoch in the upper half.
    pub next_xid: u64,
    /// The oldest transaction id that may still be in a table.
    pub oldest_xid: u32,
    /// When it was begun.
    pub time: DateTime<Utc>,
}

/// The timeline that is written to, and the one before it: the same one unless it changes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timelines {
    /// The timeline from here on.
    pub current: TimelineId,
    /// The one up to here.
    pub previous: TimelineId,
}

impl Timelines {
    /// Whether the timeline changes here.
    pub fn is_switch(self) -> bool {
        self.current != self.previous
    }

    fn read(main: &mut Cursor<'_>) -> Option<Self> {
        Some(Self {
            current: TimelineId::new(main.u32()?)?,
            previous: TimelineId::new(main.u32()?)?,
        })
    }
}

impl<'a> XlogRecord<'a> {
    /// What the record says, if it is one of the log about itself.
    ///
    /// # Errors
    /// It is one and says something else than those of its version do.
    pub fn parse(record: &Record<'a>) -> Result<Option<Self>, RecordError> {
        if record.manager != ResourceManager::XLOG {
            return Ok(None);
        }
        let wrong = |what| RecordError {
            at: record.begin,
            what,
        };
        let kind = record.header.kind();
        let what = match kind {
            CHECKPOINT_SHUTDOWN | CHECKPOINT_ONLINE => "checkpoint",
            BACKUP_END => "end of a backup",
            RESTORE_POINT => "restore point",
            END_OF_RECOVERY => "end of a recovery",
            OVERWRITE_CONTRECORD => "record that was given up",
            SWITCH => return Ok(Some(Self::Switch)),
            PARAMETER_CHANGE => return Ok(Some(Self::ParameterChange)),
            CHECKPOINT_REDO if record.major >= 17 => return Ok(Some(Self::CheckpointRedo)),
            _ => return Ok(Some(Self::Other)),
        };
        let main = Cursor(record.parts()?.main_data);
        Self::read(kind, main).map(Some).ok_or(wrong(what))
    }

    fn read(kind: u8, mut main: Cursor<'a>) -> Option<Self> {
        Some(match kind {
            BACKUP_END => Self::BackupEnd {
                start: Lsn::new(main.u64()?),
            },
            RESTORE_POINT => Self::RestorePoint {
                time: main.time()?,
                name: Cursor(main.take(NAME_BYTES)?).text()?,
            },
            END_OF_RECOVERY => Self::EndOfRecovery {
                time: main.time()?,
                timelines: Timelines::read(&mut main)?,
            },
            OVERWRITE_CONTRECORD => Self::OverwriteContrecord {
                begin: Lsn::new(main.u64()?),
                time: main.time()?,
            },
            _ => Self::Checkpoint(Checkpoint::read(kind == CHECKPOINT_SHUTDOWN, main)?),
        })
    }
}

impl Checkpoint {
    fn read(is_shutdown: bool, mut main: Cursor<'_>) -> Option<Self> {
        let redo = Lsn::new(main.u64()?);
        let timelines = Timelines::read(&mut main)?;
        main.take(8)?; // full_page_writes and padding, with wal_level in it since 17
        let next_xid = main.u64()?;
        main.take(12)?; // the next OID and multixact
        let oldest_xid = main.u32()?;
        main.take(16)?; // its database, the same of multixacts, and padding
        Some(Self {
            is_shutdown,
            redo,
            timelines,
            next_xid,
            oldest_xid,
            time: main.unix_time()?,
        })
    }
}
