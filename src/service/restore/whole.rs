//! Whether everything came back: the restored files held to the backup's own `backup_manifest`.
//!
//! The last of several archives may be lost without a gap in their numbers, and then only the
//! manifest knows. Sizes are compared, contents not: each archive has its own digest or checksum.
//! Everything here blocks. Not here: reading the manifest's format (`pgfile::manifest_reader`).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::pgfile::manifest_reader::{self, ManifestFile};
use crate::service::restore::error::RestoreError;
use crate::service::restore::members::{self, Place};
use crate::service::restore::plan::RestorePlan;

const MANIFEST: &str = "backup_manifest";
const TABLESPACES: &str = "pg_tblspc";
/// Files named in an error.
const NAMED_MAX: usize = 5;
const BUFFER_BYTES: usize = 256 << 10;

/// Compares what was extracted, before anything of it is changed. Returns what the user should know.
pub(crate) fn check(plan: &RestorePlan) -> Result<Option<String>, RestoreError> {
    let path = plan.pgdata.join(MANIFEST);
    if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
        // Backups by other tools have none.
        return Ok(None);
    }
    let file = File::open(&path).map_err(RestoreError::local("open", &path))?;
    let mut wrong = Wrong::default();
    let read = manifest_reader::read(BufReader::with_capacity(BUFFER_BYTES, file), |file| {
        wrong.add(&file, found_size(plan, &file.path));
    });
    let note = |why: String| {
        Ok(Some(format!(
            "{MANIFEST} {why}: the files were not held to it."
        )))
    };
    match read {
        Err(error) if error.is_io() => Err(RestoreError::local("read", &path)(
            std::io::Error::from(error),
        )),
        Err(error) => note(format!("cannot be read ({error})")),
        // One may have lain in the data directory since that was made from another backup.
        Ok(starts)
            if !starts
                .iter()
                .any(|start| Some(*start) == plan.backup.begin_lsn) =>
        {
            note("is of another backup".to_owned())
        }
        Ok(_) if wrong.count == 0 => Ok(None),
        Ok(_) => Err(RestoreError::Incomplete {
            backup: plan.backup.id.clone(),
            count: wrong.count,
            files: wrong.named,
        }),
    }
}

/// What of the manifest did not come back.
#[derive(Default)]
struct Wrong {
    count: u64,
    named: Vec<String>,
}

impl Wrong {
    fn add(&mut self, file: &ManifestFile, found: Found) {
        let name = || String::from_utf8_lossy(&file.path).into_owned();
        let text = match found {
            Found::NotOurs => return,
            Found::Size(size) if size == file.size => return,
            Found::Size(size) => format!("{} has {size} of {} bytes", name(), file.size),
            Found::Nothing => format!("{} is missing", name()),
        };
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(text);
        }
    }
}

#[derive(Clone, Copy)]
enum Found {
    /// A file of this size.
    Size(u64),
    /// No file.
    Nothing,
    /// Not written, or not as a file, by any restore.
    NotOurs,
}

fn found_size(plan: &RestorePlan, path: &[u8]) -> Found {
    let relative = Path::new(OsStr::from_bytes(path));
    let is_inside = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !is_inside {
        return Found::Nothing;
    }
    let Some(here) = place(plan, relative) else {
        return Found::NotOurs;
    };
    match fs::symlink_metadata(&here) {
        Ok(found) if found.is_file() => Found::Size(found.len()),
        Ok(found) if found.is_symlink() => Found::NotOurs,
        _ => Found::Nothing,
    }
}

/// Where a file of the manifest lies now; tablespaces are not linked yet.
fn place(plan: &RestorePlan, relative: &Path) -> Option<PathBuf> {
    if let Ok(below) = relative.strip_prefix(TABLESPACES) {
        let mut parts = below.components();
        let oid = parts.next()?.as_os_str().to_str()?;
        let mut known = plan.tablespaces.iter();
        if let Some(tablespace) = known.find(|tablespace| tablespace.oid.to_string() == oid) {
            return Some(tablespace.new.join(parts.as_path()));
        }
    }
    match members::place(relative, false) {
        Place::At(relative) => Some(plan.pgdata.join(relative)),
        Place::LeftOut | Place::LinkedAway => None,
    }
}
