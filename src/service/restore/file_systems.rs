//! The file systems that a restore writes to, and making durable what it wrote there.
//!
//! One call for each of them instead of one for each file: a cluster has thousands. They are
//! opened before the first write, because the kernel tells the errors of writes to those alone
//! who had the file system open then. Not here: files that must appear in an order (`finish`).

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::service::restore::error::RestoreError;

/// From this version on the kernel tells the sync of a file system about failed writes.
const SYNCFS_TELLS_SINCE: (u32, u32) = (5, 8);

/// Directories, one for each file system but where the kernel is too old for that.
#[derive(Debug)]
pub(crate) struct FileSystems {
    roots: Vec<(PathBuf, File)>,
    is_one_by_one: bool,
}

impl FileSystems {
    /// Opens those that the directories lie on, which must be there.
    pub(crate) fn open<'a>(
        directories: impl IntoIterator<Item = &'a Path>,
    ) -> Result<Self, RestoreError> {
        let is_one_by_one = !tells_errors(&rustix::system::uname().release().to_string_lossy());
        let mut roots: Vec<(PathBuf, File)> = Vec::new();
        let mut devices = Vec::new();
        for path in directories {
            let directory = File::open(path).map_err(RestoreError::local("open", path))?;
            let device = directory
                .metadata()
                .map_err(RestoreError::local("look at", path))?
                .dev();
            if is_one_by_one || !devices.contains(&device) {
                devices.push(device);
                roots.push((path.to_owned(), directory));
            }
        }
        Ok(Self {
            roots,
            is_one_by_one,
        })
    }

    /// Returns when all that was written to them is durable.
    pub(crate) fn sync(&self) -> Result<(), RestoreError> {
        for (path, directory) in &self.roots {
            if self.is_one_by_one {
                sync_below(path)?;
            }
            rustix::fs::syncfs(directory)
                .map_err(|error| RestoreError::local("sync", path)(error.into()))?;
        }
        Ok(())
    }
}

/// Whether a kernel of this release, such as `6.1.0-18-amd64`, tells `syncfs` of failed writes.
fn tells_errors(release: &str) -> bool {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= SYNCFS_TELLS_SINCE,
        _ => false,
    }
}

/// Syncs each file and directory below this one, links not followed.
fn sync_below(path: &Path) -> Result<(), RestoreError> {
    for entry in fs::read_dir(path).map_err(RestoreError::local("list", path))? {
        let entry = entry.map_err(RestoreError::local("list", path))?;
        let inside = entry.path();
        let kind = entry
            .file_type()
            .map_err(RestoreError::local("look at", &inside))?;
        if kind.is_dir() {
            sync_below(&inside)?;
        } else if kind.is_file() {
            sync(&inside)?;
        }
    }
    sync(path)
}

fn sync(path: &Path) -> Result<(), RestoreError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(RestoreError::local("sync", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernels_that_tell_errors_are_trusted_with_one_call() {
        for (release, tells) in [
            ("6.1.0-18-amd64", true),
            ("5.8.0", true),
            ("5.10.0-28-cloud-amd64", true),
            ("4.18.0-553.el8_10.x86_64", false),
            ("5.7.19", false),
            ("10.0", true),
            ("unknown", false),
            ("", false),
        ] {
            assert_eq!(tells_errors(release), tells, "{release}");
        }
    }

    #[test]
    fn each_file_system_is_synced_once() {
        let folder = tempfile::tempdir().unwrap();
        let tablespace = folder.path().join("tablespace");
        fs::create_dir(&tablespace).unwrap();
        fs::write(tablespace.join("file"), "x").unwrap();
        let mut systems = FileSystems::open([folder.path(), &*tablespace]).unwrap();
        assert!(systems.is_one_by_one || systems.roots.len() == 1);
        systems.sync().unwrap();
        systems.is_one_by_one = true;
        systems.sync().unwrap();
        assert!(FileSystems::open([&*tablespace.join("none")]).is_err());
    }
}
