//! How far a long command is: a bar on a terminal, a log line every few seconds elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::text;

/// Between two log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes done of bytes to do. Shared by all workers; cheap to add to.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    total: Option<u64>,
    done: AtomicU64,
    begun: Instant,
    logged: Mutex<Instant>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins to show `what`, of `total` bytes where that is known.
    pub fn begin(what: &'static str, total: Option<u64>) -> Self {
        let bar = std::io::stderr()
            .is_terminal()
            .then(|| new_bar(what, total));
        let begun = Instant::now();
        Self {
            what,
            total,
            done: AtomicU64::new(0),
            begun,
            logged: Mutex::new(begun),
            bar,
        }
    }

    /// So many bytes more are done.
    pub fn add(&self, bytes: u64) {
        let done = self
            .done
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        } else if self.is_time_to_log() {
            self.log(done);
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn is_time_to_log(&self) -> bool {
        // Whoever finds the lock taken leaves the line to the other.
        let Ok(mut logged) = self.logged.try_lock() else {
            return false;
        };
        let is_time = logged.elapsed() >= LOG_INTERVAL;
        if is_time {
            *logged = Instant::now();
        }
        is_time
    }

    fn log(&self, done: u64) {
        let elapsed = self.begun.elapsed();
        let per_second = u128::from(done) * 1000 / elapsed.as_millis().max(1);
        let rate = format!(
            "{}/s",
            text::size(u64::try_from(per_second).unwrap_or(u64::MAX))
        );
        let done_text = text::size(done);
        if let Some(total) = self.total.filter(|total| *total > 0 && per_second > 0) {
            let percent = (u128::from(done) * 100 / u128::from(total)).min(100);
            let left = u128::from(total.saturating_sub(done)) / per_second;
            let left = text::duration(Duration::from_secs(u64::try_from(left).unwrap_or(u64::MAX)));
            tracing::info!(done = done_text, %percent, rate, left, "{}", self.what);
        } else {
            tracing::info!(done = done_text, rate, "{}", self.what);
        }
    }
}

fn new_bar(what: &'static str, total: Option<u64>) -> ProgressBar {
    let template = if total.is_some() {
        "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left"
    } else {
        "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}"
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = total
        .map_or_else(ProgressBar::new_spinner, ProgressBar::new)
        .with_style(style)
        .with_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
