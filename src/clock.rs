//! The one place that reads the wall clock.
//!
//! Decisions take the time as an argument; only commands and services that act call this.

use chrono::{DateTime, Utc};

/// The time now, in UTC.
#[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}
