//! What happens before Clusters and Backups are reconciled.

use serde_json::{Value, json};

use super::*;
use crate::operator::fixtures::{PLUGIN, cluster, settings, spec, stores};
use crate::operator::roles::Change;

fn ask(cluster: &Cluster, resource: &Value, stores: &ObjectStores) -> Before {
    before(&Request {
        cluster,
        resource,
        stores,
        backups: &[],
        settings: &settings(),
    })
}

fn backup(plugin: &str, parameters: &Value) -> Value {
    json!({
        "kind": "Backup",
        "spec": {
            "cluster": {"name": "pg"},
            "method": "plugin",
            "pluginConfiguration": {"name": plugin, "parameters": parameters},
        },
    })
}

/// The ObjectStores that the Role names; `None` where no Role is made.
fn role_stores(before: &Before) -> Option<Value> {
    let Before::EnsureAccess(access) = before else {
        return None;
    };
    match access.role_change(None) {
        Change::Create(role) => Some(role["rules"][0]["resourceNames"].clone()),
        _ => None,
    }
}

#[test]
fn a_missing_store_is_waited_for_and_named() {
    let cluster = cluster(&spec(Some("a"), Some("gone"), None), &json!({}));
    let decision = ask(&cluster, &json!({"kind": "Cluster"}), &stores(false));
    let Before::Requeue { after, missing } = decision else {
        panic!("{decision:?}");
    };
    assert_eq!(after, Duration::from_secs(15));
    assert_eq!(
        missing.to_string(),
        "ObjectStore gone is not in namespace db, and \
         spec.externalClusters[0].plugin.parameters.barmanObjectName of Cluster pg names it"
    );
    assert!(
        missing
            .hint()
            .contains("Create ObjectStore gone in namespace db")
    );
}

#[test]
fn rights_are_seen_to_before_a_cluster_and_before_a_backup_elsewhere() {
    let cluster = cluster(&spec(Some("a"), None, None), &json!({}));
    let resource = json!({"kind": "Cluster"});
    let decision = ask(&cluster, &resource, &stores(false));
    assert_eq!(role_stores(&decision), Some(json!(["a"])));

    let elsewhere = backup(PLUGIN, &json!({"barmanObjectName": "b"}));
    let decision = ask(&cluster, &elsewhere, &stores(false));
    assert_eq!(role_stores(&decision), Some(json!(["a", "b"])));

    let gone = backup(PLUGIN, &json!({"barmanObjectName": "gone"}));
    let decision = ask(&cluster, &gone, &stores(false));
    assert_eq!(role_stores(&decision), Some(json!(["a", "gone"])));
}

#[test]
fn other_resources_pass() {
    let cluster = cluster(&spec(Some("gone"), None, None), &json!({}));
    for resource in [
        json!({}),
        json!({"kind": "Pooler"}),
        backup(PLUGIN, &json!({})),
        backup(PLUGIN, &json!({"serverName": "s"})),
        backup("else", &json!({"barmanObjectName": "b"})),
    ] {
        let decision = ask(&cluster, &resource, &stores(false));
        assert_eq!(decision, Before::Continue, "{resource}");
    }
}
