//! Pods and Jobs in the shapes of the operators 1.29 to 1.31, to be patched in tests.
//!
//! The files in `tests/fixtures/operator` are what the operator's own code builds; see the README
//! there. What later versions add is added here.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Each shape of a Pod by name.
pub(super) fn pods() -> Vec<(&'static str, Value)> {
    vec![
        ("pod-1.29", read("pod-plain.json")),
        ("pod-1.30", read("pod-full.json")),
        ("pod-1.31", with_mounted_token(read("pod-full.json"))),
        (
            "pod-1.31-bootstrap",
            with_bootstrap(with_mounted_token(read("pod-plain.json"))),
        ),
    ]
}

/// Each shape of a recovery Job by name.
pub(super) fn jobs() -> Vec<(&'static str, Value)> {
    let mut from_snapshots = read("job-full.json");
    for pointer in ["/metadata/labels", "/spec/template/metadata/labels"] {
        let role = &mut from_snapshots.pointer_mut(pointer).unwrap()["cnpg.io/jobRole"];
        *role = json!("snapshot-recovery");
    }
    from_snapshots["spec"]["template"]["spec"]["containers"][0]["name"] =
        json!("snapshot-recovery");
    vec![
        ("job-1.29", read("job-plain.json")),
        ("job-1.30", read("job-full.json")),
        ("job-1.30-snapshots", from_snapshots),
    ]
}

/// Where files for tests are.
pub(super) fn tests_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn read(name: &str) -> Value {
    let path = tests_directory().join("fixtures/operator").join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// From 1.31 the account's token is mounted by name, and only where it is needed.
fn with_mounted_token(mut pod: Value) -> Value {
    let spec = &mut pod["spec"];
    spec["automountServiceAccountToken"] = json!(false);
    let sources = json!([
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]);
    spec["volumes"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "kube-api-access", "projected": {"sources": sources}}));
    spec["containers"][0]["volumeMounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({
            "name": "kube-api-access",
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
            "readOnly": true,
        }));
    pod
}

/// From 1.31 a container of the Pod recovers. The operator puts it behind the plugins' ones.
fn with_bootstrap(mut pod: Value) -> Value {
    let main = &pod["spec"]["containers"][0];
    let mut bootstrap = json!({
        "name": "bootstrap-instance",
        "command": ["/controller/manager", "instance", "restore"],
    });
    for field in ["image", "env", "volumeMounts", "securityContext"] {
        bootstrap[field] = main[field].clone();
    }
    let containers = pod["spec"]["initContainers"].as_array_mut().unwrap();
    containers.push(bootstrap);
    pod
}
