//! The files that are being archived ahead, each by a task of its own.
//!
//! Not here: which files those are and how they are archived (`look_ahead`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::domain::wal_file::WalFileName;

/// The tasks by their file. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashMap<WalFileName, Job>>>);

#[derive(Debug)]
struct Job {
    abort: AbortHandle,
    /// Closed when the task has ended.
    end: watch::Receiver<()>,
}

/// Takes a task out when it ends, or is dropped.
struct Leave {
    under_way: UnderWay,
    name: WalFileName,
    _end: watch::Sender<()>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.under_way.jobs().remove(&self.name);
    }
}

impl UnderWay {
    /// Begins the work on this file, unless it is under way.
    pub(super) fn begin(&self, name: WalFileName, work: impl Future<Output = ()> + Send + 'static) {
        // Held until the task is noted: it may be at its end before.
        let mut jobs = self.jobs();
        if jobs.contains_key(&name) {
            return;
        }
        let (sender, end) = watch::channel(());
        let leave = Leave {
            under_way: self.clone(),
            name,
            _end: sender,
        };
        let task = tokio::spawn(async move {
            let _leave = leave;
            work.await;
        });
        let abort = task.abort_handle();
        jobs.insert(name, Job { abort, end });
    }

    /// Whether this file is under way.
    pub(super) fn has(&self, name: WalFileName) -> bool {
        self.jobs().contains_key(&name)
    }

    /// How many files are.
    pub(super) fn count(&self) -> usize {
        self.jobs().len()
    }

    /// Waits until nothing is done about this file.
    pub(super) async fn end_of(&self, name: WalFileName) {
        let end = self.jobs().get(&name).map(|job| job.end.clone());
        if let Some(end) = end {
            closed(end).await;
        }
    }

    /// Waits until all that is under way now has ended.
    pub(super) async fn end_of_all(&self) {
        let ends: Vec<_> = self.jobs().values().map(|job| job.end.clone()).collect();
        for end in ends {
            closed(end).await;
        }
    }

    /// Gives up all that is under way.
    pub(super) fn give_up(&self) {
        for job in self.jobs().values() {
            job.abort.abort();
        }
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<WalFileName, Job>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn closed(mut end: watch::Receiver<()>) {
    while end.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use std::future;

    use super::*;

    fn name(text: &str) -> WalFileName {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_file_is_under_way_until_its_work_ends_or_is_given_up() {
        let under_way = UnderWay::default();
        let (first, second) = (
            name("000000010000000000000001"),
            name("000000010000000000000002"),
        );
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        under_way.begin(first, async {
            let _ = released.await;
        });
        under_way.begin(first, async { panic!("begun twice") });
        under_way.begin(second, future::pending());
        assert!(under_way.has(first));
        assert_eq!(under_way.count(), 2);
        release.send(()).unwrap();
        under_way.end_of(first).await;
        assert!(!under_way.has(first));
        under_way.give_up();
        under_way.end_of_all().await;
        assert_eq!(under_way.count(), 0);
    }
}
