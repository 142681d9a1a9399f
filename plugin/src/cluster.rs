//! The Cluster as the operator sends it: the few fields that matter here, out of its raw JSON.
//!
//! Anything else in the document is passed over, for newer operators send more. Pure.
//! Not here: ObjectStores, and reading a Cluster from anywhere (`resources`).

use std::collections::BTreeMap;

use serde::Deserialize;

/// A document that is no Cluster.
#[derive(Debug, thiserror::Error)]
#[error("the cluster definition cannot be read")]
pub struct ClusterError(#[from] serde_json::Error);

/// A Cluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cluster {
    /// Group and version; the operator may leave it out.
    pub api_version: String,
    /// Its identity.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: ClusterSpec,
    /// What the operator reports.
    pub status: ClusterStatus,
}

/// What names an object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its identity among all that had this name.
    pub uid: String,
    /// Its annotations.
    #[serde(deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What is wanted of a Cluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterSpec {
    /// How many instances.
    pub instances: Option<u32>,
    /// When images are pulled; copied into the sidecar.
    pub image_pull_policy: Option<String>,
    /// The plugins of the Cluster itself.
    #[serde(deserialize_with = "null_is_empty")]
    pub plugins: Vec<PluginEntry>,
    /// Clusters that this one knows.
    #[serde(deserialize_with = "null_is_empty")]
    pub external_clusters: Vec<ExternalCluster>,
    /// How it comes to be.
    pub bootstrap: Option<Bootstrap>,
    /// Whom it follows.
    pub replica: Option<Replica>,
    /// A volume of its own for WAL; its contents do not matter here.
    pub wal_storage: Option<serde_json::Value>,
    /// The account its Pods run as, where it is not the Cluster's name.
    pub service_account_name: Option<String>,
    /// In-tree backups.
    pub backup: Option<serde_json::Value>,
}

/// A plugin with its parameters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PluginEntry {
    /// Its name.
    pub name: String,
    /// Whether it is in use; yes when absent.
    pub enabled: Option<bool>,
    /// Whether the operator takes it for the one that archives WAL.
    #[serde(rename = "isWALArchiver")]
    pub is_wal_archiver: Option<bool>,
    /// Its parameters.
    #[serde(deserialize_with = "null_is_empty")]
    pub parameters: BTreeMap<String, String>,
}

/// A cluster that a Cluster knows.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExternalCluster {
    /// Its name in this Cluster.
    pub name: String,
    /// How to reach its server, if at all.
    #[serde(deserialize_with = "null_is_empty")]
    pub connection_parameters: BTreeMap<String, String>,
    /// The plugin that leads to its archive.
    pub plugin: Option<PluginEntry>,
}

/// How a Cluster comes to be.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Bootstrap {
    /// From an archive.
    pub recovery: Option<Recovery>,
}

/// How a Cluster comes to be from an archive.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Recovery {
    /// The external cluster.
    pub source: String,
    /// How far.
    pub recovery_target: Option<RecoveryTarget>,
    /// The in-tree form, or volume snapshots; their contents do not matter here.
    pub backup: Option<serde_json::Value>,
    /// Volume snapshots; their contents do not matter here.
    pub volume_snapshots: Option<serde_json::Value>,
}

/// How far recovery goes, in the words of the Cluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RecoveryTarget {
    /// The backup to start from.
    #[serde(rename = "backupID")]
    pub backup_id: Option<String>,
    /// `latest` or a number.
    #[serde(rename = "targetTLI")]
    pub target_tli: Option<String>,
    /// A transaction.
    #[serde(rename = "targetXID")]
    pub target_xid: Option<String>,
    /// A restore point.
    #[serde(rename = "targetName")]
    pub target_name: Option<String>,
    /// A position.
    #[serde(rename = "targetLSN")]
    pub target_lsn: Option<String>,
    /// A time.
    #[serde(rename = "targetTime")]
    pub target_time: Option<String>,
    /// The end of the backup.
    #[serde(rename = "targetImmediate")]
    pub target_immediate: Option<bool>,
    /// Stop just before it.
    pub exclusive: Option<bool>,
}

/// Whom a Cluster follows.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Replica {
    /// Whether it does; absent where `primary` decides.
    pub enabled: Option<bool>,
    /// The external cluster it follows.
    pub source: String,
    /// The name of the Cluster that leads.
    pub primary: Option<String>,
    /// This Cluster's name among them.
    #[serde(rename = "self")]
    pub itself: Option<String>,
}

/// What the operator reports of a Cluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The instance that leads; empty before there is one.
    pub current_primary: String,
    /// The instance that shall lead.
    pub target_primary: String,
    /// The timeline it is on; 0 when unknown.
    #[serde(rename = "timelineID")]
    pub timeline_id: u32,
}

/// One archive: an ObjectStore of the Cluster's namespace and a server in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveRef {
    /// The ObjectStore's name.
    pub object_store: String,
    /// The folder in it.
    pub server: String,
}

/// The archives that a Cluster names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archives {
    /// What it archives to.
    pub own: Option<ArchiveRef>,
    /// What it is recovered from.
    pub recovery: Option<ArchiveRef>,
    /// What it follows.
    pub replica_source: Option<ArchiveRef>,
}

impl Archives {
    /// The names of all ObjectStores, sorted, each once.
    pub fn object_stores(&self) -> Vec<&str> {
        let all = [&self.own, &self.recovery, &self.replica_source];
        let mut names: Vec<&str> = all
            .into_iter()
            .flatten()
            .map(|archive| archive.object_store.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Cluster {
    /// The Cluster in this JSON.
    pub fn parse(definition: &[u8]) -> Result<Self, ClusterError> {
        Ok(serde_json::from_slice(definition)?)
    }

    /// The archives it names for the plugin of this name.
    ///
    /// As the reference has it: the server defaults to the name of this Cluster, also for external
    /// clusters; of several entries with the plugin's name the last counts; a store is taken from
    /// an entry that is not enabled, so that the sidecar stays, and its server is not.
    pub fn archives(&self, plugin: &str) -> Archives {
        let external = |name: &str| {
            let found = self.spec.external_clusters.iter();
            let mut found = found.filter(|cluster| cluster.name == name);
            let entry = found.next()?.plugin.as_ref()?;
            let is_ours = entry.name == plugin;
            is_ours.then(|| self.archive_of(entry)).flatten()
        };
        let recovery = self.recovery().map(|recovery| recovery.source.as_str());
        let replica = self.spec.replica.as_ref();
        let replica = replica.map(|replica| replica.source.as_str());
        Archives {
            own: self.entry(plugin).and_then(|entry| {
                let mut archive = self.archive_of(entry)?;
                if !entry.is_enabled() {
                    archive.server.clone_from(&self.metadata.name);
                }
                Some(archive)
            }),
            recovery: recovery.and_then(external),
            replica_source: replica.and_then(external),
        }
    }

    /// The entry of its own for the plugin of this name.
    pub fn entry(&self, plugin: &str) -> Option<&PluginEntry> {
        let entries = self.spec.plugins.iter();
        entries.rev().find(|entry| entry.name == plugin)
    }

    /// How it is to be recovered, if it is.
    pub fn recovery(&self) -> Option<&Recovery> {
        self.spec.bootstrap.as_ref()?.recovery.as_ref()
    }

    /// The external cluster of this name.
    pub fn external_cluster(&self, name: &str) -> Option<&ExternalCluster> {
        let mut clusters = self.spec.external_clusters.iter();
        clusters.find(|cluster| cluster.name == name)
    }

    fn archive_of(&self, entry: &PluginEntry) -> Option<ArchiveRef> {
        let value = |key: &str| {
            let value = entry.parameters.get(key)?.trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        Some(ArchiveRef {
            object_store: value("barmanObjectName")?,
            server: value("serverName").unwrap_or_else(|| self.metadata.name.clone()),
        })
    }
}

impl PluginEntry {
    /// Whether it is in use.
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLUGIN: &str = "barman-cloud.cloudnative-pg.io";

    fn archive(object_store: &str, server: &str) -> ArchiveRef {
        ArchiveRef {
            object_store: object_store.to_owned(),
            server: server.to_owned(),
        }
    }

    fn check(spec: &str, expected: &Archives) {
        let text = format!(r#"{{"metadata": {{"name": "pg"}}, "spec": {spec}}}"#);
        let cluster = Cluster::parse(text.as_bytes()).unwrap();
        assert_eq!(&cluster.archives(PLUGIN), expected, "{spec}");
    }

    #[test]
    fn each_archive_is_found_where_it_is_named() {
        let external = r#""externalClusters": [
            {"name": "origin", "plugin": {"name": "barman-cloud.cloudnative-pg.io",
             "parameters": {"barmanObjectName": "b", "serverName": "old"}}},
            {"name": "other", "plugin": {"name": "else", "parameters": {"barmanObjectName": "x"}}}]"#;
        check("{}", &Archives::default());
        check(
            &format!(
                r#"{{"plugins": [{{"name": "{PLUGIN}", "parameters": {{"barmanObjectName": "a", "serverName": ""}}}}],
                "bootstrap": {{"recovery": {{"source": "origin"}}}}, "replica": {{"source": "other"}}, {external}}}"#
            ),
            &Archives {
                own: Some(archive("a", "pg")),
                recovery: Some(archive("b", "old")),
                replica_source: None,
            },
        );
        check(
            &format!(
                r#"{{"plugins": null, "replica": {{"enabled": false, "source": "origin"}}, {external}}}"#
            ),
            &Archives {
                replica_source: Some(archive("b", "old")),
                ..Archives::default()
            },
        );
    }

    #[test]
    fn a_disabled_entry_names_the_store_and_not_the_server() {
        check(
            &format!(
                r#"{{"plugins": [{{"name": "{PLUGIN}", "enabled": false,
                "parameters": {{"barmanObjectName": "a", "serverName": "s"}}}}]}}"#
            ),
            &Archives {
                own: Some(archive("a", "pg")),
                ..Archives::default()
            },
        );
    }

    #[test]
    fn stores_are_listed_once_in_order() {
        let archives = Archives {
            own: Some(archive("b", "1")),
            recovery: Some(archive("a", "2")),
            replica_source: Some(archive("b", "3")),
        };
        assert_eq!(archives.object_stores(), ["a", "b"]);
    }
}
