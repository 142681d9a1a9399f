//! What of a review is to be looked at: the target of a new Cluster that is recovered from an
//! archive of ours. Pure. Not here: looking at it.

use serde::Deserialize;

use crate::admission::review::Request;
use crate::cluster::{ArchiveRef, Cluster};
use crate::operator::Settings;
use crate::recovery::target::{self, Asked, TargetError};

/// What is to be done about a review.
#[derive(Debug)]
pub enum Question {
    /// Nothing.
    None,
    /// It cannot be asked, for this reason, as a sentence.
    Unclear(String),
    /// The target cannot be one.
    Wrong(TargetError),
    /// Whether recovery reaches its target.
    Target(Box<Subject>),
}

/// A recovery.
#[derive(Debug)]
pub struct Subject {
    /// The Cluster's namespace.
    pub namespace: String,
    /// The Cluster.
    pub cluster: String,
    /// What it is recovered from.
    pub archive: ArchiveRef,
    /// The field that names its ObjectStore.
    pub field: String,
    /// What is asked of the recovery.
    pub asked: Asked,
}

/// What is to be done about a review.
///
/// Only about Clusters that are created: what one was made from stays in its spec for good, and so
/// would a refusal.
pub fn of(request: &Request, settings: &Settings) -> Question {
    let is_cluster = request.kind.group == settings.cluster_group && request.kind.kind == "Cluster";
    if request.operation != "CREATE" || !is_cluster || !request.sub_resource.is_empty() {
        return Question::None;
    }
    match Cluster::deserialize(&request.object) {
        Ok(cluster) => of_cluster(&cluster, &request.namespace, &settings.names.plugin),
        // Kubernetes itself says what is wrong with it.
        Err(error) => Question::Unclear(format!("The Cluster cannot be read: {error}.")),
    }
}

fn of_cluster(cluster: &Cluster, namespace: &str, plugin: &str) -> Question {
    // From snapshots and in-tree backups the plugin reads WAL at most.
    let recovery = cluster
        .recovery()
        .filter(|recovery| recovery.volume_snapshots.is_none() && recovery.backup.is_none());
    let Some(recovery) = recovery else {
        return Question::None;
    };
    let Some(target) = &recovery.recovery_target else {
        return Question::None;
    };
    let source = &recovery.source;
    let entry = cluster.external_cluster(source);
    let entry = entry.and_then(|external| external.plugin.as_ref());
    if !entry.is_some_and(|entry| entry.name == plugin && entry.is_enabled()) {
        return Question::None;
    }
    let field = format!("spec.externalClusters[name={source}].plugin.parameters.barmanObjectName");
    let Some(archive) = cluster.archives(plugin).recovery else {
        return Question::Unclear(format!("{field} names no ObjectStore."));
    };
    match target::asked(Some(target)) {
        Ok(asked) => Question::Target(Box::new(Subject {
            namespace: namespace.to_owned(),
            cluster: cluster.metadata.name.clone(),
            archive,
            field,
            asked,
        })),
        Err(error) => Question::Wrong(error),
    }
}
