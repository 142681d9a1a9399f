//! What cannot be told refuses nobody.

use cellarman_plugin::operator::Settings;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{PATH, PLUGIN, SECRETS, STORES, Webhook, cluster, review, unchecked, untouched};

fn noon() -> Value {
    json!({"targetName": "noon"})
}

#[tokio::test]
async fn objects_that_are_not_there_yet_are_named() {
    let webhook = Webhook::start().await;
    unchecked(
        &webhook.create(&noon()).await,
        &["ObjectStore store is not in namespace db", "Create"],
    );
    webhook.put_store("http://127.0.0.1:1");
    webhook.api.remove(&format!("{SECRETS}/aws"));
    unchecked(&webhook.create(&noon()).await, &["Create the Secret aws"]);
    let mut nameless = cluster(&noon());
    nameless["spec"]["externalClusters"][0]["plugin"]["parameters"] = json!({});
    let response = webhook.review(&review("CREATE", &nameless)).await;
    unchecked(&response, &["barmanObjectName names no ObjectStore"]);
    let mut wrong = cluster(&noon());
    wrong["spec"]["plugins"] = json!(7);
    let response = webhook.review(&review("CREATE", &wrong)).await;
    unchecked(&response, &["The Cluster cannot be read"]);
}

#[tokio::test]
async fn a_right_that_is_missing_is_the_plugins_own() {
    let webhook = Webhook::start().await;
    webhook.put_store("http://127.0.0.1:1");
    webhook.api.deny(("GET", SECRETS));
    unchecked(
        &webhook.create(&noon()).await,
        &["Secret aws", "ClusterRole"],
    );
}

#[tokio::test]
async fn a_store_that_refuses_connections_is_told_of() {
    let webhook = Webhook::start().await;
    webhook.put_store("http://127.0.0.1:1");
    unchecked(&webhook.create(&noon()).await, &["endpointURL"]);
}

#[tokio::test]
async fn a_store_that_says_nothing_is_left_before_the_caller_leaves() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let webhook = Webhook::start().await;
    webhook.put_store(&format!("http://{}", silent.local_addr().unwrap()));
    let review = review("CREATE", &cluster(&noon())).to_string();
    let answer = webhook.post(&format!("{PATH}?timeout=2s"), &review).await;
    let mut answer: Value = serde_json::from_str(&answer.body).unwrap();
    unchecked(&answer["response"].take(), &["did not tell within 1 s"]);
}

/// Whoever writes an ObjectStore must not get to act by the identity of the plugin's Pod.
#[tokio::test]
async fn the_plugins_own_identity_is_never_used() {
    let webhook = Webhook::start().await;
    let federated = json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "http://127.0.0.1:1/token",
        "credential_source": {"file": "/var/run/secrets/kubernetes.io/serviceaccount/token"},
    });
    let federated = base64(&federated.to_string());
    webhook.api.put(
        &format!("{SECRETS}/aws"),
        json!({"apiVersion": "v1", "kind": "Secret", "data": {"key.json": federated}}),
    );
    for configuration in [
        json!({"destinationPath": "s3://b/p", "s3Credentials": {"inheritFromIAMRole": true}}),
        json!({"destinationPath": "gs://b/p", "googleCredentials": {"gkeEnvironment": true}}),
        json!({"destinationPath": "gs://b/p", "googleCredentials": {
            "applicationCredentials": {"name": "aws", "key": "key.json"}}}),
        json!({"destinationPath": "https://a.blob.core.windows.net/c/p",
            "azureCredentials": {"inheritFromAzureAD": true}}),
        json!({"destinationPath": "https://a.blob.core.windows.net/c/p",
            "azureCredentials": {"useDefaultAzureCredentials": true}}),
        json!({"destinationPath": "file:///etc"}),
    ] {
        let store = json!({
            "apiVersion": "barmancloud.cnpg.io/v1", "kind": "ObjectStore",
            "spec": {"configuration": configuration},
        });
        webhook.api.put(&format!("{STORES}/store"), store);
        unchecked(
            &webhook.create(&noon()).await,
            &["ObjectStore store", "identity"],
        );
    }
}

fn base64(text: &str) -> String {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test]
async fn clusters_of_another_group_are_looked_at_where_they_are_the_operators() {
    let mut settings = Settings::new(PLUGIN, "sidecar:1");
    settings.cluster_group = "postgresql.example.com".to_owned();
    let webhook = Webhook::start_with(settings).await;
    let mut review = review("CREATE", &cluster(&noon()));
    untouched(&webhook.review(&review).await);
    review["request"]["kind"]["group"] = json!("postgresql.example.com");
    unchecked(&webhook.review(&review).await, &["ObjectStore store"]);
}
