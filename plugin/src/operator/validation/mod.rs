//! What is wrong with a Cluster, in words for the one who applies it.
//!
//! A new Cluster is refused only for what would certainly fail later. A changed one never is: what
//! it was made from stays in its spec for good, and so would the refusal. Pure. Not here: whether
//! its ObjectStores are there, for they may be applied after it.

mod target;

use std::str::FromStr;

use cellarman::barman::layout::ServerName;
use cellarman::cnpgi::operator::ValidationError;

use crate::cluster::{Archives, Cluster, PluginEntry};
use crate::operator::own_entry_index;

/// The parameters that are known, of the Cluster's own entry and of an external cluster's.
const PARAMETERS: [&str; 2] = ["barmanObjectName", "serverName"];

/// The annotation with which a Cluster archives to a place that is not empty.
const SKIP_EMPTY_CHECK: &str = "cnpg.io/skipEmptyWalArchiveCheck";

/// What is to be done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The Cluster is refused.
    Refuse,
    /// It is only said.
    Warn,
}

/// Something that is wrong with a Cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Finding {
    /// What is to be done about it.
    pub severity: Severity,
    /// The field, from the root; never empty.
    pub path: Vec<String>,
    /// What is there.
    pub value: String,
    /// What is wrong and what to do, as sentences.
    pub message: String,
}

impl Finding {
    /// The field in one word.
    pub fn field(&self) -> String {
        self.path.join(".")
    }

    /// The field, what is there, what is wrong with it and what to do.
    pub fn sentences(&self) -> String {
        let field = self.field();
        if self.value.is_empty() {
            format!("{field}: {}", self.message)
        } else {
            format!("{field} is {:?}: {}", self.value, self.message)
        }
    }
}

impl From<Finding> for ValidationError {
    fn from(finding: Finding) -> Self {
        Self {
            path_components: finding.path,
            value: finding.value,
            message: finding.message,
        }
    }
}

/// What is wrong with a new Cluster.
pub fn of_new(cluster: &Cluster, plugin: &str) -> Vec<Finding> {
    let archives = cluster.archives(plugin);
    let mut findings = Findings::default();
    own_entry(cluster, plugin, &mut findings);
    sources(cluster, plugin, &mut findings);
    same_archive(cluster, &archives, plugin, &mut findings);
    if archives.recovery.is_some()
        && let Some(target) = cluster
            .recovery()
            .and_then(|recovery| recovery.recovery_target.as_ref())
    {
        target::check(target, &mut findings);
    }
    findings.0
}

/// What is wrong with a Cluster that is there.
///
/// Once it has a primary, what it was made from matters no more, and stays in its spec for good.
pub fn of_standing(cluster: &Cluster, plugin: &str) -> Vec<Finding> {
    if cluster.status.current_primary.is_empty() {
        return of_new(cluster, plugin);
    }
    let mut made = cluster.clone();
    made.spec.bootstrap = None;
    of_new(&made, plugin)
}

/// What a change makes wrong with a Cluster: nothing of it is refused.
pub fn of_change(old: &Cluster, new: &Cluster, plugin: &str) -> Vec<Finding> {
    let known = of_new(old, plugin);
    let mut findings = Findings(of_new(new, plugin));
    findings.0.retain(|finding| !known.contains(finding));
    let (before, after) = (old.archives(plugin).own, new.archives(plugin).own);
    if let (Some(before), Some(after), Some(index)) =
        (&before, &after, own_entry_index(new, plugin))
        && before != after
    {
        findings.warn(
            &["spec", &format!("plugins[{index}]"), "parameters"],
            &format!("{}/{}", after.object_store, after.server),
            format!(
                "The Cluster archived to server {} of ObjectStore {} so far. Take a new backup: \
                 those at the old place cannot be used with WAL at the new one.",
                before.server, before.object_store
            ),
        );
    }
    for finding in &mut findings.0 {
        finding.severity = Severity::Warn;
    }
    findings.0
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn refuse(&mut self, path: &[&str], value: &str, message: String) {
        self.add(Severity::Refuse, path, value, message);
    }

    fn warn(&mut self, path: &[&str], value: &str, message: String) {
        self.add(Severity::Warn, path, value, message);
    }

    fn add(&mut self, severity: Severity, path: &[&str], value: &str, message: String) {
        self.0.push(Finding {
            severity,
            path: path.iter().map(|&part| part.to_owned()).collect(),
            value: value.to_owned(),
            message,
        });
    }
}

/// What the Cluster itself archives to.
fn own_entry(cluster: &Cluster, plugin: &str, findings: &mut Findings) {
    let Some(index) = own_entry_index(cluster, plugin) else {
        return;
    };
    let entry = &cluster.spec.plugins[index];
    let list = format!("plugins[{index}]");
    let path = ["spec", list.as_str()];
    let twice = cluster.spec.plugins.iter();
    if twice.filter(|entry| entry.name == plugin).count() > 1 {
        let message = "The plugin is listed more than once, and the last entry counts.".to_owned();
        findings.warn(&path, plugin, message);
    }
    parameters(&path, entry, findings);
    if !entry.is_enabled() {
        return;
    }
    let is_wal_archiver = entry.is_wal_archiver.unwrap_or(false);
    let has_store = value(entry, "barmanObjectName").is_some();
    let store_path = [path[0], path[1], "parameters", "barmanObjectName"];
    if !has_store && is_wal_archiver {
        findings.refuse(
            &store_path,
            "",
            "The plugin is to archive WAL and is not told where to. Set it to the name of an \
             ObjectStore in the Cluster's namespace."
                .to_owned(),
        );
    } else if !has_store {
        findings.warn(
            &store_path,
            "",
            "No ObjectStore is named, so that the plugin does nothing for this Cluster.".to_owned(),
        );
    } else if !is_wal_archiver {
        findings.warn(
            &[path[0], path[1], "isWALArchiver"],
            "false",
            "WAL is archived by the plugin, but the operator does not wait for it. Set it to true."
                .to_owned(),
        );
    }
}

/// What it is recovered from, and what it follows.
fn sources(cluster: &Cluster, plugin: &str, findings: &mut Findings) {
    let recovery = cluster.recovery().map(|recovery| recovery.source.as_str());
    let replica = cluster.spec.replica.as_ref();
    let replica = replica.map(|replica| replica.source.as_str());
    let mut names: Vec<&str> = recovery.into_iter().chain(replica).collect();
    names.dedup();
    for name in names {
        let mut clusters = cluster.spec.external_clusters.iter();
        let Some(index) = clusters.position(|known| known.name == name) else {
            continue;
        };
        let entry = cluster.spec.external_clusters[index].plugin.as_ref();
        let Some(entry) = entry.filter(|entry| entry.name == plugin) else {
            continue;
        };
        let list = format!("externalClusters[{index}]");
        let path = ["spec", list.as_str(), "plugin"];
        parameters(&path, entry, findings);
        let is_recovery = recovery == Some(name);
        let store_path = [path[0], path[1], path[2], "parameters", "barmanObjectName"];
        if value(entry, "barmanObjectName").is_none() {
            let severity = if is_recovery {
                Severity::Refuse
            } else {
                Severity::Warn
            };
            let message = format!(
                "The archive of {name} cannot be read without it. Set it to the name of an \
                 ObjectStore in the Cluster's namespace."
            );
            findings.add(severity, &store_path, "", message);
        } else if value(entry, "serverName").is_none() {
            let message = format!(
                "It is not set, so that the archive of {name} is looked for under the name of \
                 this Cluster. Set it to the name that the archive has in the store."
            );
            let path = [path[0], path[1], path[2], "parameters", "serverName"];
            findings.warn(&path, &cluster.metadata.name, message);
        }
        if !entry.is_enabled() {
            let path = [path[0], path[1], path[2], "enabled"];
            let message = format!("The operator passes the plugin over for {name}.");
            findings.warn(&path, "false", message);
        }
    }
}

/// The parameters of an entry, each by itself. Those of one that is not enabled are not used, but
/// for the ObjectStore.
fn parameters(path: &[&str], entry: &PluginEntry, findings: &mut Findings) {
    let at = |key| [path, &["parameters", key]].concat();
    for (key, text) in &entry.parameters {
        if !PARAMETERS.contains(&key.as_str()) {
            let message = format!(
                "The plugin knows no such parameter and passes it over. It knows {}.",
                PARAMETERS.join(" and ")
            );
            findings.warn(&at(key), text, message);
        }
    }
    if let Some(store) = value(entry, "barmanObjectName")
        && !is_object_name(store)
    {
        let message = "No ObjectStore can have this name: expected small letters, digits, dots \
                       and dashes."
            .to_owned();
        findings.refuse(&at("barmanObjectName"), store, message);
    }
    if let Some(server) = value(entry, "serverName")
        && entry.is_enabled()
        && ServerName::from_str(server).is_err()
    {
        let message = "No archive can have this name, for it is one folder in the store: expected \
                       text without a slash, such as pg-main."
            .to_owned();
        findings.refuse(&at("serverName"), server, message);
    }
}

/// A Cluster that would archive to the place that it comes from.
fn same_archive(cluster: &Cluster, archives: &Archives, plugin: &str, findings: &mut Findings) {
    let (Some(own), Some(index)) = (&archives.own, own_entry_index(cluster, plugin)) else {
        return;
    };
    let entry = &cluster.spec.plugins[index];
    if !entry.is_enabled() {
        return;
    }
    let is_recovered = archives.recovery.as_ref() == Some(own);
    if !is_recovered && archives.replica_source.as_ref() != Some(own) {
        return;
    }
    let skip = cluster.metadata.annotations.get(SKIP_EMPTY_CHECK);
    let is_checked = skip.map(String::as_str) != Some("enabled");
    // From volume snapshots only WAL is read, and nothing looks whether the archive is empty
    // until the first WAL comes.
    let has_snapshots = cluster
        .recovery()
        .is_some_and(|recovery| recovery.volume_snapshots.is_some());
    let severity = if is_recovered && is_checked && !has_snapshots {
        Severity::Refuse
    } else {
        Severity::Warn
    };
    let origin = if is_recovered {
        "recovered from"
    } else {
        "fed from"
    };
    let message = format!(
        "The Cluster is {origin} server {} of ObjectStore {} and would archive to the same place, \
         which is not empty. Set serverName to a name that is not in use there.",
        own.server, own.object_store
    );
    let list = format!("plugins[{index}]");
    let path = ["spec", list.as_str(), "parameters", "serverName"];
    findings.add(severity, &path, &own.server, message);
}

/// A parameter's value, without the space around it; an empty one is none.
fn value<'a>(entry: &'a PluginEntry, key: &str) -> Option<&'a str> {
    let value = entry.parameters.get(key)?.trim();
    (!value.is_empty()).then_some(value)
}

/// Whether an object of Kubernetes can have this name (RFC 1123, subdomain).
fn is_object_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        label.starts_with(inside)
            && label.ends_with(inside)
            && label.chars().all(|c| inside(c) || c == '-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests;
