//! What verifications found, kept in the bucket: `<server>/cellarman/verify/`.
//!
//! ```text
//! <server>/cellarman/verify/summary.json     what the last run found, for metrics
//! <server>/cellarman/verify/backups/<id>.json  when a backup was last found sound, and how deep
//! ```
//!
//! Derived: losing them costs another verification. A result counts only for the very objects that it
//! was made from, which its `version` tells. Readers take fields that they do not know.
//!
//! Not here: verifying.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::barman::layout::Layout;
use crate::barman::repository::{Repository, RepositoryError};
use crate::domain::backup::BackupId;
use crate::fault::chain;
use crate::store::error::StoreError;
use crate::store::{ListRequest, ObjectKey, PutOptions};

/// Requests under way at a time.
const REQUESTS_IN_FLIGHT: usize = 16;

/// What is known of one backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The objects it was made from: `StoredBackup::version`.
    pub(super) version: String,
    /// The last look at the bytes.
    #[serde(default)]
    pub(super) contents: Option<Seen>,
    /// The last restore.
    #[serde(default)]
    pub(super) deep: Option<Seen>,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// When, as RFC 3339.
    pub(super) time: DateTimeText,
    /// Whether all was well.
    pub(super) is_sound: bool,
    /// What was found.
    #[serde(default)]
    pub(super) findings: Vec<String>,
}

/// A time as text, to the second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DateTimeText(String);

impl DateTimeText {
    pub(super) fn new(time: DateTime<Utc>) -> Self {
        Self(time.to_rfc3339_opts(SecondsFormat::Secs, true))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(&self) -> Option<DateTime<Utc>> {
        let time = DateTime::parse_from_rfc3339(&self.0).ok()?;
        Some(time.to_utc())
    }
}

impl From<DateTimeText> for String {
    fn from(text: DateTimeText) -> Self {
        text.0
    }
}

impl Kept {
    /// When a check of these very objects found all well.
    pub(super) fn sound_since(seen: Option<&Seen>) -> Option<DateTime<Utc>> {
        let seen = seen.filter(|seen| seen.is_sound)?;
        seen.time.parse()
    }
}

/// What the last verification found, for whoever shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// When the run began, as RFC 3339.
    pub time: String,
    /// Backups that were found sound, in this run or an earlier one.
    pub backups_verified: u64,
    /// Of those, the ones that were also restored and started.
    #[serde(default)]
    pub backups_verified_deep: u64,
    /// Backups that are damaged, or lack something.
    pub backups_damaged: u64,
    /// Backups of which nobody knows.
    pub backups_not_verified: u64,
    /// WAL segments missing between the first backup's begin and the end of its lines.
    pub wal_segments_missing: u64,
}

impl Summary {
    /// Where it lies.
    pub fn key(layout: &Layout) -> ObjectKey {
        layout.private("verify/summary.json")
    }

    /// When the run began.
    pub fn time(&self) -> Option<DateTime<Utc>> {
        DateTimeText(self.time.clone()).parse()
    }

    /// The summary of the last run; `None` where there was none, or it cannot be read.
    pub async fn read(repository: &Repository) -> Result<Option<Self>, RepositoryError> {
        match repository.get_small(&Self::key(&repository.layout)).await {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(RepositoryError::Store(error)) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts it. What cannot be put is told in the log: nothing is lost by it.
    pub(super) async fn put(&self, repository: &Repository) {
        put(repository, &Self::key(&repository.layout), self).await;
    }
}

fn prefix(layout: &Layout) -> String {
    layout.private("verify/backups/").as_str().to_owned()
}

fn key(layout: &Layout, id: &BackupId) -> ObjectKey {
    layout.private(&format!("verify/backups/{id}.json"))
}

/// All results, by backup. Those that make no sense are as if they were not there.
pub(super) async fn read_all(
    repository: &Repository,
) -> Result<BTreeMap<BackupId, Kept>, RepositoryError> {
    let ids = ids(repository).await?;
    stream::iter(ids)
        .map(async |id| {
            let read = repository.get_small(&key(&repository.layout, &id)).await;
            let kept = match read {
                Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
                Err(RepositoryError::Store(error)) if error.is_not_found() => Kept::default(),
                Err(error) => return Err(error),
            };
            Ok((id, kept))
        })
        .buffer_unordered(REQUESTS_IN_FLIGHT)
        .try_collect()
        .await
}

async fn ids(repository: &Repository) -> Result<Vec<BackupId>, StoreError> {
    let prefix = prefix(&repository.layout);
    let mut request = ListRequest {
        prefix: prefix.clone(),
        ..ListRequest::default()
    };
    let mut ids = Vec::new();
    loop {
        let page = repository.store.list(&request).await?;
        ids.extend(page.objects.iter().filter_map(|object| {
            let name = object.key.as_str().strip_prefix(&prefix)?;
            name.strip_suffix(".json")?.parse::<BackupId>().ok()
        }));
        request.token = page.next;
        if request.token.is_none() {
            return Ok(ids);
        }
    }
}

/// Keeps what was found of a backup.
pub(super) async fn keep(repository: &Repository, id: &BackupId, kept: &Kept) {
    put(repository, &key(&repository.layout, id), kept).await;
}

/// Takes the results of backups away that are gone.
pub(super) async fn forget(repository: &Repository, ids: &[BackupId]) {
    let keys: Vec<ObjectKey> = ids.iter().map(|id| key(&repository.layout, id)).collect();
    if !keys.is_empty()
        && let Err(error) = repository.store.delete(&keys).await
    {
        warn!(
            error = chain(&error),
            "cannot take the results of deleted backups away"
        );
    }
}

async fn put(repository: &Repository, key: &ObjectKey, document: &impl Serialize) {
    let Ok(text) = serde_json::to_vec_pretty(document) else {
        return;
    };
    let options = PutOptions::default();
    if let Err(error) = repository.store.put(key, text.into(), &options).await {
        warn!(%key, error = chain(&error), "cannot keep what was found: the next run verifies it again");
    }
}
