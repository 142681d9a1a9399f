//! The file that says of a directory that a restore has not finished in it, and what that restore
//! has put there.
//!
//! One line each: which directories are filled, each name that was made at the top of the data
//! directory, and at last which `pg_control` is about to appear. Not here: clearing by it
//! (`directories`).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::service::restore::error::RestoreError;
use crate::service::restore::members::{MARKER, is_usual};

/// What the marker is read of at most: far more than any restore writes.
const MARKER_BYTES_MAX: u64 = 1 << 20;

/// What the marker of the data directory says, its first line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MarkerRecord {
    pub(crate) note: String,
    pub(crate) roots: Vec<Root>,
}

/// A directory being filled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    /// The directories that were made for it, outermost first.
    pub(crate) made: Vec<PathBuf>,
}

/// A name that is about to appear at the top of the data directory.
#[derive(Debug, Serialize, Deserialize)]
struct NameRecord {
    name: String,
}

/// What is added to the marker just before the database appears, its last line.
#[derive(Debug, Serialize, Deserialize)]
struct ControlRecord {
    pg_control_blake3: String,
}

/// The marker of a data directory, open and locked.
#[derive(Debug)]
pub(crate) struct Marker {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    names: BTreeSet<String>,
}

/// What a dead restore wrote.
pub(crate) struct Dead {
    /// Its directories; `None` where it had not come to writing.
    pub(crate) record: Option<MarkerRecord>,
    names: BTreeSet<String>,
}

impl Marker {
    /// Opens the marker, making it where it is absent, and locks it until it is dropped.
    pub(crate) fn open(pgdata: &Path) -> Result<Self, RestoreError> {
        let path = pgdata.join(MARKER);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0))
            .open(&path)
            .map_err(RestoreError::local("open", &path))?;
        let taken = |reason: &str| RestoreError::Target {
            path: pgdata.to_owned(),
            reason: reason.to_owned(),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(taken("another restore is filling it"));
            }
            // A file system without locks: two restores to one place are then the user's to avoid.
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "could not lock the marker");
            }
            Ok(()) => {}
        }
        // Whoever held the lock may have finished, and taken the marker away with its file open here.
        let opened = file
            .metadata()
            .map_err(RestoreError::local("look at", &path))?;
        let is_there = fs::symlink_metadata(&path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (opened.dev(), opened.ino()));
        if !is_there {
            return Err(taken("another restore has filled it meanwhile"));
        }
        let names = BTreeSet::new();
        Ok(Self {
            path,
            state: Mutex::new(State { file, names }),
        })
    }

    /// Refuses where something has come into a directory that was empty before it was marked.
    pub(crate) fn check_alone(&self, pgdata: &Path) -> Result<(), RestoreError> {
        let listed = fs::read_dir(pgdata).map_err(RestoreError::local("list", pgdata))?;
        for entry in listed {
            let entry = entry.map_err(RestoreError::local("list", pgdata))?;
            if entry.file_name() == MARKER {
                continue;
            }
            // Nothing is written in it: it was made just now, and what is there is no restore's.
            let is_new = self
                .lock()
                .file
                .metadata()
                .is_ok_and(|meta| meta.len() == 0);
            if is_new && let Err(error) = fs::remove_file(&self.path) {
                tracing::error!(path = %self.path.display(), %error, "could not remove the marker");
            }
            return Err(RestoreError::Target {
                path: pgdata.to_owned(),
                reason: format!(
                    "it was filled meanwhile, there is {}",
                    entry.file_name().display()
                ),
            });
        }
        Ok(())
    }

    /// What the dead restore wrote whose marker this was.
    ///
    /// # Errors
    /// Refuses where a database has appeared that is not untouched since.
    pub(crate) fn read(&self, pgdata: &Path) -> Result<Dead, RestoreError> {
        let mut text = String::new();
        let mut state = self.lock();
        state
            .file
            .rewind()
            .and_then(|()| {
                (&state.file)
                    .take(MARKER_BYTES_MAX)
                    .read_to_string(&mut text)
            })
            .map_err(RestoreError::local("read", &self.path))?;
        let record = text
            .lines()
            .next()
            .and_then(|line| serde_json::from_str(line).ok());
        let names = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .map(|line: NameRecord| line.name)
            .collect();
        let noted = text
            .lines()
            .find_map(|line| serde_json::from_str::<ControlRecord>(line).ok());
        let control = fs::read(pgdata.join("global/pg_control")).ok();
        let is_untouched = match (&control, &noted) {
            (None, _) => true,
            (Some(bytes), Some(noted)) => {
                blake3::hash(bytes).to_hex().as_str() == noted.pg_control_blake3
            }
            (Some(_), None) => false,
        };
        if is_untouched && !pgdata.join("postmaster.pid").exists() {
            Ok(Dead { record, names })
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

    /// Writes the first line, in the place of all that was there.
    pub(crate) fn write_record(&self, roots: &[Root]) -> Result<(), RestoreError> {
        let note = "A restore by cellarman has not finished here: this is no database.".to_owned();
        let roots = roots.to_vec();
        let mut state = self.lock();
        state
            .file
            .set_len(0)
            .and_then(|()| state.file.rewind())
            .map_err(RestoreError::local("write", &self.path))?;
        self.append(&mut state.file, &MarkerRecord { note, roots })?;
        self.sync(&state.file)
    }

    /// Notes what is about to appear at the top of the data directory: a member's first part.
    pub(crate) fn note_name(&self, relative: &Path) -> Result<(), RestoreError> {
        let Some(first) = relative.components().next() else {
            return Ok(());
        };
        let name = first.as_os_str().to_string_lossy();
        let mut state = self.lock();
        if is_usual(first.as_os_str()) || state.names.contains(&*name) {
            return Ok(());
        }
        let name = name.into_owned();
        self.append(&mut state.file, &NameRecord { name: name.clone() })?;
        state.names.insert(name);
        Ok(())
    }

    /// Notes which `pg_control` is about to appear, so that a database that was started since
    /// is never taken for an unfinished restore.
    pub(crate) fn note_control(&self, blake3: &str) -> Result<(), RestoreError> {
        let mut state = self.lock();
        let pg_control_blake3 = blake3.to_owned();
        self.append(&mut state.file, &ControlRecord { pg_control_blake3 })?;
        self.sync(&state.file)
    }

    /// Whether this restore has put `name` at the top of the data directory.
    pub(crate) fn has_made(&self, name: &OsStr) -> bool {
        is_usual(name) || self.lock().names.contains(&*name.to_string_lossy())
    }

    fn append(&self, file: &mut File, record: &impl Serialize) -> Result<(), RestoreError> {
        serde_json::to_vec(record)
            .map_err(io::Error::other)
            .and_then(|mut line| {
                line.push(b'\n');
                file.write_all(&line)
            })
            .map_err(RestoreError::local("write", &self.path))
    }

    fn sync(&self, file: &File) -> Result<(), RestoreError> {
        file.sync_all()
            .map_err(RestoreError::local("write", &self.path))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dead {
    /// Whether the dead restore has put `name` at the top of the data directory.
    pub(crate) fn has_made(&self, name: &OsStr) -> bool {
        is_usual(name) || self.names.contains(&*name.to_string_lossy())
    }
}
