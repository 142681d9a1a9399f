//! The ObjectStore manifest as it is written: fields and their spelling, nothing validated.
//!
//! The fields are those of `objectstores.barmancloud.cnpg.io/v1` and a few more: zstd and xz for
//! data, `compressionLevel`, `maxBandwidth`, `storageClass`, `addressingStyle`, `retention`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_norway::{Mapping, Value};

/// The document.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectStore {
    /// The group and version.
    pub api_version: String,
    /// `ObjectStore`.
    pub kind: String,
    /// Name and namespace; the rest is Kubernetes' own.
    pub metadata: Option<Value>,
    /// What is wanted.
    pub spec: Spec,
    /// What Kubernetes reports. Not read.
    pub status: Option<Value>,
}

/// What is wanted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// The store and how it is used.
    pub configuration: Configuration,
    /// The recovery window.
    pub retention_policy: Option<String>,
    /// What is kept beyond it. Read by the sidecar alone.
    pub retention: Option<Value>,
    /// For the sidecar container alone. Not read here.
    pub instance_sidecar_configuration: Option<Value>,
}

/// The store and how it is used.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Configuration {
    /// The URL of the place in the store.
    pub destination_path: String,
    /// Where the service answers.
    #[serde(rename = "endpointURL")]
    pub endpoint_url: Option<String>,
    /// The certificates to trust.
    #[serde(rename = "endpointCA")]
    pub endpoint_ca: Option<SecretKey>,
    /// Known, and refused: the server's name belongs to the cluster.
    pub server_name: Option<String>,
    /// Credentials for S3.
    pub s3_credentials: S3Credentials,
    /// Credentials for Azure.
    #[serde(deserialize_with = "or_empty")]
    pub azure_credentials: AzureCredentials,
    /// Credentials for Google.
    #[serde(deserialize_with = "or_empty")]
    pub google_credentials: GoogleCredentials,
    /// `auto`, `path` or `virtual`.
    pub addressing_style: Option<String>,
    /// The storage class of new objects.
    pub storage_class: Option<String>,
    /// WAL.
    pub wal: Wal,
    /// Base backups.
    pub data: Data,
    /// Tags of every object.
    pub tags: BTreeMap<String, String>,
    /// Tags of history files.
    pub history_tags: BTreeMap<String, String>,
}

/// Credentials for S3.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct S3Credentials {
    /// The public half of the key pair.
    pub access_key_id: Option<SecretKey>,
    /// The secret half.
    pub secret_access_key: Option<SecretKey>,
    /// The region, in a Secret like the rest.
    pub region: Option<SecretKey>,
    /// The token of temporary credentials.
    pub session_token: Option<SecretKey>,
    /// Take what the host provides.
    #[serde(rename = "inheritFromIAMRole")]
    pub inherit_from_iam_role: bool,
}

/// Credentials for Azure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AzureCredentials {
    /// The connection string, which says all the rest.
    pub connection_string: Option<SecretKey>,
    /// The account's name.
    pub storage_account: Option<SecretKey>,
    /// A key of the account.
    pub storage_key: Option<SecretKey>,
    /// A shared access signature.
    pub storage_sas_token: Option<SecretKey>,
    /// Take the managed identity of the host.
    #[serde(rename = "inheritFromAzureAD")]
    pub inherit_from_azure_ad: bool,
    /// Take whatever the host provides.
    pub use_default_azure_credentials: bool,
}

/// Credentials for Google.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GoogleCredentials {
    /// A service account's key, in JSON.
    pub application_credentials: Option<SecretKey>,
    /// Take what GKE or the machine provides.
    pub gke_environment: bool,
}

/// One key of a Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretKey {
    /// The Secret's name.
    pub name: String,
    /// The key in it.
    pub key: String,
}

/// How WAL is archived and restored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Wal {
    /// The codec.
    pub compression: Option<String>,
    /// Its level.
    pub compression_level: Option<i32>,
    /// `AES256` or `aws:kms`.
    pub encryption: Option<String>,
    /// How many files at once.
    pub max_parallel: Option<usize>,
    /// Options in Barman's words, for archiving.
    pub archive_additional_command_args: Vec<String>,
    /// Options in Barman's words, for restoring.
    pub restore_additional_command_args: Vec<String>,
}

/// How base backups are made and restored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Data {
    /// The codec.
    pub compression: Option<String>,
    /// Its level.
    pub compression_level: Option<i32>,
    /// `AES256` or `aws:kms`.
    pub encryption: Option<String>,
    /// How many archives at once.
    pub jobs: Option<usize>,
    /// Ask for a checkpoint at once.
    pub immediate_checkpoint: Option<bool>,
    /// How many bytes a second leave at most.
    pub max_bandwidth: Option<String>,
    /// Options in Barman's words, for backups.
    pub additional_command_args: Vec<String>,
    /// Options in Barman's words, for restores.
    pub restore_additional_command_args: Vec<String>,
}

/// What is there; the empty value for a name with nothing behind it.
fn or_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A field that is in a document and not in the structure above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnknownField {
    /// From the document's root, joined by dots.
    pub(super) field: String,
    /// The known field of that place with the nearest spelling.
    pub(super) nearest: Option<String>,
}

/// The first field of `document` that an ObjectStore does not have.
///
/// The structure with all its fields empty says which there are: a field that is empty there as
/// a mapping or as nothing may hold anything.
pub(super) fn unknown_field(document: &Value) -> Option<UnknownField> {
    let known = serde_norway::to_value(ObjectStore::default())
        .expect("a structure of texts and numbers is YAML");
    unknown_below("", document.as_mapping()?, known.as_mapping()?)
}

fn unknown_below(place: &str, document: &Mapping, known: &Mapping) -> Option<UnknownField> {
    let names: Vec<&str> = known.keys().filter_map(Value::as_str).collect();
    document.iter().find_map(|(name, value)| {
        let name = name
            .as_str()
            .map_or_else(|| format!("{name:?}"), str::to_owned);
        let field = format!("{place}{name}");
        let Some(expected) = known.get(name.as_str()) else {
            let nearest = nearest(&name, &names).map(|nearest| format!("{place}{nearest}"));
            return Some(UnknownField { field, nearest });
        };
        match (value.as_mapping(), expected.as_mapping()) {
            (Some(inner), Some(expected)) if !expected.is_empty() => {
                unknown_below(&format!("{field}."), inner, expected)
            }
            _ => None,
        }
    })
}

/// The name with the fewest letters to change, unless that is most of them.
fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let distance_max = (name.chars().count() / 2).max(1);
    names
        .iter()
        .map(|known| (distance(name, known), *known))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// How many letters must be put in, taken out or replaced, capitals aside.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.to_lowercase().chars().collect();
    let other: Vec<char> = other.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, letter) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (left, other) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = row[left + 1];
            row[left + 1] = replaced.min(row[left] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: &str, expected: Option<(&str, Option<&str>)>) {
        let value: Value = serde_norway::from_str(document).unwrap();
        let found = unknown_field(&value);
        let found = found.as_ref();
        assert_eq!(
            found.map(|unknown| (unknown.field.as_str(), unknown.nearest.as_deref())),
            expected,
            "{document}"
        );
    }

    #[test]
    fn known_fields_are_known() {
        check(
            "apiVersion: barmancloud.cnpg.io/v1
kind: ObjectStore
metadata: {name: store, labels: {a: b}}
spec:
  retentionPolicy: 30d
  instanceSidecarConfiguration: {env: [{name: A, value: b}], resources: {limits: {}}}
  configuration:
    destinationPath: s3://bucket/path
    endpointURL: http://localhost
    endpointCA: {name: ca, key: pem}
    s3Credentials:
      accessKeyId: {name: aws, key: id}
      inheritFromIAMRole: false
    googleCredentials: {gkeEnvironment: true}
    wal: {compression: zstd, maxParallel: 4, archiveAdditionalCommandArgs: [--read-timeout=60]}
    data: {jobs: 2, immediateCheckpoint: true, compressionLevel: 3}
    tags: {anything: goes}
status: {serverRecoveryWindow: {}}",
            None,
        );
    }

    #[test]
    fn unknown_fields_are_named_with_the_nearest_known_one() {
        for (document, field, nearest) in [
            (
                "spec: {configuration: {wal: {compresion: gzip}}}",
                "spec.configuration.wal.compresion",
                Some("spec.configuration.wal.compression"),
            ),
            (
                "spec: {configuration: {endpointUrl: x}}",
                "spec.configuration.endpointUrl",
                Some("spec.configuration.endpointURL"),
            ),
            (
                "spec: {configuration: {s3Credentials: {accesKey: x}}}",
                "spec.configuration.s3Credentials.accesKey",
                Some("spec.configuration.s3Credentials.accessKeyId"),
            ),
            ("specs: {}", "specs", Some("spec")),
            ("spec: {xyzzy: 1}", "spec.xyzzy", None),
        ] {
            check(document, Some((field, nearest)));
        }
    }
}
