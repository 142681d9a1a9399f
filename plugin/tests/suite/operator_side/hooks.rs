//! The calls of the operator, answered from watched objects.

use cellarman::cnpgi::operator::OperatorValidateClusterCreateRequest;
use cellarman::cnpgi::operator::operator_server::Operator;
use cellarman::cnpgi::operator_lifecycle::operator_lifecycle_server::OperatorLifecycle;
use cellarman::cnpgi::operator_lifecycle::operator_operation_type::Type as OperationType;
use cellarman::cnpgi::operator_lifecycle::{OperatorLifecycleRequest, OperatorOperationType};
use cellarman::cnpgi::reconciler::reconciler_hooks_result::Behavior;
use cellarman::cnpgi::reconciler::reconciler_hooks_server::ReconcilerHooks;
use cellarman::cnpgi::reconciler::{ReconcilerHooksRequest, ReconcilerHooksResult};
use cellarman_plugin::cache::Caches;
use cellarman_plugin::operator::Settings;
use cellarman_plugin::serving::news::Teller;
use cellarman_plugin::serving::services::Services;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

use super::api::{Api, Right, server_at};
use super::news::told;

pub(super) const PLUGIN: &str = "barman-cloud.cloudnative-pg.io";
pub(super) const STORES: &str = "/apis/barmancloud.cnpg.io/v1/namespaces/db/objectstores";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/db/roles";
pub(super) const ROLE: &str =
    "/apis/rbac.authorization.k8s.io/v1/namespaces/db/roles/pg-barman-cloud";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/db/rolebindings";
const BINDING: &str =
    "/apis/rbac.authorization.k8s.io/v1/namespaces/db/rolebindings/pg-barman-cloud";
pub(super) const EVENTS: &str = "/api/v1/namespaces/db/events";

/// What the plugin's ClusterRole gives; the tests of the manifests see to it that it does.
pub(crate) const RIGHTS: &[Right] = &[
    ("GET", "/apis/barmancloud.cnpg.io/v1/objectstores"),
    ("GET", STORES),
    (
        "PATCH",
        "/apis/barmancloud.cnpg.io/v1/namespaces/db/objectstores/store/status",
    ),
    ("GET", "/apis/postgresql.cnpg.io/v1/backups"),
    ("GET", "/apis/rbac.authorization.k8s.io/v1/roles"),
    ("GET", "/apis/rbac.authorization.k8s.io/v1/rolebindings"),
    ("GET", ROLES),
    ("POST", ROLES),
    ("PATCH", ROLES),
    ("GET", BINDINGS),
    ("POST", BINDINGS),
    ("PATCH", BINDINGS),
    ("GET", "/api/v1/namespaces/db/secrets"),
    ("POST", EVENTS),
    ("PATCH", EVENTS),
];

/// The plugin's caches, filled.
pub(super) struct Watching {
    pub(super) caches: Caches,
    pub(super) settings: Settings,
    teller: Teller,
    _tasks: JoinSet<()>,
}

pub(super) async fn watching(api: &Api) -> Watching {
    let settings = Settings::new(PLUGIN, "sidecar:1");
    let mut tasks = JoinSet::new();
    let cancel = CancellationToken::new();
    let caches = Caches::start(&api.server(), &settings, &mut tasks, &cancel);
    let (teller, telling) = Teller::start(cancel);
    tasks.spawn(telling);
    while !caches.are_filled() {
        tokio::task::yield_now().await;
    }
    Watching {
        caches,
        settings,
        teller,
        _tasks: tasks,
    }
}

pub(super) fn services(api: &Api, watching: &Watching) -> Services {
    let (caches, settings) = (watching.caches.clone(), watching.settings.clone());
    Services::new(api.server(), caches, settings, watching.teller.clone())
}

pub(super) fn store(secret: &str) -> Value {
    json!({
        "apiVersion": "barmancloud.cnpg.io/v1", "kind": "ObjectStore",
        "metadata": {"generation": 1},
        "spec": {"configuration": {
            "destinationPath": "s3://bucket/path",
            "s3Credentials": {
                "accessKeyId": {"name": secret, "key": "id"},
                "secretAccessKey": {"name": secret, "key": "key"},
            },
        }},
    })
}

pub(super) fn cluster() -> Value {
    json!({
        "apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster",
        "metadata": {"name": "pg", "namespace": "db", "uid": "uid-pg"},
        "spec": {"plugins": [{
            "name": PLUGIN, "isWALArchiver": true, "parameters": {"barmanObjectName": "store"},
        }]},
    })
}

pub(super) async fn pre(services: &Services) -> Result<ReconcilerHooksResult, Status> {
    pre_of(services, &cluster()).await
}

pub(super) async fn pre_of(
    services: &Services,
    cluster: &Value,
) -> Result<ReconcilerHooksResult, Status> {
    let definition = cluster.to_string().into_bytes();
    let request = ReconcilerHooksRequest {
        cluster_definition: definition.clone().into(),
        resource_definition: definition.into(),
    };
    let answer = ReconcilerHooks::pre(services, Request::new(request)).await;
    answer.map(tonic::Response::into_inner)
}

/// Asks until the answer needs no call: until the watches have brought what was written.
async fn pre_until_quiet(api: &Api, services: &Services) {
    loop {
        api.calls();
        pre(services).await.unwrap();
        if api.calls().is_empty() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn rights_are_there_before_pods_are_and_are_written_once() {
    let api = Api::start(RIGHTS).await;
    api.put(&format!("{STORES}/store"), store("aws"));
    let watching = watching(&api).await;
    let services = services(&api, &watching);
    let answer = pre(&services).await.unwrap();
    assert_eq!(answer.behavior(), Behavior::Continue);
    let role = api.object(ROLE).unwrap();
    assert_eq!(role["rules"][2]["resourceNames"], json!(["aws"]));
    assert_eq!(api.object(BINDING).unwrap()["subjects"][0]["name"], "pg");
    pre_until_quiet(&api, &services).await;
    api.remove(ROLE);
    while api.object(ROLE).is_none() {
        tokio::task::yield_now().await;
        pre(&services).await.unwrap();
    }
}

#[tokio::test]
async fn a_role_that_nobody_told_of_is_merged_with() {
    let api = Api::start(RIGHTS).await;
    api.put(&format!("{STORES}/store"), store("aws"));
    // Without the label, no watch tells of it.
    let foreign = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]});
    api.put(
        ROLE,
        json!({"metadata": {"labels": {"a": "b"}}, "rules": [foreign]}),
    );
    let watching = watching(&api).await;
    pre(&services(&api, &watching)).await.unwrap();
    let role = api.object(ROLE).unwrap();
    assert_eq!(role["metadata"]["labels"]["a"], "b");
    assert_eq!(
        role["metadata"]["labels"]["barmancloud.cnpg.io/cluster"],
        "pg"
    );
    assert!(
        role["rules"].as_array().unwrap().contains(&foreign),
        "{role}"
    );
}

#[tokio::test]
async fn a_binding_to_something_else_is_refused_in_words() {
    let api = Api::start(RIGHTS).await;
    api.put(&format!("{STORES}/store"), store("aws"));
    api.put(
        BINDING,
        json!({"roleRef": {"kind": "ClusterRole", "name": "admin"}}),
    );
    let watching = watching(&api).await;
    let status = pre(&services(&api, &watching)).await.unwrap_err();
    assert!(
        status.message().contains("Delete the RoleBinding"),
        "{status}"
    );
}

#[tokio::test]
async fn a_right_that_the_plugin_lacks_is_named() {
    let api = Api::start(RIGHTS).await;
    api.put(&format!("{STORES}/store"), store("aws"));
    api.deny(("POST", "/apis/rbac.authorization.k8s.io/"));
    let watching = watching(&api).await;
    let status = pre(&services(&api, &watching)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status.message().contains("plugin's own service account"),
        "{status}"
    );
}

#[tokio::test]
async fn a_missing_store_is_waited_for_and_told_of() {
    let api = Api::start(RIGHTS).await;
    let watching = watching(&api).await;
    let services = services(&api, &watching);
    let answer = pre(&services).await.unwrap();
    assert_eq!(answer.behavior(), Behavior::Requeue);
    assert!(answer.requeue_after >= 10, "{answer:?}");
    let event = told(&api, "ObjectStoreMissing").await;
    assert_eq!(event["involvedObject"]["uid"], "uid-pg");
    let message = event["message"].as_str().unwrap();
    assert!(
        message.starts_with("ObjectStore store is not in namespace db"),
        "{message}"
    );
    api.put(&format!("{STORES}/store"), store("aws"));
    // At once, whether a watch has told of it yet or not.
    assert_eq!(pre(&services).await.unwrap().behavior(), Behavior::Continue);
}

#[tokio::test]
async fn a_pod_gets_its_sidecar_and_asks_the_api_nothing() {
    let api = Api::start(RIGHTS).await;
    api.put(&format!("{STORES}/store"), store("aws"));
    let watching = watching(&api).await;
    let services = services(&api, &watching);
    api.calls();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pg-1"},
        "spec": {"containers": [{"name": "postgres", "volumeMounts": []}], "volumes": []},
    });
    let request = OperatorLifecycleRequest {
        operation_type: Some(OperatorOperationType {
            r#type: OperationType::Create.into(),
        }),
        cluster_definition: cluster().to_string().into_bytes().into(),
        object_definition: pod.to_string().into_bytes().into(),
    };
    let answer = services
        .lifecycle_hook(Request::new(request))
        .await
        .unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&answer.into_inner().json_patch).unwrap();
    let mut patched = pod;
    json_patch::patch(&mut patched, &patch).unwrap();
    assert_eq!(patched["spec"]["initContainers"][0]["image"], "sidecar:1");
    assert_eq!(api.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_cluster_that_would_fail_later_is_refused() {
    let api = Api::start(RIGHTS).await;
    let watching = watching(&api).await;
    let mut cluster = cluster();
    cluster["spec"]["plugins"][0]["parameters"] = json!({});
    let request = OperatorValidateClusterCreateRequest {
        definition: cluster.to_string().into_bytes().into(),
    };
    let services = services(&api, &watching);
    let answer = services
        .validate_cluster_create(Request::new(request))
        .await
        .unwrap();
    assert_eq!(answer.into_inner().validation_errors.len(), 1);
}

#[tokio::test]
async fn nothing_is_decided_before_all_objects_have_come() {
    let settings = Settings::new(PLUGIN, "sidecar:1");
    let away = server_at("http://127.0.0.1:1");
    let mut tasks = JoinSet::new();
    let caches = Caches::start(&away, &settings, &mut tasks, &CancellationToken::new());
    let (teller, _telling) = Teller::start(CancellationToken::new());
    let services = Services::new(away, caches, settings, teller);
    assert_eq!(pre(&services).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn what_is_no_cluster_is_refused_in_words() {
    let api = Api::start(RIGHTS).await;
    let watching = watching(&api).await;
    let services = services(&api, &watching);
    for definition in ["", "[]", "{\"metadata\": {\"name\": \"pg\"}}"] {
        let request = ReconcilerHooksRequest {
            cluster_definition: definition.as_bytes().to_vec().into(),
            resource_definition: b"{}".to_vec().into(),
        };
        let answer = ReconcilerHooks::pre(&services, Request::new(request)).await;
        assert_eq!(
            answer.unwrap_err().code(),
            Code::InvalidArgument,
            "{definition}"
        );
    }
}
