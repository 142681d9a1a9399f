//! Where PostgreSQL's programs of one major version are on this host.
//!
//! First where PATH leads, then where its packages put them. Not here: running them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Where packages put the programs of major version `N`: Debian's, Red Hat's of the project, Red
/// Hat's own, Homebrew's two, and the build from source.
const PLACES: [&str; 6] = [
    "/usr/lib/postgresql/N/bin",
    "/usr/pgsql-N/bin",
    "/usr/bin",
    "/opt/homebrew/opt/postgresql@N/bin",
    "/usr/local/opt/postgresql@N/bin",
    "/usr/local/pgsql/bin",
];

/// A program that only says its version takes no longer.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);

/// The programs that a deep verification runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    /// The server.
    pub(super) postgres: PathBuf,
    /// `pg_verifybackup`, or why there is none.
    pub(super) verify: Result<PathBuf, String>,
}

/// Finds them. The error says where was looked.
pub(super) async fn find(major: u32, path: Option<OsString>) -> Result<Programs, String> {
    let places = places(major, path);
    Ok(Programs {
        postgres: find_one("postgres", major, &places).await?,
        verify: find_one("pg_verifybackup", major, &places).await,
    })
}

async fn find_one(name: &str, major: u32, places: &[PathBuf]) -> Result<PathBuf, String> {
    for place in places {
        let program = place.join(name);
        if program.is_file() && is_of(&program, major).await {
            return Ok(program);
        }
    }
    let places: Vec<String> = places.iter().map(|it| it.display().to_string()).collect();
    let places = places.join(", ");
    Err(format!("there is no {name} of version {major} in {places}"))
}

fn places(major: u32, path: Option<OsString>) -> Vec<PathBuf> {
    let path = path.unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path)
        .filter(|place| place.is_absolute())
        .collect();
    let usual = PLACES.iter().map(|it| it.replace('N', &major.to_string()));
    places.extend(usual.map(PathBuf::from));
    let mut seen = Vec::new();
    for place in places {
        if !seen.contains(&place) {
            seen.push(place);
        }
    }
    seen
}

/// Whether a program says that it is of this version: `postgres (PostgreSQL) 15.20 (Debian …)`.
async fn is_of(program: &Path, major: u32) -> bool {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let Ok(Ok(said)) = tokio::time::timeout(VERSION_TIMEOUT, command.output()).await else {
        return false;
    };
    major_of(&String::from_utf8_lossy(&said.stdout)) == Some(major)
}

fn major_of(said: &str) -> Option<u32> {
    let (_, number) = said.split_once(" (PostgreSQL) ")?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_what_the_server_says() {
        for (said, major) in [
            ("postgres (PostgreSQL) 15.20 (Debian 15.20-1)\n", Some(15)),
            ("pg_verifybackup (PostgreSQL) 18beta1", Some(18)),
            ("mysqld 8.0", None),
            ("", None),
        ] {
            assert_eq!(major_of(said), major, "{said}");
        }
    }

    #[tokio::test]
    async fn where_there_is_no_server_each_place_is_named() {
        let error = find(2, Some("/nonexistent/a:b:/nonexistent/c".into())).await;
        let error = error.unwrap_err();
        for place in ["/nonexistent/a, ", "/nonexistent/c, ", "/usr/pgsql-2/bin"] {
            assert!(error.contains(place), "{error}");
        }
        assert!(!error.contains(" b,"), "{error}");
    }
}
