//! The Helm chart makes the objects of the manifests, and knows the values of the reference's chart.

use std::process::Command;

use serde_json::{Value, json};
use testbed::cache;

use super::manifests::{Objects, built, object, objects};
use super::{deploy, read, text};

/// The values of the chart of plugin-barman-cloud. People have files of them.
const VALUES_OF_THE_REFERENCE: [&str; 44] = [
    "replicaCount",
    "image.registry",
    "image.repository",
    "image.pullPolicy",
    "image.tag",
    "sidecarImage.registry",
    "sidecarImage.repository",
    "sidecarImage.tag",
    "imagePullSecrets",
    "nameOverride",
    "fullnameOverride",
    "namespaceOverride",
    "hostNetwork",
    "dnsPolicy",
    "updateStrategy",
    "crds.create",
    "additionalArgs",
    "additionalEnv",
    "serviceAccount.create",
    "serviceAccount.name",
    "serviceAccount.additionalAnnotations",
    "rbac.create",
    "rbac.cnpgGroup",
    "commonAnnotations",
    "podAnnotations",
    "podLabels",
    "containerSecurityContext",
    "podSecurityContext",
    "priorityClassName",
    "service.name",
    "service.port",
    "service.ipFamilyPolicy",
    "service.ipFamilies",
    "service.annotations.pluginServerName",
    "resources",
    "nodeSelector",
    "topologySpreadConstraints",
    "tolerations",
    "affinity",
    "certificate.createClientCertificate",
    "certificate.createServerCertificate",
    "certificate.issuerName",
    "certificate.duration",
    "certificate.renewBefore",
];

/// The chart's objects with these values, or why they cannot be made.
pub(super) fn rendered(values: &[&str]) -> Result<Objects, String> {
    let program = cache::installed("helm", &cache::directory().join("bin/helm"))?;
    let mut command = Command::new(program);
    command.args(["template", "release"]).arg(deploy("helm"));
    command.args(["--namespace", "cnpg-system", "--kube-version", "1.34.0"]);
    for value in values {
        command.args(["--set-json", value]);
    }
    let output = command.output().expect("helm runs");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{values:?}: {problem}");
    Ok(objects(&String::from_utf8_lossy(&output.stdout)))
}

/// An object without what says who made it.
fn plain(object: &Value) -> Value {
    let mut object = object.clone();
    for pointer in ["/metadata", "/spec/template/metadata"] {
        let Some(Value::Object(metadata)) = object.pointer_mut(pointer) else {
            continue;
        };
        for field in ["labels", "annotations"] {
            if let Some(Value::Object(words)) = metadata.get_mut(field) {
                words.retain(|word, _| word == "app" || word.starts_with("cnpg.io/"));
                if words.is_empty() {
                    metadata.remove(field);
                }
            }
        }
    }
    if let Some(Value::Object(container)) = object.pointer_mut("/spec/template/spec/containers/0") {
        // Kubernetes' own word for a tag that is not `latest`.
        container.remove("imagePullPolicy");
    }
    object
}

pub(super) fn same(chart: &Objects, manifests: &Objects) {
    let names: Vec<_> = chart.keys().collect();
    assert_eq!(names, manifests.keys().collect::<Vec<_>>());
    for (key, object) in manifests {
        assert_eq!(plain(&chart[key]), plain(object), "{key:?}");
    }
}

#[test]
fn the_chart_makes_the_objects_of_the_manifests() {
    let chart = testbed::or_not_run!(rendered(&[]));
    same(&chart, &testbed::or_not_run!(built("default")));
    let crd = object(
        &chart,
        "CustomResourceDefinition",
        "objectstores.barmancloud.cnpg.io",
    );
    assert_eq!(
        text(crd, "/metadata/annotations/helm.sh~1resource-policy"),
        "keep"
    );
}

#[test]
fn the_chart_leaves_certificates_to_cert_manager_where_it_is_told() {
    let chart = testbed::or_not_run!(rendered(&["certificate.certManager=true"]));
    same(&chart, &testbed::or_not_run!(built("cert-manager")));
}

#[test]
fn the_chart_knows_the_values_of_the_reference() {
    let values: Value = serde_norway::from_str(&read(&deploy("helm/values.yaml"))).expect("YAML");
    for name in VALUES_OF_THE_REFERENCE {
        let pointer = format!("/{}", name.replace('.', "/"));
        assert!(values.pointer(&pointer).is_some(), "{name}");
    }
}

#[test]
fn values_have_their_effect() {
    let chart = testbed::or_not_run!(rendered(&[
        r#"image={"registry": "example.org", "repository": "backup/plugin", "tag": "9"}"#,
        r#"sidecarImage={"repository": "backup/sidecar"}"#,
        "replicaCount=2",
        "hostNetwork=true",
        r#"additionalArgs=["--log-level=debug"]"#,
        r#"additionalEnv=[{"name": "RELEASE", "value": "{{ .Release.Name }}"}]"#,
        r#"imagePullSecrets=[{"name": "registry"}]"#,
        r#"rbac.cnpgGroup="postgresql.k8s.enterprisedb.io""#,
        r#"commonAnnotations={"team": "database"}"#,
        r#"service.ipFamilies=["IPv6"]"#,
        r#"namespaceOverride="elsewhere""#,
    ]));
    let deployment = object(&chart, "Deployment", "barman-cloud");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "example.org/backup/plugin:9");
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(deployment["metadata"]["namespace"], "elsewhere");
    assert_eq!(deployment["metadata"]["annotations"]["team"], "database");
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]));
    let env = container["env"].as_array().expect("variables");
    let release = json!({"name": "RELEASE", "value": "release"});
    assert_eq!(env.last(), Some(&release));
    let args = container["args"].as_array().expect("arguments");
    assert_eq!(args.last(), Some(&json!("--log-level=debug")));
    let secret = object(&chart, "Secret", "plugin-barman-cloud");
    // example.org/backup/sidecar:9
    let image = "ZXhhbXBsZS5vcmcvYmFja3VwL3NpZGVjYXI6OQ==";
    assert_eq!(text(secret, "/data/SIDECAR_IMAGE"), image);
    let role = object(&chart, "ClusterRole", "plugin-barman-cloud").to_string();
    assert!(
        role.contains("enterprisedb") && !role.contains("postgresql.cnpg.io"),
        "{role}"
    );
    let service = object(&chart, "Service", "barman-cloud");
    assert_eq!(service["spec"]["ipFamilies"], json!(["IPv6"]));
}

#[test]
fn a_second_release_shares_no_object_with_the_first() {
    let first = testbed::or_not_run!(rendered(&[]));
    let second = testbed::or_not_run!(rendered(&[
        r#"pluginName="cellarman""#,
        r#"service.name="cellarman""#,
        r#"fullnameOverride="cellarman""#,
        "crds.create=false",
    ]));
    let shared: Vec<_> = second
        .keys()
        .filter(|key| first.contains_key(*key))
        .collect();
    assert!(shared.is_empty(), "{shared:?}");
    let deployment = object(&second, "Deployment", "cellarman");
    let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(env[1], json!({"name": "PLUGIN_NAME", "value": "cellarman"}));
    assert_eq!(
        env[2],
        json!({"name": "PLUGIN_SERVICE", "value": "cellarman"})
    );
    let service = object(&second, "Service", "cellarman");
    assert_eq!(
        text(service, "/metadata/labels/cnpg.io~1pluginName"),
        "cellarman"
    );
}
