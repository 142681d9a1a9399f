//! Which Backups of the namespace have nothing behind them any more, and which archives beside the
//! Cluster's own are this Cluster's alone. Pure.
//!
//! A Backup is deleted only on a listing of the very archive that it is in. Not here: the listing,
//! and the deletion.

use std::collections::BTreeSet;

use cellarman::barman::repository::{Catalog, CatalogEntry};
use cellarman::domain::backup::BackupStatus;
use cellarman::domain::backup::SystemId;
use serde_json::Value;

use crate::cluster::{ArchiveRef, Cluster};
use crate::instance::backup::{
    DESTINATION_KEY, OBJECT_STORE_KEY, PLUGIN_ELSEWHERE_KEY, PLUGIN_KEY, SERVER_KEY,
};

/// A completed Backup that this plugin took of this very Cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Completed {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The backup in the archive.
    pub id: String,
    /// Where that is; `None` from a plugin that did not say.
    pub archive: Option<ArchiveRef>,
    /// Where the ObjectStore led to then.
    pub destination: Option<String>,
}

/// An archive as it was just seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    /// Which one.
    pub archive: &'a ArchiveRef,
    /// Where its ObjectStore leads to.
    pub destination: &'a str,
    /// All its backups.
    pub catalog: &'a Catalog,
    /// Whether it is the Cluster's own.
    pub is_own: bool,
}

impl Seen<'_> {
    fn is(&self, archive: &ArchiveRef, destination: &str) -> bool {
        archive == self.archive
            && destination.trim_end_matches('/') == self.destination.trim_end_matches('/')
    }
}

/// The Backups that may be collected.
pub(super) fn completed(backups: &[Value], cluster: &Cluster, plugin: &str) -> Vec<Completed> {
    let uid = cluster.metadata.uid.as_str();
    let ours = backups.iter().filter(|backup| {
        let metadata = &backup["status"]["pluginMetadata"];
        !uid.is_empty()
            && backup["spec"]["cluster"]["name"] == cluster.metadata.name.as_str()
            && backup["spec"]["method"] == "plugin"
            && backup["status"]["phase"] == "completed"
            && metadata["clusterUID"] == uid
            && [PLUGIN_KEY, PLUGIN_ELSEWHERE_KEY]
                .iter()
                .any(|key| metadata[*key] == plugin)
    });
    ours.filter_map(one).collect()
}

fn one(backup: &Value) -> Option<Completed> {
    let text = |value: &Value| {
        let text = value.as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned)
    };
    let metadata = &backup["status"]["pluginMetadata"];
    let archive = || {
        Some(ArchiveRef {
            object_store: text(&metadata[OBJECT_STORE_KEY])?,
            server: text(&metadata[SERVER_KEY])?,
        })
    };
    Some(Completed {
        name: text(&backup["metadata"]["name"])?,
        uid: text(&backup["metadata"]["uid"]).unwrap_or_default(),
        id: text(&backup["status"]["backupId"])?,
        archive: archive(),
        destination: text(&metadata[DESTINATION_KEY]),
    })
}

/// Those of the Backups whose backup is not in the archive that they are in.
///
/// One that does not say where it is counts as being in the Cluster's own archive, but only while
/// that has any completed backup: an archive that is empty may be another one.
pub(super) fn gone<'a>(completed: &'a [Completed], seen: Seen<'_>) -> Vec<&'a Completed> {
    let entries = &seen.catalog.backups;
    let is_any_done = entries
        .iter()
        .any(|entry| entry.backup.status == BackupStatus::Done);
    let readable = entries.iter().map(|entry| entry.backup.id.as_str());
    let unreadable = seen.catalog.unreadable.iter().map(|one| one.id.as_str());
    let there: BTreeSet<&str> = readable.chain(unreadable).collect();
    let is_in_it = |backup: &Completed| match (&backup.archive, &backup.destination) {
        (Some(archive), Some(destination)) => seen.is(archive, destination),
        (Some(archive), None) => archive == seen.archive && is_any_done,
        (None, _) => seen.is_own && is_any_done,
    };
    let in_it = completed.iter().filter(|backup| is_in_it(backup));
    in_it
        .filter(|backup| !there.contains(backup.id.as_str()))
        .collect()
}

/// Whether a listing of another archive than the Cluster's own shows nothing but this Cluster's:
/// each completed backup belongs to one of the Backups, none is of another system than `ours`, and
/// none is unreadable.
///
/// The system alone would not tell: a Cluster that was recovered from another has its identifier.
pub(super) fn is_ours(completed: &[Completed], seen: Seen<'_>, ours: SystemId) -> bool {
    let here = completed.iter().filter(|backup| {
        let place = backup.archive.as_ref().zip(backup.destination.as_deref());
        place.is_some_and(|(archive, destination)| seen.is(archive, destination))
    });
    let known: BTreeSet<&str> = here.map(|backup| backup.id.as_str()).collect();
    let is_one = |entry: &CatalogEntry| {
        let backup = &entry.backup;
        let is_done = backup.status == BackupStatus::Done;
        match backup.system_id {
            Some(system) => system == ours && (!is_done || known.contains(backup.id.as_str())),
            // A backup that ended before it began has none yet.
            None => !is_done,
        }
    };
    seen.catalog.unreadable.is_empty() && seen.catalog.backups.iter().all(is_one)
}

#[cfg(test)]
mod tests;
