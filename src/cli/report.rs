//! How a command ends when it fails: the message, the hint and the exit code.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::output::Output;
use crate::fault::{self, AnyFault, Fault, Kind};

/// What `wal restore` adds to the exit code of every failure.
///
/// PostgreSQL takes 1 to 125 from a restore_command as "there is no such file", which ends a
/// recovery as if the archive ended there; above 125 it stops with FATAL instead.
pub const WAL_RESTORE_FAILURE: u8 = 150;

/// The asynchronous runtime cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the runtime")]
pub struct RuntimeError(#[source] pub std::io::Error);

impl Fault for RuntimeError {
    fn kind(&self) -> Kind {
        Kind::Local
    }
}

#[derive(Serialize)]
struct FailureDocument<'a> {
    error: Failure<'a>,
}

#[derive(Serialize)]
struct Failure<'a> {
    kind: &'a str,
    message: &'a str,
    hint: &'a str,
    exit_code: u8,
}

/// The exit code of a failure of this kind; `wal restore` ends with 1 only by itself, when the
/// store said that there is no such file.
pub fn exit_code(kind: Kind, is_wal_restore: bool) -> u8 {
    if is_wal_restore {
        WAL_RESTORE_FAILURE + kind.exit_code()
    } else {
        kind.exit_code()
    }
}

/// Whether these arguments call `wal restore`, told without parsing them, for arguments that do
/// not parse need the right exit code as well.
pub fn is_wal_restore(arguments: impl Iterator<Item = OsString>) -> bool {
    let mut words = arguments.skip_while(|word| word != "wal");
    words.next().is_some() && words.any(|word| word == "restore")
}

/// Reports a failed command.
pub fn failed(error: &AnyFault, output: Output, is_wal_restore: bool) -> ExitCode {
    let (message, hint) = (fault::chain(error.as_ref()), error.hint());
    let exit_code = exit_code(error.kind(), is_wal_restore);
    say(&format!("error: {message}\nhint: {hint}"));
    let failure = Failure {
        kind: error.kind().name(),
        message: &message,
        hint: &hint,
        exit_code,
    };
    output.json(&FailureDocument { error: failure });
    ExitCode::from(exit_code)
}

/// Reports arguments that do not parse, and prints help and version when they were asked for.
pub fn usage(error: &clap::Error, is_wal_restore: bool) -> ExitCode {
    drop(error.print());
    if error.use_stderr() {
        ExitCode::from(exit_code(Kind::Usage, is_wal_restore))
    } else {
        ExitCode::SUCCESS
    }
}

/// Ends a command that panicked: the message is out already, and 101 would be a wrong exit code.
pub fn panicked(is_wal_restore: bool) -> ExitCode {
    say(&format!("hint: {}", Kind::Internal.hint()));
    ExitCode::from(exit_code(Kind::Internal, is_wal_restore))
}

fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_failure_of_wal_restore_looks_like_the_end_of_wal() {
        for kind in [
            Kind::NotFound,
            Kind::Usage,
            Kind::Config,
            Kind::Unreachable,
            Kind::Internal,
        ] {
            assert!(exit_code(kind, true) > 125, "{kind}");
            assert_eq!(exit_code(kind, false), kind.exit_code());
        }
    }

    #[test]
    fn wal_restore_is_known_whatever_stands_around_it() {
        let called = |line: &str| is_wal_restore(line.split(' ').map(OsString::from));
        assert!(called(
            "--store /x wal restore 000000010000000000000001 pg_wal/RECOVERYXLOG"
        ));
        assert!(called("wal --server a restore"));
        assert!(!called("restore --pgdata wal"));
        assert!(!called("wal archive pg_wal/000000010000000000000001"));
    }
}
