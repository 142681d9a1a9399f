//! Every kind of failure in one table: whether to retry, the exit code, the log level, the hint.
//!
//! Imports nothing of ours, so that every layer's errors can say their kind. Kinds and exit
//! codes are public and stable: scripts branch on them.

use std::error::Error;
use std::fmt;

/// What kind of failure an error is, whichever layer it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The thing asked for is not there, and the store or server said so.
    NotFound,
    /// The command line or an argument is wrong.
    Usage,
    /// The configuration is missing, unreadable or contradicts itself.
    Config,
    /// The other side did not answer, or not in time.
    Unreachable,
    /// The other side asked for patience.
    Throttled,
    /// The other side refused the credentials or the right.
    Denied,
    /// The bucket, container or directory that should hold the objects is missing.
    NoContainer,
    /// The thing exists already, with other contents, or belongs to somebody else.
    Conflict,
    /// Bytes are not what they should be.
    Corrupt,
    /// The database server failed or refused.
    Postgres,
    /// The recovery target, or the thing asked of a backup, cannot be done, and the message says why.
    Refused,
    /// A file or directory of this host cannot be read or written.
    Local,
    /// The store cannot do what was asked of it.
    Unsupported,
    /// The run was interrupted.
    Cancelled,
    /// Anything else.
    Internal,
    /// The store has no room left.
    Full,
    /// A check could not be made, so that nobody knows.
    NotVerified,
}

/// One row of the table.
struct Row {
    kind: Kind,
    name: &'static str,
    exit_code: u8,
    is_retryable: bool,
    hint: &'static str,
}

const fn row(
    kind: Kind,
    name: &'static str,
    exit_code: u8,
    is_retryable: bool,
    hint: &'static str,
) -> Row {
    Row {
        kind,
        name,
        exit_code,
        is_retryable,
        hint,
    }
}

const TABLE: [Row; 17] = [
    row(
        Kind::NotFound,
        "not-found",
        1,
        false,
        "Check the name and the server with `cellarman backup list`.",
    ),
    row(
        Kind::Usage,
        "usage",
        2,
        false,
        "Run the command with --help to see what it takes.",
    ),
    row(
        Kind::Config,
        "config",
        3,
        false,
        "Correct the setting that the message names and run it again.",
    ),
    row(
        Kind::Unreachable,
        "unreachable",
        4,
        true,
        "Check the endpoint, the network and the TLS settings; `cellarman check` tests each.",
    ),
    row(
        Kind::Throttled,
        "throttled",
        4,
        true,
        "Run it again later, or with a lower --jobs.",
    ),
    row(
        Kind::Denied,
        "denied",
        5,
        false,
        "Check the credentials and what they are allowed to do; `cellarman check` tests each right.",
    ),
    row(
        Kind::NoContainer,
        "no-container",
        6,
        false,
        "Create the bucket, or run `cellarman check --create`.",
    ),
    row(
        Kind::Conflict,
        "conflict",
        7,
        false,
        "Check that no other cluster uses the same --server, and give this one a name of its own.",
    ),
    row(
        Kind::Corrupt,
        "corrupt",
        8,
        false,
        "Do not delete anything: look at the object named, and use another backup if there is one.",
    ),
    row(
        Kind::Postgres,
        "postgres",
        9,
        false,
        "Check the server's log and the connection settings (PGHOST, PGPORT, PGUSER or --dsn).",
    ),
    row(
        Kind::Refused,
        "refused",
        10,
        false,
        "Choose what the message names instead.",
    ),
    row(
        Kind::Local,
        "local",
        11,
        false,
        "Check the path, its owner, its permissions and the free space.",
    ),
    row(
        Kind::Unsupported,
        "unsupported",
        12,
        false,
        "Use another store or leave the option out.",
    ),
    row(
        Kind::Cancelled,
        "cancelled",
        13,
        false,
        "Nothing is lost: run it again.",
    ),
    row(
        Kind::Internal,
        "internal",
        14,
        false,
        "This should not happen: please report it with the output of -v.",
    ),
    row(
        Kind::Full,
        "full",
        15,
        false,
        "Give the store more room, or a larger quota: `cellarman expire` must itself write a \
         little before it deletes.",
    ),
    row(
        Kind::NotVerified,
        "not-verified",
        16,
        false,
        "Remove what the message names as being in the way, and run `cellarman verify` again.",
    ),
];

impl Kind {
    fn row(self) -> &'static Row {
        TABLE
            .iter()
            .find(|row| row.kind == self)
            .expect("each kind has its row, as a test shows")
    }

    /// The stable name, as in `--json` errors.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The exit code of a command that fails this way.
    pub fn exit_code(self) -> u8 {
        self.row().exit_code
    }

    /// Whether the same request can succeed a moment later.
    pub fn is_retryable(self) -> bool {
        self.row().is_retryable
    }

    /// What to do next, where the error itself knows no better.
    pub fn hint(self) -> &'static str {
        self.row().hint
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An error that knows its kind.
pub trait Fault: Error + Send + Sync + 'static {
    /// Its kind.
    fn kind(&self) -> Kind;

    /// What to do next, as full sentences.
    fn hint(&self) -> String {
        self.kind().hint().to_owned()
    }
}

/// Any error that knows its kind: what a command ends with.
pub type AnyFault = Box<dyn Fault>;

impl<E: Fault> From<E> for AnyFault {
    fn from(error: E) -> Self {
        Box::new(error)
    }
}

/// The error and what caused it, each once, joined by colons.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_one_row_and_success_has_none() {
        for (index, row) in TABLE.iter().enumerate() {
            assert!(
                TABLE[..index]
                    .iter()
                    .all(|earlier| earlier.kind != row.kind && earlier.name != row.name)
            );
            assert_eq!(row.kind.name(), row.name);
            assert!(row.exit_code > 0 && row.hint.ends_with('.'));
        }
    }
}
