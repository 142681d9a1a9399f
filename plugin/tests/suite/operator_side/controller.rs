//! What is looked after of ObjectStores.

use std::future::Future;

use cellarman_plugin::controller::object_stores;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::hooks::{RIGHTS, ROLE, STORES, store, watching};

const SECRET: &str = "/api/v1/namespaces/db/secrets/aws";

async fn with_controller<F: Future<Output = ()>>(api: &Api, work: F) {
    let watching = watching(api).await;
    let server = api.server();
    let cancel = CancellationToken::new();
    let run = object_stores::run(
        &server,
        &watching.caches,
        &watching.settings,
        cancel.clone(),
    );
    tokio::select! {
        () = run => panic!("it ended"),
        () = work => {}
    }
}

fn status_of(store: &Value) -> Option<&str> {
    let mut conditions = store["status"]["conditions"].as_array()?.iter();
    conditions.find(|condition| condition["type"] == "CredentialsValid")?["status"].as_str()
}

fn message_of(store: &Value) -> &str {
    store["status"]["conditions"][0]["message"]
        .as_str()
        .unwrap()
}

#[tokio::test]
async fn a_role_follows_its_store() {
    let api = Api::start(RIGHTS).await;
    let path = format!("{STORES}/store");
    api.put(&path, store("aws"));
    let rule = |resource: &str| {
        json!({"apiGroups": ["barmancloud.cnpg.io"], "resources": [resource],
               "resourceNames": ["store"], "verbs": ["get"]})
    };
    api.put(
        ROLE,
        json!({"metadata": {"labels": {"barmancloud.cnpg.io/cluster": "pg"}},
               "rules": [rule("objectstores")]}),
    );
    with_controller(&api, async {
        let has = |secret: &'static str| {
            move |role: &Value| role["rules"][2]["resourceNames"] == json!([secret])
        };
        api.until(ROLE, has("aws")).await;
        let mut changed = store("other");
        changed["metadata"]["generation"] = json!(2);
        api.put(&path, changed);
        api.until(ROLE, has("other")).await;
    })
    .await;
}

#[tokio::test]
async fn credentials_are_judged_and_the_cause_is_named() {
    let api = Api::start(RIGHTS).await;
    let path = format!("{STORES}/store");
    api.put(&path, store("aws"));
    with_controller(&api, async {
        let is = |status: &'static str| move |store: &Value| status_of(store) == Some(status);
        let judged = api.until(&path, is("False")).await;
        let message = message_of(&judged);
        assert!(
            message.starts_with("Secret aws is not in namespace db"),
            "{message}"
        );
        api.put(SECRET, json!({"data": {"id": "aWQ="}}));
        let mut changed = judged;
        changed["metadata"]["generation"] = json!(2);
        api.put(&path, changed);
        let judged = api
            .until(&path, |store| message_of(store).contains("has no key key"))
            .await;
        assert_eq!(status_of(&judged), Some("False"));
        api.put(
            SECRET,
            json!({"data": {"id": "aWQ=", "key": "c2VjcmV0LWtleQo="}}),
        );
        let mut changed = judged;
        changed["metadata"]["generation"] = json!(3);
        api.put(&path, changed);
        let judged = api.until(&path, is("True")).await;
        assert!(!judged.to_string().contains("secret-key"), "{judged}");
        let mut changed = judged;
        changed["metadata"]["generation"] = json!(4);
        changed["spec"]["configuration"]["destinationPath"] = json!("ftp://nowhere");
        api.put(&path, changed);
        let judged = api.until(&path, is("False")).await;
        assert!(
            message_of(&judged).contains("begins with ftp://"),
            "{judged}"
        );
        // The Event follows the condition: one for each time that it became false.
        let events = || {
            api.paths()
                .into_iter()
                .filter(|path| path.contains("/events/"))
        };
        while events().count() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
