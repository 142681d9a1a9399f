//! The directories a restore fills: claimed before the first byte, cleared when it fails.
//!
//! A marker file stands in each of them from the first moment to the last, so that a restore
//! that was killed can be told from a database and cleared by the next one. Not here: what is
//! written into them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::service::restore::error::RestoreError;

/// The name of the marker. While it is there, the directory is no database.
pub const MARKER: &str = "cellarman_restore_unfinished";

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

/// What the marker of the data directory says, its first line.
#[derive(Debug, Serialize, Deserialize)]
struct MarkerRecord {
    note: String,
    roots: Vec<Root>,
}

/// What is added to the marker just before the database appears, its second line.
#[derive(Debug, Serialize, Deserialize)]
struct ControlRecord {
    pg_control_blake3: String,
}

/// A directory being filled.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Root {
    path: PathBuf,
    /// The directories that were made for it, outermost first.
    made: Vec<PathBuf>,
}

/// All that a restore has made, and how to take it back.
#[derive(Debug)]
pub(crate) struct Footprint {
    /// The data directory first, then the tablespaces.
    roots: Vec<Root>,
    /// Holds the lock that keeps a second restore out.
    marker: File,
}

impl Footprint {
    /// Claims the data directory and those of the tablespaces, clearing what a dead restore left
    /// there. All paths are absolute and resolved. On an error nothing is left behind.
    pub(crate) fn claim(pgdata: &Path, tablespaces: &[PathBuf]) -> Result<Self, RestoreError> {
        let (mut root, state) = make_root(pgdata, pgdata)?;
        let mut marker = open_marker(&pgdata.join(MARKER)).inspect_err(|_| remove_made(&root))?;
        if state == DirectoryState::Unfinished {
            if let Some(dead) = read_marker(&mut marker, pgdata)? {
                clear_dead(&dead, pgdata)?;
                let earlier = dead.roots.into_iter().find(|root| root.path == pgdata);
                root.made
                    .extend(earlier.into_iter().flat_map(|root| root.made));
            }
            clear_contents(pgdata)?;
        }
        let mut footprint = Self {
            roots: vec![root],
            marker,
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
                clear_contents(path)?;
            }
            let marker = path.join(MARKER);
            let named = format!("{}\n", pgdata.display());
            write_synced(&marker, named.as_bytes())
                .map_err(RestoreError::local("write", &marker))?;
        }
        Ok(())
    }

    fn write_record(&mut self, roots: &[Root]) -> Result<(), RestoreError> {
        let pgdata = &self.roots[0].path;
        let record = MarkerRecord {
            note: "A restore by cellarman has not finished here: this is no database.".to_owned(),
            roots: roots.to_vec(),
        };
        let path = pgdata.join(MARKER);
        let mut line = serde_json::to_vec(&record)
            .map_err(|error| RestoreError::local("write", &path)(io::Error::other(error)))?;
        line.push(b'\n');
        self.marker
            .set_len(0)
            .and_then(|()| self.marker.rewind())
            .and_then(|()| self.marker.write_all(&line))
            .and_then(|()| self.marker.sync_all())
            .map_err(RestoreError::local("write", &path))?;
        sync_directory(pgdata)?;
        pgdata.parent().map_or(Ok(()), sync_directory)
    }

    /// Notes which `pg_control` is about to appear, so that a database that was started since
    /// is never taken for an unfinished restore.
    pub(crate) fn note_control(&mut self, blake3: &str) -> Result<(), RestoreError> {
        let record = ControlRecord {
            pg_control_blake3: blake3.to_owned(),
        };
        let path = self.roots[0].path.join(MARKER);
        serde_json::to_vec(&record)
            .map_err(io::Error::other)
            .and_then(|mut line| {
                line.push(b'\n');
                self.marker.write_all(&line)
            })
            .and_then(|()| self.marker.sync_all())
            .map_err(RestoreError::local("write", path))
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
        for root in self.roots.iter().rev() {
            if let Err(error) = clear_contents(&root.path) {
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

/// Opens the marker, making it where it is absent, and locks it until the file is closed.
fn open_marker(path: &Path) -> Result<File, RestoreError> {
    let marker = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0))
        .open(path)
        .map_err(RestoreError::local("open", path))?;
    match rustix::fs::flock(&marker, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(RestoreError::Target {
                path: path.parent().unwrap_or(path).to_owned(),
                reason: "another restore is filling it".to_owned(),
            });
        }
        // A file system without locks: two restores to one place are then the user's to avoid.
        Err(error) => tracing::warn!(path = %path.display(), %error, "could not lock the marker"),
        Ok(()) => {}
    }
    Ok(marker)
}

/// What a dead restore wrote in the marker; `None` where it had not come to writing.
///
/// # Errors
/// Refuses where a database has appeared that is not untouched since.
fn read_marker(marker: &mut File, pgdata: &Path) -> Result<Option<MarkerRecord>, RestoreError> {
    let mut text = String::new();
    marker
        .rewind()
        .and_then(|()| marker.take(1 << 20).read_to_string(&mut text))
        .map_err(RestoreError::local("read", pgdata.join(MARKER)))?;
    let mut lines = text.lines();
    let record = lines
        .next()
        .and_then(|line| serde_json::from_str(line).ok());
    let noted = lines
        .next()
        .and_then(|line| serde_json::from_str::<ControlRecord>(line).ok());
    let control = fs::read(pgdata.join("global/pg_control")).ok();
    let is_untouched = match (&control, &noted) {
        (None, _) => true,
        (Some(bytes), Some(noted)) => {
            blake3::hash(bytes).to_hex().as_str() == noted.pg_control_blake3
        }
        (Some(_), None) => false,
    };
    if is_untouched && !pgdata.join("postmaster.pid").exists() {
        Ok(record)
    } else {
        Err(RestoreError::Target {
            path: pgdata.to_owned(),
            reason: format!(
                "it holds a database that has been used since it was restored; \
                 remove the file {MARKER} in it to keep that database"
            ),
        })
    }
}

/// Clears what a dead restore left in tablespaces' directories, wherever they were.
fn clear_dead(dead: &MarkerRecord, pgdata: &Path) -> Result<(), RestoreError> {
    for root in dead.roots.iter().filter(|root| root.path != pgdata) {
        if is_marked(&root.path, pgdata) {
            clear_contents(&root.path)?;
            let marker = root.path.join(MARKER);
            fs::remove_file(&marker).map_err(RestoreError::local("remove", &marker))?;
        }
        remove_made(root);
    }
    Ok(())
}

/// Removes everything in a directory but its marker.
fn clear_contents(path: &Path) -> Result<(), RestoreError> {
    let listed = fs::read_dir(path).map_err(RestoreError::local("list", path))?;
    for entry in listed {
        let entry = entry.map_err(RestoreError::local("list", path))?;
        if entry.file_name() == MARKER {
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
