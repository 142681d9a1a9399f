//! The CustomResourceDefinition of ObjectStores, made from the types that stand for it.
//!
//! A superset of plugin-barman-cloud's: each object that is valid there is valid here, and what is
//! more here says so in its description. Pure.

mod configuration;
mod object_store;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::crd::object_store::ObjectStore;

/// The definition.
pub fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "objectstores.barmancloud.cnpg.io"},
        "spec": {
            "group": "barmancloud.cnpg.io",
            "names": {
                "kind": "ObjectStore",
                "listKind": "ObjectStoreList",
                "plural": "objectstores",
                "singular": "objectstore",
            },
            "scope": "Namespaced",
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns(),
                "schema": {"openAPIV3Schema": schema()},
            }],
        },
    })
}

/// The definition in YAML.
pub fn yaml() -> Result<String, serde_norway::Error> {
    serde_norway::to_string(&definition())
}

/// What `kubectl get objectstores` shows. Of several servers the columns show all.
fn columns() -> Value {
    let condition = |name: &str| format!(".status.conditions[?(@.type==\"{name}\")].status");
    let window = |field: &str| format!(".status.serverRecoveryWindow.*.{field}");
    let column = |name: &str, path: &str, priority: u8| json!({"name": name, "type": "string", "jsonPath": path, "priority": priority});
    json!([
        column("Destination", ".spec.configuration.destinationPath", 0),
        column("Credentials", &condition("CredentialsValid"), 0),
        column("Reachable", &condition("Reachable"), 0),
        column("Archiving", &condition("ArchiveHealthy"), 0),
        column("Last Backup", &window("lastSuccessfulBackupTime"), 0),
        column("First Point", &window("firstRecoverabilityPoint"), 1),
        column("Latest Point", &window("latestRestorableTime"), 1),
        column("Missing WAL", &window("missingWalSegments"), 1),
        column("Retention", ".spec.retentionPolicy", 1),
        column("Last Error", &window("lastError.message"), 1),
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ])
}

/// The schema as Kubernetes takes it.
fn schema() -> Value {
    let settings = SchemaSettings::default().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let generator = settings.into_generator();
    let mut schema = generator.into_root_schema_for::<ObjectStore>().to_value();
    make_structural(&mut schema);
    schema
}

/// Leaves out what a structural schema may not have: that a field may be null, which Kubernetes
/// takes for absent; titles; and defaults that say nothing.
fn make_structural(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            merge_optional(fields);
            if let Some(Value::Array(types)) = fields.get("type") {
                let mut types = types.iter().filter(|name| *name != "null");
                if let Some(only) = types.next().cloned() {
                    fields.insert("type".to_owned(), only);
                }
            }
            if fields.get("title").is_some_and(Value::is_string) {
                fields.remove("title");
            }
            fields.values_mut().for_each(make_structural);
        }
        Value::Array(items) => items.iter_mut().for_each(make_structural),
        _ => {}
    }
}

/// Puts the one schema that is not null in the place of a choice between it and null.
fn merge_optional(fields: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = fields.get("anyOf") else {
        return;
    };
    let null = json!({"type": "null"});
    if !choices.contains(&null) {
        return;
    }
    let mut rest: Vec<Value> = choices
        .iter()
        .filter(|one| **one != null)
        .cloned()
        .collect();
    if rest.len() == 1
        && let Some(Value::Object(only)) = rest.pop()
    {
        fields.remove("anyOf");
        for (name, value) in only {
            fields.entry(name).or_insert(value);
        }
    }
}

#[cfg(test)]
mod tests;
