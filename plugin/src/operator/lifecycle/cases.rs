//! Requests for tests: Pods and Jobs of all shapes with Clusters of all kinds.
//!
//! Not here: what is expected of them.

use serde_json::json;

use super::*;
use crate::operator::fixtures::{cluster, settings, spec, stores};
use crate::operator::lifecycle::shapes::{jobs, pods};

/// The archives of a Cluster by name: its own, the one to recover from, the one to follow; and
/// whether the stores have certificates of their own.
pub(super) const CLUSTERS: [(&str, [Option<&str>; 3], bool); 6] = [
    ("own", [Some("a"), None, None], false),
    ("own-ca", [Some("a"), None, None], true),
    ("own-recovery-ca", [Some("a"), Some("b"), None], true),
    ("replica", [None, None, Some("c")], false),
    ("recovery", [None, Some("b"), None], false),
    ("all", [Some("a"), Some("b"), Some("c")], false),
];

/// A request with its own values.
pub(super) struct Case {
    pub(super) operation: OperationType,
    pub(super) cluster: Cluster,
    pub(super) object: Value,
    pub(super) stores: ObjectStores,
    pub(super) settings: Settings,
}

impl Case {
    pub(super) fn new(archives: [Option<&str>; 3], object: Value) -> Self {
        let [own, recovery, replica] = archives;
        Self {
            operation: OperationType::Create,
            cluster: cluster(&spec(own, recovery, replica), &json!({})),
            object,
            stores: stores(false),
            settings: settings(),
        }
    }

    pub(super) fn request(&self) -> Request<'_> {
        Request {
            operation: self.operation,
            cluster: &self.cluster,
            object: &self.object,
            stores: &self.stores,
            settings: &self.settings,
        }
    }

    pub(super) fn patch(&self) -> Option<Value> {
        let patch = patch(&self.request()).unwrap()?;
        Some(serde_json::from_slice(&patch).unwrap())
    }

    /// The object after the patch, by the RFC's rules.
    pub(super) fn patched(&self) -> Value {
        let mut object = self.object.clone();
        if let Some(patch) = self.patch() {
            let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
            json_patch::patch(&mut object, &patch).unwrap();
        }
        object
    }

    /// The sidecar after the patch.
    pub(super) fn sidecar(&self) -> Option<Value> {
        let patched = self.patched();
        let spec = patched
            .pointer("/spec/template/spec")
            .unwrap_or(&patched["spec"]);
        let mut containers = spec["initContainers"].as_array()?.iter();
        let name = self.settings.names.container;
        containers
            .find(|container| container["name"] == name)
            .cloned()
    }
}

pub(super) fn plain_pod() -> Value {
    pods().remove(0).1
}

/// All Pods and Jobs with all Clusters, by the names of their snapshots.
pub(super) fn cases() -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    let objects = pods().into_iter().chain(jobs());
    for (shape, object) in objects {
        for (name, archives, have_certificates) in CLUSTERS {
            let mut case = Case::new(archives, object.clone());
            case.stores = stores(have_certificates);
            cases.push((format!("{shape}-{name}"), case));
        }
    }
    cases
}
