//! A limit on bandwidth, shared by all uploads of a run.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One rate for all who share it: bytes leave no faster, in bursts of one part.
#[derive(Debug)]
pub struct RateLimiter {
    bytes_per_second: NonZeroU64,
    free_at: Mutex<Option<Instant>>,
}

impl RateLimiter {
    /// A limiter for this rate.
    pub fn new(bytes_per_second: NonZeroU64) -> Self {
        Self {
            bytes_per_second,
            free_at: Mutex::new(None),
        }
    }

    /// Waits until `bytes` more may leave.
    pub async fn acquire(&self, bytes: usize) {
        let at = self.reserve(bytes, Instant::now());
        tokio::time::sleep_until(at).await;
    }

    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let bytes = u128::try_from(bytes).unwrap_or(u128::MAX);
        let nanos = bytes.saturating_mul(1_000_000_000) / u128::from(self.bytes_per_second.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let at = free_at.map_or(now, |free_at| free_at.max(now));
        *free_at = Some(at.checked_add(cost).unwrap_or(at));
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_waits_for_what_left_before_it_and_no_longer() {
        let limiter = RateLimiter::new(NonZeroU64::new(1000).unwrap());
        let start = Instant::now();
        for (bytes, at_millis, waits_until_millis) in [
            (500, 0, 0),
            (2000, 0, 500),
            (1, 100, 2500),
            (1000, 10_000, 10_000),
            (1, 10_000, 11_000),
        ] {
            let at = start + Duration::from_millis(at_millis);
            let waits_until = start + Duration::from_millis(waits_until_millis);
            let reserved = limiter.reserve(bytes, at);
            let difference = reserved.max(waits_until) - reserved.min(waits_until);
            assert!(
                difference <= Duration::from_millis(1),
                "{bytes} bytes at {at_millis} ms"
            );
        }
    }
}
