//! What happens before and after the operator reconciles a Cluster or a Backup.
//!
//! Decisions are values for the one who serves them. Pure. Not here: carrying them out.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::operator::roles::{self, Access};
use crate::operator::validation::{self, Finding};
use crate::operator::{MissingStore, ObjectStores, Settings, missing_store};

/// When the operator looks again after an ObjectStore was not there.
const MISSING_STORE_DELAY: Duration = Duration::from_secs(15);

/// What the hook before a reconciliation does.
#[derive(Debug, Clone, PartialEq)]
pub enum Before {
    /// Go on.
    Continue,
    /// Bring the Role and the RoleBinding in step, then go on. They have to be there before any
    /// Pod is.
    EnsureAccess(Box<Access>),
    /// Stop, and come again after this time.
    Requeue {
        /// How long; never 0, which would be at once.
        after: Duration,
        /// What is missing, for the log and an Event.
        missing: MissingStore,
    },
}

/// What a call of `Pre` is about.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The Cluster.
    pub cluster: &'a Cluster,
    /// What is reconciled: the Cluster itself, or a Backup.
    pub resource: &'a Value,
    /// The ObjectStores of the Cluster's namespace.
    pub stores: &'a ObjectStores,
    /// The Backups of the Cluster's namespace, which may name ObjectStores on their own.
    pub backups: &'a [Value],
    /// What the operator's side was started with.
    pub settings: &'a Settings,
}

/// What to do before a reconciliation. After one, there is never anything to do.
pub fn before(request: &Request<'_>) -> Before {
    match request.resource.get("kind").and_then(Value::as_str) {
        Some("Cluster") => before_cluster(request),
        Some("Backup") => before_backup(request),
        _ => Before::Continue,
    }
}

/// What is wrong with the Cluster, where it is the Cluster that is reconciled: nobody may have asked
/// for validation when it was applied.
pub fn findings(cluster: &Cluster, resource: &Value, settings: &Settings) -> Option<Vec<Finding>> {
    let is_cluster = resource.get("kind").and_then(Value::as_str) == Some("Cluster");
    is_cluster.then(|| validation::of_standing(cluster, &settings.names.plugin))
}

fn before_cluster(request: &Request<'_>) -> Before {
    let names = &request.settings.names;
    if let Some(missing) = missing_store(request.cluster, request.stores, names) {
        return Before::Requeue {
            after: MISSING_STORE_DELAY,
            missing,
        };
    }
    ensure_access(request, BTreeSet::new())
}

/// A Backup to another ObjectStore needs rights of its own. Whether that ObjectStore is there is
/// for the Backup to say, which fails with a message that its readers see.
fn before_backup(request: &Request<'_>) -> Before {
    let configuration = request.resource.pointer("/spec/pluginConfiguration/name");
    let is_ours = configuration.and_then(Value::as_str) == Some(&request.settings.names.plugin);
    match roles::store_of_backup(request.resource) {
        Some(store) if is_ours => ensure_access(request, BTreeSet::from([store.to_owned()])),
        _ => Before::Continue,
    }
}

/// `extra` are ObjectStores that are needed in any case; the cached Backups may not show the one
/// that is asked about.
fn ensure_access(request: &Request<'_>, mut extra: BTreeSet<String>) -> Before {
    let plugin = &request.settings.names.plugin;
    extra.extend(roles::extra_stores(
        request.cluster,
        request.backups,
        plugin,
    ));
    Before::EnsureAccess(Box::new(roles::access(
        request.cluster,
        &extra,
        request.stores,
        request.settings,
    )))
}

#[cfg(test)]
mod tests;
