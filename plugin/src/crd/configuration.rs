//! The fields of `spec.configuration` with what they must satisfy: the store and how it is used.
//!
//! The comments are what `kubectl explain` shows. Not here: what else the fields must satisfy
//! together, which is said when they are used (`cellarman::config`).

#![expect(
    dead_code,
    clippy::struct_field_names,
    reason = "the types stand for their schemas alone"
)]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::json;

/// The store and how it is used.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
#[schemars(extend("x-kubernetes-validations" = json!([{
    "rule": "!has(self.serverName)",
    "message": "use the 'serverName' plugin parameter in the Cluster resource",
    "reason": "FieldValueForbidden",
    "fieldPath": ".serverName",
}])))]
pub(super) struct Configuration {
    /// The place in the store: s3://bucket/path, gs://bucket/path, or
    /// https://account.blob.core.windows.net/container/path.
    #[schemars(length(min = 1))]
    destination_path: String,
    /// Where the service answers, where it is not the provider's own.
    #[schemars(rename = "endpointURL")]
    endpoint_url: Option<String>,
    /// The certificates to trust when connecting to the store.
    #[schemars(rename = "endpointCA")]
    endpoint_ca: Option<SecretKey>,
    /// Not allowed here: the folder of a Cluster is a parameter of the plugin in that Cluster.
    server_name: Option<String>,
    /// Credentials for S3 and what speaks like it.
    s3_credentials: Option<S3Credentials>,
    /// Credentials for Azure Blob Storage.
    azure_credentials: Option<AzureCredentials>,
    /// Credentials for Google Cloud Storage.
    google_credentials: Option<GoogleCredentials>,
    /// How the bucket is addressed: in the path, in the host's name, or as the endpoint suggests.
    /// plugin-barman-cloud does not know this field.
    #[schemars(extend("enum" = ["auto", "path", "virtual"]))]
    addressing_style: Option<String>,
    /// The storage class of new objects. plugin-barman-cloud does not know this field.
    storage_class: Option<String>,
    /// How WAL is archived and restored.
    wal: Option<Wal>,
    /// How base backups are made and restored.
    data: Option<Data>,
    /// Tags of every object.
    tags: Option<BTreeMap<String, String>>,
    /// Tags of history files.
    history_tags: Option<BTreeMap<String, String>>,
}

/// One key of a Secret in the namespace of the ObjectStore.
#[derive(JsonSchema)]
#[schemars(inline)]
struct SecretKey {
    /// The Secret's name.
    name: String,
    /// The key in it.
    key: String,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
struct S3Credentials {
    /// The id of the access key.
    access_key_id: Option<SecretKey>,
    /// The secret access key.
    secret_access_key: Option<SecretKey>,
    /// The region.
    region: Option<SecretKey>,
    /// The token of temporary credentials.
    session_token: Option<SecretKey>,
    /// Take the role of the Pod or of the machine instead of keys.
    #[schemars(rename = "inheritFromIAMRole")]
    inherit_from_iam_role: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
struct AzureCredentials {
    /// The connection string, which says all the rest.
    connection_string: Option<SecretKey>,
    /// The account.
    storage_account: Option<SecretKey>,
    /// A key of the account.
    storage_key: Option<SecretKey>,
    /// A shared access signature.
    storage_sas_token: Option<SecretKey>,
    /// Take the managed identity.
    #[schemars(rename = "inheritFromAzureAD")]
    inherit_from_azure_ad: Option<bool>,
    /// Take what the Pod or the machine has: variables, workload identity, managed identity.
    use_default_azure_credentials: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
struct GoogleCredentials {
    /// The key of a service account, in JSON.
    application_credentials: Option<SecretKey>,
    /// Take what GKE or the machine provides.
    gke_environment: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
struct Wal {
    /// How WAL is compressed; not at all where it is left out.
    #[schemars(extend("enum" = ["bzip2", "gzip", "lz4", "snappy", "xz", "zstd"]))]
    compression: Option<String>,
    /// The level of the compression. plugin-barman-cloud does not know this field.
    compression_level: Option<i32>,
    /// How the store encrypts WAL.
    #[schemars(extend("enum" = ["AES256", "aws:kms"]))]
    encryption: Option<String>,
    /// How many files are archived or fetched at once; 1 where it is left out.
    #[schemars(range(min = 1))]
    max_parallel: Option<i64>,
    /// Further options of barman-cloud-wal-archive. Those without a meaning here are said in the
    /// log.
    archive_additional_command_args: Option<Vec<String>>,
    /// Further options of barman-cloud-wal-restore. Those without a meaning here are said in the
    /// log.
    restore_additional_command_args: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
struct Data {
    /// How base backups are compressed; not at all where it is left out. plugin-barman-cloud
    /// cannot restore those with zstd or xz.
    #[schemars(extend("enum" = ["bzip2", "gzip", "lz4", "snappy", "xz", "zstd"]))]
    compression: Option<String>,
    /// The level of the compression. plugin-barman-cloud does not know this field.
    compression_level: Option<i32>,
    /// How the store encrypts base backups.
    #[schemars(extend("enum" = ["AES256", "aws:kms"]))]
    encryption: Option<String>,
    /// How many parts are written at once.
    #[schemars(range(min = 1))]
    jobs: Option<i32>,
    /// Ask for a checkpoint at once instead of a spread one.
    immediate_checkpoint: Option<bool>,
    /// So many bytes a second leave at most during a backup, such as 50M.
    /// plugin-barman-cloud does not know this field.
    #[schemars(regex(pattern = r"^[1-9][0-9]*([kKMG](iB)?)?$"))]
    max_bandwidth: Option<String>,
    /// Further options of barman-cloud-backup. Those without a meaning here are said in the log.
    additional_command_args: Option<Vec<String>>,
    /// Further options of barman-cloud-restore. Those without a meaning here are said in the log.
    restore_additional_command_args: Option<Vec<String>>,
}
