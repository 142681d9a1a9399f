//! The program under test, where the servers' user can run it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::account::Account;
use crate::process::{self, Ended};
use crate::scratch::Scratch;

/// A command line program with the arguments and environment that every call has.
#[derive(Debug, Clone)]
pub struct Program {
    binary: PathBuf,
    account: Account,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Program {
    /// The binary that Cargo built, put into `scratch`: root's folders are closed to postgres.
    pub fn built(binary: &str, scratch: &Scratch) -> Self {
        let copy = scratch.path().join("cellarman");
        if !copy.exists() && fs::hard_link(binary, &copy).is_err() {
            fs::copy(binary, &copy).unwrap_or_else(|error| panic!("cannot copy {binary}: {error}"));
            fs::set_permissions(&copy, Permissions::from_mode(0o755))
                .unwrap_or_else(|error| panic!("cannot open {} to all: {error}", copy.display()));
        }
        Self::at(copy, scratch.account())
    }

    /// A program that the servers' user can already read.
    pub fn at(binary: PathBuf, account: Account) -> Self {
        Self {
            binary,
            account,
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// The same with these arguments before those of each call.
    #[must_use]
    pub fn with_arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// The same with these variables.
    #[must_use]
    pub fn with_environment(mut self, environment: &[(String, String)]) -> Self {
        self.environment.extend_from_slice(environment);
        self
    }

    /// The same with one more variable.
    #[must_use]
    pub fn with_variable(self, name: &str, value: &str) -> Self {
        self.with_environment(&[(name.to_owned(), value.to_owned())])
    }

    /// The same, talking to the server whose socket is in `socket_directory`.
    #[must_use]
    pub fn with_server(self, socket_directory: &Path) -> Self {
        self.with_variable("PGHOST", &socket_directory.display().to_string())
            .with_variable("PGPORT", "5432")
            .with_variable("PGUSER", "postgres")
            .with_variable("PGDATABASE", "postgres")
    }

    /// The variables of every call.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// A call, not yet started. Of our own environment only PATH and the cache are passed on.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(&self.arguments)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", "/nonexistent")
            .envs(self.environment.iter().cloned())
            .current_dir("/tmp");
        self.account.apply(&mut command);
        command
    }

    /// A call run to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        process::run(&mut self.command(arguments))
    }

    /// A call as a line for a shell, with its environment: `archive_command` and its like.
    pub fn shell_line(&self, arguments: &[&str]) -> String {
        let variables = self
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let words = self.arguments.iter().cloned();
        let last = arguments.iter().map(|&argument| argument.to_owned());
        let line = ["env".to_owned()]
            .into_iter()
            .chain(variables)
            .chain([self.binary.display().to_string()])
            .chain(words)
            .chain(last)
            .collect::<Vec<_>>()
            .join(" ");
        assert!(
            !line.contains(['\'', '"', '$', '\\', ';']),
            "a plain line needs no quotes: {line}"
        );
        line
    }
}
