//! Files of this host that appear whole: temporary name, fsync, rename, fsync of the folder.
//!
//! Not here: what the files hold, and objects of a store.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// Tells this process from earlier ones of the same id: in a container the id is always the same.
static PROCESS: LazyLock<u32> = LazyLock::new(|| fastrand::u32(..));

/// How many temporary names this process has given out.
static GIVEN: AtomicU64 = AtomicU64::new(0);

/// Puts `bytes` at `path`, whole and durable, over what is there. The folder must exist.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_beside(path);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    match written.and_then(|()| rename(&temporary, path)) {
        Ok(()) => Ok(()),
        Err(error) => {
            // The first error is the one to tell; a leftover is harmless and cleaned later.
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

/// Moves a file that is already durable to its final name, over what is there.
///
/// Both names lie on one file system. When it returns, the new name is durable.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder_of(to)
}

/// Removes a file durably; one that is not there is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder_of(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a folder and its missing parents, durably.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_folder(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => sync_folder_of(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads a file; `None` when it is not there.
pub(crate) fn read_if_present(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A name's part that nobody else uses, by which the maker can be told to be gone.
pub(crate) fn own_id() -> String {
    let number = GIVEN.fetch_add(1, Ordering::Relaxed);
    format!("{}-{:x}-{number}", process::id(), *PROCESS)
}

/// A name under which `path` is written before it is whole. No two writers share one.
pub(crate) fn temporary_beside(path: &Path) -> PathBuf {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    path.with_file_name(format!(".{name}.{}.tmp", own_id()))
}

/// Removes what killed processes left of writing `path`. Living ones keep theirs.
pub(crate) fn remove_leftovers(path: &Path) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let begin = format!(".{}.", name.to_string_lossy());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let owner = name
            .strip_prefix(&begin)
            .and_then(|rest| rest.strip_suffix(".tmp"));
        if owner.is_some_and(is_gone) {
            // Another process may be doing the same.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Whether a file of this name is being written by a living process.
pub(crate) fn is_being_written(name: &str) -> bool {
    let inner = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(".tmp"));
    let owner = inner.and_then(|inner| inner.rsplit_once('.'));
    owner.is_some_and(|(_, owner)| !is_gone(owner))
}

/// Whether the process of this [`own_id`], as it stands in a file's name, is gone. What is no id
/// is nobody's.
pub(crate) fn is_gone(id: &str) -> bool {
    let mut parts = id.split('-');
    let pid = parts.next().unwrap_or_default();
    if pid == process::id().to_string() {
        // Another process than this one, where it says which.
        let own = format!("{:x}", *PROCESS);
        return parts.next().is_some_and(|process| process != own);
    }
    let pid = pid.parse().ok().and_then(Pid::from_raw);
    pid.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_a_living_process_writes_is_told_from_what_a_killed_one_left() {
        let ours = temporary_beside(Path::new("folder/0000000100000000000000AB"));
        let ours = ours.file_name().unwrap().to_str().unwrap();
        assert!(is_being_written(ours), "{ours}");
        for left in [
            ".0000000100000000000000AB.4294967295-1-1.tmp",
            &format!(".0000000100000000000000AB.{}-0-1.tmp", process::id()),
            "0000000100000000000000AB",
            ".tmp",
        ] {
            assert!(!is_being_written(left), "{left}");
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        for text in ["first", "second and longer"] {
            write(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(read_if_present(&path).unwrap().is_none());
    }

    #[test]
    fn what_killed_processes_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let mut child = process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let living = process::id();
        let gone = [
            format!(".state.json.{dead}.tmp"),
            ".state.json.x.tmp".into(),
            format!(".state.json.{living}-nobody-1.tmp"),
        ];
        let kept = [
            format!(".state.json.{living}.tmp"),
            format!(".state.json.{}.tmp", own_id()),
            format!(".other.json.{dead}.tmp"),
            format!("state.json.{dead}.tmp"),
            "state.json".to_owned(),
        ];
        for name in gone.iter().chain(&kept) {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        remove_leftovers(&path).unwrap();
        assert!(gone.iter().all(|name| !folder.path().join(name).exists()));
        assert!(kept.iter().all(|name| folder.path().join(name).exists()));
    }

    #[test]
    fn a_write_that_fails_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "x").unwrap();
        assert!(write(&path, b"new").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(path.join("inside").exists());
    }
}
