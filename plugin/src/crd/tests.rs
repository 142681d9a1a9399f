//! The definition: that it is committed, that Kubernetes takes it, that the reference's is in it.
//!
//! With `UPDATE_SNAPSHOTS=1` the committed file is written instead of compared.

use std::path::Path;
use std::{env, fs};

use super::*;

fn schema_of(path: &str) -> Value {
    let mut schema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    for name in path.split('.') {
        schema = match name {
            "[]" => schema["items"].clone(),
            "{}" => schema["additionalProperties"].clone(),
            name => schema["properties"][name].clone(),
        };
        assert!(schema.is_object(), "{path}: {name}");
    }
    schema
}

#[test]
fn the_committed_definition_is_this_one() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/crd/barmancloud.cnpg.io_objectstores.yaml");
    let head = "# Made by `cellarman-plugin crd`.\n";
    let made = head.to_owned() + &yaml().unwrap();
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&file, &made).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap();
    assert!(
        committed == made,
        "print it anew with `cellarman-plugin crd`"
    );
}

#[test]
fn the_schema_is_structural() {
    fn walk(path: &str, schema: &Value) {
        let is_int_or_string = schema["x-kubernetes-int-or-string"] == true;
        let has_type = schema["type"].is_string();
        assert!(
            has_type != is_int_or_string,
            "{path} has one type: {schema}"
        );
        for word in [
            "$ref",
            "$schema",
            "title",
            "definitions",
            "$defs",
            "oneOf",
            "allOf",
        ] {
            assert!(schema.get(word).is_none(), "{path}: {word}");
        }
        let is_choice = schema.get("anyOf").is_some();
        assert_eq!(is_choice, is_int_or_string, "{path}");
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), inner);
        }
        for word in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(word).filter(|inner| inner.is_object()) {
                walk(&format!("{path}.{word}"), inner);
            }
        }
    }
    walk(
        "",
        &definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
    );
}

#[test]
fn what_the_reference_demands_is_demanded_and_no_more() {
    let required = |path: &str, expected: &[&str]| {
        let found = schema_of(path)
            .get("required")
            .cloned()
            .unwrap_or(json!([]));
        let mut found: Vec<String> = serde_json::from_value(found).unwrap();
        found.sort();
        assert_eq!(found, expected, "{path}");
    };
    let root = &definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    assert_eq!(root["required"], json!(["metadata", "spec"]));
    required("spec", &["configuration"]);
    required("spec.configuration", &["destinationPath"]);
    for selector in [
        "endpointCA",
        "s3Credentials.accessKeyId",
        "s3Credentials.secretAccessKey",
        "s3Credentials.region",
        "s3Credentials.sessionToken",
        "azureCredentials.connectionString",
        "azureCredentials.storageAccount",
        "azureCredentials.storageKey",
        "azureCredentials.storageSasToken",
        "googleCredentials.applicationCredentials",
    ] {
        required(&format!("spec.configuration.{selector}"), &["key", "name"]);
    }
    for part in [
        "wal",
        "data",
        "s3Credentials",
        "azureCredentials",
        "googleCredentials",
    ] {
        required(&format!("spec.configuration.{part}"), &[]);
    }
    required("spec.instanceSidecarConfiguration", &[]);
    required("spec.instanceSidecarConfiguration.env.[]", &["name"]);
    required("spec.instanceSidecarConfiguration.resources", &[]);
    required("status.serverRecoveryWindow.{}", &[]);
}

const STRING: &str = r#"{"type": "string"}"#;
const BOOLEAN: &str = r#"{"type": "boolean"}"#;

/// Fields of the reference below `spec` or `status`, and their limits there. Lists of compressions
/// are longer here.
const FIELDS: [(&str, &str); 30] = [
    (
        "spec.configuration.destinationPath",
        r#"{"type": "string", "minLength": 1}"#,
    ),
    ("spec.configuration.endpointURL", STRING),
    ("spec.configuration.serverName", STRING),
    (
        "spec.configuration.s3Credentials.inheritFromIAMRole",
        BOOLEAN,
    ),
    (
        "spec.configuration.azureCredentials.inheritFromAzureAD",
        BOOLEAN,
    ),
    (
        "spec.configuration.azureCredentials.useDefaultAzureCredentials",
        BOOLEAN,
    ),
    (
        "spec.configuration.googleCredentials.gkeEnvironment",
        BOOLEAN,
    ),
    (
        "spec.configuration.wal.compression",
        r#"{"enum": ["bzip2", "gzip", "lz4", "snappy", "xz", "zstd"]}"#,
    ),
    (
        "spec.configuration.data.compression",
        r#"{"enum": ["bzip2", "gzip", "lz4", "snappy", "xz", "zstd"]}"#,
    ),
    (
        "spec.configuration.wal.encryption",
        r#"{"enum": ["AES256", "aws:kms"]}"#,
    ),
    (
        "spec.configuration.data.encryption",
        r#"{"enum": ["AES256", "aws:kms"]}"#,
    ),
    (
        "spec.configuration.wal.maxParallel",
        r#"{"type": "integer", "minimum": 1}"#,
    ),
    (
        "spec.configuration.data.jobs",
        r#"{"type": "integer", "minimum": 1, "format": "int32"}"#,
    ),
    ("spec.configuration.data.immediateCheckpoint", BOOLEAN),
    (
        "spec.configuration.wal.archiveAdditionalCommandArgs.[]",
        STRING,
    ),
    (
        "spec.configuration.wal.restoreAdditionalCommandArgs.[]",
        STRING,
    ),
    ("spec.configuration.data.additionalCommandArgs.[]", STRING),
    (
        "spec.configuration.data.restoreAdditionalCommandArgs.[]",
        STRING,
    ),
    ("spec.configuration.tags.{}", STRING),
    ("spec.configuration.historyTags.{}", STRING),
    ("spec.retentionPolicy", STRING),
    (
        "spec.instanceSidecarConfiguration.retentionPolicyIntervalSeconds",
        r#"{"type": "integer", "default": 1800}"#,
    ),
    (
        "spec.instanceSidecarConfiguration.logLevel",
        r#"{"default": "info", "enum": ["error", "warning", "info", "debug", "trace"]}"#,
    ),
    (
        "spec.instanceSidecarConfiguration.additionalContainerArgs.[]",
        STRING,
    ),
    (
        "spec.instanceSidecarConfiguration.resources.limits.{}",
        r#"{"x-kubernetes-int-or-string": true}"#,
    ),
    (
        "spec.instanceSidecarConfiguration.resources.requests.{}",
        r#"{"x-kubernetes-int-or-string": true}"#,
    ),
    ("spec.instanceSidecarConfiguration.env.[].value", STRING),
    (
        "status.serverRecoveryWindow.{}.firstRecoverabilityPoint",
        r#"{"type": "string", "format": "date-time"}"#,
    ),
    (
        "status.serverRecoveryWindow.{}.lastSuccessfulBackupTime",
        r#"{"type": "string", "format": "date-time"}"#,
    ),
    (
        "status.serverRecoveryWindow.{}.lastFailedBackupTime",
        r#"{"type": "string", "format": "date-time"}"#,
    ),
];

#[test]
fn each_field_of_the_reference_is_there_with_its_limits() {
    for (path, limits) in FIELDS {
        let schema = schema_of(path);
        let limits: Value = serde_json::from_str(limits).unwrap();
        for (word, value) in limits.as_object().unwrap() {
            assert_eq!(schema.get(word), Some(value), "{path}: {word}");
        }
    }
}

#[test]
fn what_the_reference_forbids_is_forbidden() {
    let rule = |path: &str| schema_of(path)["x-kubernetes-validations"][0]["rule"].clone();
    assert_eq!(rule("spec.configuration"), "!has(self.serverName)");
    assert_eq!(
        rule("spec.instanceSidecarConfiguration.additionalContainerArgs"),
        "!self.exists(a, a.startsWith('--log-level'))"
    );
}
