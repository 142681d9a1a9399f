//! Clusters, ObjectStores and settings for the tests of the operator's side.
//!
//! Pods and Jobs are files, which the operator's own code made (`lifecycle::shapes`).

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::operator::{ObjectStores, Settings};

pub(crate) const PLUGIN: &str = "barman-cloud.cloudnative-pg.io";

/// Another name for the plugin, under which it stands beside the reference.
pub(crate) const OTHER_PLUGIN: &str = "cellarman.example.org";

pub(crate) fn settings() -> Settings {
    Settings {
        version: "1.2.3".to_owned(),
        ..Settings::new(PLUGIN, "registry.example.org/sidecar:1")
    }
}

/// The Cluster `pg` in the namespace `db` with this spec and this status.
pub(crate) fn cluster(spec: &Value, status: &Value) -> Cluster {
    cluster_of(json!({"spec": spec, "status": status}))
}

/// The Cluster `pg` in the namespace `db` with these fields.
pub(crate) fn cluster_of(mut document: Value) -> Cluster {
    let metadata = &mut document["metadata"];
    metadata["name"] = json!("pg");
    metadata["namespace"] = json!("db");
    metadata["uid"] = json!("6f1c");
    Cluster::parse(document.to_string().as_bytes()).unwrap()
}

/// An entry of `spec.plugins` with these parameters.
pub(crate) fn entry(parameters: &Value) -> Value {
    json!({"name": PLUGIN, "isWALArchiver": true, "parameters": parameters})
}

/// An external cluster of this name with these parameters.
pub(crate) fn external(name: &str, parameters: &Value) -> Value {
    json!({"name": name, "plugin": {"name": PLUGIN, "parameters": parameters}})
}

/// The spec of a Cluster with the archives that are named.
pub(crate) fn spec(own: Option<&str>, recovery: Option<&str>, replica: Option<&str>) -> Value {
    let mut spec = json!({"imagePullPolicy": "IfNotPresent", "externalClusters": []});
    if let Some(store) = own {
        spec["plugins"] = json!([entry(&json!({"barmanObjectName": store}))]);
    }
    let mut externals = Vec::new();
    if let Some(store) = recovery {
        let parameters = json!({"barmanObjectName": store, "serverName": "old"});
        externals.push(external("origin", &parameters));
        spec["bootstrap"] = json!({"recovery": {"source": "origin"}});
    }
    if let Some(store) = replica {
        let parameters = json!({"barmanObjectName": store, "serverName": "leader"});
        externals.push(external("leader", &parameters));
        spec["replica"] = json!({"enabled": true, "source": "leader"});
    }
    spec["externalClusters"] = json!(externals);
    spec
}

/// An ObjectStore whose Secret and certificate are named after it.
pub(crate) fn store(name: &str, has_certificate: bool, sidecar: &Value) -> Value {
    let secret = format!("{name}-keys");
    let mut store = json!({
        "apiVersion": "barmancloud.cnpg.io/v1",
        "kind": "ObjectStore",
        "metadata": {"name": name, "namespace": "db"},
        "spec": {
            "configuration": {
                "destinationPath": "s3://bucket/path",
                "s3Credentials": {
                    "accessKeyId": {"name": secret, "key": "id"},
                    "secretAccessKey": {"name": secret, "key": "key"},
                },
            },
            "instanceSidecarConfiguration": sidecar,
        },
    });
    if has_certificate {
        let certificate = json!({"name": format!("{name}-ca"), "key": "ca.crt"});
        store["spec"]["configuration"]["endpointCA"] = certificate;
    }
    store
}

/// ObjectStores `a`, `b` and `c`; each with a certificate of its own if so said.
pub(crate) fn stores(have_certificates: bool) -> ObjectStores {
    let sidecar = |name: &str, memory: &str| {
        json!({
            "env": [
                {"name": "PGDATA", "value": "/nowhere"},
                {"name": "SHARED", "value": name},
                {"name": format!("ONLY_{}", name.to_uppercase()), "value": "yes"},
            ],
            "resources": {"limits": {"memory": memory}},
            "additionalContainerArgs": [format!("--pprof-server={name}")],
            "logLevel": "debug",
            "retentionPolicyIntervalSeconds": 1800,
        })
    };
    [("a", "64Mi"), ("b", "96Mi"), ("c", "128Mi")]
        .into_iter()
        .map(|(name, memory)| {
            let store = store(name, have_certificates, &sidecar(name, memory));
            (name.to_owned(), store)
        })
        .collect()
}
