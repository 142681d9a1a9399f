//! Running a command to its end and keeping all it said.

use std::fmt::Write as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The command line, for messages.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

/// Runs `command` to its end.
pub fn run(command: &mut Command) -> Ended {
    let line = line_of(command);
    let begun = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {line}: {error}"));
    Ended {
        line,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: begun.elapsed(),
    }
}

impl Ended {
    /// Fails the test unless the command succeeded.
    #[track_caller]
    pub fn ok(&self) {
        self.exits_with(0);
    }

    /// Fails the test unless the command ended with this exit code.
    #[track_caller]
    pub fn exits_with(&self, code: i32) {
        assert!(
            self.status.code() == Some(code),
            "expected exit code {code}: {}",
            self.describe()
        );
    }

    /// The command, its end and its output.
    pub fn describe(&self) -> String {
        let mut text = format!("{} ({}, {:?})", self.line, self.status, self.took);
        for (name, output) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !output.trim().is_empty() {
                let _ = write!(text, "\n--- {name}\n{}", output.trim_end());
            }
        }
        text
    }
}

/// The command line as a person would type it, more or less.
pub fn line_of(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    command.get_args().fold(program, |mut line, argument| {
        let _ = write!(line, " {}", argument.to_string_lossy());
        line
    })
}
