//! Where `tests/servers.sh` put the servers, and why one is not there.

use std::fs;
use std::path::{Path, PathBuf};

/// The cache's directory, as in `tests/servers.sh`.
pub fn directory() -> PathBuf {
    std::env::var_os("CELLARMAN_TEST_CACHE")
        .map_or_else(|| PathBuf::from("/var/tmp/cellarman-tests"), PathBuf::from)
}

/// `path`, or why the installation called `what` did not bring it.
pub fn installed(what: &str, path: &Path) -> Result<PathBuf, String> {
    if path.exists() {
        return Ok(path.to_path_buf());
    }
    let reason = fs::read_to_string(directory().join("missing").join(what));
    Err(match reason {
        Ok(reason) => format!("{what}: {}", reason.trim()),
        Err(_) => format!(
            "{what}: {} is missing; run tests/servers.sh",
            path.display()
        ),
    })
}
