//! The fields of an ObjectStore but for its configuration: retention, the sidecar, and status.
//!
//! The comments are what `kubectl explain` shows.

#![expect(
    dead_code,
    clippy::struct_field_names,
    reason = "the types stand for their schemas alone"
)]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::json;

use crate::crd::configuration::Configuration;

/// Where backups and WAL of PostgreSQL clusters go, and how.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub(super) struct ObjectStore {
    /// The version of this schema of an object.
    api_version: Option<String>,
    /// The kind of this object.
    kind: Option<String>,
    // Without a description: a schema may say nothing of it.
    metadata: Metadata,
    /// What is wanted.
    spec: Spec,
    /// What is observed.
    status: Option<Status>,
}

#[derive(JsonSchema)]
#[schemars(inline)]
struct Metadata {}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
struct Spec {
    configuration: Configuration,
    /// How far back recovery is possible, such as 30d, 4w or 6m: what is older and not needed
    /// for it is deleted. Or how many backups are kept, such as REDUNDANCY 3, which
    /// plugin-barman-cloud does not know.
    #[schemars(regex(pattern = "^([1-9][0-9]*[dwm]|REDUNDANCY [1-9][0-9]*)$"))]
    retention_policy: Option<String>,
    /// What is kept beyond the policy. plugin-barman-cloud does not know this field.
    retention: Option<Retention>,
    /// How the sidecar of an instance is to be.
    instance_sidecar_configuration: Option<Sidecar>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
struct Retention {
    /// So many backups are kept; beside a recovery window a backup stays that either keeps.
    #[schemars(range(min = 1))]
    redundancy: Option<i32>,
    /// So many backups stay whatever their age.
    #[schemars(range(min = 0))]
    minimum_backups: Option<i32>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
struct Sidecar {
    /// Further variables. Those that the operator sets cannot be changed.
    env: Option<Vec<Variable>>,
    /// How often the archive is looked after, in seconds.
    #[schemars(extend("default" = 1800))]
    retention_policy_interval_seconds: Option<i64>,
    /// What the sidecar may use.
    resources: Option<Resources>,
    /// Further arguments of the sidecar.
    #[schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "!self.exists(a, a.startsWith('--log-level'))",
        "message": "do not set --log-level in additionalContainerArgs; use spec.instanceSidecarConfiguration.logLevel",
        "reason": "FieldValueForbidden",
    }])))]
    additional_container_args: Option<Vec<String>>,
    /// The least level that is logged.
    #[schemars(extend("enum" = ["error", "warning", "info", "debug", "trace"], "default" = "info"))]
    log_level: Option<String>,
    /// The sidecar's image for the Clusters of this ObjectStore, so that some of them can go
    /// first. plugin-barman-cloud does not know this field.
    image: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
struct Variable {
    /// Its name.
    name: String,
    /// Its value.
    value: Option<String>,
    /// Where its value comes from.
    value_from: Option<ValueSource>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
struct ValueSource {
    /// A key of a ConfigMap.
    config_map_key_ref: Option<Selector>,
    /// A key of a Secret.
    secret_key_ref: Option<Selector>,
    /// A field of the Pod.
    field_ref: Option<FieldSelector>,
    /// A limit or a request of a container.
    resource_field_ref: Option<ResourceSelector>,
}

#[derive(JsonSchema)]
#[schemars(inline)]
struct Selector {
    /// The object's name.
    #[schemars(extend("default" = ""))]
    name: Option<String>,
    /// The key in it.
    key: String,
    /// Whether it may be missing.
    optional: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
struct FieldSelector {
    /// The version in which the path is written.
    api_version: Option<String>,
    /// The path of the field.
    field_path: String,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
struct ResourceSelector {
    /// The container.
    container_name: Option<String>,
    /// The unit of the value.
    divisor: Option<Quantity>,
    /// The resource.
    resource: String,
}

#[derive(JsonSchema)]
#[schemars(inline)]
struct Resources {
    /// What it may use at most.
    limits: Option<BTreeMap<String, Quantity>>,
    /// What it is sure to get.
    requests: Option<BTreeMap<String, Quantity>>,
    /// Claims of the Pod that it uses.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    claims: Option<Vec<Claim>>,
}

#[derive(JsonSchema)]
#[schemars(inline)]
struct Claim {
    /// The name of the claim in the Pod.
    name: String,
    /// The request in the claim.
    request: Option<String>,
}

/// An amount in Kubernetes' words: a number, or text such as 100m or 1Gi.
struct Quantity(String);

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": concat!(
                r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))",
                r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
            ),
            "x-kubernetes-int-or-string": true,
        })
    }
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
struct Status {
    /// What is known of the archive of each server, by its name.
    server_recovery_window: Option<BTreeMap<String, Window>>,
    /// Whether the store can be used: CredentialsValid, Reachable, ArchiveHealthy,
    /// RetentionHealthy.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    conditions: Option<Vec<Condition>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
struct Window {
    /// The earliest moment that can be recovered.
    #[schemars(extend("format" = "date-time"))]
    first_recoverability_point: Option<String>,
    /// When the last good backup ended.
    #[schemars(extend("format" = "date-time"))]
    last_successful_backup_time: Option<String>,
    /// When the last bad backup failed.
    #[schemars(extend("format" = "date-time"))]
    last_failed_backup_time: Option<String>,
    /// How many good backups there are.
    backups: Option<i64>,
    /// When the first backup ended that has all of its WAL.
    #[schemars(extend("format" = "date-time"))]
    first_restorable_time: Option<String>,
    /// The last moment that the archive proves without a gap behind the last good backup: recovery
    /// without a target gets there. As a target it has to be an earlier one, for PostgreSQL stops at
    /// a time only when it meets a transaction that ended later.
    #[schemars(extend("format" = "date-time"))]
    latest_restorable_time: Option<String>,
    /// How long before the last look at the archive that was, in seconds. It grows while nothing
    /// happens in the database.
    seconds_behind: Option<i64>,
    /// How many WAL segments are missing behind the first backup. Moments between a gap and the
    /// next backup cannot be recovered.
    missing_wal_segments: Option<i64>,
    /// The first WAL segment that is missing behind the last backup: recovery ends before it until
    /// there is another backup.
    first_missing_wal: Option<String>,
    /// Since when the backup of a standby waits for the primary to end a WAL segment.
    #[schemars(extend("format" = "date-time"))]
    backup_awaits_wal_since: Option<String>,
    /// What failed last.
    last_error: Option<LastError>,
}

#[derive(JsonSchema)]
#[schemars(inline)]
struct LastError {
    /// When.
    #[schemars(extend("format" = "date-time"))]
    time: Option<String>,
    /// What, the cause first.
    message: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
struct Condition {
    /// What it is about.
    #[schemars(rename = "type", length(max = 316))]
    condition_type: String,
    /// Whether it holds.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    status: String,
    /// One word on why.
    #[schemars(length(min = 1, max = 1024))]
    reason: String,
    /// Sentences on why, the cause first.
    #[schemars(length(max = 32768))]
    message: String,
    /// Since when it is so.
    #[schemars(extend("format" = "date-time"))]
    last_transition_time: String,
    /// The generation of the object that was looked at.
    #[schemars(range(min = 0))]
    observed_generation: Option<i64>,
}
