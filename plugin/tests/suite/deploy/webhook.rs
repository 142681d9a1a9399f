//! The admission webhook in the manifests and in the chart: only where it is asked for, only for new
//! Clusters, in nobody's way, and with one right.

use cellarman_plugin::arguments::{Command, parse};
use cellarman_plugin::serving::webhook::PATH;
use serde_json::{Value, json};

use super::chart::{rendered, same};
use super::manifests::{Objects, built, object, words};
use super::text;

const CONFIGURATION: (&str, &str) = (
    "MutatingWebhookConfiguration",
    "barman-cloud-recovery-target",
);

fn webhook(objects: &Objects) -> &Value {
    &object(objects, CONFIGURATION.0, CONFIGURATION.1)["webhooks"][0]
}

#[test]
fn it_is_only_where_it_is_asked_for() {
    for folder in ["default", "cert-manager", "beside"] {
        let objects = testbed::or_not_run!(built(folder));
        let all = serde_json::to_string(&objects.values().collect::<Vec<_>>()).expect("JSON");
        assert!(!all.contains("webhook"), "{folder}");
    }
    let chart = testbed::or_not_run!(rendered(&[]));
    assert!(chart.keys().all(|(kind, _)| kind != CONFIGURATION.0));
}

#[test]
fn it_is_for_new_clusters_and_in_nobodys_way() {
    let objects = testbed::or_not_run!(built("webhook"));
    let webhook = webhook(&objects);
    let rule = json!([{
        "apiGroups": ["postgresql.cnpg.io"], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["clusters"], "scope": "Namespaced",
    }]);
    for (field, expected) in [
        ("rules", rule),
        ("failurePolicy", json!("Ignore")),
        ("sideEffects", json!("None")),
        ("matchPolicy", json!("Equivalent")),
        ("timeoutSeconds", json!(10)),
        ("admissionReviewVersions", json!(["v1"])),
    ] {
        assert_eq!(webhook[field], expected, "{field}");
    }
    let expression = text(webhook, "/matchConditions/0/expression");
    assert!(expression.ends_with("has(object.spec.bootstrap.recovery.recoveryTarget)"));
}

#[test]
fn the_configuration_leads_to_the_port_that_the_program_opens() {
    let objects = testbed::or_not_run!(built("webhook"));
    let deployment = object(&objects, "Deployment", "barman-cloud");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let program = std::iter::once("cellarman-plugin");
    let line = program.chain(words(container, "args")).map(str::to_owned);
    let parsed = parse(line.collect()).expect("arguments");
    let Command::Operator { operator, .. } = parsed.arguments.command else {
        panic!("another command");
    };
    assert_eq!(operator.webhook_address.as_deref(), Some(":9443"));
    let service = object(&objects, "Service", "barman-cloud");
    let named = &webhook(&objects)["clientConfig"]["service"];
    assert_eq!(named["name"], service["metadata"]["name"]);
    assert_eq!(named["namespace"], service["metadata"]["namespace"]);
    assert_eq!(named["path"], PATH);
    let ports = service["spec"]["ports"].as_array().expect("ports");
    assert!(ports.iter().all(|port| port["name"].is_string()));
    let port = ports.iter().find(|port| port["port"] == named["port"]);
    assert_eq!(port.expect("its port")["targetPort"], 9443);
    // Where the plugin looks for it.
    let name = format!("{}-recovery-target", text(service, "/metadata/name"));
    assert_eq!(CONFIGURATION.1, name);
}

#[test]
fn the_plugin_may_change_that_one_configuration_where_it_makes_the_certificate() {
    let objects = testbed::or_not_run!(built("webhook"));
    let role = object(&objects, "ClusterRole", "barman-plugin-webhook-role");
    let expected = json!([{
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingwebhookconfigurations"],
        "resourceNames": [CONFIGURATION.1],
        "verbs": ["get", "patch"],
    }]);
    assert_eq!(role["rules"], expected);
    let objects = testbed::or_not_run!(built("webhook-cert-manager"));
    let all = serde_json::to_string(&objects.values().collect::<Vec<_>>()).expect("JSON");
    assert!(!all.contains("mutatingwebhookconfigurations"));
    let configuration = object(&objects, CONFIGURATION.0, CONFIGURATION.1);
    let from = text(
        configuration,
        "/metadata/annotations/cert-manager.io~1inject-ca-from",
    );
    let certificate = object(&objects, "Certificate", "barman-cloud-server");
    let metadata = &certificate["metadata"];
    let name = format!(
        "{}/{}",
        text(metadata, "/namespace"),
        text(metadata, "/name")
    );
    assert_eq!(from, name);
    assert_eq!(
        words(&certificate["spec"], "dnsNames"),
        ["barman-cloud", "barman-cloud.cnpg-system.svc"]
    );
}

#[test]
fn the_chart_makes_the_same() {
    let on = "webhook.enabled=true";
    let chart = testbed::or_not_run!(rendered(&[on]));
    same(&chart, &testbed::or_not_run!(built("webhook")));
    let chart = testbed::or_not_run!(rendered(&[on, "certificate.certManager=true"]));
    let manifests = testbed::or_not_run!(built("webhook-cert-manager"));
    same(&chart, &manifests);
    let from = "/metadata/annotations/cert-manager.io~1inject-ca-from";
    let annotation =
        |objects| text(object(objects, CONFIGURATION.0, CONFIGURATION.1), from).to_owned();
    assert_eq!(annotation(&chart), annotation(&manifests));
}

#[test]
fn a_second_release_has_a_webhook_of_its_own() {
    let group = r#"rbac.cnpgGroup="postgresql.example.com""#;
    let chart = testbed::or_not_run!(rendered(&[
        "webhook.enabled=true",
        r#"pluginName="cellarman""#,
        r#"service.name="cellarman""#,
        r#"fullnameOverride="cellarman""#,
        "crds.create=false",
        group,
    ]));
    let configuration = object(&chart, CONFIGURATION.0, "cellarman-recovery-target");
    let webhook = &configuration["webhooks"][0];
    assert_eq!(webhook["clientConfig"]["service"]["name"], "cellarman");
    assert_eq!(
        webhook["rules"][0]["apiGroups"],
        json!(["postgresql.example.com"])
    );
    let role = object(
        &chart,
        "ClusterRole",
        "cellarman-barman-plugin-webhook-role",
    );
    let names = &role["rules"][0]["resourceNames"];
    assert_eq!(*names, json!(["cellarman-recovery-target"]));
}
