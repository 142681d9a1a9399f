//! A standby's wish for WAL: its backup waits for a segment that only the primary can finish.
//!
//! A standby cannot end a segment, and on a server with nothing to do nobody else does for long.
//! So the standby's sidecar notes in the ObjectStore's status since when its backup waits, and
//! the primary's, which looks there now and then, switches to the next segment. Not here: how
//! the backup itself waits (the library).

use std::convert::Infallible;
use std::sync::Arc;

use cellarman::clock;
use cellarman::fault::chain;
use cellarman::postgres::client::Server;
use cellarman::postgres::query::PostgresError;
use cellarman::service::base_backup::{Stage, Watcher};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::cluster::{ArchiveRef, Cluster};
use crate::instance::status;
use crate::instance::{Context, connection};

/// The key of the wish, in what the status says of a server.
pub const KEY: &str = "backupAwaitsWalSince";

/// How long a wish counts; no backup waits for its WAL that long but by the longest timeouts.
const WISH_AGE_MAX: TimeDelta = TimeDelta::hours(1);

/// Tells when a backup begins to wait, and shows everything to another watcher.
pub struct Waiting<W> {
    /// The other watcher.
    pub inner: W,
    /// Told once.
    pub begun: Arc<Notify>,
}

impl<W: Watcher> Watcher for Waiting<W> {
    fn enter(&self, stage: Stage) {
        if stage == Stage::WaitForWal {
            self.begun.notify_one();
        }
        self.inner.enter(stage);
    }

    fn copied(&self, bytes: u64) {
        self.inner.copied(bytes);
    }
}

/// Notes the wish as soon as the backup waits, and never ends: to be dropped with the backup.
pub async fn note(context: &Context, own: &ArchiveRef, begun: &Notify) -> Infallible {
    begun.notified().await;
    info!("asking the primary to finish the segment");
    status::report_wal_wish(context.resources.as_ref(), own, Some(clock::now())).await;
    std::future::pending().await
}

/// Takes the wish back.
pub async fn take_back(context: &Context, own: &ArchiveRef) {
    status::report_wal_wish(context.resources.as_ref(), own, None).await;
}

/// Whether this instance is another than the primary of its Cluster.
pub fn is_standby(cluster: &Cluster, pod: &str) -> bool {
    let primary = &cluster.status.current_primary;
    !primary.is_empty() && primary != pod
}

/// The primary's side: which wish was fulfilled last.
#[derive(Debug, Default)]
pub struct Fulfilled {
    last: Option<DateTime<Utc>>,
}

impl Fulfilled {
    /// Fulfils the wish in this ObjectStore's status, if it is a new one.
    pub async fn look(&mut self, context: &Context, object_store: &Value, server: &str) {
        let Some(since) = wish(object_store, server) else {
            return;
        };
        if self.last == Some(since) || !is_current(since, clock::now()) {
            return;
        }
        match switch_wal().await {
            Ok(()) => {
                info!(%since, "switched WAL for the backup of a standby");
                self.last = Some(since);
            }
            Err(error) => warn!(
                pod = context.pod_name,
                error = chain(&error),
                "cannot switch WAL for the backup of a standby"
            ),
        }
    }
}

/// Whether a backup may still wait: a killed sidecar leaves its wish behind.
fn is_current(since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    now.signed_duration_since(since) < WISH_AGE_MAX
}

fn wish(object_store: &Value, server: &str) -> Option<DateTime<Utc>> {
    let text = object_store["status"]["serverRecoveryWindow"][server][KEY].as_str()?;
    Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc())
}

/// A switch that fails.
#[derive(Debug, thiserror::Error)]
enum SwitchError {
    #[error(transparent)]
    Connect(#[from] cellarman::postgres::connect::ConnectError),
    #[error(transparent)]
    Query(#[from] PostgresError),
}

async fn switch_wal() -> Result<(), SwitchError> {
    let server = Server::connect(&connection()?).await?;
    Ok(server.switch_wal().await?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wish_is_read_leniently() {
        let store =
            |value: Value| json!({"status": {"serverRecoveryWindow": {"pg": {KEY: value}}}});
        let time = "2026-01-02T03:04:05Z";
        let expected = DateTime::parse_from_rfc3339(time).unwrap().to_utc();
        assert_eq!(wish(&store(json!(time)), "pg"), Some(expected));
        assert_eq!(wish(&store(json!(time)), "other"), None);
        assert_eq!(wish(&store(Value::Null), "pg"), None);
        assert_eq!(wish(&store(json!("now")), "pg"), None);
    }

    #[test]
    fn a_wish_that_a_killed_sidecar_left_counts_no_more() {
        let now = clock::now();
        assert!(is_current(now - TimeDelta::minutes(20), now));
        assert!(!is_current(now - TimeDelta::hours(2), now));
    }

    #[test]
    fn only_another_than_the_primary_is_a_standby() {
        let cluster = |primary: &str| {
            let text = format!(r#"{{"status": {{"currentPrimary": "{primary}"}}}}"#);
            Cluster::parse(text.as_bytes()).unwrap()
        };
        assert!(is_standby(&cluster("pg-1"), "pg-2"));
        assert!(!is_standby(&cluster("pg-2"), "pg-2"));
        assert!(!is_standby(&cluster(""), "pg-2"));
    }
}
