//! What the operator's side of the plugin decides: values in, values out.
//!
//! | module | what it decides |
//! |---|---|
//! | [`lifecycle`] | the patch of a Pod or a Job |
//! | [`roles`] | the Role and the RoleBinding of a Cluster, and what has to change |
//! | [`hooks`] | what happens before and after a reconciliation |
//! | [`validation`] | what is wrong with a Cluster |
//! | [`capabilities`] | what the operator's side can do |
//! | [`names`] | what things are called |
//!
//! Pure. Not here: carrying it out (`serving`, `controller`).

pub mod capabilities;
pub mod hooks;
pub mod lifecycle;
pub mod names;
pub mod roles;
pub mod validation;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::cluster::{ArchiveRef, Archives, Cluster};
use crate::operator::names::Names;

/// The ObjectStores of one namespace by name, as raw JSON.
pub type ObjectStores = BTreeMap<String, Value>;

/// What the operator's side was started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The plugin's name; what is injected is named after it.
    pub names: Names,
    /// The version of this program, for a label.
    pub version: String,
    /// The image of the sidecars, where an ObjectStore does not name its own.
    pub sidecar_image: String,
    /// The group of Clusters where one does not say it itself (`CUSTOM_CNPG_GROUP`).
    pub cluster_group: String,
    /// The version of that group (`CUSTOM_CNPG_VERSION`).
    pub cluster_version: String,
}

impl Settings {
    /// The settings for the plugin of this name with this sidecar.
    ///
    /// Clusters are in the operator's usual group until told otherwise.
    pub fn new(plugin_name: &str, sidecar_image: &str) -> Self {
        Self {
            names: Names::of(plugin_name),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sidecar_image: sidecar_image.to_owned(),
            cluster_group: "postgresql.cnpg.io".to_owned(),
            cluster_version: "v1".to_owned(),
        }
    }

    /// The group and the version of a Cluster: its own words, else the settings.
    ///
    /// The operator leaves them out in some calls and not in others, and the answer must not
    /// depend on it.
    pub(crate) fn group_and_version<'a>(&'a self, cluster: &'a Cluster) -> (&'a str, &'a str) {
        cluster
            .api_version
            .split_once('/')
            .unwrap_or((&self.cluster_group, &self.cluster_version))
    }
}

/// An ObjectStore that a Cluster names and that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingStore {
    /// The field of the Cluster that names it.
    pub field: String,
    /// The Cluster.
    pub cluster: String,
    /// Their namespace.
    pub namespace: String,
    /// The ObjectStore.
    pub store: String,
}

impl MissingStore {
    /// What to do about it, in one sentence.
    pub fn hint(&self) -> String {
        format!(
            "Create ObjectStore {} in namespace {}, or correct {} of Cluster {}.",
            self.store, self.namespace, self.field, self.cluster
        )
    }
}

impl fmt::Display for MissingStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "ObjectStore {} is not in namespace {}, and {} of Cluster {} names it",
            self.store, self.namespace, self.field, self.cluster
        )
    }
}

/// The first ObjectStore that the Cluster names and that is not among `stores`.
pub fn missing_store(
    cluster: &Cluster,
    stores: &ObjectStores,
    names: &Names,
) -> Option<MissingStore> {
    let archives = cluster.archives(&names.plugin);
    let missing = in_order(&archives)
        .into_iter()
        .find(|archive| !stores.contains_key(&archive.object_store))?;
    Some(MissingStore {
        field: field_naming(cluster, &archives, missing, &names.plugin),
        cluster: cluster.metadata.name.clone(),
        namespace: cluster.metadata.namespace.clone(),
        store: missing.object_store.clone(),
    })
}

/// The archives that are named: its own, that of the recovery, that of the replica's source.
pub(crate) fn in_order(archives: &Archives) -> Vec<&ArchiveRef> {
    [&archives.own, &archives.recovery, &archives.replica_source]
        .into_iter()
        .flatten()
        .collect()
}

fn field_naming(
    cluster: &Cluster,
    archives: &Archives,
    archive: &ArchiveRef,
    plugin: &str,
) -> String {
    let is_own = archives.own.as_ref() == Some(archive);
    let source = if archives.recovery.as_ref() == Some(archive) {
        cluster.recovery().map(|recovery| recovery.source.as_str())
    } else {
        let replica = cluster.spec.replica.as_ref();
        replica.map(|replica| replica.source.as_str())
    };
    match source {
        Some(source) if !is_own => {
            let clusters = cluster.spec.external_clusters.iter();
            let index = clusters.take_while(|known| known.name != source).count();
            format!("spec.externalClusters[{index}].plugin.parameters.barmanObjectName")
        }
        _ => {
            let index = own_entry_index(cluster, plugin).unwrap_or_default();
            format!("spec.plugins[{index}].parameters.barmanObjectName")
        }
    }
}

/// Where the entry that counts stands in `spec.plugins`.
pub(crate) fn own_entry_index(cluster: &Cluster, plugin: &str) -> Option<usize> {
    let mut entries = cluster.spec.plugins.iter();
    entries.rposition(|entry| entry.name == plugin)
}

#[cfg(test)]
mod fixtures;
