//! Figures through a sidecar's socket.

use std::collections::BTreeMap;
use std::sync::Arc;

use cellarman::cnpgi::metrics::metrics_client::MetricsClient;
use cellarman::cnpgi::metrics::{
    CollectMetricsRequest, DefineMetricsRequest, MetricsCapabilitiesRequest,
};
use cellarman::service::verify;
use serde_json::json;
use testbed::or_not_run;
use testbed::wait;
use tokio_util::sync::CancellationToken;

use crate::backup_bed::{Bed, OWN};

/// The values of all metrics without labels, once each is seen to be defined.
fn collect(bed: &Bed) -> BTreeMap<String, f64> {
    let mut client = MetricsClient::new(bed.sidecar.channel());
    let (defined, collected) = bed.sidecar.block(async {
        let defined = client.define(DefineMetricsRequest::default()).await;
        let collected = client.collect(CollectMetricsRequest::default()).await;
        (
            defined.expect("definitions").into_inner().metrics,
            collected.expect("values").into_inner().metrics,
        )
    });
    let labels: BTreeMap<&str, usize> = defined
        .iter()
        .map(|metric| (metric.fq_name.as_str(), metric.variable_labels.len()))
        .collect();
    assert_eq!(labels.len(), defined.len(), "each is defined once");
    for metric in &defined {
        let value_type = metric.value_type.map(|one| one.r#type);
        assert!(value_type.is_some_and(|one| one > 0), "{}", metric.fq_name);
    }
    for value in &collected {
        let labels = labels.get(value.fq_name.as_str()).copied();
        assert_eq!(labels, Some(value.variable_labels.len()), "{value:?}");
    }
    let plain = collected
        .into_iter()
        .filter(|value| value.variable_labels.is_empty());
    plain.map(|value| (value.fq_name, value.value)).collect()
}

#[test]
fn figures_follow_what_the_sidecar_does() {
    let bed = or_not_run!(Bed::new(&json!({})));
    let mut client = MetricsClient::new(bed.sidecar.channel());
    let capabilities = client.get_capabilities(MetricsCapabilitiesRequest {});
    let capabilities = bed.sidecar.block(capabilities).expect("capabilities");
    assert_eq!(capabilities.into_inner().capabilities.len(), 1);
    let known = |name: &str| format!("barman_cloud_cloudnative_pg_io_{name}");
    let before = collect(&bed);
    for name in [
        known("first_recoverability_point"),
        known("last_available_backup_timestamp"),
        known("last_failed_backup_timestamp"),
    ] {
        assert!(before[&name].abs() < 0.5, "{name}: {}", before[&name]);
    }
    bed.take("one", &[]);
    bed.server.archive_now();
    wait::until_true("the figures to follow", || {
        let values = collect(&bed);
        [
            known("first_recoverability_point"),
            known("last_available_backup_timestamp"),
            "cellarman_backups_completed_total".to_owned(),
            "cellarman_backup_last_copied_bytes".to_owned(),
            "cellarman_backup_last_stored_bytes".to_owned(),
            "cellarman_backups".to_owned(),
            "cellarman_wal_archived_total".to_owned(),
            "cellarman_wal_archive_raw_bytes_total".to_owned(),
            "cellarman_wal_archive_stored_bytes_total".to_owned(),
            "cellarman_wal_archive_duration_seconds_count".to_owned(),
            "cellarman_maintenance_last_success_timestamp_seconds".to_owned(),
            "cellarman_recovery_window_last_timestamp_seconds".to_owned(),
            "cellarman_process_resident_memory_bytes".to_owned(),
        ]
        .iter()
        .all(|name| values[name] > 0.0)
    });
}

#[test]
fn figures_follow_what_somebody_else_verified() {
    let every_second = json!({"retentionPolicyIntervalSeconds": 1});
    let bed = or_not_run!(Bed::new(
        &json!({"instanceSidecarConfiguration": every_second})
    ));
    bed.take("one", &[]);
    bed.server.archive_now();
    let repository = bed.repository("backups", OWN.1);
    let request = verify::Request {
        backup: None,
        is_all: false,
        jobs: 1,
        deep: None,
    };
    let report = bed.sidecar.block(async {
        let plan = verify::plan(&repository, request).await.expect("a plan");
        plan.run(&CancellationToken::new(), Arc::new(|_| {})).await
    });
    assert_eq!(report.expect("a report").kind(), None);
    wait::until_true("the figures to follow", || {
        let values = collect(&bed);
        let is_one = (values["cellarman_verify_backups"] - 1.0).abs() < 0.5;
        is_one && values["cellarman_verify_last_run_timestamp_seconds"] > 0.0
    });
    let values = collect(&bed);
    for name in ["backups_damaged", "wal_segments_missing"] {
        assert!(values[&format!("cellarman_verify_{name}")].abs() < 0.5);
    }
}
