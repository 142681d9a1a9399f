//! Resource managers: the parts of PostgreSQL that write records, one byte of each record's header.
//!
//! Source: src/include/access/rmgrlist.h and rmgr.h, PostgreSQL 13 to 18, which have the same
//! list; extensions' own came with 15. Not here: what each one's records say.

use std::fmt;

/// The part of the server that wrote a record and replays it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceManager(u8);

/// The built-in ones in the order of their numbers, as `pg_waldump` spells them.
const NAMES: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

/// The first number that is left to extensions, from 15 on.
const CUSTOM_MIN: u8 = 128;

impl ResourceManager {
    /// The log itself: checkpoints, segment switches, restore points.
    pub const XLOG: Self = Self(0);
    /// Commits, aborts and what leads to them.
    pub const TRANSACTION: Self = Self(1);

    /// The one of this number in PostgreSQL `major`; `None` where it has none.
    pub fn new(number: u8, major: u32) -> Option<Self> {
        let is_known = usize::from(number) < NAMES.len() || (major >= 15 && number >= CUSTOM_MIN);
        is_known.then_some(Self(number))
    }
}

impl fmt::Display for ResourceManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0)) {
            Some(name) => f.pad(name),
            None => write!(f, "custom{:03}", self.0),
        }
    }
}
