//! Files that appear whole: temporary name, fsync, rename or link, fsync of the directories.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::names;
use crate::clock;
use crate::store::PutOptions;

/// Where files are that nobody sees yet.
const WRITING: &str = "writing";

/// A hidden file that nobody wrote to for so long is of a writer that was killed.
const ABANDONED_AFTER: TimeDelta = TimeDelta::days(1);

/// By then a file system has made durable by itself what nobody told it to.
const DURABLE_AFTER: TimeDelta = TimeDelta::minutes(5);

/// What a file system may hold that nobody put there.
const LOST_AND_FOUND: &str = "lost+found";

/// How often a directory that another writer's delete took away is made again.
const ATTEMPTS_MAX: usize = 16;

/// Whether a file may take the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It may.
    Replace,
    /// Only where nothing is: else [`io::ErrorKind::AlreadyExists`].
    Absent,
}

impl Place {
    /// As the options of a put say.
    pub(super) fn of(options: &PutOptions) -> Self {
        if options.if_absent {
            Self::Absent
        } else {
            Self::Replace
        }
    }
}

/// A file being written that nobody sees; gone when dropped before [`place`](Self::place).
#[derive(Debug)]
pub(super) struct HiddenFile {
    path: PathBuf,
    file: File,
    is_placed: bool,
}

impl HiddenFile {
    /// An empty one, below `root`, which must be there.
    pub(super) fn create(root: &Path) -> io::Result<Self> {
        let directory = private_directory(root, WRITING)?;
        let name = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        let path = directory.join(name);
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok(Self {
            path,
            file,
            is_placed: false,
        })
    }

    /// Where to write.
    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Makes the file durable and gives it its name. `root` holds `target`.
    pub(super) fn place(mut self, root: &Path, target: &Path, place: Place) -> io::Result<()> {
        self.file.flush()?;
        self.file.sync_all()?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            create_parents(root, target)?;
            let placed = match place {
                Place::Replace => fs::rename(&self.path, target),
                Place::Absent => link_absent(&self.path, target),
            };
            match placed {
                Ok(()) => {
                    self.is_placed = place == Place::Replace || !self.path.exists();
                    return sync_names(root, target);
                }
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && attempts < ATTEMPTS_MAX => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for HiddenFile {
    fn drop(&mut self) {
        if !self.is_placed {
            // Nobody sees the file, and the error that led here is told already.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Removes what killed writers left. Others may be writing, on other hosts too: age decides.
pub(super) fn sweep(root: &Path) -> io::Result<()> {
    let oldest = clock::now() - ABANDONED_AFTER;
    for entry in fs::read_dir(private_directory(root, WRITING)?)? {
        let entry = entry?;
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|modified| DateTime::<Utc>::from(modified) < oldest) {
            // Another sweep may have been faster, and a rest that stays is invisible.
            fs::remove_file(entry.path()).ok();
        }
    }
    Ok(())
}

/// Fails where `root` is missing, or has nothing in it at all: a disk that is not mounted looks
/// so, and a store that was made does not.
pub(super) fn check_root(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        if entry?.file_name() != LOST_AND_FOUND {
            return Ok(());
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "the directory is empty: either its disk is not mounted, or no store was made in it yet",
    ))
}

/// Makes `root`, and in it what tells it from an empty directory.
pub(super) fn create_root(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root.join(names::PRIVATE))
}

/// A directory of ours below `root`, made if missing. Never makes `root` itself.
pub(super) fn private_directory(root: &Path, name: &str) -> io::Result<PathBuf> {
    let private = root.join(names::PRIVATE);
    if !private.is_dir() {
        check_root(root)?;
    }
    for directory in [private.clone(), private.join(name)] {
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(private.join(name))
}

/// A link where the file system has them, else a rename that replaces nothing.
fn link_absent(from: &Path, target: &Path) -> io::Result<()> {
    match fs::hard_link(from, target) {
        Err(error)
            if matches!(
                error.raw_os_error().map(Errno::from_raw_os_error),
                Some(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::MLINK)
            ) =>
        {
            renameat_with(CWD, from, CWD, target, RenameFlags::NOREPLACE).map_err(io::Error::from)
        }
        other => other,
    }
}

/// Makes what is missing between `root` and `target`.
fn create_parents(root: &Path, target: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = target
        .ancestors()
        .skip(1)
        .take_while(|directory| *directory != root && !directory.is_dir())
        .collect();
    for directory in missing.into_iter().rev() {
        match fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Makes the name of `target` durable, and the names of the young directories above it: who made
/// them may have been killed before it came to that.
pub(super) fn sync_names(root: &Path, target: &Path) -> io::Result<()> {
    for directory in target.ancestors().skip(1) {
        let is_last = directory == root || !is_young(directory, fs::Metadata::created);
        sync_directory(directory)?;
        if is_last {
            break;
        }
    }
    Ok(())
}

/// Makes the name of a file durable that was found, unless it has long been so: who put it may
/// have been killed before. One who may not write here need not care.
pub(super) fn settle(root: &Path, target: &Path) -> io::Result<()> {
    if !is_young(target, fs::Metadata::modified) {
        return Ok(());
    }
    match sync_names(root, target) {
        Err(error) if is_refused(&error) => Ok(()),
        outcome => outcome,
    }
}

fn is_refused(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// Whether what is at `path` came about a short time ago, or nobody can tell.
fn is_young(path: &Path, time: impl Fn(&fs::Metadata) -> io::Result<SystemTime>) -> bool {
    let settled = clock::now() - DURABLE_AFTER;
    let time = fs::metadata(path).and_then(|metadata| time(&metadata));
    time.map_or(true, |time| DateTime::<Utc>::from(time) > settled)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory) {
        Ok(file) => file.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a file and the directories above it that it leaves empty, up to `root`. One that is
/// not there is no error.
pub(super) fn remove(root: &Path, target: &Path) -> io::Result<()> {
    match fs::remove_file(target) {
        Ok(()) => {}
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    let mut above = target.parent();
    while let Some(directory) = above.filter(|directory| *directory != root) {
        // Not empty, or gone already: either way there is no more to do.
        if fs::remove_dir(directory).is_err() {
            break;
        }
        above = directory.parent();
    }
    let kept = above.unwrap_or(root);
    sync_directory(kept)
}

/// Whether the error says that there is no such file: also where the path leads through a file
/// or ends in a directory, for then no object can be there.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}
