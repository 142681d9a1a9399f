//! The store's clock, which all hosts that use the archive share, and this host's beside it.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use tracing::warn;

use crate::barman::repository::Repository;
use crate::store::PutOptions;
use crate::store::error::StoreError;

/// A difference between this host's clock and the store's that is worth a word.
const DIFFERENCE_MAX: TimeDelta = TimeDelta::minutes(5);

/// The store's time: this host's clock may be minutes off, and would declare a living run dead.
pub(super) async fn store_now(repository: &Repository) -> Result<DateTime<Utc>, StoreError> {
    let key = repository.layout.private("clock");
    let options = PutOptions::default();
    repository.store.put(&key, Bytes::new(), &options).await?;
    // Left there: another run may be looking at it.
    Ok(repository.store.head(&key).await?.modified)
}

/// The time that deletion goes by: the store's, or this host's `host` where that is earlier.
///
/// Ahead of the truth, a clock shortens a recovery window and takes living runs for dead; behind
/// it, it only keeps more. So one clock that is right suffices.
///
/// # Errors
/// Where nothing may be put, the store's time cannot be had, nor can anything be deleted: that
/// begins with the put of a record.
pub async fn now(
    repository: &Repository,
    host: DateTime<Utc>,
) -> Result<DateTime<Utc>, StoreError> {
    let store = store_now(repository).await?;
    if let Some(words) = difference(host, store) {
        warn!("{words}; deleting goes by the earlier of the two");
    }
    Ok(store.min(host))
}

/// Says so if the store put something, at `newest` by its clock, well after `host`, which is now.
pub fn warn_if_behind(host: DateTime<Utc>, newest: DateTime<Utc>) {
    if newest > host
        && let Some(words) = difference(host, newest)
    {
        warn!("{words} or more");
    }
}

/// In words, by how much the clocks differ, where that is worth a word.
fn difference(host: DateTime<Utc>, store: DateTime<Utc>) -> Option<String> {
    let ahead = host.signed_duration_since(store);
    let side = if ahead > TimeDelta::zero() {
        "ahead of"
    } else {
        "behind"
    };
    let minutes = ahead.abs().num_minutes();
    (ahead.abs() > DIFFERENCE_MAX)
        .then(|| format!("the clock of this host is {side} the store's by {minutes} minutes"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::barman::layout::Layout;
    use crate::clock;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn deletion_goes_by_the_earlier_of_both_clocks() {
        let layout = Layout::new("p", &"srv".parse().unwrap());
        let repository = Repository::new(Arc::new(MemoryStore::new()), layout);
        let ahead = clock::now() + TimeDelta::days(31);
        let went_by = now(&repository, ahead).await.unwrap();
        assert!(went_by <= clock::now(), "{went_by}");
        let behind = clock::now() - TimeDelta::days(1);
        assert_eq!(now(&repository, behind).await.unwrap(), behind);
    }

    #[test]
    fn a_difference_is_told_from_five_minutes_on() {
        let host = clock::now();
        let words = |seconds| difference(host, host + TimeDelta::seconds(seconds));
        assert_eq!((words(300), words(-300)), (None, None));
        assert!(
            words(360)
                .unwrap()
                .ends_with("behind the store's by 6 minutes")
        );
        assert!(
            words(-720)
                .unwrap()
                .ends_with("ahead of the store's by 12 minutes")
        );
    }
}
