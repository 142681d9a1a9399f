//! What differs between PostgreSQL's major versions, as rows of one table.
//!
//! Not here: the code that acts on a difference.

use std::fmt;

/// What Cellarman must know of a major version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerVersion {
    /// The major version, 13 to 18.
    pub major: u32,
    /// The number in the name of a tablespace's folder, `PG_<major>_<catalog>`.
    pub catalog: u32,
    /// The magic number of a WAL page (`XLOG_PAGE_MAGIC`).
    pub wal_magic: u16,
    /// `pg_backup_start` and `pg_backup_stop` (15 and later) instead of `pg_start_backup` and `pg_stop_backup`.
    pub has_backup_start: bool,
    /// The `PostgreSQL-Backup-Manifest-Version` that the server's own tools write.
    pub manifest_version: u32,
    /// The setting `summarize_wal` exists.
    pub has_summarize_wal: bool,
}

const fn row(major: u32, catalog: u32, wal_magic: u16) -> ServerVersion {
    ServerVersion {
        major,
        catalog,
        wal_magic,
        has_backup_start: major >= 15,
        manifest_version: if major >= 17 { 2 } else { 1 },
        has_summarize_wal: major >= 17,
    }
}

/// The versions known, oldest first. Source: `CATALOG_VERSION_NO` in
/// src/include/catalog/catversion.h and `XLOG_PAGE_MAGIC` in src/include/access/xlog_internal.h.
const KNOWN: [ServerVersion; 6] = [
    row(13, 202_007_201, 0xD106),
    row(14, 202_107_181, 0xD10D),
    row(15, 202_209_061, 0xD110),
    row(16, 202_307_071, 0xD113),
    row(17, 202_406_281, 0xD116),
    row(18, 202_506_291, 0xD118),
];

/// A server of a version that is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("PostgreSQL {major} is not known to this release, which serves 13 to 18")]
pub struct UnknownVersion {
    /// The major version met.
    pub major: u32,
}

impl ServerVersion {
    /// The row for a `server_version_num` such as 150020.
    pub fn from_number(number: u32) -> Result<Self, UnknownVersion> {
        let major = number / 10_000;
        KNOWN
            .into_iter()
            .find(|v| v.major == major)
            .ok_or(UnknownVersion { major })
    }

    /// The row for a WAL page's magic number; `None` for one not known.
    pub fn from_wal_magic(magic: u16) -> Option<Self> {
        KNOWN.into_iter().find(|v| v.wal_magic == magic)
    }

    /// The name of the folder that holds this version's files in a tablespace.
    pub fn tablespace_folder(self) -> String {
        format!("PG_{}_{}", self.major, self.catalog)
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {}", self.major)
    }
}
