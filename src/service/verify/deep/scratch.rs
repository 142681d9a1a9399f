//! The directory that a deep verification works in: one run's alone, and gone when that ends.
//!
//! ```text
//! <scratch>/cellarman-verify/lock          held by the run
//! <scratch>/cellarman-verify/socket/       of the server that is started
//! <scratch>/cellarman-verify/data/         one backup at a time
//! <scratch>/cellarman-verify/tablespaces/  its tablespaces, by object id
//! ```
//!
//! Everything here blocks. Not here: what is put into it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tracing::warn;

use crate::service::verify::deep::error::DeepError;

const NAME: &str = "cellarman-verify";
const LOCK: &str = "lock";
/// What a socket's path may measure on all systems, less the name of the socket itself.
const SOCKET_DIRECTORY_BYTES_MAX: usize = 85;
/// Who runs PostgreSQL where packages have installed it.
const USUAL_USER: &str = "postgres";
/// How long a server that a dead run left may take to go.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Work on it, on a thread that may block.
pub(in crate::service::verify) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DeepError> + Send + 'static,
) -> Result<T, DeepError> {
    let worker = tokio::task::spawn_blocking(work);
    worker
        .await
        .map_err(|error| DeepError::Thread(error.to_string()))?
}

/// A claimed directory. Removed, with all that is in it, when this is dropped.
#[derive(Debug)]
pub(in crate::service::verify) struct Scratch {
    root: PathBuf,
    /// The user and group that run the server, when this process is root.
    owner: Option<(u32, u32)>,
    _lock: File,
}

impl Scratch {
    /// Claims it, and takes away what a run that died left there.
    pub(in crate::service::verify) fn claim(directory: &Path) -> Result<Self, DeepError> {
        fs::create_dir_all(directory).map_err(cannot("make", directory))?;
        let directory = directory
            .canonicalize()
            .map_err(cannot("find", directory))?;
        let owner = owner(&directory)?;
        let root = directory.join(NAME);
        if root.join("socket").as_os_str().as_bytes().len() > SOCKET_DIRECTORY_BYTES_MAX {
            return Err(DeepError::LongPath { path: root });
        }
        make(&root, owner)?;
        let path = root.join(LOCK);
        let lock = File::create(&path).map_err(cannot("make", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DeepError::Taken { path: root }),
            Err(TryLockError::Error(error)) => return Err(cannot("lock", &path)(error)),
        }
        let scratch = Self {
            root,
            owner,
            _lock: lock,
        };
        scratch.clear()?;
        make(&scratch.socket(), owner)?;
        Ok(scratch)
    }

    /// The user and group that run the server, when this process is root.
    pub(super) fn owner(&self) -> Option<(u32, u32)> {
        self.owner
    }

    /// Where all of it lies.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.root.join("socket")
    }

    /// The data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The directory of a tablespace.
    pub(super) fn tablespace(&self, oid: u32) -> PathBuf {
        self.root.join("tablespaces").join(oid.to_string())
    }

    /// A file beside them.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes the empty directories that a backup is restored to.
    pub(super) fn prepare(&self) -> Result<(), DeepError> {
        make(&self.data(), self.owner)?;
        make(&self.root.join("tablespaces"), self.owner)
    }

    /// Writes a file that the server's user can read.
    pub(super) fn write(&self, path: &Path, text: &str) -> Result<(), DeepError> {
        fs::write(path, text).map_err(cannot("write", path))?;
        give(path, self.owner)
    }

    /// Takes the backup away, and everything else but the lock and the socket's directory.
    pub(super) fn clear(&self) -> Result<(), DeepError> {
        stop_leftover(&self.data());
        let entries = fs::read_dir(&self.root).map_err(cannot("list", &self.root))?;
        for entry in entries {
            let entry = entry.map_err(cannot("list", &self.root))?;
            let path = entry.path();
            if [self.root.join(LOCK), self.socket()].contains(&path) {
                continue;
            }
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_directory {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(cannot("remove", &path))?;
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            warn!(path = %self.root.display(), %error, "cannot remove the scratch directory");
        }
    }
}

fn cannot(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DeepError {
    let path = path.to_owned();
    move |source| DeepError::Scratch {
        action,
        path,
        source,
    }
}

/// Makes a directory that only the server's user can enter.
fn make(path: &Path, owner: Option<(u32, u32)>) -> Result<(), DeepError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.map_err(cannot("make", path))?,
    }
    give(path, owner)
}

fn give(path: &Path, owner: Option<(u32, u32)>) -> Result<(), DeepError> {
    let Some((user, group)) = owner else {
        return Ok(());
    };
    chown(path, Some(user), Some(group)).map_err(cannot("set the owner of", path))
}

/// Who runs the server: whoever we are; as root the owner of the directory, as of a restore, or else
/// the user that packages make.
fn owner(directory: &Path) -> Result<Option<(u32, u32)>, DeepError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let found = fs::metadata(directory).map_err(cannot("look at", directory))?;
    if found.uid() != 0 {
        return Ok(Some((found.uid(), found.gid())));
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    usual_user(&users).map(Some).ok_or(DeepError::Root)
}

/// The numbers of the usual user in lines of `name:password:user:group:…`.
fn usual_user(users: &str) -> Option<(u32, u32)> {
    let mut lines = users.lines().map(|line| line.split(':'));
    let mut fields =
        lines.find_map(|mut fields| (fields.next()? == USUAL_USER).then_some(fields))?;
    let user = fields.nth(1)?.parse().ok()?;
    Some((user, fields.next()?.parse().ok()?))
}

/// Stops the server that a dead run left in the data directory: one that works in that very place.
fn stop_leftover(data: &Path) {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else {
        return;
    };
    let number = text
        .lines()
        .next()
        .and_then(|line| line.parse::<i32>().ok());
    let Some((number, pid)) = number.and_then(|number| Some((number, Pid::from_raw(number)?)))
    else {
        return;
    };
    let works_here = || {
        let place = fs::read_link(format!("/proc/{number}/cwd"));
        place.is_ok_and(|place| place == data)
    };
    if !works_here() || kill_process(pid, Signal::QUIT).is_err() {
        return;
    }
    let begun = Instant::now();
    while works_here() && begun.elapsed() < STOP_TIMEOUT {
        thread::sleep(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_runs_alone_and_gone_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join(NAME).join("data/base");
        fs::create_dir_all(&left).unwrap();
        let scratch = Scratch::claim(directory.path()).unwrap();
        assert!(!left.exists(), "what a dead run left is cleared");
        let second = Scratch::claim(directory.path());
        assert!(matches!(second, Err(DeepError::Taken { .. })), "{second:?}");
        scratch.prepare().unwrap();
        assert!(scratch.data().is_dir());
        drop(scratch);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_usual_user_is_found_by_name() {
        let users = "root:x:0:0::/:\npostgres:x:101:104::/:\npostgresx:x:1:1::/:\n";
        assert_eq!(usual_user(users), Some((101, 104)));
        assert_eq!(usual_user("root:x:0:0::/:\n"), None);
        assert_eq!(usual_user("postgres:x:many:\n"), None);
    }
}
