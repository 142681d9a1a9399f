//! Roles and RoleBindings, new and there already.

use serde_json::json;

use super::*;
use crate::operator::fixtures::{
    OTHER_PLUGIN, PLUGIN, cluster, cluster_of, settings, spec, store, stores,
};

fn none() -> BTreeSet<String> {
    BTreeSet::new()
}

fn created(change: Change) -> Value {
    let Change::Create(object) = change else {
        panic!("{change:?}");
    };
    object
}

/// The object after the change, as a server merges it.
fn after(current: &Value, change: Change) -> Value {
    let Change::Patch(patch) = change else {
        panic!("{change:?}");
    };
    let mut object = current.clone();
    json_patch::merge(&mut object, &patch);
    object
}

fn access_of(own: Option<&str>) -> Access {
    let cluster = cluster(&spec(own, Some("b"), None), &json!({}));
    access(&cluster, &none(), &stores(true), &settings())
}

/// The resources of the rules with the names in each.
fn names_in(role: &Value) -> Vec<(String, Value)> {
    list(&role["rules"])
        .iter()
        .map(|rule| {
            let resource = rule["resources"][0].as_str().unwrap().to_owned();
            (resource, rule["resourceNames"].clone())
        })
        .collect()
}

#[test]
fn a_new_role_allows_what_is_named_and_no_more() {
    let role = created(access_of(Some("a")).role_change(None));
    assert_eq!(
        role,
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {
                "name": "pg-barman-cloud",
                "namespace": "db",
                "labels": {
                    "barmancloud.cnpg.io/cluster": "pg",
                    "app.kubernetes.io/name": "barman-cloud-plugin",
                    "app.kubernetes.io/instance": "pg",
                    "app.kubernetes.io/version": "1.2.3",
                    "app.kubernetes.io/component": "database",
                    "app.kubernetes.io/managed-by": "plugin-barman-cloud",
                },
                "ownerReferences": [{
                    "apiVersion": "postgresql.cnpg.io/v1",
                    "kind": "Cluster",
                    "name": "pg",
                    "uid": "6f1c",
                    "controller": true,
                    "blockOwnerDeletion": true,
                }],
            },
            "rules": [
                {
                    "apiGroups": ["barmancloud.cnpg.io"],
                    "resources": ["objectstores"],
                    "resourceNames": ["a", "b"],
                    "verbs": ["get", "watch", "list"],
                },
                {
                    "apiGroups": ["barmancloud.cnpg.io"],
                    "resources": ["objectstores/status"],
                    "resourceNames": ["a", "b"],
                    "verbs": ["update", "patch"],
                },
                {
                    "apiGroups": [""],
                    "resources": ["secrets"],
                    "resourceNames": ["a-ca", "a-keys", "b-ca", "b-keys"],
                    "verbs": ["get", "watch", "list"],
                },
            ],
        })
    );
}

#[test]
fn a_rule_without_names_is_left_out() {
    let mut open = store("a", false, &json!({}));
    open["spec"]["configuration"]["s3Credentials"] = json!({"inheritFromIAMRole": true});
    let cluster = cluster(&spec(Some("a"), None, None), &json!({}));
    let stores = ObjectStores::from([("a".to_owned(), open)]);
    let role = access(&cluster, &none(), &stores, &settings()).role_change(None);
    let resources = names_in(&created(role));
    let resources: Vec<&str> = resources.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(resources, ["objectstores", "objectstores/status"]);
}

#[test]
fn a_cluster_without_stores_gets_nothing_and_loses_what_it_had() {
    let without = cluster(&json!({"plugins": [{"name": PLUGIN}]}), &json!({}));
    let without = access(&without, &none(), &stores(false), &settings());
    assert_eq!(without.role_change(None), Change::Nothing);
    assert_eq!(without.binding_change(None), Change::Nothing);

    let role = created(access_of(Some("a")).role_change(None));
    let role = after(&role, without.role_change(Some(&role)));
    assert_eq!(role["rules"], json!([]));
}

#[test]
fn the_account_is_the_one_that_the_pods_run_as() {
    let check = |field: Value, expected: &str| {
        let mut spec = spec(Some("a"), None, None);
        spec["serviceAccountName"] = field;
        let cluster = cluster(&spec, &json!({}));
        let access = access(&cluster, &none(), &stores(false), &settings());
        let binding = created(access.binding_change(None));
        assert_eq!(
            binding["subjects"],
            json!([{"kind": "ServiceAccount", "name": expected, "namespace": "db"}])
        );
        assert_eq!(
            binding["roleRef"],
            json!({
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": "pg-barman-cloud",
            })
        );
    };
    check(Value::Null, "pg");
    check(json!(""), "pg");
    check(json!("mine"), "mine");
}

#[test]
fn what_is_there_already_is_left_alone() {
    let access = access_of(Some("a"));
    let role = created(access.role_change(None));
    let binding = created(access.binding_change(None));
    assert_eq!(access.role_change(Some(&role)), Change::Nothing);
    assert_eq!(access.binding_change(Some(&binding)), Change::Nothing);
}

#[test]
fn what_others_added_stays() {
    let access = access_of(Some("a"));
    let mut role = created(access.role_change(None));
    let foreign = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]});
    let owner = json!({"kind": "Tool", "name": "x", "uid": "1"});
    role["metadata"]["resourceVersion"] = json!("7");
    role["metadata"]["labels"] = json!({"mine": "yes"});
    role["metadata"]["ownerReferences"] = json!([owner]);
    role["rules"] =
        json!([foreign, {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    let role = after(&role, access.role_change(Some(&role)));
    assert_eq!(role["metadata"]["labels"]["mine"], json!("yes"));
    assert_eq!(
        role["metadata"]["labels"]["barmancloud.cnpg.io/cluster"],
        json!("pg")
    );
    assert_eq!(role["metadata"]["ownerReferences"][0], owner);
    assert_eq!(role["metadata"]["ownerReferences"][1]["uid"], json!("6f1c"));
    assert_eq!(
        list(&role["rules"]).len(),
        4,
        "the rule for all Secrets is gone"
    );
    assert_eq!(role["rules"][3], foreign);
    assert_eq!(access.role_change(Some(&role)), Change::Nothing);

    let mut binding = created(access.binding_change(None));
    let subject = json!({"kind": "ServiceAccount", "name": "other", "namespace": "db"});
    binding["subjects"] = json!([subject]);
    let binding = after(&binding, access.binding_change(Some(&binding)));
    assert_eq!(binding["subjects"][0], subject);
    assert_eq!(binding["subjects"][1]["name"], json!("pg"));
}

#[test]
fn a_patch_holds_only_against_the_version_it_was_made_for() {
    let mut role = created(access_of(None).role_change(None));
    role["metadata"]["resourceVersion"] = json!("7");
    let Change::Patch(patch) = access_of(Some("a")).role_change(Some(&role)) else {
        panic!("a store was added");
    };
    assert_eq!(patch["metadata"], json!({"resourceVersion": "7"}));
}

#[test]
fn a_cluster_made_again_takes_over_the_role() {
    let earlier = json!({"metadata": {}, "spec": spec(Some("a"), Some("b"), None)});
    let earlier = cluster_of(earlier);
    let access_now = access_of(Some("a"));
    let mut role = created(access(&earlier, &none(), &stores(true), &settings()).role_change(None));
    role["metadata"]["ownerReferences"][0]["uid"] = json!("gone");
    let role = after(&role, access_now.role_change(Some(&role)));
    assert_eq!(list(&role["metadata"]["ownerReferences"]).len(), 1);
    assert_eq!(role["metadata"]["ownerReferences"][0]["uid"], json!("6f1c"));
}

#[test]
fn a_second_controller_is_never_written() {
    let access = access_of(Some("a"));
    let mut role = created(access.role_change(None));
    role["metadata"]["ownerReferences"] =
        json!([{"kind": "Tool", "name": "x", "uid": "1", "controller": true}]);
    let role = after(&role, access.role_change(Some(&role)));
    assert_eq!(
        role["metadata"]["ownerReferences"][1]["controller"],
        json!(false)
    );
    assert_eq!(access.role_change(Some(&role)), Change::Nothing);
}

#[test]
fn a_binding_to_another_role_is_refused_with_the_remedy() {
    let access = access_of(Some("a"));
    let mut binding = created(access.binding_change(None));
    binding["roleRef"]["name"] = json!("other");
    let Change::Refuse(sentence) = access.binding_change(Some(&binding)) else {
        panic!("it was accepted");
    };
    assert!(
        sentence.contains("RoleBinding pg-barman-cloud in namespace db refers to Role other"),
        "{sentence}"
    );
    assert!(sentence.contains("Delete"), "{sentence}");
}

#[test]
fn stores_of_backups_are_added_until_the_backup_failed() {
    let cluster = cluster(&spec(Some("a"), None, None), &json!({}));
    let backup = |cluster: &str, plugin: &str, store: &str, phase: &str| {
        json!({
            "spec": {
                "cluster": {"name": cluster},
                "method": "plugin",
                "pluginConfiguration": {"name": plugin, "parameters": {"barmanObjectName": store}},
            },
            "status": {"phase": phase},
        })
    };
    let backups = [
        backup("pg", PLUGIN, "b", "running"),
        backup("pg", PLUGIN, "c", "completed"),
        backup("pg", PLUGIN, "d", "failed"),
        backup("other", PLUGIN, "e", "running"),
        backup("pg", "else", "f", "running"),
        backup("pg", PLUGIN, " ", "running"),
        json!({"spec": {"cluster": {"name": "pg"}, "method": "plugin"}}),
    ];
    let extra = extra_stores(&cluster, &backups, PLUGIN);
    assert_eq!(extra, ["b", "c"].map(str::to_owned).into());

    let role = access(&cluster, &extra, &stores(false), &settings()).role_change(None);
    assert_eq!(
        names_in(&created(role))[0],
        ("objectstores".to_owned(), json!(["a", "b", "c"]))
    );
}

#[test]
fn a_role_follows_its_stores_without_its_cluster() {
    let role = created(access_of(Some("a")).role_change(None));
    assert_eq!(refreshed(&role, &stores(true)), Change::Nothing);

    let mut changed = stores(true);
    changed.insert("a".to_owned(), store("a", false, &json!({})));
    changed.remove("b");
    let role = after(&role, refreshed(&role, &changed));
    assert_eq!(
        names_in(&role),
        [
            ("objectstores".to_owned(), json!(["a", "b"])),
            ("objectstores/status".to_owned(), json!(["a", "b"])),
            ("secrets".to_owned(), json!(["a-keys"])),
        ]
    );
}

#[test]
fn the_roles_of_a_store_are_those_that_name_it_and_are_ours() {
    let mut role = created(access_of(Some("a")).role_change(None));
    assert!(names_store(&role, "a", &settings()));
    assert!(!names_store(&role, "c", &settings()));
    role["metadata"]["labels"] = json!({});
    assert!(!names_store(&role, "a", &settings()));
}

#[test]
fn under_another_name_the_role_of_the_reference_is_not_touched() {
    let settings = Settings::new(OTHER_PLUGIN, "image");
    let spec =
        json!({"plugins": [{"name": OTHER_PLUGIN, "parameters": {"barmanObjectName": "a"}}]});
    let cluster = cluster(&spec, &json!({}));
    let access = access(&cluster, &none(), &stores(false), &settings);
    assert_eq!(access.name, "pg-cellarman");
    let role = created(access.role_change(None));
    let labels = role["metadata"]["labels"].as_object().unwrap();
    assert!(!labels.contains_key("barmancloud.cnpg.io/cluster"));
    assert!(names_store(&role, "a", &settings));
}
