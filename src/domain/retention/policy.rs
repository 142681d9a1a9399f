//! What a user wants kept: a recovery window or a number of backups, in our words or Barman's.
//!
//! Not here: which backups that keeps.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};

/// What is kept of a server's backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionPolicy {
    /// What every moment of the last so many days can be recovered from.
    RecoveryWindow {
        /// The window's length. A month counts 31 days, as Barman counts it.
        days: NonZeroU32,
    },
    /// The newest so many backups.
    Redundancy(NonZeroU32),
}

/// Text that is no retention policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no retention policy: expected a window such as 7d, 2w or 1m, \
     RECOVERY WINDOW OF 7 DAYS, or REDUNDANCY 3"
)]
pub struct RetentionPolicyError {
    text: String,
}

impl RetentionPolicy {
    /// Where the window begins that ends at `now`; `None` for a policy without one.
    ///
    /// A window longer than time itself begins with time.
    pub fn window_start(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::RecoveryWindow { days } => {
                let start = now.checked_sub_signed(TimeDelta::days(i64::from(days.get())));
                Some(start.unwrap_or(DateTime::<Utc>::MIN_UTC))
            }
            Self::Redundancy(_) => None,
        }
    }
}

impl fmt::Display for RetentionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RecoveryWindow { days } => {
                let s = if days.get() == 1 { "" } else { "s" };
                write!(f, "a recovery window of {days} day{s}")
            }
            Self::Redundancy(count) => write!(f, "redundancy {count}"),
        }
    }
}

impl FromStr for RetentionPolicy {
    type Err = RetentionPolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        let words: Vec<&str> = lower.split_whitespace().collect();
        let parsed = match words.as_slice() {
            ["redundancy", count] => number(count).map(Self::Redundancy),
            ["recovery", "window", "of", count, unit] => window(count, unit),
            [short] => short
                .char_indices()
                .next_back()
                .and_then(|(at, _)| window(&short[..at], &short[at..])),
            _ => None,
        };
        parsed.ok_or_else(|| RetentionPolicyError {
            text: text.to_owned(),
        })
    }
}

fn window(count: &str, unit: &str) -> Option<RetentionPolicy> {
    let days_each = match unit {
        "d" | "day" | "days" => 1,
        "w" | "week" | "weeks" => 7,
        "m" | "month" | "months" => 31,
        _ => return None,
    };
    let days = number(count)?.checked_mul(NonZeroU32::new(days_each)?)?;
    Some(RetentionPolicy::RecoveryWindow { days })
}

/// Digits alone: no sign, and not zero, which would keep nothing.
fn number(text: &str) -> Option<NonZeroU32> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_in_our_words_and_in_barmans() {
        for (text, meaning) in [
            ("7d", "a recovery window of 7 days"),
            ("1D", "a recovery window of 1 day"),
            ("2w", "a recovery window of 14 days"),
            ("1m", "a recovery window of 31 days"),
            ("RECOVERY WINDOW OF 7 DAYS", "a recovery window of 7 days"),
            ("recovery window of 1 week", "a recovery window of 7 days"),
            (
                " Recovery  Window of 2 MONTHS ",
                "a recovery window of 62 days",
            ),
            ("REDUNDANCY 3", "redundancy 3"),
            ("redundancy 1", "redundancy 1"),
        ] {
            let policy: RetentionPolicy = text.parse().unwrap();
            assert_eq!(policy.to_string(), meaning, "{text:?}");
        }
    }

    #[test]
    fn what_would_keep_nothing_or_is_no_policy_is_refused() {
        for text in [
            "",
            "7",
            "d",
            "0d",
            "-1d",
            "+1d",
            "7y",
            "7 d",
            "7é",
            "REDUNDANCY 0",
            "REDUNDANCY",
            "REDUNDANCY 1 2",
            "RECOVERY WINDOW OF 0 DAYS",
            "RECOVERY WINDOW OF 7 YEARS",
            "RECOVERY WINDOW 7 DAYS",
            "4294967295m",
            "99999999999d",
        ] {
            assert!(text.parse::<RetentionPolicy>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_window_longer_than_time_begins_with_time() {
        let now = DateTime::from_timestamp(1_795_240_000, 0).unwrap();
        let policy: RetentionPolicy = "4294967295d".parse().unwrap();
        assert_eq!(policy.window_start(now), Some(DateTime::<Utc>::MIN_UTC));
        let week: RetentionPolicy = "1w".parse().unwrap();
        assert_eq!(week.window_start(now), Some(now - TimeDelta::days(7)));
    }
}
