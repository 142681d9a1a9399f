//! Patches of Pods and Jobs, as snapshots and one by one.
//!
//! With `UPDATE_SNAPSHOTS=1` the snapshots are written instead of compared.

use std::collections::BTreeSet;
use std::{env, fs};

use cellarman::fault::Fault;
use serde_json::json;

use super::*;
use crate::operator::fixtures::{OTHER_PLUGIN, PLUGIN, stores};
use crate::operator::lifecycle::cases::{Case, cases, plain_pod};
use crate::operator::lifecycle::shapes::{jobs, pods, tests_directory};

fn check_snapshot(name: &str, patch: Option<Value>) {
    let file = tests_directory().join(format!("snapshots/lifecycle/{name}.json"));
    let shown = serde_json::to_string_pretty(&patch).unwrap() + "\n";
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&file, shown).unwrap();
        return;
    }
    let kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let is_kept = kept == patch.unwrap_or_default();
    assert!(is_kept, "{} is not\n{shown}", file.display());
}

#[test]
fn patches_are_as_they_were() {
    let mut names = BTreeSet::new();
    for (name, case) in cases() {
        check_snapshot(&name, case.patch());
        names.insert(format!("{name}.json"));
    }
    let directory = tests_directory().join("snapshots/lifecycle");
    let there: BTreeSet<String> = fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, there, "each snapshot is that of a case");
}

#[test]
fn the_answer_does_not_depend_on_what_the_operator_leaves_out_of_the_cluster() {
    let mut case = Case::new([Some("a"), None, None], plain_pod());
    let without = case.patch();
    case.cluster.api_version = "postgresql.cnpg.io/v1".to_owned();
    assert_eq!(case.patch(), without);
    case.cluster.api_version = "postgresql.k8s.enterprisedb.io/v1".to_owned();
    let env = case.sidecar().unwrap()["env"].clone();
    let group = json!({"name": "CUSTOM_CNPG_GROUP", "value": "postgresql.k8s.enterprisedb.io"});
    assert!(env.as_array().unwrap().contains(&group), "{env}");
}

#[test]
fn a_sidecar_that_is_there_is_brought_up_to_date_where_it_is() {
    let mut case = Case::new([Some("a"), None, None], plain_pod());
    case.stores = stores(true);
    case.object = case.patched();
    let containers = case.object["spec"]["initContainers"]
        .as_array_mut()
        .unwrap();
    containers.swap(0, 1);
    containers[0]["image"] = json!("ghcr.io/cloudnative-pg/plugin-barman-cloud-sidecar:v0.14.0");
    containers[0]["command"] = json!(["/old"]);
    containers[0]["newerField"] = json!({"kept": true});
    case.stores = stores(false);
    let patched = case.patched();
    let sidecar = &patched["spec"]["initContainers"][0];
    assert_eq!(sidecar["image"], "registry.example.org/sidecar:1");
    assert_eq!(sidecar["command"], Value::Null);
    assert_eq!(sidecar["newerField"], json!({"kept": true}));
    assert!(
        !patched.to_string().contains("barman-certificates"),
        "a volume that no store needs any more goes"
    );
}

#[test]
fn the_first_of_several_variables_counts_and_the_last_of_several_mounts() {
    let case = Case::new([Some("a"), Some("b"), Some("c")], plain_pod());
    let sidecar = case.sidecar().unwrap();
    let env = |name: &str| {
        let mut found = sidecar["env"].as_array().unwrap().iter();
        found.find(|variable| variable["name"] == name).unwrap()["value"].clone()
    };
    assert_eq!(env("PGDATA"), "/var/lib/postgresql/data/pgdata");
    assert_eq!(env("SHARED"), "a");
    assert_eq!(env("ONLY_C"), "yes");
    let mounts = sidecar["volumeMounts"].as_array().unwrap();
    let scratch: Vec<&Value> = mounts
        .iter()
        .filter(|mount| mount["name"] == "scratch-data")
        .collect();
    assert_eq!(
        scratch,
        [&json!({"name": "scratch-data", "mountPath": "/controller"})]
    );
}

#[test]
fn the_leading_store_says_how_the_sidecar_is() {
    let leader = |archives, object: &Value| {
        let sidecar = Case::new(archives, object.clone()).sidecar().unwrap();
        sidecar["resources"]["limits"]["memory"].clone()
    };
    let (pod, job) = (plain_pod(), jobs().remove(0).1);
    assert_eq!(leader([Some("a"), Some("b"), Some("c")], &pod), "64Mi");
    assert_eq!(leader([None, Some("b"), Some("c")], &pod), "96Mi");
    assert_eq!(leader([None, None, Some("c")], &pod), "128Mi");
    assert_eq!(leader([Some("a"), Some("b"), None], &job), "96Mi");
}

#[test]
fn a_store_may_name_an_image_of_its_own() {
    let mut case = Case::new([Some("a"), None, None], plain_pod());
    let sidecar = &mut case.stores.get_mut("a").unwrap()["spec"]["instanceSidecarConfiguration"];
    sidecar["image"] = json!("registry.example.org/sidecar:2");
    assert_eq!(
        case.sidecar().unwrap()["image"],
        "registry.example.org/sidecar:2"
    );
}

#[test]
fn a_store_that_says_nothing_of_the_sidecar_will_do() {
    let mut case = Case::new([Some("a"), None, None], plain_pod());
    case.stores.get_mut("a").unwrap()["spec"]["instanceSidecarConfiguration"] = Value::Null;
    case.cluster.spec.image_pull_policy = None;
    let sidecar = case.sidecar().unwrap();
    assert_eq!(sidecar["args"], json!(["instance", "--log-level=info"]));
    assert_eq!(sidecar.get("resources"), None);
    assert_eq!(sidecar.get("imagePullPolicy"), None);
}

#[test]
fn a_store_to_recover_from_is_needed_until_there_is_a_primary() {
    let mut case = Case::new([None, Some("b"), None], plain_pod());
    assert_eq!(case.patch(), None, "a Job has recovered");
    case.object["spec"]["automountServiceAccountToken"] = json!(false);
    assert!(case.sidecar().is_some(), "the Pod recovers itself");
    case.cluster.status.current_primary = "pg-1".to_owned();
    assert_eq!(case.patch(), None);
    let case = Case::new([None, None, None], plain_pod());
    assert_eq!(case.patch(), None);
}

#[test]
fn the_sidecar_runs_before_the_container_that_recovers() {
    let pods = pods();
    let (_, pod) = pods.last().unwrap();
    let patched = Case::new([None, Some("b"), None], pod.clone()).patched();
    let containers = patched["spec"]["initContainers"].as_array().unwrap();
    let names: Vec<&Value> = containers
        .iter()
        .map(|container| &container["name"])
        .collect();
    assert_eq!(
        names,
        [
            "bootstrap-controller",
            "plugin-barman-cloud",
            "bootstrap-instance"
        ]
    );
}

#[test]
fn only_jobs_that_read_our_archive_are_patched() {
    let job = jobs().remove(0).1;
    assert!(
        Case::new([None, Some("b"), None], job.clone())
            .patch()
            .is_some()
    );
    assert_eq!(
        Case::new([Some("a"), None, Some("c")], job.clone()).patch(),
        None
    );
    let mut join = job;
    join["spec"]["template"]["metadata"]["labels"]["cnpg.io/jobRole"] = json!("join");
    assert_eq!(Case::new([None, Some("b"), None], join).patch(), None);
}

#[test]
fn other_operations_and_kinds_pass() {
    let mut case = Case::new([Some("a"), None, None], plain_pod());
    for operation in [
        OperationType::Patch,
        OperationType::Update,
        OperationType::Delete,
    ] {
        case.operation = operation;
        assert_eq!(case.patch(), None);
    }
    case.operation = OperationType::Create;
    case.object["kind"] = json!("Service");
    assert_eq!(case.patch(), None);
}

#[test]
fn volumes_and_mounts_of_other_plugins_are_shared() {
    let mut case = Case::new([Some("a"), None, None], plain_pod());
    let spec = &mut case.object["spec"];
    let volume = json!({"name": "plugins", "emptyDir": {"medium": "Memory"}});
    let mount = json!({"name": "plugins", "mountPath": "/plugins"});
    spec["volumes"].as_array_mut().unwrap().push(volume);
    let mounts = &mut spec["containers"][0]["volumeMounts"];
    mounts.as_array_mut().unwrap().push(mount);
    let paths: Vec<String> = case
        .patch()
        .unwrap()
        .as_array()
        .unwrap()
        .iter()
        .map(|operation| operation["path"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(paths, ["/spec/initContainers/1"]);
}

#[test]
fn under_another_name_nothing_has_a_name_of_the_reference() {
    let mut case = Case::new([Some("a"), None, None], plain_pod());
    case.stores = stores(true);
    case.object = case.patched();
    let of_the_reference = case.sidecar();
    case.settings.names = crate::operator::names::Names::of(OTHER_PLUGIN);
    for entry in &mut case.cluster.spec.plugins {
        entry.name = OTHER_PLUGIN.to_owned();
    }
    let patched = case.patched();
    let containers = patched["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(Some(&containers[1]), of_the_reference.as_ref());
    assert_eq!(containers[2]["name"], "plugin-cellarman");
    assert_eq!(
        containers[2]["env"][0],
        json!({"name": "PLUGIN_NAME", "value": OTHER_PLUGIN})
    );
    let volumes = patched["spec"]["volumes"].as_array().unwrap();
    assert!(
        volumes
            .iter()
            .any(|volume| volume["name"] == "barman-certificates")
    );
    assert!(
        volumes
            .iter()
            .any(|volume| volume["name"] == "cellarman-certificates")
    );
    let usual = of_the_reference.unwrap()["env"].to_string();
    assert!(!usual.contains("PLUGIN_NAME") && PLUGIN != OTHER_PLUGIN);
}

fn check_error(case: &Case, kind: Kind, words: &[&str]) {
    let error = patch(&case.request()).unwrap_err();
    assert_eq!(error.kind(), kind);
    let text = format!("{error}. {}", error.hint());
    for word in words {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn a_missing_store_is_an_error_that_names_all_there_is_to_know() {
    let mut case = Case::new([Some("a"), None, Some("c")], plain_pod());
    case.stores.remove("c");
    check_error(
        &case,
        Kind::Config,
        &[
            "ObjectStore c is not in namespace db",
            "spec.externalClusters[0].plugin.parameters.barmanObjectName of Cluster pg",
            "Create ObjectStore c",
        ],
    );
}

#[test]
fn objects_that_make_no_sense_are_errors() {
    let archives = [Some("a"), None, None];
    let mut case = Case::new(archives, plain_pod());
    case.object["spec"]["containers"][0]["name"] = json!("else");
    check_error(
        &case,
        Kind::Unsupported,
        &["Pod pg-1 has no container postgres"],
    );

    case.object["spec"] = json!({"containers": 5});
    check_error(&case, Kind::Unsupported, &["/spec/containers of Pod pg-1"]);
    case.object["spec"] = Value::Null;
    check_error(&case, Kind::Unsupported, &["/spec of Pod pg-1"]);

    let mut case = Case::new(archives, plain_pod());
    case.stores.get_mut("a").unwrap()["spec"]["instanceSidecarConfiguration"] = json!({"env": 5});
    check_error(&case, Kind::Config, &["ObjectStore a"]);
    case.stores.get_mut("a").unwrap()["spec"] = json!({"configuration": {"endpointCA": 5}});
    check_error(&case, Kind::Config, &["ObjectStore a"]);
}
