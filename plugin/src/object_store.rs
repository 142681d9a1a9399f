//! Pure: what matters of an ObjectStore's raw JSON: its sidecar, and the Secrets it names.
//!
//! Not here: its settings, validated (`cellarman::config`).

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

/// The parts of `spec.configuration` that name keys of Secrets.
const WITH_SECRETS: [&str; 4] = [
    "endpointCA",
    "s3Credentials",
    "azureCredentials",
    "googleCredentials",
];

/// The field that names the certificates to trust.
const CERTIFICATE: &str = "spec.configuration.endpointCA";

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

/// A key of a Secret that an ObjectStore names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretKeyRef {
    /// The field that names it, from the document's root.
    pub field: String,
    /// The Secret.
    pub secret: String,
    /// The key in it.
    pub key: String,
}

impl SecretKeyRef {
    /// Whether it is the certificates' and not the credentials'.
    pub fn is_certificate(&self) -> bool {
        self.field == CERTIFICATE
    }
}

/// The keys of Secrets that an ObjectStore names.
pub fn secret_keys(object_store: &Value) -> Vec<SecretKeyRef> {
    let mut found = Vec::new();
    for part in WITH_SECRETS {
        let place = format!("spec.configuration.{part}");
        if let Some(value) = object_store.pointer(&format!("/spec/configuration/{part}")) {
            add_secret_keys(place, value, &mut found);
        }
    }
    found
}

/// The certificates of the store, where it has its own.
///
/// # Errors
/// The field is there and names no key of a Secret.
pub fn endpoint_ca(object_store: &Value) -> Result<Option<SecretKeyRef>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Selector {
        name: String,
        key: String,
    }
    let field = object_store.pointer("/spec/configuration/endpointCA");
    let Some(field) = field.filter(|field| !field.is_null()) else {
        return Ok(None);
    };
    let Selector { name, key } = Selector::deserialize(field)?;
    Ok(Some(SecretKeyRef {
        field: CERTIFICATE.to_owned(),
        secret: name,
        key,
    }))
}

/// The names of all Secrets that the ObjectStore names.
///
/// That of the certificates is among them though it is mounted: one that is named while Pods run
/// is needed before they are made anew.
pub fn secrets(object_store: &Value) -> BTreeSet<String> {
    let keys = secret_keys(object_store).into_iter();
    keys.map(|key| key.secret).collect()
}

/// How the sidecar is to be; the default where the ObjectStore does not say.
pub fn sidecar(store: &Value) -> Result<Sidecar, serde_json::Error> {
    match store.pointer("/spec/instanceSidecarConfiguration") {
        None | Some(Value::Null) => Ok(Sidecar::default()),
        Some(configuration) => Sidecar::deserialize(configuration),
    }
}

/// What of an ObjectStore decides how it is used; status and bookkeeping left out.
pub fn essence(object_store: &Value) -> Value {
    let field = |pointer| object_store.pointer(pointer).cloned().unwrap_or_default();
    serde_json::json!({
        "apiVersion": field("/apiVersion"),
        "kind": "ObjectStore",
        "metadata": {"name": field("/metadata/name"), "namespace": field("/metadata/namespace")},
        "spec": field("/spec"),
    })
}

fn add_secret_keys(place: String, value: &Value, found: &mut Vec<SecretKeyRef>) {
    let Some(fields) = value.as_object() else {
        return;
    };
    let text = |name| fields.get(name).and_then(Value::as_str);
    if let (Some(secret), Some(key)) = (text("name"), text("key"))
        && !secret.is_empty()
    {
        found.push(SecretKeyRef {
            field: place,
            secret: secret.to_owned(),
            key: key.to_owned(),
        });
        return;
    }
    for (name, value) in fields {
        add_secret_keys(format!("{place}.{name}"), value, found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_of_secrets_are_found_with_their_fields() {
        let object_store = json!({"spec": {"configuration": {
            "destinationPath": "s3://a/b",
            "endpointCA": {"name": "ca", "key": "pem"},
            "s3Credentials": {
                "inheritFromIAMRole": false, "sessionToken": null,
                "accessKeyId": {"name": "aws", "key": "id"},
            },
            "tags": {"name": "no", "key": "secret"},
        }}});
        let found = secret_keys(&object_store);
        let found: Vec<_> = found
            .iter()
            .map(|key| (key.field.as_str(), key.secret.as_str(), key.key.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("spec.configuration.endpointCA", "ca", "pem"),
                ("spec.configuration.s3Credentials.accessKeyId", "aws", "id"),
            ]
        );
    }

    #[test]
    fn status_is_no_part_of_how_a_store_is_used() {
        let with = |status: &str| {
            essence(&json!({
                "apiVersion": "barmancloud.cnpg.io/v1", "kind": "ObjectStore",
                "metadata": {"name": "a", "resourceVersion": status},
                "spec": {"configuration": {}}, "status": {"serverRecoveryWindow": status},
            }))
        };
        assert_eq!(with("1"), with("2"));
    }
}
