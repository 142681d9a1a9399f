//! `pg_wal` on a volume of its own: what was restored is moved there, and a link left behind.
//!
//! Newer operators do it themselves; then there is nothing to do. Everything here blocks.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub(super) struct MoveError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MoveError {
    let path = path.to_path_buf();
    move |source| MoveError {
        action,
        path,
        source,
    }
}

/// Moves `pg_wal` of this data directory to `target`, unless it is there already.
///
/// `target` may be there if it is empty. When it fails, `pg_wal` is as it was, or was moved whole.
pub(super) fn move_to(pgdata: &Path, target: &Path) -> Result<(), MoveError> {
    let pg_wal = pgdata.join("pg_wal");
    if fs::read_link(&pg_wal).is_ok_and(|linked| linked == target) {
        return Ok(());
    }
    match fs::read_dir(target).map(|mut entries| entries.next()) {
        Ok(None) => {}
        Ok(Some(_)) => {
            let error = io::Error::new(ErrorKind::DirectoryNotEmpty, "it is not empty");
            return Err(failed("move pg_wal to", target)(error));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at", target)(error)),
    }
    copy_folder(&pg_wal, target).inspect_err(|_| clear(target))?;
    let away = pgdata.join("pg_wal.moved");
    fs::rename(&pg_wal, &away).map_err(failed("move", &pg_wal))?;
    symlink(target, &pg_wal).map_err(failed("link", &pg_wal))?;
    sync(pgdata)?;
    fs::remove_dir_all(&away).map_err(failed("remove", &away))
}

/// Takes back what [`move_to`] has put there, for a restore that failed after all.
pub(super) fn clear(target: &Path) {
    if let Err(error) = fs::remove_dir_all(target)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::error!(path = %target.display(), %error, "cannot remove what a failed restore left");
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), MoveError> {
    match DirBuilder::new().recursive(true).mode(0o700).create(to) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(failed("make", to)(error));
        }
        _ => {}
    }
    for entry in fs::read_dir(from).map_err(failed("list", from))? {
        let entry = entry.map_err(failed("list", from))?;
        let (inside, copy) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(failed("look at", &inside))?;
        if kind.is_dir() {
            copy_folder(&inside, &copy)?;
        } else {
            fs::copy(&inside, &copy).map_err(failed("copy", &inside))?;
            sync(&copy)?;
        }
    }
    sync(to)
}

fn sync(path: &Path) -> Result<(), MoveError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(failed("sync", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_wal_is_moved_once_and_left_alone_after_that() {
        let folder = tempfile::tempdir().unwrap();
        let pgdata = folder.path().join("pgdata");
        let target = folder.path().join("wal/pg_wal");
        fs::create_dir_all(pgdata.join("pg_wal/archive_status")).unwrap();
        fs::write(pgdata.join("pg_wal/00000002.history"), "history").unwrap();
        for _ in 0..2 {
            move_to(&pgdata, &target).unwrap();
            assert_eq!(fs::read_link(pgdata.join("pg_wal")).unwrap(), target);
            assert!(pgdata.join("pg_wal/archive_status").is_dir());
            let history = fs::read_to_string(target.join("00000002.history"));
            assert_eq!(history.unwrap(), "history");
            assert_eq!(fs::read_dir(&pgdata).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_lies_on_the_volume_already_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let pgdata = folder.path().join("pgdata");
        let target = folder.path().join("wal");
        fs::create_dir_all(pgdata.join("pg_wal")).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("somebody's"), "").unwrap();
        assert!(move_to(&pgdata, &target).is_err());
        assert!(pgdata.join("pg_wal").is_dir() && target.join("somebody's").exists());
        clear(&folder.path().join("absent"));
    }
}
