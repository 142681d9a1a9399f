//! From a failure to a gRPC status: the code by its kind, the text for people.
//!
//! The operator shows the text and passes over the code; both are for those who look. The text
//! names the cause first, then what to do.

use cellarman::fault::{Fault, Kind, chain};
use tonic::{Code, Status};

/// The longest text: it travels as a header.
const TEXT_BYTES_MAX: usize = 4096;

/// The status of a call that failed this way.
pub fn of(fault: &dyn Fault) -> Status {
    let kind = fault.kind();
    let hint = fault.hint();
    // The general hints speak of the command line.
    let hint = if hint == kind.hint() {
        hint_of(kind).to_owned()
    } else {
        hint
    };
    with_hint(fault, &hint)
}

/// The status of a call that failed this way, with words of one's own on what to do.
pub fn with_hint(fault: &dyn Fault, hint: &str) -> Status {
    let mut text = chain(fault);
    if !text.ends_with('.') {
        text.push('.');
    }
    if !hint.is_empty() {
        text.push(' ');
        text.push_str(hint);
    }
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    text.truncate(end);
    Status::new(code(fault.kind()), text)
}

/// A request that lacks something, or has something that cannot be.
pub fn invalid(text: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, text)
}

/// The code of a kind.
pub fn code(kind: Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::Usage => Code::InvalidArgument,
        Kind::Config | Kind::NoContainer | Kind::Conflict | Kind::Postgres | Kind::Refused => {
            Code::FailedPrecondition
        }
        Kind::Unreachable | Kind::Throttled => Code::Unavailable,
        Kind::Denied => Code::PermissionDenied,
        Kind::Corrupt => Code::DataLoss,
        Kind::Full => Code::ResourceExhausted,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Cancelled => Code::Cancelled,
        Kind::Local | Kind::Internal | Kind::NotVerified => Code::Internal,
    }
}

fn hint_of(kind: Kind) -> &'static str {
    match kind {
        // Asked for in vain is no mistake.
        Kind::NotFound => "",
        Kind::Usage => "The request cannot be carried out as it is.",
        Kind::Config => "Correct what the message names; it takes effect within seconds.",
        Kind::Unreachable => {
            "Check endpointURL and endpointCA of the ObjectStore, and the network between the Pod \
             and the store."
        }
        Kind::Throttled => "It is tried again; a lower maxParallel asks less of the store.",
        Kind::Denied => {
            "Check the credentials that the ObjectStore names, and what they are allowed to do."
        }
        Kind::NoContainer => {
            "Create the bucket or container, or correct destinationPath of the ObjectStore."
        }
        Kind::Conflict => {
            "Check that no other cluster writes to the same destinationPath and serverName."
        }
        Kind::Postgres => "Look at the log of the PostgreSQL container.",
        Kind::Local => "Check the volumes of the Pod: space, owner and permissions.",
        Kind::Cancelled => "It can be asked for again.",
        Kind::Internal => "This should not happen: please report it with the sidecar's log.",
        Kind::Full => "Give the store more room.",
        Kind::Corrupt | Kind::Refused | Kind::Unsupported | Kind::NotVerified => kind.hint(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("it broke{0}")]
    struct Broken(String, Kind);

    impl Fault for Broken {
        fn kind(&self) -> Kind {
            self.1
        }
    }

    #[test]
    fn the_cause_comes_first_and_no_command_line_is_spoken_of() {
        for (kind, code) in [
            (Kind::NotFound, Code::NotFound),
            (Kind::Usage, Code::InvalidArgument),
            (Kind::Config, Code::FailedPrecondition),
            (Kind::Unreachable, Code::Unavailable),
            (Kind::Throttled, Code::Unavailable),
            (Kind::Denied, Code::PermissionDenied),
            (Kind::NoContainer, Code::FailedPrecondition),
            (Kind::Conflict, Code::FailedPrecondition),
            (Kind::Corrupt, Code::DataLoss),
            (Kind::Postgres, Code::FailedPrecondition),
            (Kind::Refused, Code::FailedPrecondition),
            (Kind::Local, Code::Internal),
            (Kind::Unsupported, Code::Unimplemented),
            (Kind::Cancelled, Code::Cancelled),
            (Kind::Internal, Code::Internal),
            (Kind::Full, Code::ResourceExhausted),
        ] {
            let status = of(&Broken(String::new(), kind));
            assert_eq!(status.code(), code, "{kind}");
            assert!(status.message().starts_with("it broke."), "{status}");
            for word in ["--", "cellarman", " -v"] {
                assert!(!status.message().contains(word), "{status}");
            }
        }
    }

    #[test]
    fn a_long_text_is_cut_between_letters() {
        let status = of(&Broken("ö".repeat(4000), Kind::Config));
        assert!((TEXT_BYTES_MAX - 3..=TEXT_BYTES_MAX).contains(&status.message().len()));
    }
}
