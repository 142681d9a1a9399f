//! Tells the readers of the ObjectStore and of the Cluster how archiving goes, when that changes.
//!
//! A request to archive leaves its outcome here and is not held up by the telling. Where a store
//! begins or ceases to answer, the maintenance is woken. Not here: archiving itself, and the
//! figures about it.

use std::sync::Arc;
use std::time::Duration;

use cellarman::fault::chain;
use tokio::sync::{Notify, watch};
use tokio::time;
use tracing::debug;

use crate::cluster::ArchiveRef;
use crate::instance::Context;
use crate::resources::{Condition, Event, EventType, ObjectKind, ObjectRef};

/// Whether WAL comes to the archive.
const ARCHIVE_HEALTHY: &str = "ArchiveHealthy";

/// Between two tellings: the server tries again at once a few times.
const PAUSE: Duration = Duration::from_secs(5);

/// How the last request to archive ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The archive that it was for.
    pub archive: ArchiveRef,
    /// Why it failed, the cause first; `None` where the file is archived.
    pub failure: Option<String>,
}

/// The last outcome, for who tells it.
pub type Outcomes = Arc<watch::Sender<Option<Outcome>>>;

/// Notes how a request ended. Who tells it wakes only where that changed.
pub fn note(outcomes: &Outcomes, outcome: Outcome) {
    outcomes.send_if_modified(|last| {
        let is_news = last.as_ref() != Some(&outcome);
        *last = Some(outcome);
        is_news
    });
}

/// Tells outcomes until the process is to end; `wake` tells the maintenance of a turn.
pub async fn run(context: Context, wake: Arc<Notify>) {
    let mut outcomes = context.archiving.subscribe();
    let mut told: Option<Outcome> = None;
    loop {
        tokio::select! {
            () = context.cancel.cancelled() => return,
            changed = outcomes.changed() => if changed.is_err() { return },
        }
        let outcome = outcomes.borrow_and_update().clone();
        if let Some(outcome) = outcome
            && told.as_ref() != Some(&outcome)
        {
            if is_turn(&outcome, told.as_ref()) {
                wake.notify_one();
            }
            tell(&context, &outcome, told.as_ref()).await;
            told = Some(outcome);
        }
        tokio::select! {
            () = context.cancel.cancelled() => return,
            () = time::sleep(PAUSE) => {}
        }
    }
}

/// Whether this is more than other words for the same failure.
fn is_turn(outcome: &Outcome, told: Option<&Outcome>) -> bool {
    told.is_none_or(|told| {
        told.archive != outcome.archive || told.failure.is_some() != outcome.failure.is_some()
    })
}

/// Where it cannot be told, the log and the Cluster's own condition have it anyway.
async fn tell(context: &Context, outcome: &Outcome, told: Option<&Outcome>) {
    let store = &outcome.archive.object_store;
    let resources = &context.resources;
    if let Err(error) = resources.set_condition(store, &condition(outcome)).await {
        debug!(error = chain(&error), store, "cannot set a condition");
    }
    let Some(event) = event(outcome, told, &context.cluster_name) else {
        return;
    };
    if let Err(error) = resources.emit(&event).await {
        debug!(error = chain(&error), "cannot emit an event");
    }
}

fn condition(outcome: &Outcome) -> Condition {
    let server = &outcome.archive.server;
    let (reason, message) = match &outcome.failure {
        None => ("Archived", format!("WAL of server {server} is archived.")),
        Some(failure) => ("ArchiveFailed", failure.clone()),
    };
    Condition {
        condition_type: ARCHIVE_HEALTHY,
        is_true: Some(outcome.failure.is_none()),
        reason,
        message,
    }
}

/// The beginning and the end of a failure are news; that it goes on, with other words, is none.
fn event(outcome: &Outcome, told: Option<&Outcome>, cluster: &str) -> Option<Event> {
    let was_failing = told.is_some_and(|told| told.failure.is_some());
    let (event_type, reason, message) = match &outcome.failure {
        Some(failure) if !was_failing => (EventType::Warning, "ArchiveFailed", failure.clone()),
        None if was_failing => (
            EventType::Normal,
            "ArchiveResumed",
            "WAL is archived again.".to_owned(),
        ),
        _ => return None,
    };
    Some(Event {
        about: ObjectRef::new(ObjectKind::Cluster, cluster),
        event_type,
        reason,
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(failure: Option<&str>) -> Outcome {
        Outcome {
            archive: ArchiveRef {
                object_store: "store".to_owned(),
                server: "pg".to_owned(),
            },
            failure: failure.map(str::to_owned),
        }
    }

    #[test]
    fn a_failure_is_an_event_when_it_begins_and_when_it_ends() {
        let failing = Some("no such bucket");
        for (told, now, expected) in [
            (None, None, None),
            (None, Some(failing), Some("ArchiveFailed")),
            (Some(None), failing.map(Some), Some("ArchiveFailed")),
            (Some(failing), Some(Some("denied")), None),
            (Some(failing), Some(None), Some("ArchiveResumed")),
            (Some(None), Some(None), None),
        ] {
            let told = told.map(outcome);
            let now = outcome(now.flatten());
            let event = event(&now, told.as_ref(), "pg");
            let reason = event.map(|event| event.reason);
            assert_eq!(reason, expected, "{told:?} {now:?}");
        }
    }

    #[test]
    fn the_store_is_looked_at_when_it_begins_or_ceases_to_take_wal() {
        let elsewhere = Outcome {
            archive: ArchiveRef {
                object_store: "other".to_owned(),
                server: "pg".to_owned(),
            },
            failure: None,
        };
        for (told, now, expected) in [
            (None, outcome(None), true),
            (None, outcome(Some("denied")), true),
            (Some(outcome(None)), outcome(Some("denied")), true),
            (Some(outcome(Some("denied"))), outcome(Some("gone")), false),
            (Some(outcome(Some("denied"))), outcome(None), true),
            (Some(outcome(None)), outcome(None), false),
            (Some(outcome(None)), elsewhere, true),
        ] {
            assert_eq!(is_turn(&now, told.as_ref()), expected, "{told:?} {now:?}");
        }
    }

    #[test]
    fn the_condition_says_why() {
        let failed = condition(&outcome(Some("no such bucket")));
        assert_eq!(failed.is_true, Some(false));
        assert_eq!(failed.message, "no such bucket");
        assert_eq!(condition(&outcome(None)).is_true, Some(true));
    }

    #[test]
    fn the_same_outcome_again_wakes_nobody() {
        let outcomes = Outcomes::default();
        let mut seen = outcomes.subscribe();
        for (failure, is_news) in [
            (None, true),
            (None, false),
            (Some("denied"), true),
            (Some("denied"), false),
            (None, true),
        ] {
            note(&outcomes, outcome(failure));
            assert_eq!(seen.has_changed().ok(), Some(is_news), "{failure:?}");
            seen.mark_unchanged();
        }
    }
}
