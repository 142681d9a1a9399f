//! A directory for one test: owned by the servers' user, readable by all, gone at the end.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::account::Account;

/// The directory; `CELLARMAN_KEEP=1` leaves it behind and says where.
#[derive(Debug)]
pub struct Scratch {
    directory: Option<TempDir>,
    account: Account,
}

impl Scratch {
    /// A new one under `/tmp`: socket paths have no room for a long `TMPDIR`.
    pub fn new(account: Account) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("cellarman-test-")
            .tempdir_in("/tmp")
            .unwrap_or_else(|error| panic!("cannot make a directory in /tmp: {error}"));
        hand_over(directory.path(), account);
        Self {
            directory: Some(directory),
            account,
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.directory
            .as_ref()
            .unwrap_or_else(|| panic!("the directory lives until it is dropped"))
            .path()
    }

    /// Who owns it.
    pub fn account(&self) -> Account {
        self.account
    }

    /// Makes a directory in it.
    pub fn make(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir(&path)
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        hand_over(&path, self.account);
        path
    }

    /// Writes a file in it, readable by the servers' user.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        self.account.own(&path);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("CELLARMAN_KEEP").is_some()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("kept: {}", directory.keep().display());
        }
    }
}

fn hand_over(path: &Path, account: Account) {
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .unwrap_or_else(|error| panic!("cannot open {} to all: {error}", path.display()));
    account.own(path);
}
