//! Pure: which archive a call is about, and how long a server can wait for its WAL.
//!
//! Not here: opening the archive, and waiting.

use std::time::Duration;

use cellarman::fault::{Fault, Kind};

use crate::cluster::{ArchiveRef, Cluster};

/// How long a server waits that can stream WAL instead.
pub const STREAMING_PATIENCE: Duration = Duration::from_secs(30);

/// The annotation that spares a new cluster the look at its archive.
const SKIP_EMPTY_CHECK: &str = "cnpg.io/skipEmptyWalArchiveCheck";

/// An archive, and the field of the Cluster that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The archive.
    pub archive: ArchiveRef,
    /// The field that names its ObjectStore.
    pub field: String,
}

/// A Cluster that names no archive for what is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Cluster {cluster} names no ObjectStore {purpose}")]
pub struct NoArchive {
    cluster: String,
    purpose: &'static str,
    field: String,
}

impl Fault for NoArchive {
    fn kind(&self) -> Kind {
        Kind::Config
    }

    fn hint(&self) -> String {
        format!("Set {} to the name of an ObjectStore.", self.field)
    }
}

/// How long a server can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// As long as it takes: it would take any other answer for the end of the log.
    UntilCallerGone,
    /// So long; then it streams.
    Bounded(Duration),
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The Cluster.
    pub cluster: &'a Cluster,
    /// The plugin's name.
    pub plugin: &'a str,
    /// The instance's name.
    pub pod: &'a str,
}

impl Asker<'_> {
    /// The archive that the Cluster archives to.
    pub fn own(&self) -> Result<Named, NoArchive> {
        let archive = self.cluster.archives(self.plugin).own;
        let named = archive.map(|archive| Named {
            archive,
            field: self.own_field(),
        });
        named.ok_or_else(|| self.no_archive("to archive to", self.own_field()))
    }

    /// The archive that the Cluster is recovered from.
    pub fn recovery(&self) -> Result<Named, NoArchive> {
        let source = self.cluster.recovery().map(|recovery| &*recovery.source);
        let field = external_field(source);
        let archive = self.cluster.archives(self.plugin).recovery;
        let named = archive.map(|archive| Named {
            archive,
            field: field.clone(),
        });
        named.ok_or_else(|| self.no_archive("to be recovered from", field))
    }

    /// The archive that a server asks for WAL.
    ///
    /// The leader of a replica cluster asks its source's; before there is any leader, that of the
    /// recovery; everybody else the Cluster's own. Where that is not named, whatever leads to the
    /// same log is asked.
    pub fn to_restore_from(&self) -> Result<Named, NoArchive> {
        let archives = self.cluster.archives(self.plugin);
        let own = archives.own.map(|archive| (archive, self.own_field()));
        let source = self.cluster.recovery().map(|recovery| &*recovery.source);
        let recovery = archives.recovery;
        let recovery = recovery.map(|archive| (archive, external_field(source)));
        let source = self.cluster.spec.replica.as_ref();
        let source = source.map(|replica| &*replica.source);
        let replica = archives.replica_source;
        let replica = replica.map(|archive| (archive, external_field(source)));
        let primary = &self.cluster.status.current_primary;
        let chosen = if primary.is_empty() {
            recovery.or(replica).or(own)
        } else if primary == self.pod {
            replica.or(own)
        } else {
            own.or(replica)
        };
        let named = chosen.map(|(archive, field)| Named { archive, field });
        named.ok_or_else(|| self.no_archive("to restore WAL from", self.own_field()))
    }

    /// How long a server waits for WAL that the store does not hand out.
    pub fn patience(&self) -> Patience {
        if self.can_stream() {
            Patience::Bounded(STREAMING_PATIENCE)
        } else {
            Patience::UntilCallerGone
        }
    }

    /// Whether the Cluster says that a new archive need not be empty.
    pub fn skips_empty_check(&self) -> bool {
        let annotations = &self.cluster.metadata.annotations;
        let value = annotations.get(SKIP_EMPTY_CHECK);
        value.is_some_and(|value| value == "enabled")
    }

    /// Whether the server gets WAL in another way as well: from the primary, or from the source.
    fn can_stream(&self) -> bool {
        let primary = &self.cluster.status.current_primary;
        if primary.is_empty() {
            return false;
        }
        if primary != self.pod {
            return true;
        }
        let replica = self.cluster.spec.replica.as_ref();
        let source = replica.and_then(|replica| self.cluster.external_cluster(&replica.source));
        source.is_some_and(|source| !source.connection_parameters.is_empty())
    }

    fn own_field(&self) -> String {
        format!(
            "spec.plugins[name={}].parameters.barmanObjectName",
            self.plugin
        )
    }

    fn no_archive(&self, purpose: &'static str, field: String) -> NoArchive {
        NoArchive {
            cluster: self.cluster.metadata.name.clone(),
            purpose,
            field,
        }
    }
}

fn external_field(name: Option<&str>) -> String {
    let name = name.unwrap_or_default();
    format!("spec.externalClusters[name={name}].plugin.parameters.barmanObjectName")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLUGIN: &str = "barman-cloud.cloudnative-pg.io";

    fn external(name: &str, connection: &str) -> String {
        format!(
            r#"{{"name": "{name}", "connectionParameters": {connection}, "plugin": {{"name": "{PLUGIN}",
            "parameters": {{"barmanObjectName": "{name}-store", "serverName": "{name}"}}}}}}"#
        )
    }

    fn cluster(spec: &str, primary: &str) -> Cluster {
        let text = format!(
            r#"{{"metadata": {{"name": "pg"}}, "spec": {{{spec}}}, "status": {{"currentPrimary": "{primary}"}}}}"#
        );
        Cluster::parse(text.as_bytes()).unwrap()
    }

    fn check(spec: &str, primary: &str, store: Option<&str>, patience: Patience) {
        let cluster = cluster(spec, primary);
        let asker = Asker {
            cluster: &cluster,
            plugin: PLUGIN,
            pod: "pg-1",
        };
        let named = asker.to_restore_from();
        let named = named.ok().map(|named| named.archive.object_store);
        assert_eq!(named.as_deref(), store, "{spec} {primary}");
        assert_eq!(asker.patience(), patience, "{spec} {primary}");
    }

    #[test]
    fn who_asks_decides_which_archive_answers_and_for_how_long() {
        let own = format!(
            r#""plugins": [{{"name": "{PLUGIN}", "parameters": {{"barmanObjectName": "own-store"}}}}]"#
        );
        let recovery = r#""bootstrap": {"recovery": {"source": "origin"}}"#;
        let replica = r#""replica": {"enabled": true, "source": "leader"}"#;
        let origin = external("origin", "{}");
        let archive_only = external("leader", "{}");
        let streaming = external("leader", r#"{"host": "leader"}"#);
        let all = format!(
            r#"{own}, {recovery}, {replica}, "externalClusters": [{origin}, {archive_only}]"#
        );
        let bounded = Patience::Bounded(STREAMING_PATIENCE);
        let unbounded = Patience::UntilCallerGone;
        check(&all, "pg-1", Some("leader-store"), unbounded);
        check(&all, "", Some("origin-store"), unbounded);
        check(&all, "pg-2", Some("own-store"), bounded);
        let streams = format!(r#"{own}, {replica}, "externalClusters": [{streaming}]"#);
        check(&streams, "pg-1", Some("leader-store"), bounded);
        check(&streams, "", Some("leader-store"), unbounded);
        check(&own, "pg-1", Some("own-store"), unbounded);
        check(&own, "pg-2", Some("own-store"), bounded);
        check(&own, "", Some("own-store"), unbounded);
        let no_own = format!(r#"{replica}, "externalClusters": [{archive_only}]"#);
        check(&no_own, "pg-2", Some("leader-store"), bounded);
        check("", "pg-2", None, bounded);
    }

    #[test]
    fn a_missing_archive_is_told_with_the_field_that_would_name_it() {
        let spec = r#""bootstrap": {"recovery": {"source": "origin"}}"#;
        let cluster = cluster(spec, "");
        let asker = Asker {
            cluster: &cluster,
            plugin: PLUGIN,
            pod: "pg-1",
        };
        let hint = asker.recovery().unwrap_err().hint();
        assert!(hint.contains("externalClusters[name=origin]"), "{hint}");
        let hint = asker.own().unwrap_err().hint();
        assert!(hint.contains("spec.plugins[name=barman"), "{hint}");
    }
}
