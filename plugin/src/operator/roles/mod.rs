//! The Role and the RoleBinding that let the Pods of a Cluster read what they need.
//!
//! What is there is merged with: foreign labels, rules, owners and subjects stay. Pure. Not here:
//! reading and writing either.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::cluster::Cluster;
use crate::object_store;
use crate::operator::{ObjectStores, Settings};

const OBJECT_STORE_GROUP: &str = "barmancloud.cnpg.io";
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// The Role and the RoleBinding as they have to be. Both have the same name.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// The name of both.
    pub name: String,
    /// Their namespace.
    pub namespace: String,
    role: Value,
    binding: Value,
}

/// What has to change of one object.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It is as it has to be, or not needed.
    Nothing,
    /// Create this.
    Create(Value),
    /// Merge this into it (RFC 7386). Its `resourceVersion` is part of it, so that a change in
    /// between is a conflict, after which to look again.
    Patch(Value),
    /// It cannot be changed; the sentences say why and what to do.
    Refuse(String),
}

/// The rights of the Cluster's Pods: for the ObjectStores it names, and for `extra` ones.
pub fn access(
    cluster: &Cluster,
    extra: &BTreeSet<String>,
    stores: &ObjectStores,
    settings: &Settings,
) -> Access {
    let archives = cluster.archives(&settings.names.plugin);
    let mut names: BTreeSet<&str> = archives.object_stores().into_iter().collect();
    names.extend(extra.iter().map(String::as_str));
    let name = settings.names.role(&cluster.metadata.name);
    let metadata = metadata(cluster, &name, settings);
    let namespace = cluster.metadata.namespace.clone();
    let role = json!({
        "apiVersion": format!("{RBAC_GROUP}/v1"),
        "kind": "Role",
        "metadata": metadata,
        "rules": rules(&names, stores),
    });
    let binding = json!({
        "apiVersion": format!("{RBAC_GROUP}/v1"),
        "kind": "RoleBinding",
        "metadata": metadata,
        "subjects": [{
            "kind": "ServiceAccount",
            "name": service_account(cluster),
            "namespace": namespace,
        }],
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": "Role", "name": name},
    });
    Access {
        name,
        namespace,
        role,
        binding,
    }
}

impl Access {
    /// What has to change of the Role, where `current` is the one that is there.
    pub fn role_change(&self, current: Option<&Value>) -> Change {
        let Some(current) = current else {
            return self.create(&self.role);
        };
        let mut patch = metadata_patch(&self.role, current);
        let rules = merged_rules(&self.role["rules"], &current["rules"]);
        if !same_list(&rules, &current["rules"]) {
            patch.insert("rules".to_owned(), rules);
        }
        patched(patch, current)
    }

    /// What has to change of the RoleBinding, where `current` is the one that is there.
    pub fn binding_change(&self, current: Option<&Value>) -> Change {
        let Some(current) = current else {
            return self.create(&self.binding);
        };
        if current["roleRef"] != self.binding["roleRef"] {
            return Change::Refuse(format!(
                "RoleBinding {} in namespace {} refers to {} {}, which cannot be changed. Delete \
                 the RoleBinding, and it is made anew.",
                self.name,
                self.namespace,
                current["roleRef"]["kind"].as_str().unwrap_or("role"),
                current["roleRef"]["name"].as_str().unwrap_or_default(),
            ));
        }
        let mut patch = metadata_patch(&self.binding, current);
        let mut subjects = list(&current["subjects"]);
        let wanted = &self.binding["subjects"][0];
        let is_there = |subject: &Value| {
            ["kind", "name", "namespace"]
                .iter()
                .all(|field| subject[*field] == wanted[*field])
        };
        if !subjects.iter().any(is_there) {
            subjects.push(wanted.clone());
            patch.insert("subjects".to_owned(), json!(subjects));
        }
        patched(patch, current)
    }

    /// Nothing is made for a Cluster that names no ObjectStore.
    fn create(&self, object: &Value) -> Change {
        if list(&self.role["rules"]).is_empty() {
            Change::Nothing
        } else {
            Change::Create(object.clone())
        }
    }
}

/// What has to change of a Role after an ObjectStore changed, without its Cluster at hand.
///
/// The ObjectStores are those that the Role names already; of one that is not among `stores`
/// only the name stays.
pub fn refreshed(role: &Value, stores: &ObjectStores) -> Change {
    let rules_there = list(&role["rules"]);
    let names: BTreeSet<&str> = rules_there
        .iter()
        .filter(|rule| subject_of(rule) == Some((OBJECT_STORE_GROUP, "objectstores")))
        .flat_map(|rule| rule["resourceNames"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    let rules = merged_rules(&rules(&names, stores), &role["rules"]);
    let mut patch = Map::new();
    if !same_list(&rules, &role["rules"]) {
        patch.insert("rules".to_owned(), rules);
    }
    patched(patch, role)
}

/// Whether the Role is one of ours that names this ObjectStore.
pub fn names_store(role: &Value, store: &str, settings: &Settings) -> bool {
    let labels = &role["metadata"]["labels"];
    let is_ours = labels.get(settings.names.role_label).is_some();
    is_ours
        && list(&role["rules"]).iter().any(|rule| {
            subject_of(rule) == Some((OBJECT_STORE_GROUP, "objectstores"))
                && list(&rule["resourceNames"]).contains(&json!(store))
        })
}

/// The ObjectStores that Backups of this Cluster name on their own.
///
/// Those of completed Backups too, for they are looked after there; not those of failed ones.
pub fn extra_stores(cluster: &Cluster, backups: &[Value], plugin: &str) -> BTreeSet<String> {
    let own = |backup: &&Value| {
        let text = |pointer| backup.pointer(pointer).and_then(Value::as_str);
        text("/spec/cluster/name") == Some(&cluster.metadata.name)
            && text("/spec/method") == Some("plugin")
            && text("/spec/pluginConfiguration/name") == Some(plugin)
            && !matches!(
                text("/status/phase"),
                Some("failed" | "invalid backup definition")
            )
    };
    backups
        .iter()
        .filter(own)
        .filter_map(|backup| store_of_backup(backup))
        .map(str::to_owned)
        .collect()
}

/// The ObjectStore that a Backup names on its own.
pub fn store_of_backup(backup: &Value) -> Option<&str> {
    let name = backup.pointer("/spec/pluginConfiguration/parameters/barmanObjectName")?;
    let name = name.as_str()?.trim();
    (!name.is_empty()).then_some(name)
}

/// The account that the Pods of the Cluster run as.
fn service_account(cluster: &Cluster) -> &str {
    let name = cluster.spec.service_account_name.as_deref();
    let name = name.filter(|name| !name.is_empty());
    name.unwrap_or(&cluster.metadata.name)
}

fn metadata(cluster: &Cluster, name: &str, settings: &Settings) -> Value {
    let (group, version) = settings.group_and_version(cluster);
    let cluster = &cluster.metadata;
    json!({
        "name": name,
        "namespace": cluster.namespace,
        "labels": {
            settings.names.role_label: cluster.name,
            "app.kubernetes.io/name": "barman-cloud-plugin",
            "app.kubernetes.io/instance": cluster.name,
            "app.kubernetes.io/version": settings.version,
            "app.kubernetes.io/component": "database",
            "app.kubernetes.io/managed-by": settings.names.managed_by,
        },
        "ownerReferences": [{
            "apiVersion": format!("{group}/{version}"),
            "kind": "Cluster",
            "name": cluster.name,
            "uid": cluster.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }],
    })
}

/// The rules for these ObjectStores. A rule without names would be one for all names, so that it
/// is left out.
fn rules(names: &BTreeSet<&str>, stores: &ObjectStores) -> Value {
    let secrets: BTreeSet<String> = names
        .iter()
        .filter_map(|name| stores.get(*name))
        .flat_map(object_store::secrets)
        .collect();
    let names: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let read: &[&str] = &["get", "watch", "list"];
    let rules: Vec<Value> = [
        (OBJECT_STORE_GROUP, "objectstores", &names, read),
        (
            OBJECT_STORE_GROUP,
            "objectstores/status",
            &names,
            &["update", "patch"],
        ),
        ("", "secrets", &secrets, read),
    ]
    .into_iter()
    .filter(|(_, _, names, _)| !names.is_empty())
    .map(|(group, resource, names, verbs)| {
        json!({
            "apiGroups": [group],
            "resources": [resource],
            "resourceNames": names,
            "verbs": verbs,
        })
    })
    .collect();
    json!(rules)
}

/// The rules that are wanted, and behind them those of `current` about other things.
fn merged_rules(wanted: &Value, current: &Value) -> Value {
    let mut rules = list(wanted);
    let foreign = list(current).into_iter().filter(|rule| {
        let ours = [
            (OBJECT_STORE_GROUP, "objectstores"),
            (OBJECT_STORE_GROUP, "objectstores/status"),
            ("", "secrets"),
        ];
        !subject_of(rule).is_some_and(|subject| ours.contains(&subject))
    });
    rules.extend(foreign);
    json!(rules)
}

/// The group and the resource of a rule that is about one of each.
fn subject_of(rule: &Value) -> Option<(&str, &str)> {
    let only = |field: &str| {
        let all = rule.get(field)?.as_array()?;
        let first = all.first()?.as_str()?;
        (all.len() == 1).then_some(first)
    };
    Some((only("apiGroups")?, only("resources")?))
}

/// The owners: `wanted` in the place of an earlier Cluster of that name, behind others. An owner
/// of another kind that is the controller already stays the only one.
fn merged_owners(wanted: &Value, current: &Value) -> Value {
    let is_same_cluster =
        |owner: &Value| owner["kind"] == wanted["kind"] && owner["name"] == wanted["name"];
    let mut owners = list(current);
    owners.retain(|owner| !is_same_cluster(owner));
    let mut wanted = wanted.clone();
    if owners.iter().any(|owner| owner["controller"] == true) {
        wanted["controller"] = json!(false);
    }
    owners.push(wanted);
    json!(owners)
}

/// The beginning of a patch: what has to change of labels and owners.
fn metadata_patch(wanted: &Value, current: &Value) -> Map<String, Value> {
    let mut metadata = Map::new();
    let labels: Map<String, Value> = wanted["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| current["metadata"]["labels"].get(key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !labels.is_empty() {
        metadata.insert("labels".to_owned(), Value::Object(labels));
    }
    let owners = merged_owners(
        &wanted["metadata"]["ownerReferences"][0],
        &current["metadata"]["ownerReferences"],
    );
    if !same_list(&owners, &current["metadata"]["ownerReferences"]) {
        metadata.insert("ownerReferences".to_owned(), owners);
    }
    let mut patch = Map::new();
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), Value::Object(metadata));
    }
    patch
}

fn patched(mut patch: Map<String, Value>, current: &Value) -> Change {
    if patch.is_empty() {
        return Change::Nothing;
    }
    if let Some(version) = current.pointer("/metadata/resourceVersion") {
        patch.entry("metadata").or_insert_with(|| json!({}))["resourceVersion"] = version.clone();
    }
    Change::Patch(Value::Object(patch))
}

/// The items of a list; none where there is no list.
fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn same_list(wanted: &Value, current: &Value) -> bool {
    list(wanted) == list(current)
}

#[cfg(test)]
mod tests;
