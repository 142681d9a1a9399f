//! Looks now and then at what a scrape shows and nobody tells of: waiting WAL, the window, memory.
//!
//! Not here: what is counted where it happens, and answering scrapes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cellarman::clock;
use cellarman::metrics::{Metric, Metrics};
use chrono::{DateTime, Utc};
use tokio::task;
use tokio::time::{self, Instant};

use crate::cluster::Cluster;
use crate::instance::Context;
use crate::instance::status::Window;
use crate::instance::wal_wish::Fulfilled;
use crate::resources::{ObjectKind, ObjectRef};

/// Between two looks at this host.
const HOST_INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks at the ObjectStore's status.
const WINDOW_INTERVAL: Duration = Duration::from_secs(15);
const PAGE_BYTES: u64 = 4096;

/// WAL that the server has ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Waiting {
    files: u64,
    bytes: u64,
    oldest: Option<DateTime<Utc>>,
}

/// Looks until the process is to end.
pub async fn run(context: Context) {
    context
        .metrics
        .set_time(Metric::ProcessStart, Some(clock::now()));
    let mut window_at = Instant::now();
    let mut wishes = Fulfilled::default();
    loop {
        look_at_host(&context.metrics, context.pgdata.join("pg_wal")).await;
        show_last_recoverable(&context.metrics);
        if window_at <= Instant::now() {
            window_at = Instant::now() + WINDOW_INTERVAL;
            // Without an answer the values stay as they were.
            look_at_window(&context, &mut wishes).await;
        }
        tokio::select! {
            () = context.cancel.cancelled() => return,
            () = time::sleep(HOST_INTERVAL) => {}
        }
    }
}

/// What was archived last can be recovered to.
fn show_last_recoverable(metrics: &Metrics) {
    let last = metrics.value(Metric::WalLastArchived);
    if last > metrics.value(Metric::LastRecoverable) {
        metrics.copy(Metric::WalLastArchived, Metric::LastRecoverable);
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

async fn look_at_window(context: &Context, wishes: &mut Fulfilled) {
    let resources = &context.resources;
    let cluster = ObjectRef::new(ObjectKind::Cluster, &context.cluster_name);
    let Ok(cluster) = resources.get(&cluster).await else {
        return;
    };
    let Ok(cluster) = Cluster::parse(cluster.to_string().as_bytes()) else {
        return;
    };
    let Some(own) = cluster.archives(&context.plugin_name).own else {
        return;
    };
    let store = ObjectRef::new(ObjectKind::ObjectStore, &own.object_store);
    if let Ok(store) = resources.get(&store).await {
        Window::of(&store, &own.server).show(&context.metrics);
        if cluster.status.current_primary == context.pod_name {
            wishes.look(context, &store, &own.server).await;
        }
    }
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
    fn the_kernel_tells_what_this_process_holds() {
        assert!(resident_bytes().unwrap() > 1 << 20);
    }
}
