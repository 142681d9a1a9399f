//! Looks now and then at what nobody tells of: waiting WAL, memory, the window, and who is primary.
//!
//! A new primary and another ObjectStore wake the maintenance. Not here: what is counted where it
//! happens, and answering scrapes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cellarman::clock;
use cellarman::metrics::{Metric, Metrics};
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task;
use tokio::time::{self, Instant};

use crate::cluster::{ArchiveRef, Cluster};
use crate::instance::Context;
use crate::instance::status::Window;
use crate::instance::wal_wish::Fulfilled;
use crate::resources::{ObjectKind, ObjectRef};

/// Between two looks at this host.
const HOST_INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks at the objects.
const OBJECTS_INTERVAL: Duration = Duration::from_secs(15);
const PAGE_BYTES: u64 = 4096;

/// WAL that the server has ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Waiting {
    files: u64,
    bytes: u64,
    oldest: Option<DateTime<Utc>>,
}

/// Looks until the process is to end; `wake` tells the maintenance of what it waits for.
pub async fn run(context: Context, wake: Arc<Notify>) {
    context
        .metrics
        .set_time(Metric::ProcessStart, Some(clock::now()));
    let mut objects_at = Instant::now();
    let mut last = None;
    let mut wishes = Fulfilled::default();
    loop {
        look_at_host(&context.metrics, context.pgdata.join("pg_wal")).await;
        if objects_at <= Instant::now() {
            // Without an answer everything stays as it was.
            if let Some(seen) = look_at_objects(&context, &mut wishes).await {
                if last.as_ref().is_some_and(|last| seen.wakes(last)) {
                    wake.notify_one();
                }
                last = Some(seen);
            }
            let is_settled = last.as_ref().is_some_and(Seen::is_settled);
            let interval = if is_settled {
                OBJECTS_INTERVAL
            } else {
                HOST_INTERVAL
            };
            objects_at = Instant::now() + interval;
        }
        tokio::select! {
            () = context.cancel.cancelled() => return,
            () = time::sleep(HOST_INTERVAL) => {}
        }
    }
}

async fn look_at_host(metrics: &Arc<Metrics>, pg_wal: PathBuf) {
    let looked = task::spawn_blocking(move || waiting(&pg_wal)).await;
    if let Ok(Ok(waiting)) = looked {
        show(metrics, waiting, clock::now());
    }
    if let Some(bytes) = resident_bytes() {
        metrics.set(Metric::ProcessResidentBytes, bytes);
    }
}

fn show(metrics: &Metrics, waiting: Waiting, now: DateTime<Utc>) {
    let age = waiting
        .oldest
        .and_then(|oldest| now.signed_duration_since(oldest).to_std().ok());
    metrics.set(Metric::WalReadyFiles, waiting.files);
    metrics.set(Metric::WalArchiveLagBytes, waiting.bytes);
    metrics.set_duration(Metric::WalArchiveLagSeconds, age.unwrap_or_default());
}

/// The files that are ready. One that goes meanwhile is not counted.
fn waiting(pg_wal: &Path) -> io::Result<Waiting> {
    let mut waiting = Waiting::default();
    for entry in fs::read_dir(pg_wal.join("archive_status"))? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".ready")) else {
            continue;
        };
        let Ok(since) = entry.metadata().and_then(|status| status.modified()) else {
            continue;
        };
        let since = DateTime::from(since);
        waiting.files += 1;
        waiting.bytes += fs::metadata(pg_wal.join(name)).map_or(0, |file| file.len());
        waiting.oldest = Some(waiting.oldest.map_or(since, |oldest| oldest.min(since)));
    }
    Ok(waiting)
}

/// What this process holds, by the kernel.
fn resident_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(PAGE_BYTES)
}

/// What decides whether the archive is to be looked after, and which.
#[derive(Debug, Clone, Default, PartialEq)]
struct Seen {
    /// The Cluster's primary; empty while it is being made.
    primary: String,
    /// Whether that is this instance.
    is_primary: bool,
    /// The Cluster's own archive.
    own: Option<ArchiveRef>,
    /// The uid and the spec of its ObjectStore, where that is there.
    object_store: Option<(Value, Value)>,
}

impl Seen {
    /// Whether there is something new for the maintenance.
    fn wakes(&self, last: &Self) -> bool {
        self.is_primary && self != last
    }

    /// Whether nothing is missing that may come any moment.
    fn is_settled(&self) -> bool {
        !self.primary.is_empty() && (self.own.is_none() || self.object_store.is_some())
    }
}

/// Shows the window and fulfils wishes for WAL; `None` without an answer.
async fn look_at_objects(context: &Context, wishes: &mut Fulfilled) -> Option<Seen> {
    let resources = &context.resources;
    let cluster = ObjectRef::new(ObjectKind::Cluster, &context.cluster_name);
    let cluster = resources.get(&cluster).await.ok()?;
    let cluster = Cluster::parse(cluster.to_string().as_bytes()).ok()?;
    let mut seen = Seen {
        is_primary: cluster.status.current_primary == context.pod_name,
        own: cluster.archives(&context.plugin_name).own,
        primary: cluster.status.current_primary,
        object_store: None,
    };
    let Some(own) = &seen.own else {
        return Some(seen);
    };
    let store = ObjectRef::new(ObjectKind::ObjectStore, &own.object_store);
    match resources.get(&store).await {
        Ok(mut store) => {
            Window::of(&store, &own.server).show(&context.metrics, seen.is_primary);
            if seen.is_primary {
                wishes.look(context, &store, &own.server).await;
            }
            seen.object_store = Some((store["metadata"]["uid"].take(), store["spec"].take()));
        }
        Err(error) if error.is_not_found() => {}
        Err(_) => return None,
    }
    Some(seen)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn waiting_wal_is_counted_with_its_size_and_age() {
        let folder = tempfile::tempdir().unwrap();
        let status = folder.path().join("archive_status");
        fs::create_dir(&status).unwrap();
        let now = clock::now();
        for (name, bytes, state, age) in [
            ("000000010000000000000001", 7, "ready", 30),
            ("000000010000000000000002", 5, "ready", 10),
            ("000000010000000000000003", 3, "done", 99),
            ("00000002.history", 0, "ready", 20),
        ] {
            if bytes > 0 {
                fs::write(folder.path().join(name), vec![0; bytes]).unwrap();
            }
            let mark = File::create(status.join(format!("{name}.{state}"))).unwrap();
            let since = SystemTime::from(now) - Duration::from_secs(age);
            mark.set_modified(since).unwrap();
        }
        let metrics = Metrics::default();
        show(&metrics, waiting(folder.path()).unwrap(), now);
        for (metric, expected) in [
            (Metric::WalReadyFiles, 3.0),
            (Metric::WalArchiveLagBytes, 12.0),
            (Metric::WalArchiveLagSeconds, 30.0),
        ] {
            let value = metrics.value(metric);
            assert!((value - expected).abs() < 0.5, "{metric:?}: {value}");
        }
        show(&metrics, Waiting::default(), now);
        assert!(metrics.value(Metric::WalArchiveLagSeconds) < 0.5);
    }

    #[test]
    fn a_new_primary_and_another_store_wake_its_maintenance() {
        let standby = Seen {
            primary: "pg-2".to_owned(),
            own: Some(ArchiveRef {
                object_store: "store".to_owned(),
                server: "pg".to_owned(),
            }),
            object_store: Some((Value::Null, Value::from(1))),
            ..Seen::default()
        };
        let primary = Seen {
            primary: "pg-1".to_owned(),
            is_primary: true,
            ..standby.clone()
        };
        let changed = Seen {
            object_store: Some((Value::Null, Value::from(2))),
            ..primary.clone()
        };
        let missing = Seen {
            object_store: None,
            ..primary.clone()
        };
        for (last, seen, expected) in [
            (&standby, &primary, true),
            (&primary, &primary, false),
            (&primary, &changed, true),
            (&missing, &primary, true),
            (&primary, &standby, false),
        ] {
            assert_eq!(seen.wakes(last), expected, "{last:?} {seen:?}");
        }
        assert!(standby.is_settled() && !missing.is_settled() && !Seen::default().is_settled());
    }

    #[test]
    fn the_kernel_tells_what_this_process_holds() {
        assert!(resident_bytes().unwrap() > 1 << 20);
    }
}
