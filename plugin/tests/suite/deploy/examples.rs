//! The examples are what they are taken for: each ObjectStore a store, each Cluster one of ours.

use std::path::Path;

use cellarman::config::{self, Settings};
use cellarman::store::config::StoreConfig;
use cellarman_plugin::cluster::{ArchiveRef, Cluster};
use cellarman_plugin::operator::validation;
use serde_json::Value;

use super::{deploy, documents, read, text, yaml_files};

const PLUGIN: &str = "barman-cloud.cloudnative-pg.io";

/// The settings of the store in a file, and the warnings about it.
fn settings(path: &Path) -> Settings {
    let documents: Vec<serde_norway::Value> = documents(&filled(&read(path)))
        .into_iter()
        .map(|document| serde_norway::to_value(document).expect("JSON is YAML"))
        .collect();
    config::from_documents(path, &documents, &|_| None)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text with a key where one is to be put in: a placeholder is none, and is refused.
fn filled(text: &str) -> String {
    let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/gcs/key.pem");
    let key = read(&key).replace('\n', "\\n");
    text.replace(
        r#""private_key": "REPLACE-ME""#,
        &format!(r#""private_key": "{key}""#),
    )
}

#[test]
fn every_store_of_the_examples_can_be_opened_as_it_is() {
    for path in yaml_files(&deploy("examples/stores")) {
        let settings = settings(&path);
        assert_eq!(
            settings.warnings,
            Vec::<String>::new(),
            "{}",
            path.display()
        );
        let name = path.file_stem().and_then(|name| name.to_str());
        let is_the_kind = match name.unwrap_or_default().split('-').next() {
            Some("azure") => matches!(settings.destination.store, StoreConfig::Azure(_)),
            Some("gcs") => matches!(settings.destination.store, StoreConfig::Gcs(_)),
            _ => matches!(settings.destination.store, StoreConfig::S3(_)),
        };
        assert!(
            is_the_kind,
            "{}: {}",
            path.display(),
            settings.destination.url
        );
        assert!(settings.retention_policy.is_some(), "{}", path.display());
    }
}

#[test]
fn every_store_of_the_examples_is_the_one_that_their_clusters_name() {
    for path in yaml_files(&deploy("examples/stores")) {
        for document in documents(&read(&path)) {
            assert_eq!(
                text(&document, "/metadata/namespace"),
                "database",
                "{}",
                path.display()
            );
            if text(&document, "/kind") == "ObjectStore" {
                assert_eq!(
                    text(&document, "/metadata/name"),
                    "backups",
                    "{}",
                    path.display()
                );
            }
        }
    }
}

/// The documents of all examples but the stores.
fn objects(kind: &str) -> Vec<Value> {
    let found: Vec<Value> = yaml_files(&deploy("examples"))
        .iter()
        .flat_map(|path| documents(&read(path)))
        .filter(|document| text(document, "/kind") == kind)
        .collect();
    assert!(!found.is_empty(), "no {kind} among the examples");
    found
}

fn archive(server: &str) -> ArchiveRef {
    ArchiveRef {
        object_store: "backups".to_owned(),
        server: server.to_owned(),
    }
}

#[test]
fn every_cluster_of_the_examples_is_understood_and_found_right() {
    for document in objects("Cluster") {
        let name = text(&document, "/metadata/name").to_owned();
        let cluster = Cluster::parse(document.to_string().as_bytes()).expect("a Cluster");
        let findings = validation::of_new(&cluster, PLUGIN);
        assert!(findings.is_empty(), "{name}: {findings:?}");
        let archives = cluster.archives(PLUGIN);
        assert_eq!(archives.own, Some(archive(&name)));
        let (recovery, source) = match name.as_str() {
            "pg" => (None, None),
            "pg-restored" => (Some(archive("pg")), None),
            "pg-replica" => (Some(archive("pg")), Some(archive("pg"))),
            other => panic!("which archives has {other}?"),
        };
        assert_eq!(archives.recovery, recovery, "{name}");
        assert_eq!(archives.replica_source, source, "{name}");
    }
}

#[test]
fn every_backup_of_the_examples_goes_through_the_plugin() {
    let clusters = objects("Cluster");
    for kind in ["Backup", "ScheduledBackup"] {
        for document in objects(kind) {
            assert_eq!(text(&document, "/spec/method"), "plugin");
            assert_eq!(text(&document, "/spec/pluginConfiguration/name"), PLUGIN);
            let cluster = text(&document, "/spec/cluster/name");
            let is_there = |one: &Value| text(one, "/metadata/name") == cluster;
            assert!(clusters.iter().any(is_there), "{cluster}");
            if kind == "ScheduledBackup" {
                // Five fields would be taken for six, and mean another time.
                let fields = text(&document, "/spec/schedule").split(' ').count();
                assert_eq!(fields, 6);
            }
        }
    }
}

#[test]
fn every_field_of_the_examples_is_in_the_definition_of_object_stores() {
    let definition = deploy("crd/barmancloud.cnpg.io_objectstores.yaml");
    let definition = documents(&read(&definition)).remove(0);
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut complaints = Vec::new();
    for path in yaml_files(&deploy("examples/stores")) {
        for document in documents(&read(&path)) {
            if text(&document, "/kind") == "ObjectStore" {
                let place = path.display().to_string();
                unknown_fields(
                    &place,
                    &document["spec"],
                    &schema["properties"]["spec"],
                    &mut complaints,
                );
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    unknown_fields(
        "it",
        &serde_json::json!({"retentionPolici": "7d", "configuration": {"wal": {"maxParalel": 1}}}),
        &schema["properties"]["spec"],
        &mut complaints,
    );
    assert_eq!(
        complaints,
        ["it.configuration.wal.maxParalel", "it.retentionPolici"]
    );
}

/// The fields that a schema with properties does not have: Kubernetes would drop them.
fn unknown_fields(place: &str, value: &Value, schema: &Value, found: &mut Vec<String>) {
    let (Some(fields), Some(properties)) = (value.as_object(), schema["properties"].as_object())
    else {
        return;
    };
    for (name, inner) in fields {
        let place = format!("{place}.{name}");
        match properties.get(name) {
            Some(schema) => unknown_fields(&place, inner, schema, found),
            None => found.push(place),
        }
    }
}
