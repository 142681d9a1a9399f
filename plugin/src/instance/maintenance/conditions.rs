//! The conditions and events that a round leaves, in words, and sending them.
//!
//! Not here: what is done in a round.

use cellarman::fault::{Fault, Kind, chain};
use cellarman::service::expire::run::Done;
use tracing::debug;

use crate::instance::Context;
use crate::instance::maintenance::error::RoundError;
use crate::resources::{Condition, Event, EventType, ObjectRef};

/// Whether the store answers.
const REACHABLE: &str = "Reachable";
/// Whether retention does what the manifest says.
const RETENTION_HEALTHY: &str = "RetentionHealthy";

/// The store answered.
pub(super) fn reachable(server: &str, backups: usize) -> Condition {
    let s = if backups == 1 { "" } else { "s" };
    let message = format!("The store answers: server {server} has {backups} completed backup{s}.");
    Condition {
        condition_type: REACHABLE,
        is_true: Some(true),
        reason: "Answered",
        message,
    }
}

/// The store did not answer, or not as it should.
pub(super) fn unreachable(error: &RoundError) -> Condition {
    let was_asked = !matches!(error, RoundError::Open(_) | RoundError::Resource(_));
    Condition {
        condition_type: REACHABLE,
        is_true: was_asked.then_some(false),
        reason: reason(error.kind()),
        message: sentence(error),
    }
}

/// What retention did.
pub(super) fn retained(done: Option<&Done>, unreadable: usize) -> Condition {
    let (reason, mut message) = match done {
        None => (
            "NothingToDo",
            "No retention is set, or nothing is archived yet.".to_owned(),
        ),
        Some(done) => ("Applied", format!("The last run deleted {done}.")),
    };
    if unreadable > 0 {
        let more =
            format!(" Records that cannot be read: {unreadable}; what they may need is kept.");
        message.push_str(&more);
    }
    Condition {
        condition_type: RETENTION_HEALTHY,
        is_true: Some(true),
        reason,
        message,
    }
}

/// Retention failed.
pub(super) fn not_retained(error: &RoundError) -> Condition {
    Condition {
        condition_type: RETENTION_HEALTHY,
        is_true: Some(false),
        reason: reason(error.kind()),
        message: sentence(error),
    }
}

/// The cause, then what to do.
pub(super) fn sentence(error: &RoundError) -> String {
    let mut text = chain(error);
    if !text.ends_with('.') {
        text.push('.');
    }
    // The general hints speak of the command line.
    let hint = error.hint();
    if hint != error.kind().hint() {
        text.push(' ');
        text.push_str(&hint);
    }
    text
}

fn reason(kind: Kind) -> &'static str {
    match kind {
        Kind::NotFound => "NotFound",
        Kind::Usage | Kind::Config => "Misconfigured",
        Kind::Unreachable => "Unreachable",
        Kind::Throttled => "Throttled",
        Kind::Denied => "Denied",
        Kind::NoContainer => "NoContainer",
        Kind::Conflict => "Conflict",
        Kind::Corrupt => "Corrupt",
        Kind::Full => "Full",
        Kind::Cancelled => "Cancelled",
        Kind::Postgres
        | Kind::Refused
        | Kind::Local
        | Kind::Unsupported
        | Kind::NotVerified
        | Kind::Internal => "Failed",
    }
}

/// Sets a condition. Where that cannot be done, the log has the news anyway.
pub(super) async fn set(context: &Context, object_store: &str, condition: &Condition) {
    let set = context.resources.set_condition(object_store, condition);
    if let Err(error) = set.await {
        debug!(
            error = chain(&error),
            object_store, "cannot set a condition"
        );
    }
}

/// Emits an event. Where that cannot be done, the log has the news anyway.
pub(super) async fn tell(
    context: &Context,
    about: ObjectRef,
    event_type: EventType,
    (reason, message): (&'static str, String),
) {
    let event = Event {
        about,
        event_type,
        reason,
        message,
    };
    if let Err(error) = context.resources.emit(&event).await {
        debug!(error = chain(&error), reason, "cannot emit an event");
    }
}
