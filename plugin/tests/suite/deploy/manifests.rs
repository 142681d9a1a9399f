//! The manifests have the names that plugin-barman-cloud has, and no right that nobody needs.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cellarman_plugin::cluster::Cluster;
use cellarman_plugin::operator::roles::{self, Change};
use cellarman_plugin::operator::{ObjectStores, Settings};
use serde_json::{Value, json};
use testbed::cache;

use super::{deploy, documents, read, text};
use crate::operator_side::hooks::RIGHTS;

/// Kind and name of each object that plugin-barman-cloud brings and that ours stand in for. Not
/// among them: the rights to ask who somebody is, which only its metrics server needs.
pub(super) const OF_THE_REFERENCE: [(&str, &str); 14] = [
    (
        "CustomResourceDefinition",
        "objectstores.barmancloud.cnpg.io",
    ),
    ("ServiceAccount", "plugin-barman-cloud"),
    ("Role", "barman-plugin-leader-election-role"),
    ("RoleBinding", "barman-plugin-leader-election-rolebinding"),
    ("ClusterRole", "barman-plugin-metrics-reader"),
    ("ClusterRole", "barman-plugin-objectstore-editor-role"),
    ("ClusterRole", "barman-plugin-objectstore-viewer-role"),
    ("ClusterRole", "plugin-barman-cloud"),
    ("ClusterRoleBinding", "plugin-barman-cloud-binding"),
    ("Secret", "plugin-barman-cloud"),
    ("Service", "barman-cloud"),
    ("Deployment", "barman-cloud"),
    ("Issuer", "selfsigned-issuer"),
    ("Certificate", "barman-cloud-server"),
];

/// Objects by kind and name. The hash in the name of a generated Secret is left out.
pub(super) type Objects = BTreeMap<(String, String), Value>;

/// The objects of a text of YAML.
pub(super) fn objects(yaml: &str) -> Objects {
    let all = documents(yaml);
    let hashed: Vec<String> = all
        .iter()
        .filter(|object| text(object, "/kind") == "Secret")
        .map(|object| text(object, "/metadata/name").to_owned())
        .collect();
    let mut yaml = serde_json::to_string(&all).expect("JSON");
    for name in hashed {
        if let Some((stem, hash)) = name.rsplit_once('-')
            && hash.len() == 10
        {
            yaml = yaml.replace(&name, stem);
        }
    }
    let all: Vec<Value> = serde_json::from_str(&yaml).expect("JSON");
    let count = all.len();
    let objects: Objects = all
        .into_iter()
        .map(|object| {
            let kind = text(&object, "/kind").to_owned();
            let name = text(&object, "/metadata/name").to_owned();
            ((kind, name), object)
        })
        .collect();
    assert_eq!(objects.len(), count, "an object is there twice");
    objects
}

/// The objects of a folder of manifests, or why they cannot be built.
pub(super) fn built(folder: &str) -> Result<Objects, String> {
    let program = cache::installed("kustomize", &cache::directory().join("bin/kustomize"))?;
    let output = Command::new(program)
        .arg("build")
        .arg(deploy("manifests").join(folder))
        .output()
        .expect("kustomize runs");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{folder}: {problem}");
    Ok(objects(&String::from_utf8_lossy(&output.stdout)))
}

pub(super) fn object<'a>(objects: &'a Objects, kind: &str, name: &str) -> &'a Value {
    objects
        .get(&(kind.to_owned(), name.to_owned()))
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// The rules of all Roles of a kind, with the name of the Role.
fn rules<'a>(objects: &'a Objects, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    objects
        .iter()
        .filter(move |((found, _), _)| found == kind)
        .flat_map(|((_, name), role)| {
            let rules = role["rules"].as_array().expect("rules");
            rules.iter().map(move |rule| (name.as_str(), rule))
        })
}

pub(super) fn words<'a>(rule: &'a Value, field: &str) -> Vec<&'a str> {
    let list = rule[field].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}

#[test]
fn the_manifests_have_the_names_of_the_reference() {
    let objects = testbed::or_not_run!(built("cert-manager"));
    for (kind, name) in OF_THE_REFERENCE {
        object(&objects, kind, name);
    }
    let service = object(&objects, "Service", "barman-cloud");
    for (pointer, expected) in [
        ("/metadata/namespace", "cnpg-system"),
        (
            "/metadata/labels/cnpg.io~1pluginName",
            "barman-cloud.cloudnative-pg.io",
        ),
        ("/metadata/annotations/cnpg.io~1pluginPort", "9090"),
        (
            "/metadata/annotations/cnpg.io~1pluginClientSecret",
            "barman-cloud-client-tls",
        ),
        (
            "/metadata/annotations/cnpg.io~1pluginServerSecret",
            "barman-cloud-server-tls",
        ),
        ("/spec/selector/app", "barman-cloud"),
    ] {
        assert_eq!(text(service, pointer), expected, "{pointer}");
    }
    let deployment = object(&objects, "Deployment", "barman-cloud");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let expected = json!({"secretKeyRef": {"name": "plugin-barman-cloud", "key": "SIDECAR_IMAGE"}});
    assert_eq!(container["env"][0]["valueFrom"], expected);
    let secret = object(&objects, "Secret", "plugin-barman-cloud");
    assert!(secret["data"]["SIDECAR_IMAGE"].is_string());
}

#[test]
fn nothing_may_write_secrets_but_the_two_certificates() {
    for folder in [
        "default",
        "cert-manager",
        "beside",
        "webhook",
        "webhook-cert-manager",
    ] {
        let objects = testbed::or_not_run!(built(folder));
        for (role, rule) in rules(&objects, "ClusterRole") {
            assert!(!rule.to_string().contains('*'), "{folder}: {role}: {rule}");
            if words(rule, "resources").contains(&"secrets") {
                assert_eq!(
                    words(rule, "verbs"),
                    ["get", "list", "watch"],
                    "{folder}: {role}"
                );
            }
        }
        let mut written = Vec::new();
        for (role, rule) in rules(&objects, "Role") {
            assert!(!rule.to_string().contains('*'), "{folder}: {role}: {rule}");
            if words(rule, "resources").contains(&"secrets") && words(rule, "verbs") != ["create"] {
                written.extend(words(rule, "resourceNames"));
                assert!(!words(rule, "resourceNames").is_empty(), "{folder}: {role}");
            }
        }
        let deployment = objects.iter().find(|((kind, _), _)| kind == "Deployment");
        let volumes =
            deployment.expect("a Deployment").1["spec"]["template"]["spec"]["volumes"].clone();
        let mut mounted: Vec<&str> = [0, 1]
            .iter()
            .filter_map(|index| volumes[*index]["secret"]["secretName"].as_str())
            .collect();
        mounted.sort_unstable();
        let expected = if folder.ends_with("cert-manager") {
            Vec::new()
        } else {
            mounted
        };
        assert_eq!(written, expected, "{folder}");
    }
}

/// Kubernetes refuses a Role with a right that its author does not have.
#[test]
fn the_plugin_has_every_right_that_it_gives() {
    let objects = testbed::or_not_run!(built("cert-manager"));
    let cluster = documents(&read(&deploy("examples/cluster.yaml"))).remove(0);
    let cluster = Cluster::parse(cluster.to_string().as_bytes()).expect("a Cluster");
    let stores: ObjectStores = documents(&read(&deploy("examples/stores/s3.yaml")))
        .into_iter()
        .filter(|document| text(document, "/kind") == "ObjectStore")
        .map(|store| (text(&store, "/metadata/name").to_owned(), store))
        .collect();
    let settings = Settings::new("barman-cloud.cloudnative-pg.io", "image");
    let access = roles::access(&cluster, &BTreeSet::new(), &stores, &settings);
    let Change::Create(role) = access.role_change(None) else {
        panic!("no Role is made");
    };
    let given = role["rules"].as_array().expect("rules");
    assert!(
        given
            .iter()
            .any(|rule| words(rule, "resources") == ["secrets"])
    );
    for rule in given {
        let has = |verb: &&str| {
            rules(&objects, "ClusterRole").any(|(name, own)| {
                name == "plugin-barman-cloud"
                    && own["apiGroups"] == rule["apiGroups"]
                    && own["resources"] == rule["resources"]
                    && words(own, "verbs").contains(verb)
            })
        };
        let missing: Vec<&str> = words(rule, "verbs")
            .into_iter()
            .filter(|verb| !has(verb))
            .collect();
        assert!(missing.is_empty(), "{missing:?} of {rule}");
    }
}

#[test]
fn the_plugin_has_every_right_that_the_tests_of_its_calls_take_for_granted() {
    let objects = objects(&read(&deploy("manifests/default/cluster-role.yaml")));
    for (method, path) in RIGHTS {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let (group, parts) = match parts.as_slice() {
            ["apis", group, _version, rest @ ..] => (*group, rest),
            ["api", _version, rest @ ..] => ("", rest),
            _ => panic!("{path}"),
        };
        let resource = match parts {
            ["namespaces", _, resource, _name, part] => format!("{resource}/{part}"),
            ["namespaces", _, resource] | [resource] => (*resource).to_owned(),
            _ => panic!("{path}"),
        };
        let verbs: &[&str] = match *method {
            "GET" => &["get", "list", "watch"],
            "POST" => &["create"],
            "PATCH" => &["patch"],
            _ => panic!("{method}"),
        };
        for verb in verbs {
            let is_given = rules(&objects, "ClusterRole").any(|(name, rule)| {
                name == "plugin-barman-cloud"
                    && words(rule, "apiGroups").contains(&group)
                    && words(rule, "resources").contains(&resource.as_str())
                    && words(rule, "verbs").contains(verb)
            });
            assert!(is_given, "{verb} of {resource} in {group}");
        }
    }
}

#[test]
fn the_pod_needs_no_certain_user_and_writes_nothing() {
    let objects = testbed::or_not_run!(built("default"));
    let pod = &object(&objects, "Deployment", "barman-cloud")["spec"]["template"]["spec"];
    assert!(!pod.to_string().contains("runAsUser"), "{pod}");
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["capabilities"]["drop"], json!(["ALL"]));
    let dockerfile = read(&deploy("Dockerfile"));
    assert!(
        dockerfile.contains("\nUSER 10001:10001\n"),
        "the user must be a number and not root"
    );
}

#[test]
fn an_upgrade_is_no_outage() {
    let objects = testbed::or_not_run!(built("default"));
    let spec = &object(&objects, "Deployment", "barman-cloud")["spec"];
    assert_eq!(spec["strategy"]["type"], "RollingUpdate");
    assert_eq!(spec["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let container = &spec["template"]["spec"]["containers"][0];
    assert_eq!(container["readinessProbe"]["tcpSocket"]["port"], 9090);
}

#[test]
fn the_program_takes_the_arguments_of_the_manifests() {
    let objects = testbed::or_not_run!(built("default"));
    let deployment = object(&objects, "Deployment", "barman-cloud");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let words = std::iter::once("cellarman-plugin").chain(words(container, "args"));
    let words: Vec<String> = words.map(str::to_owned).collect();
    assert!(words.contains(&"operator".to_owned()), "{words:?}");
    let parsed = cellarman_plugin::arguments::parse(words).expect("arguments");
    assert_eq!(parsed.left_out, Vec::<String>::new());
}

#[test]
fn the_plugin_beside_the_reference_shares_no_object_with_it() {
    let usual = testbed::or_not_run!(built("cert-manager"));
    let beside = testbed::or_not_run!(built("beside"));
    let shared: Vec<_> = beside
        .keys()
        .filter(|key| usual.contains_key(*key))
        .collect();
    assert!(shared.is_empty(), "{shared:?}");
    let service = object(&beside, "Service", "cellarman-barman-cloud");
    let deployment = object(&beside, "Deployment", "cellarman-barman-cloud");
    let pod = &deployment["spec"]["template"];
    assert_eq!(service["spec"]["selector"], pod["metadata"]["labels"]);
    assert_eq!(
        deployment["spec"]["selector"]["matchLabels"],
        pod["metadata"]["labels"]
    );
    let name = text(service, "/metadata/labels/cnpg.io~1pluginName");
    let env = &pod["spec"]["containers"][0]["env"][1];
    assert_eq!(
        (&env["name"], &env["value"]),
        (&json!("PLUGIN_NAME"), &json!(name))
    );
    let env = &pod["spec"]["containers"][0]["env"][2];
    let service_name = text(service, "/metadata/name");
    assert_eq!(
        (&env["name"], &env["value"]),
        (&json!("PLUGIN_SERVICE"), &json!(service_name))
    );
    for (annotation, volume) in [("Server", 0), ("Client", 1)] {
        let annotation = format!("/metadata/annotations/cnpg.io~1plugin{annotation}Secret");
        let mounted = &pod["spec"]["volumes"][volume]["secret"]["secretName"];
        assert_eq!(mounted, text(service, &annotation));
    }
    let lease = |objects: &Objects| {
        let found = rules(objects, "Role").find(|(role, rule)| {
            role.ends_with("leader-election-role") && rule["resourceNames"].is_array()
        });
        found.expect("a rule for the lease").1["resourceNames"].clone()
    };
    assert_ne!(
        lease(&usual),
        lease(&beside),
        "the two would elect one leader"
    );
}
