//! Objects of one namespace on the API.

use cellarman::fault::{Fault, Kind};
use cellarman_plugin::resources::kubernetes::{CnpgApi, Kubernetes};
use cellarman_plugin::resources::{
    Condition, Event, EventType, ObjectKind, ObjectRef, ResourceError, Resources,
};
use serde_json::{Value, json};

use super::api::{Api, Right, server_at};

const STORES: &str = "/apis/barmancloud.cnpg.io/v1/namespaces/db/objectstores";
const BACKUPS: &str = "/apis/postgresql.example.com/v2/namespaces/db/backups";
const EVENTS: &str = "/api/v1/namespaces/db/events";

/// What the Roles of a Cluster's service account give.
const RIGHTS: &[Right] = &[
    (
        "GET",
        "/apis/barmancloud.cnpg.io/v1/namespaces/db/objectstores/",
    ),
    (
        "PATCH",
        "/apis/barmancloud.cnpg.io/v1/namespaces/db/objectstores/store/status",
    ),
    ("GET", "/apis/postgresql.example.com/v2/namespaces/db/"),
    (
        "DELETE",
        "/apis/postgresql.example.com/v2/namespaces/db/backups/",
    ),
    ("GET", "/api/v1/namespaces/db/secrets/"),
    ("POST", "/api/v1/namespaces/db/events"),
    ("PATCH", "/api/v1/namespaces/db/events/"),
];

fn kubernetes(api: &Api) -> Kubernetes {
    let cnpg = CnpgApi::or_default(Some("postgresql.example.com"), Some("v2"));
    Kubernetes::new(api.server(), "db", cnpg)
}

fn object_store() -> Value {
    json!({"apiVersion": "barmancloud.cnpg.io/v1", "kind": "ObjectStore", "spec": {"x": 1}})
}

fn condition(is_true: bool, message: &str) -> Condition {
    Condition {
        condition_type: "Reachable",
        is_true: Some(is_true),
        reason: "Answered",
        message: message.to_owned(),
    }
}

#[tokio::test]
async fn objects_and_secrets_are_read() {
    let api = Api::start(RIGHTS).await;
    api.put(&format!("{STORES}/store"), object_store());
    let secret = json!({"data": {"id": "YWJjCg=="}});
    api.put("/api/v1/namespaces/db/secrets/aws", secret);
    for number in 0..5 {
        api.put(
            &format!("{BACKUPS}/backup-{number}"),
            json!({"kind": "Backup"}),
        );
    }
    let kubernetes = kubernetes(&api);
    let store = ObjectRef::new(ObjectKind::ObjectStore, "store");
    assert_eq!(kubernetes.get(&store).await.unwrap()["spec"]["x"], 1);
    let secret = kubernetes.secret("aws").await.unwrap();
    assert_eq!(secret.0["id"], b"abc\n");
    assert_eq!(kubernetes.backups().await.unwrap().len(), 5);
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_odd_names_are_not_asked_for() {
    let api = Api::start(RIGHTS).await;
    let kubernetes = kubernetes(&api);
    for name in ["store", "../../secrets/aws", "a/b", "", "A", "a?watch=true"] {
        let object = ObjectRef::new(ObjectKind::ObjectStore, name);
        let error = kubernetes.get(&object).await.unwrap_err();
        assert!(error.is_not_found(), "{name}: {error}");
    }
    assert_eq!(api.calls(), [format!("GET {STORES}/store")]);
}

#[tokio::test]
async fn an_api_that_is_away_is_unreachable_and_hinders_no_start() {
    let kubernetes = Kubernetes::new(
        server_at("http://127.0.0.1:1"),
        "db",
        CnpgApi::or_default(None, Some("")),
    );
    let cluster = ObjectRef::new(ObjectKind::Cluster, "pg");
    let error = kubernetes.get(&cluster).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
}

#[tokio::test]
async fn a_missing_right_is_said() {
    let api = Api::start(RIGHTS).await;
    api.deny(("GET", "/api/v1/namespaces/db/secrets/aws"));
    let error = kubernetes(&api).secret("aws").await.unwrap_err();
    assert!(matches!(error, ResourceError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("Secret aws"), "{error}");
}

#[tokio::test]
async fn a_condition_keeps_its_time_while_its_status_stays() {
    let api = Api::start(RIGHTS).await;
    let path = format!("{STORES}/store");
    let mut store = object_store();
    let time = "2020-01-01T00:00:00Z";
    store["status"]["conditions"] = json!([
        {"type": "Reachable", "status": "True", "reason": "A", "message": "b", "lastTransitionTime": time},
        {"type": "CredentialsValid", "status": "False"},
    ]);
    api.put(&path, store);
    let kubernetes = kubernetes(&api);
    let of = |name: &str| {
        let store = api.object(&path).unwrap();
        let conditions = store["status"]["conditions"].as_array().unwrap().clone();
        let mut conditions = conditions.into_iter();
        conditions
            .find(|condition| condition["type"] == name)
            .unwrap()
    };
    kubernetes
        .set_condition("store", &condition(true, "it answers"))
        .await
        .unwrap();
    assert_eq!(of("Reachable")["lastTransitionTime"], time);
    assert_eq!(of("Reachable")["message"], "it answers");
    assert_eq!(of("CredentialsValid")["status"], "False");
    api.calls();
    kubernetes
        .set_condition("store", &condition(true, "it answers"))
        .await
        .unwrap();
    assert_eq!(api.calls(), [format!("GET {path}")], "nothing to write");
    kubernetes
        .set_condition("store", &condition(false, "gone"))
        .await
        .unwrap();
    assert_ne!(of("Reachable")["lastTransitionTime"], time);
}

#[tokio::test]
async fn a_status_is_merged() {
    let api = Api::start(RIGHTS).await;
    let path = format!("{STORES}/store");
    let mut store = object_store();
    store["status"] = json!({"serverRecoveryWindow": {"a": {"x": 1, "y": 2}, "b": {"x": 3}}});
    api.put(&path, store);
    let change = json!({"serverRecoveryWindow": {"a": {"x": null, "z": 4}}});
    kubernetes(&api)
        .merge_status("store", &change)
        .await
        .unwrap();
    let window = &api.object(&path).unwrap()["status"]["serverRecoveryWindow"];
    assert_eq!(*window, json!({"a": {"y": 2, "z": 4}, "b": {"x": 3}}));
}

#[tokio::test]
async fn the_same_news_is_counted_and_other_news_told() {
    let api = Api::start(RIGHTS).await;
    api.put(&format!("{STORES}/store"), object_store());
    let event = |message: &str| Event {
        about: ObjectRef::new(ObjectKind::ObjectStore, "store"),
        event_type: EventType::Warning,
        reason: "StoreUnreachable",
        message: message.to_owned(),
    };
    let (one, other) = (kubernetes(&api), kubernetes(&api));
    for _ in 0..3 {
        // Told once within a minute.
        one.emit(&event("no answer")).await.unwrap();
    }
    let told: Vec<String> = api
        .paths()
        .into_iter()
        .filter(|path| path.starts_with(EVENTS))
        .collect();
    let [path] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(api.object(path).unwrap()["count"], 1);
    assert_eq!(
        api.object(path).unwrap()["involvedObject"]["uid"],
        "uid-store"
    );
    other.emit(&event("no answer")).await.unwrap();
    assert_eq!(api.object(path).unwrap()["count"], 2);
    other.emit(&event("refused")).await.unwrap();
    let told = api
        .paths()
        .into_iter()
        .filter(|path| path.starts_with(EVENTS));
    assert_eq!(told.count(), 2);
}

#[tokio::test]
async fn a_backup_is_deleted_only_while_it_is_the_same() {
    let api = Api::start(RIGHTS).await;
    let path = format!("{BACKUPS}/one");
    api.put(&path, json!({"kind": "Backup"}));
    let kubernetes = kubernetes(&api);
    kubernetes
        .delete_backup("one", "uid-of-an-earlier-one")
        .await
        .unwrap();
    assert!(api.object(&path).is_some());
    for _ in 0..2 {
        kubernetes.delete_backup("one", "uid-one").await.unwrap();
        assert!(api.object(&path).is_none());
    }
}
