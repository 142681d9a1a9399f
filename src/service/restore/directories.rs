//! The directories a restore fills: claimed before the first byte, cleared when it fails.
//!
//! A marker file stands in each of them from the first moment to the last, so that a restore
//! that was killed can be told from a database and cleared by the next one. Only what restores
//! put there is ever cleared. Not here: what is written into them, and the marker (`marker`).

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::service::restore::error::RestoreError;
use crate::service::restore::marker::{Marker, MarkerRecord, Root};
use crate::service::restore::members::MARKER;

/// What a directory is before a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryState {
    /// It is not there yet.
    Absent,
    /// It is there, and empty.
    Empty,
    /// A restore that died left it: it will be cleared.
    Unfinished,
}

/// Says whether `path` may be filled, with the reason when it may not.
///
/// `owner` is the data directory whose marker a tablespace's directory must name.
pub(crate) fn examine(path: &Path, owner: &Path) -> Result<DirectoryState, RestoreError> {
    let refused = |reason: &str| RestoreError::Target {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    if !path.is_absolute() {
        return Err(refused("the path is not absolute"));
    }
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match fs::symlink_metadata(path) {
                Ok(_) => Err(refused("it is a link to nowhere")),
                Err(_) => Ok(DirectoryState::Absent),
            };
        }
        Err(error) => return Err(RestoreError::local("look at", path)(error)),
        Ok(found) if !found.is_dir() => return Err(refused("it is not a directory")),
        Ok(_) => {}
    }
    if is_marked(path, owner) {
        return Ok(DirectoryState::Unfinished);
    }
    match fs::read_dir(path)
        .map_err(RestoreError::local("list", path))?
        .next()
    {
        None => Ok(DirectoryState::Empty),
        Some(entry) => {
            let entry = entry.map_err(RestoreError::local("list", path))?;
            Err(refused(&format!(
                "it is not empty, there is {}",
                entry.file_name().display()
            )))
        }
    }
}

/// Whether a dead restore into `owner` left its marker in `path`.
fn is_marked(path: &Path, owner: &Path) -> bool {
    let marker = path.join(MARKER);
    if path == owner {
        return marker.is_file();
    }
    fs::read_to_string(&marker).is_ok_and(|named| Path::new(named.trim_end()) == owner)
}

/// All that a restore has made, and how to take it back.
#[derive(Debug)]
pub(crate) struct Footprint {
    /// The data directory first, then the tablespaces.
    roots: Vec<Root>,
    /// Holds the lock that keeps a second restore out.
    marker: Arc<Marker>,
}

impl Footprint {
    /// Claims the data directory and those of the tablespaces, clearing what a dead restore left
    /// there. All paths are absolute and resolved. On an error nothing is left behind.
    pub(crate) fn claim(pgdata: &Path, tablespaces: &[PathBuf]) -> Result<Self, RestoreError> {
        let (mut root, state) = make_root(pgdata, pgdata)?;
        let marker = Marker::open(pgdata).inspect_err(|_| remove_made(&root))?;
        if state == DirectoryState::Unfinished {
            let dead = marker.read(pgdata)?;
            check_no_stranger(pgdata, |name| dead.has_made(name))?;
            clear_dead(dead.record.as_ref(), pgdata)?;
            clear_contents(pgdata, |name| dead.has_made(name))?;
            let earlier = dead.record.into_iter().flat_map(|record| record.roots);
            let earlier = earlier.filter(|root| root.path == pgdata);
            root.made.extend(earlier.flat_map(|root| root.made));
        } else {
            marker.check_alone(pgdata)?;
        }
        let mut footprint = Self {
            roots: vec![root],
            marker: Arc::new(marker),
        };
        match footprint.fill(tablespaces) {
            Ok(()) => Ok(footprint),
            Err(error) => {
                footprint.clear();
                Err(error)
            }
        }
    }

    /// Writes the marker, then makes and marks the tablespaces' directories.
    fn fill(&mut self, tablespaces: &[PathBuf]) -> Result<(), RestoreError> {
        let pgdata = self.roots[0].path.clone();
        let mut roots = self.roots.clone();
        for path in tablespaces {
            examine(path, &pgdata)?;
            let made = missing_directories(path);
            roots.push(Root {
                path: path.clone(),
                made,
            });
        }
        self.write_record(&roots)?;
        for path in tablespaces {
            let (root, state) = make_root(path, &pgdata)?;
            self.roots.push(root);
            if state == DirectoryState::Unfinished {
                check_no_stranger(path, is_of_tablespace)?;
                clear_contents(path, is_of_tablespace)?;
            }
            let marker = path.join(MARKER);
            let named = format!("{}\n", pgdata.display());
            write_synced(&marker, named.as_bytes())
                .map_err(RestoreError::local("write", &marker))?;
        }
        Ok(())
    }

    fn write_record(&self, roots: &[Root]) -> Result<(), RestoreError> {
        let pgdata = &self.roots[0].path;
        self.marker.write_record(roots)?;
        sync_directory(pgdata)?;
        pgdata.parent().map_or(Ok(()), sync_directory)
    }

    /// Where is noted what appears in the data directory.
    pub(crate) fn marker(&self) -> Arc<Marker> {
        Arc::clone(&self.marker)
    }

    /// Takes the markers away, that of the data directory last: the restore is done.
    pub(crate) fn release(&self) -> Result<(), RestoreError> {
        for root in self.roots.iter().rev() {
            let marker = root.path.join(MARKER);
            fs::remove_file(&marker).map_err(RestoreError::local("remove", &marker))?;
            sync_directory(&root.path)?;
        }
        Ok(())
    }

    /// Removes all that was made, markers last. What cannot be removed is logged, and the marker
    /// then stays.
    pub(crate) fn clear(&self) {
        // Without this file no server starts, so it goes before all else.
        let control = self.roots[0].path.join("global/pg_control");
        if control.exists() && fs::remove_file(&control).is_err() {
            tracing::error!(path = %control.display(), "could not remove pg_control after a failed restore");
            return;
        }
        for (index, root) in self.roots.iter().enumerate().rev() {
            let cleared = if index == 0 {
                clear_contents(&root.path, |name| self.marker.has_made(name))
            } else {
                clear_contents(&root.path, is_of_tablespace)
            };
            if let Err(error) = cleared {
                tracing::error!(
                    path = %root.path.display(),
                    error = crate::fault::chain(&error),
                    "could not clear a directory after a failed restore"
                );
                return;
            }
            if let Err(error) = fs::remove_file(root.path.join(MARKER))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::error!(path = %root.path.display(), %error, "could not remove the marker");
                return;
            }
            remove_made(root);
        }
    }
}

/// Makes the directory where it is absent, mode 0700, and says what was made. Those above it get
/// the usual mode: the server's user must pass through them.
fn make_root(path: &Path, owner: &Path) -> Result<(Root, DirectoryState), RestoreError> {
    let state = examine(path, owner)?;
    let root = Root {
        path: path.to_owned(),
        made: missing_directories(path),
    };
    let parent = path.parent().map_or(Ok(()), fs::create_dir_all);
    let made = parent.and_then(|()| match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    });
    made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .map_err(|error| {
            remove_made(&root);
            RestoreError::local("make", path)(error)
        })?;
    Ok((root, state))
}

/// The directories on the way to `path` that are not there, outermost first.
fn missing_directories(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = path
        .ancestors()
        .take_while(|ancestor| fs::symlink_metadata(ancestor).is_err())
        .map(Path::to_owned)
        .collect();
    missing.reverse();
    missing
}

/// Removes the directories that were made, as far as they are empty.
fn remove_made(root: &Root) {
    for path in root.made.iter().rev() {
        if fs::remove_dir(path).is_err() {
            return;
        }
    }
}

/// Clears what a dead restore left in tablespaces' directories, wherever they were.
fn clear_dead(dead: Option<&MarkerRecord>, pgdata: &Path) -> Result<(), RestoreError> {
    let roots = dead.into_iter().flat_map(|dead| &dead.roots);
    for root in roots.filter(|root| root.path != pgdata) {
        if is_marked(&root.path, pgdata) {
            check_no_stranger(&root.path, is_of_tablespace)?;
            clear_contents(&root.path, is_of_tablespace)?;
            let marker = root.path.join(MARKER);
            fs::remove_file(&marker).map_err(RestoreError::local("remove", &marker))?;
        }
        remove_made(root);
    }
    Ok(())
}

/// Whether a restore puts such a name into a tablespace's directory.
fn is_of_tablespace(name: &OsStr) -> bool {
    name == MARKER || name.as_bytes().starts_with(b"PG_")
}

/// Refuses to clear a directory that somebody else has put something into since.
fn check_no_stranger(path: &Path, is_ours: impl Fn(&OsStr) -> bool) -> Result<(), RestoreError> {
    for entry in fs::read_dir(path).map_err(RestoreError::local("list", path))? {
        let name = entry
            .map_err(RestoreError::local("list", path))?
            .file_name();
        if !is_ours(&name) {
            return Err(RestoreError::Target {
                path: path.to_owned(),
                reason: format!(
                    "a restore that did not finish is in it, and {}, which is not of that restore",
                    name.display()
                ),
            });
        }
    }
    Ok(())
}

/// Removes everything of ours in a directory but its marker.
fn clear_contents(path: &Path, is_ours: impl Fn(&OsStr) -> bool) -> Result<(), RestoreError> {
    let listed = fs::read_dir(path).map_err(RestoreError::local("list", path))?;
    for entry in listed {
        let entry = entry.map_err(RestoreError::local("list", path))?;
        let name = entry.file_name();
        if name == MARKER || !is_ours(&name) {
            continue;
        }
        let inside = entry.path();
        let is_directory = entry
            .file_type()
            .map_err(RestoreError::local("look at", &inside))?
            .is_dir();
        let removed = if is_directory {
            fs::remove_dir_all(&inside)
        } else {
            fs::remove_file(&inside)
        };
        removed.map_err(RestoreError::local("remove", &inside))?;
    }
    Ok(())
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), RestoreError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(RestoreError::local("sync", path))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
