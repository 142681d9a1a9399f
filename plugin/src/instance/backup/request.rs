//! What a request for a backup means. Pure.
//!
//! Not here: what is done about it.

use cellarman::cnpgi::backup::BackupRequest;
use cellarman::fault::chain;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::cluster::{ArchiveRef, Cluster, Metadata};

const STORE_PARAMETER: &str = "barmanObjectName";
const SERVER_PARAMETER: &str = "serverName";

/// The backup that is wanted.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The Cluster.
    pub cluster: Cluster,
    /// The Backup's name.
    pub resource_name: String,
    /// The name in the archive, beside the id.
    pub backup_name: String,
    /// Where it goes.
    pub archive: ArchiveRef,
    /// Where the server's WAL goes.
    pub own: Option<ArchiveRef>,
    /// Whether the checkpoint is made at full speed.
    pub is_immediate: bool,
    /// Whether the WAL it needs is to be waited for.
    pub waits_for_archive: bool,
    /// Parameters that mean nothing here.
    pub unknown_parameters: Vec<String>,
}

/// What matters of a Backup.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BackupDefinition {
    metadata: Metadata,
    spec: BackupSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct BackupSpec {
    online_configuration: Option<OnlineConfiguration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OnlineConfiguration {
    wait_for_archive: Option<bool>,
    immediate_checkpoint: Option<bool>,
}

impl Wanted {
    /// Reads the request; an error says what is wrong with it.
    pub(super) fn parse(
        request: &BackupRequest,
        plugin: &str,
        now: DateTime<Utc>,
    ) -> Result<Self, String> {
        let cluster = Cluster::parse(&request.cluster_definition).map_err(|error| chain(&error))?;
        let definition: BackupDefinition = serde_json::from_slice(&request.backup_definition)
            .map_err(|error| format!("the backup definition cannot be read: {error}"))?;
        let own = cluster.archives(plugin).own;
        let parameter = |name: &str| {
            let value = request.parameters.get(name)?.trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        let store = parameter(STORE_PARAMETER)
            .or_else(|| own.as_ref().map(|own| own.object_store.clone()))
            .ok_or_else(|| no_store(&cluster, plugin))?;
        let server = parameter(SERVER_PARAMETER)
            .or_else(|| own.as_ref().map(|own| own.server.clone()))
            .unwrap_or_else(|| cluster.metadata.name.clone());
        let known = [STORE_PARAMETER, SERVER_PARAMETER];
        let mut unknown: Vec<String> = request.parameters.keys().cloned().collect();
        unknown.retain(|name| !known.contains(&name.as_str()));
        unknown.sort_unstable();
        let online = definition.spec.online_configuration.unwrap_or_default();
        Ok(Self {
            resource_name: definition.metadata.name,
            backup_name: now.format("backup-%Y%m%d%H%M%S").to_string(),
            archive: ArchiveRef {
                object_store: store,
                server,
            },
            own,
            is_immediate: online.immediate_checkpoint.unwrap_or(false),
            waits_for_archive: online.wait_for_archive.unwrap_or(true),
            unknown_parameters: unknown,
            cluster,
        })
    }

    /// Whether the WAL it needs is waited for, whatever is asked.
    ///
    /// Nobody but a backup that waits puts WAL into another archive than the Cluster's own.
    pub(super) fn waits_for_wal(&self) -> bool {
        self.waits_for_archive || self.own.as_ref() != Some(&self.archive)
    }
}

fn no_store(cluster: &Cluster, plugin: &str) -> String {
    format!(
        "no ObjectStore is named: set {STORE_PARAMETER} in spec.plugins[].parameters of Cluster {} \
         for the plugin {plugin}, or in spec.pluginConfiguration.parameters of the Backup",
        cluster.metadata.name
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;

    const PLUGIN: &str = "barman-cloud.cloudnative-pg.io";

    fn request(own: bool, parameters: &[(&str, &str)]) -> BackupRequest {
        let plugins =
            json!([{"name": PLUGIN, "parameters": {"barmanObjectName": "a", "serverName": "s"}}]);
        let plugins = if own { plugins } else { json!([]) };
        let cluster = json!({"metadata": {"name": "pg"}, "spec": {"plugins": plugins}});
        let backup = json!({"metadata": {"name": "b"}, "spec": {
            "onlineConfiguration": {"immediateCheckpoint": true}}});
        let parameters = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        BackupRequest {
            cluster_definition: cluster.to_string().into(),
            backup_definition: backup.to_string().into(),
            parameters: parameters.collect::<HashMap<_, _>>(),
        }
    }

    #[test]
    fn parameters_lead_to_another_archive() {
        for (own, parameters, expected, unknown) in [
            (true, &[][..], Some(("a", "s")), &[][..]),
            (true, &[("barmanObjectName", "b")], Some(("b", "s")), &[]),
            (true, &[("serverName", " t ")], Some(("a", "t")), &[]),
            (
                true,
                &[("serverName", ""), ("x", "1")],
                Some(("a", "s")),
                &["x"],
            ),
            (false, &[("barmanObjectName", "b")], Some(("b", "pg")), &[]),
            (false, &[], None, &[]),
        ] {
            let wanted = Wanted::parse(&request(own, parameters), PLUGIN, DateTime::default());
            let archive = wanted.as_ref().ok().map(|wanted| {
                let archive = &wanted.archive;
                (archive.object_store.as_str(), archive.server.as_str())
            });
            assert_eq!(archive, expected, "{parameters:?}");
            match &wanted {
                Ok(wanted) => {
                    assert_eq!(wanted.unknown_parameters, unknown, "{parameters:?}");
                    assert!(wanted.is_immediate && wanted.waits_for_archive);
                }
                Err(error) => assert!(error.starts_with("no ObjectStore is named"), "{error}"),
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (cluster, backup, words) in [
            ("", "{}", "cluster definition"),
            ("{}", "[", "backup definition"),
        ] {
            let request = BackupRequest {
                cluster_definition: cluster.into(),
                backup_definition: backup.into(),
                ..BackupRequest::default()
            };
            let error = Wanted::parse(&request, PLUGIN, DateTime::default()).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
