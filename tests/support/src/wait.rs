//! Waiting for a condition, with a deadline and never longer than needed.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything that should happen soon may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_mins(2);

const POLL: Duration = Duration::from_millis(20);

/// Asks `condition` until it has a value; `None` when `limit` has passed.
pub fn until<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(POLL);
    }
}

/// Asks `condition` until it has a value; fails the test with `what` after [`PATIENCE`].
#[track_caller]
pub fn for_value<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    until(PATIENCE, condition).unwrap_or_else(|| panic!("waited {PATIENCE:?} for {what}"))
}

/// Asks `condition` until it is true; fails the test with `what` after [`PATIENCE`].
#[track_caller]
pub fn until_true(what: &str, mut condition: impl FnMut() -> bool) {
    for_value(what, || condition().then_some(()));
}
