//! What of a data directory does not belong into a backup: decided by names alone.
//!
//! Source: `excludeDirContents` and `excludeFiles`, PostgreSQL 18,
//! src/backend/backup/basebackup.c, and the leftovers of tools and crashes on top.

use crate::postgres::relation::{RelationFile, is_digits};

/// Folders at the top that are kept empty: their contents are made anew, or are no data.
const EMPTIED: [&str; 10] = [
    "pg_wal",
    "pg_replslot",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    "log",
    "pg_log",
];

/// Files at the top that say what the running server does, or what an earlier backup or recovery did.
const LEFT_OUT: [&str; 15] = [
    "postmaster.pid",
    "postmaster.opts",
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "recovery.signal",
    "standby.signal",
    "recovery.conf",
    "backup_label",
    "backup_label.old",
    "tablespace_map",
    "tablespace_map.old",
    "backup_manifest",
    "backup_manifest.old",
    "backup_manifest.tmp",
    ".check-empty-wal-archive",
];

/// Folders at the top that a server's files may live behind a link of; the link is followed.
const FOLLOWED: [&str; 9] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_logical",
    "pg_multixact",
    "pg_stat",
    "pg_twophase",
    "pg_xact",
    "pg_tblspc",
];

/// What to do with a name met on the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It belongs into the backup.
    Take,
    /// As a folder without contents, whatever it is.
    TakeEmpty,
    /// It does not.
    Leave,
    /// A file of an unlogged relation if the relation has an `_init` fork: then it does not.
    TakeUnlessUnlogged,
}

/// Where on the walk a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The data directory itself.
    Top,
    /// `global`.
    Global,
    /// `pg_tblspc`.
    Tablespaces,
    /// `base` or the version's folder of a tablespace: what holds databases.
    Databases,
    /// The files of one database in one tablespace.
    Database,
    /// Any other.
    Other,
}

impl Place {
    /// Where the folder `name` inside a folder at this place is.
    pub(super) fn inside(self, name: &str) -> Self {
        match self {
            Self::Top => match name {
                "base" => Self::Databases,
                "global" => Self::Global,
                "pg_tblspc" => Self::Tablespaces,
                _ => Self::Other,
            },
            Self::Databases if is_digits(name) => Self::Database,
            // `pg_tblspc/<oid>/PG_<version>`: a tablespace made in place.
            Self::Other if name.starts_with("PG_") => Self::Databases,
            _ => Self::Other,
        }
    }

    /// Whether the relation files here carry page checksums.
    pub(super) fn has_relations(self) -> bool {
        matches!(self, Self::Global | Self::Database)
    }

    /// Whether a link to a folder is followed, for the server's own data lies behind it.
    pub(super) fn follows(self, name: &str) -> bool {
        match self {
            Self::Top => FOLLOWED.contains(&name),
            Self::Databases => is_digits(name),
            _ => false,
        }
    }

    /// What to do with `name` in a folder at this place.
    pub(super) fn verdict(self, name: &str) -> Verdict {
        if name.starts_with("pgsql_tmp") || name.starts_with("pg_internal.init") {
            return Verdict::Leave;
        }
        match self {
            Self::Top if EMPTIED.contains(&name) => Verdict::TakeEmpty,
            Self::Top if LEFT_OUT.contains(&name) || is_core(name) => Verdict::Leave,
            // Copied by itself, after everything else.
            Self::Global if name == "pg_control" => Verdict::Leave,
            Self::Database => match RelationFile::parse(name) {
                Some(file) if file.is_temporary => Verdict::Leave,
                Some(file) if file.fork != Some("init") => Verdict::TakeUnlessUnlogged,
                _ => Verdict::Take,
            },
            _ => Verdict::Take,
        }
    }
}

fn is_core(name: &str) -> bool {
    name.strip_prefix("core")
        .is_some_and(|rest| rest.is_empty() || rest.strip_prefix('.').is_some_and(is_digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_depend_on_the_place() {
        use Place::{Database, Databases, Global, Other, Top};
        use Verdict::{Leave, Take, TakeEmpty, TakeUnlessUnlogged};
        for (place, name, expected) in [
            (Top, "pg_wal", TakeEmpty),
            (Other, "pg_wal", Take),
            (Top, "backup_label", Leave),
            (Top, "backup_label.old", Leave),
            (Other, "backup_label", Take),
            (Top, "postgresql.auto.conf", Take),
            (Top, "core", Leave),
            (Top, "core.123", Leave),
            (Top, "core.txt", Take),
            (Top, "corelation", Take),
            (Global, "pg_control", Leave),
            (Global, "pg_internal.init.77", Leave),
            (Databases, "pgsql_tmp", Leave),
            (Database, "pgsql_tmp123.4", Leave),
            (Database, "t3_16384", Leave),
            (Database, "16384_init", Take),
            (Database, "16384.1", TakeUnlessUnlogged),
            (Database, "PG_VERSION", Take),
            (Global, "1262", Take),
        ] {
            assert_eq!(place.verdict(name), expected, "{place:?} {name}");
        }
    }

    #[test]
    fn databases_are_found_in_base_and_in_tablespaces() {
        let at = |path: &str| path.split('/').fold(Place::Top, Place::inside);
        for (path, place) in [
            ("base", Place::Databases),
            ("base/5", Place::Database),
            ("base/x", Place::Other),
            ("global", Place::Global),
            ("pg_tblspc", Place::Tablespaces),
            ("pg_tblspc/16384/PG_15_202209061", Place::Databases),
            ("pg_tblspc/16384/PG_15_202209061/5", Place::Database),
            ("pg_xact", Place::Other),
            ("pg_multixact/offsets", Place::Other),
        ] {
            assert_eq!(at(path), place, "{path}");
        }
    }
}
