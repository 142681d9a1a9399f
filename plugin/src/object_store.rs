//! Pure: what matters of an ObjectStore's raw JSON.
//!
//! Not here: its settings, validated (`cellarman::config`).

use serde_json::Value;

/// The parts of `spec.configuration` that name keys of Secrets.
const WITH_SECRETS: [&str; 4] = [
    "endpointCA",
    "s3Credentials",
    "azureCredentials",
    "googleCredentials",
];

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
        self.field == "spec.configuration.endpointCA"
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
    if let (Some(secret), Some(key)) = (text("name"), text("key")) {
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
