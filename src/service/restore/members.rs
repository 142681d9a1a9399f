//! Which members of a data directory's archive are written, and where.
//!
//! Archives by other tools hold files that would make the new server take itself for the old
//! one, or start before it is whole. Pure. Not here: writing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The name of the file that marks an unfinished restore: while it is there, the directory is no
/// database.
pub(crate) const MARKER: &str = "cellarman_restore_unfinished";

/// Where `pg_control` waits until everything else is on disk: no server starts without it.
pub(crate) const CONTROL_HELD: &str = "global/pg_control.cellarman_unfinished";

/// Where it belongs.
pub(crate) const CONTROL: &str = "global/pg_control";

/// The directories that a server needs, empty or not, below its data directory.
pub(crate) const DIRECTORIES: [&str; 22] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_wal/archive_status",
    "pg_xact",
];

/// Files at the root that a restore makes itself, or takes from every backup.
const USUAL_FILES: [&str; 8] = [
    "PG_VERSION",
    "backup_label",
    "backup_manifest",
    "pg_hba.conf",
    "postgresql.auto.conf",
    "postgresql.conf",
    "recovery.signal",
    MARKER,
];

/// Files at the root that belong to the life of the source: its lock, its role, its place in
/// another recovery. `tablespace_map` would make the server link its tablespaces back to where
/// the source has them.
const OF_THE_SOURCE: [&str; 11] = [
    "postmaster.pid",
    "postmaster.opts",
    "recovery.signal",
    "standby.signal",
    "recovery.conf",
    "recovery.done",
    "promote",
    "fallback_promote",
    "tablespace_map",
    "logrotate",
    MARKER,
];

/// Folders of `pg_wal` whose contents are about the source's archive.
const ARCHIVING_STATE: [&str; 2] = ["pg_wal/archive_status", "pg_wal/.cellarman"];

/// What no database lives without; a tar that has a link in its place does not have it.
const ESSENTIAL: [&str; 4] = ["base", "global", "pg_multixact", "pg_xact"];

/// Whether every restore puts such a name at the top of a data directory.
pub(crate) fn is_usual(name: &OsStr) -> bool {
    let mut usual = USUAL_FILES.iter().chain(&DIRECTORIES);
    usual.any(|usual| name == *usual)
}

/// What becomes of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is written at this path below the root.
    At(PathBuf),
    /// It is not written.
    LeftOut,
    /// It is a link in the place of files without which there is no database.
    LinkedAway,
}

/// Where a member of the data directory's archive goes.
pub(crate) fn place(relative: &Path, is_symlink: bool) -> Place {
    let is_named = |name: &str| relative == Path::new(name);
    let is_state = ARCHIVING_STATE
        .iter()
        .any(|folder| relative.starts_with(folder) && !is_named(folder));
    // Behind it are the files of the source, which no tar holds: never to be written through.
    if is_symlink && ESSENTIAL.iter().any(|name| relative.starts_with(name)) {
        return Place::LinkedAway;
    }
    // A link in the place of one of the server's own directories leads to where the source keeps
    // it, and a live cluster may use it. Tablespaces are linked from the backup's record.
    let is_foreign_link = is_symlink
        && (DIRECTORIES.iter().any(|name| is_named(name)) || relative.starts_with("pg_tblspc"));
    if is_state || is_foreign_link || OF_THE_SOURCE.iter().any(|name| is_named(name)) {
        Place::LeftOut
    } else if is_named(CONTROL) {
        Place::At(PathBuf::from(CONTROL_HELD))
    } else {
        Place::At(relative.to_owned())
    }
}

/// Where a member of a tablespace's archive goes.
pub(crate) fn place_in_tablespace(relative: &Path) -> Place {
    if relative == Path::new(MARKER) {
        Place::LeftOut
    } else {
        Place::At(relative.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_source_is_left_out() {
        for (name, is_symlink, expected) in [
            ("base/5/16391", false, Some("base/5/16391")),
            ("global/pg_control", false, Some(CONTROL_HELD)),
            ("backup_label", false, Some("backup_label")),
            ("tablespace_map", false, None),
            ("postmaster.pid", false, None),
            ("recovery.signal", false, None),
            ("sub/standby.signal", false, Some("sub/standby.signal")),
            ("pg_wal", false, Some("pg_wal")),
            ("pg_wal", true, None),
            ("pg_tblspc/16384", true, None),
            (
                "pg_tblspc/16384/PG_15_202209061",
                false,
                Some("pg_tblspc/16384/PG_15_202209061"),
            ),
            ("server.crt", true, Some("server.crt")),
            (
                "pg_wal/archive_status",
                false,
                Some("pg_wal/archive_status"),
            ),
            (
                "pg_wal/archive_status/000000010000000000000001.ready",
                false,
                None,
            ),
            (
                "pg_wal/.cellarman/spool/000000010000000000000001",
                false,
                None,
            ),
        ] {
            let expected = expected.map_or(Place::LeftOut, |path| Place::At(path.into()));
            assert_eq!(place(Path::new(name), is_symlink), expected, "{name}");
        }
        for name in [
            "base",
            "pg_xact",
            "base/16384",
            "pg_multixact/offsets",
            "global/1262",
        ] {
            assert_eq!(place(Path::new(name), true), Place::LinkedAway, "{name}");
            assert_eq!(
                place(Path::new(name), false),
                Place::At(name.into()),
                "{name}"
            );
        }
    }
}
