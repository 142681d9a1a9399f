//! What is wrong with a Cluster is told to its readers, and holds nothing up.

use cellarman::cnpgi::reconciler::ReconcilerHooksRequest;
use cellarman::cnpgi::reconciler::reconciler_hooks_result::Behavior;
use cellarman::cnpgi::reconciler::reconciler_hooks_server::ReconcilerHooks;
use serde_json::{Value, json};
use tonic::Request;

use super::api::Api;
use super::hooks::{EVENTS, RIGHTS, STORES, cluster, pre, pre_of, services, store, watching};

/// The Event that has these words, as soon as it is there.
pub(super) async fn told(api: &Api, words: &str) -> Value {
    loop {
        let paths = api.paths().into_iter();
        let mut events = paths.filter(|path| path.starts_with(EVENTS));
        let event = events.find_map(|path| {
            let event = api.object(&path)?;
            let has = |field: &str| {
                event[field]
                    .as_str()
                    .is_some_and(|text| text.contains(words))
            };
            (has("reason") || has("message")).then_some(event)
        });
        if let Some(event) = event {
            return event;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_keeps_a_cluster_from_archiving_is_told_once_and_again_when_it_changes() {
    let api = Api::start(RIGHTS).await;
    api.put(&format!("{STORES}/store"), store("aws"));
    let watching = watching(&api).await;
    let services = services(&api, &watching);
    let mut storeless = cluster();
    storeless["spec"]["plugins"][0]["parameters"] = json!({});
    let event = async || told(&api, "is not told where to").await;
    for _ in 0..3 {
        let answer = pre_of(&services, &storeless).await.unwrap();
        assert_eq!(answer.behavior(), Behavior::Continue);
        assert_eq!(event().await["count"], 1);
    }
    assert_eq!(event().await["reason"], "InvalidPluginParameters");
    assert_eq!(event().await["type"], "Warning");
    let about = &event().await["involvedObject"];
    assert_eq!(about["kind"], "Cluster");
    // Without it, `kubectl describe` would not show the Event.
    assert_eq!(about["uid"], "uid-pg");
    let mut wrong = storeless.clone();
    wrong["spec"]["plugins"][0]["parameters"] = json!({"barmanObjectName": "store", "typo": "x"});
    pre_of(&services, &wrong).await.unwrap();
    told(&api, "spec.plugins[0].parameters.typo is \"x\"").await;
    assert_eq!(event().await["count"], 1, "told once");
    pre_of(&services, &cluster()).await.unwrap();
    pre_of(&services, &storeless).await.unwrap();
    while event().await["count"] != 2 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_backup_and_a_cluster_in_order_tell_nothing() {
    let api = Api::start(RIGHTS).await;
    api.put(&format!("{STORES}/store"), store("aws"));
    api.deny(("POST", EVENTS));
    let watching = watching(&api).await;
    let services = services(&api, &watching);
    let mut storeless = cluster();
    storeless["spec"]["plugins"][0]["parameters"] = json!({});
    let request = ReconcilerHooksRequest {
        cluster_definition: storeless.to_string().into_bytes().into(),
        resource_definition: br#"{"kind": "Backup"}"#.to_vec().into(),
    };
    ReconcilerHooks::pre(&services, Request::new(request))
        .await
        .unwrap();
    pre(&services).await.unwrap();
    // News is told in order: what comes after nothing is the first that is tried.
    pre_of(&services, &storeless).await.unwrap();
    let tried = async || {
        let mut tried = Vec::new();
        while tried.is_empty() {
            tokio::task::yield_now().await;
            tried = api.calls();
            tried.retain(|call| call.ends_with(EVENTS));
        }
        tried.len()
    };
    assert_eq!(tried().await, 1);
    // It could not be told, held up nothing, and is tried again.
    pre_of(&services, &storeless).await.unwrap();
    assert_eq!(tried().await, 1);
}
