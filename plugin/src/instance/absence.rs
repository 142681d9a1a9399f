//! The store's word that a WAL file is not there, left where the `restore_command` of a recovery
//! sees it.
//!
//! The instance manager gives PostgreSQL one answer for "there is no such file" and for "the
//! sidecar was just killed", and PostgreSQL takes it for the end of the log. So the command that a
//! recovered server is given asks again until the file is there, or this word of it. A sidecar
//! that comes back goes on where the killed one was. Not here: asking the store.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cellarman::domain::wal_file::WalFileName;

/// The folder of the words, below the data directory: a file for each name.
const FOLDER: &str = "pg_wal/.cellarman/absent";

/// The instance manager's command, with PostgreSQL's `%f` and `%p` in it.
const ASK: &str =
    "/controller/manager wal-restore --log-destination /controller/log/postgres.json %f %p";

/// The shell line for `restore_command`: it fails only where the store said that there is no such
/// file. PostgreSQL runs it in the data directory.
pub fn restore_command() -> String {
    insisting(ASK)
}

fn insisting(ask: &str) -> String {
    format!("until {ask}; do [ ! -e {FOLDER}/%f ] || exit 1; sleep 1; done")
}

/// Leaves the word that `name` is not in the archive.
pub fn tell(pgdata: &Path, name: WalFileName) -> io::Result<()> {
    let path = path(pgdata, name);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, "")
}

/// Takes the word back, for the file is asked for anew.
pub fn take_back(pgdata: &Path, name: WalFileName) -> io::Result<()> {
    missing_is_fine(fs::remove_file(path(pgdata, name)))
}

/// Takes all words back that a recovery left.
pub fn clear(pgdata: &Path) -> io::Result<()> {
    missing_is_fine(fs::remove_dir_all(pgdata.join(FOLDER)))
}

fn path(pgdata: &Path, name: WalFileName) -> PathBuf {
    pgdata.join(FOLDER).join(name.to_string())
}

fn missing_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const NAME: &str = "000000010000000000000005";

    /// Runs the line in `pgdata` as PostgreSQL does, where each attempt runs `ask`.
    fn run(pgdata: &Path, ask: &str) -> Option<i32> {
        let line = insisting(ask).replace("%f", NAME);
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).current_dir(pgdata);
        shell.status().unwrap().code()
    }

    #[test]
    fn the_command_fails_only_on_the_stores_word() {
        let pgdata = tempfile::tempdir().unwrap();
        let name: WalFileName = NAME.parse().unwrap();
        // Fails once without a word, as when the sidecar is killed, and then finds the file.
        let comes_back = "{ [ -e tried ] || ! touch tried; }";
        assert_eq!(run(pgdata.path(), comes_back), Some(0));
        assert!(pgdata.path().join("tried").exists());
        tell(pgdata.path(), name).unwrap();
        assert_eq!(run(pgdata.path(), "false"), Some(1));
        assert_eq!(run(pgdata.path(), "true"), Some(0));
    }

    #[test]
    fn a_word_is_left_and_taken_back() {
        let pgdata = tempfile::tempdir().unwrap();
        let name: WalFileName = NAME.parse().unwrap();
        take_back(pgdata.path(), name).unwrap();
        tell(pgdata.path(), name).unwrap();
        assert!(path(pgdata.path(), name).exists());
        take_back(pgdata.path(), name).unwrap();
        assert!(!path(pgdata.path(), name).exists());
        tell(pgdata.path(), name).unwrap();
        clear(pgdata.path()).unwrap();
        clear(pgdata.path()).unwrap();
        assert!(!pgdata.path().join(FOLDER).exists());
    }
}
