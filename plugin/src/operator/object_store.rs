//! What matters of an ObjectStore for Pods and Roles: its sidecar, its certificate, its Secrets.
//!
//! Pure. Not here: what the store is and how it is used (`cellarman::config`).

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

/// How the sidecar of an ObjectStore's Clusters is to be.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Sidecar {
    /// Further variables, as they are in a container.
    pub env: Option<Vec<Value>>,
    /// Its requests and limits, as they are in a container.
    pub resources: Option<Value>,
    /// Further arguments.
    pub additional_container_args: Option<Vec<String>>,
    /// The least level that is logged.
    pub log_level: Option<String>,
    /// An image of its own, to let one ObjectStore's Clusters go first. Not in the reference.
    pub image: Option<String>,
}

/// One key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SecretKey {
    /// The Secret.
    pub name: String,
    /// The key in it.
    pub key: String,
}

/// The Secrets that an ObjectStore may name, below `spec.configuration`.
const SECRETS: [&str; 10] = [
    "/s3Credentials/accessKeyId",
    "/s3Credentials/secretAccessKey",
    "/s3Credentials/region",
    "/s3Credentials/sessionToken",
    "/azureCredentials/connectionString",
    "/azureCredentials/storageAccount",
    "/azureCredentials/storageKey",
    "/azureCredentials/storageSasToken",
    "/googleCredentials/applicationCredentials",
    "/endpointCA",
];

/// How the sidecar is to be; the default where the ObjectStore does not say.
pub fn sidecar(store: &Value) -> Result<Sidecar, serde_json::Error> {
    match store.pointer("/spec/instanceSidecarConfiguration") {
        None | Some(Value::Null) => Ok(Sidecar::default()),
        Some(configuration) => Sidecar::deserialize(configuration),
    }
}

/// The certificates of the store, where it has its own.
pub fn endpoint_ca(store: &Value) -> Result<Option<SecretKey>, serde_json::Error> {
    match store.pointer("/spec/configuration/endpointCA") {
        None | Some(Value::Null) => Ok(None),
        Some(selector) => SecretKey::deserialize(selector).map(Some),
    }
}

/// The names of all Secrets that the ObjectStore names.
///
/// That of the certificates is among them though it is mounted: one that is named while Pods run
/// is needed before they are made anew.
pub fn secrets(store: &Value) -> BTreeSet<String> {
    let configuration = store.pointer("/spec/configuration").unwrap_or(&Value::Null);
    SECRETS
        .iter()
        .filter_map(|pointer| configuration.pointer(pointer)?.get("name")?.as_str())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}
