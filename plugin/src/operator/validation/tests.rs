//! What is said about Clusters, and what is refused.

use serde_json::{Value, json};

use super::*;
use crate::operator::fixtures::{PLUGIN, cluster, cluster_of, entry, external};

/// The findings as `refuse field` or `warn field`.
fn said(findings: &[Finding]) -> Vec<String> {
    findings
        .iter()
        .map(|finding| {
            assert!(
                !finding.path.is_empty(),
                "the operator reads the first part"
            );
            assert!(finding.message.ends_with('.'), "{}", finding.message);
            let word = match finding.severity {
                Severity::Refuse => "refuse",
                Severity::Warn => "warn",
            };
            format!("{word} {}", finding.field())
        })
        .collect()
}

fn check(spec: &Value, expected: &[&str]) {
    let findings = of_new(&cluster(spec, &json!({})), PLUGIN);
    assert_eq!(said(&findings), expected, "{spec}");
}

fn check_target(target: &Value, expected: &[&str]) {
    let expected: Vec<String> = expected
        .iter()
        .map(|field| format!("refuse spec.bootstrap.recovery.recoveryTarget.{field}"))
        .collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    let parameters = json!({"barmanObjectName": "b", "serverName": "old"});
    check(
        &json!({
            "bootstrap": {"recovery": {"source": "o", "recoveryTarget": target}},
            "externalClusters": [external("o", &parameters)],
        }),
        &expected,
    );
}

#[test]
fn a_cluster_that_is_in_order_is_let_pass_in_silence() {
    check(&json!({}), &[]);
    check(
        &json!({
            "plugins": [entry(&json!({"barmanObjectName": "a", "serverName": "pg-2026"}))],
            "bootstrap": {"recovery": {"source": "o"}},
            "externalClusters": [external("o", &json!({"barmanObjectName": "a", "serverName": "pg"}))],
        }),
        &[],
    );
    check_target(
        &json!({"targetTime": "2026-08-01 10:00:00+00", "targetTLI": "latest"}),
        &[],
    );
    check_target(
        &json!({"backupID": "20260801T100000", "targetImmediate": true}),
        &[],
    );
}

#[test]
fn an_archiver_without_a_store_is_refused_and_an_idle_entry_is_not() {
    let field = "spec.plugins[0].parameters.barmanObjectName";
    check(
        &json!({"plugins": [entry(&json!({}))]}),
        &[&format!("refuse {field}")],
    );
    check(
        &json!({"plugins": [{"name": PLUGIN}]}),
        &[&format!("warn {field}")],
    );
    check(
        &json!({"plugins": [{"name": PLUGIN, "enabled": false, "isWALArchiver": true}]}),
        &[],
    );
    check(
        &json!({"plugins": [{"name": "else", "isWALArchiver": true}]}),
        &[],
    );
    check(
        &json!({"plugins": [{"name": PLUGIN, "parameters": {"barmanObjectName": "a"}}]}),
        &["warn spec.plugins[0].isWALArchiver"],
    );
}

#[test]
fn names_that_can_never_be_are_refused() {
    for server in ["a/b", "..", ".", "a\nb"] {
        check(
            &json!({"plugins": [entry(&json!({"barmanObjectName": "a", "serverName": server}))]}),
            &["refuse spec.plugins[0].parameters.serverName"],
        );
    }
    for store in ["A", "a_b", "a/b", "-a", "a.", "a b"] {
        check(
            &json!({"plugins": [entry(&json!({"barmanObjectName": store}))]}),
            &["refuse spec.plugins[0].parameters.barmanObjectName"],
        );
    }
    check(
        &json!({"plugins": [entry(&json!({"barmanObjectName": "a.b-1"}))]}),
        &[],
    );
}

#[test]
fn unknown_parameters_and_double_entries_are_only_said() {
    check(
        &json!({"plugins": [
            entry(&json!({"barmanObjectName": "a"})),
            entry(&json!({"barmanObjectName": "a", "barmanObject": "b"})),
        ]}),
        &[
            "warn spec.plugins[1]",
            "warn spec.plugins[1].parameters.barmanObject",
        ],
    );
}

#[test]
fn a_source_is_refused_where_recovery_needs_it() {
    let field = "spec.externalClusters[1].plugin.parameters.barmanObjectName";
    let others = json!([{"name": "x"}, external("o", &json!({}))]);
    check(
        &json!({"bootstrap": {"recovery": {"source": "o"}}, "externalClusters": others}),
        &[&format!("refuse {field}")],
    );
    check(
        &json!({"replica": {"source": "o"}, "externalClusters": others}),
        &[&format!("warn {field}")],
    );
    check(
        &json!({
            "bootstrap": {"recovery": {"source": "o"}},
            "externalClusters": [external("o", &json!({"barmanObjectName": "b"}))],
        }),
        &["warn spec.externalClusters[0].plugin.parameters.serverName"],
    );
    check(
        &json!({"bootstrap": {"recovery": {"source": "nobody"}}, "externalClusters": others}),
        &[],
    );
}

#[test]
fn archiving_to_where_it_comes_from_is_refused_with_the_remedy() {
    let spec = json!({
        "plugins": [entry(&json!({"barmanObjectName": "a"}))],
        "bootstrap": {"recovery": {"source": "o"}},
        "externalClusters": [external("o", &json!({"barmanObjectName": "a", "serverName": "pg"}))],
    });
    let field = "spec.plugins[0].parameters.serverName";
    check(&spec, &[&format!("refuse {field}")]);
    let findings = of_new(&cluster(&spec, &json!({})), PLUGIN);
    assert!(
        findings[0].message.contains("Set serverName"),
        "{findings:?}"
    );

    let skipping = json!({"annotations": {"cnpg.io/skipEmptyWalArchiveCheck": "enabled"}});
    let findings = of_new(
        &cluster_of(json!({"metadata": skipping, "spec": spec})),
        PLUGIN,
    );
    assert_eq!(said(&findings), [format!("warn {field}")]);

    let mut from_snapshots = spec.clone();
    from_snapshots["bootstrap"]["recovery"]["volumeSnapshots"] = json!({"storage": {}});
    check(&from_snapshots, &[&format!("warn {field}")]);

    let mut replica = spec;
    replica["bootstrap"] = json!({"pg_basebackup": {"source": "o"}});
    replica["replica"] = json!({"enabled": true, "source": "o"});
    check(&replica, &[&format!("warn {field}")]);
}

#[test]
fn a_target_that_nothing_reaches_is_refused() {
    check_target(&json!({"targetTime": "soon"}), &["targetTime"]);
    check_target(&json!({"targetLSN": "0/G"}), &["targetLSN"]);
    check_target(&json!({"targetXID": "-1"}), &["targetXID"]);
    check_target(&json!({"targetTLI": "last"}), &["targetTLI"]);
    check_target(&json!({"targetName": "n".repeat(64)}), &["targetName"]);
    check_target(&json!({"backupID": "a/b"}), &["backupID"]);
    check_target(
        &json!({"targetLSN": "0/1", "targetTime": "2026-08-01 10:00:00", "targetImmediate": false}),
        &["targetTime"],
    );
    check_target(
        &json!({"targetName": "n", "targetImmediate": true}),
        &["targetImmediate"],
    );
}

#[test]
fn a_target_of_another_plugin_is_not_ours_to_judge() {
    check(
        &json!({
            "bootstrap": {"recovery": {"source": "o", "recoveryTarget": {"targetTime": "soon"}}},
            "externalClusters": [{"name": "o", "plugin": {"name": "else"}}],
        }),
        &[],
    );
}

#[test]
fn a_change_is_never_refused_and_says_only_what_is_new() {
    let plain = cluster(&json!({"plugins": [entry(&json!({}))]}), &json!({}));
    assert_eq!(said(&of_change(&plain, &plain, PLUGIN)), [""; 0]);

    let with = |parameters: Value| cluster(&json!({"plugins": [entry(&parameters)]}), &json!({}));
    let old = with(json!({"barmanObjectName": "a"}));
    let new = with(json!({"barmanObjectName": "a", "serverName": "b/c"}));
    assert_eq!(
        said(&of_change(&old, &new, PLUGIN)),
        [
            "warn spec.plugins[0].parameters.serverName",
            "warn spec.plugins[0].parameters"
        ]
    );
}

#[test]
fn what_a_cluster_was_made_from_matters_no_more_once_it_has_a_primary() {
    let spec = json!({
        "plugins": [entry(&json!({"barmanObjectName": "a", "serverName": "pg"}))],
        "bootstrap": {"recovery": {"source": "o", "recoveryTarget": {"targetXID": "none"}}},
        "externalClusters": [external("o", &json!({"barmanObjectName": "a", "serverName": "pg"}))],
    });
    let mut standing = cluster(&spec, &json!({}));
    let found = said(&of_standing(&standing, PLUGIN));
    assert_eq!(found, said(&of_new(&standing, PLUGIN)));
    assert_eq!(found.len(), 2, "{found:?}");
    standing.status.current_primary = "pg-1".to_owned();
    assert_eq!(of_standing(&standing, PLUGIN), []);
}

#[test]
fn a_finding_in_sentences_names_its_field_and_what_is_there() {
    let spec = json!({"plugins": [entry(&json!({"barmanObjectName": "a", "serverName": "x/y"}))]});
    let findings = of_new(&cluster(&spec, &json!({})), PLUGIN);
    let sentences = findings[0].sentences();
    let begin = "spec.plugins[0].parameters.serverName is \"x/y\": No archive can have this name";
    assert!(sentences.starts_with(begin), "{sentences}");
}
