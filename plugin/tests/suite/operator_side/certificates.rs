//! The plugin's own certificates.

use cellarman_plugin::controller::certificates::make::{
    Place, Standing, Use, secret, standing, value,
};
use cellarman_plugin::controller::certificates::see_to;
use cellarman_plugin::grpc::tls::server_config;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::api::{Api, Right};
use super::lease::installed;

const SERVER: &str = "/api/v1/namespaces/cnpg-system/secrets/barman-cloud-server-tls";
const CLIENT: &str = "/api/v1/namespaces/cnpg-system/secrets/barman-cloud-client-tls";

const RIGHTS: &[Right] = &[
    ("POST", "/api/v1/namespaces/cnpg-system/secrets"),
    ("GET", SERVER),
    ("PATCH", SERVER),
    ("GET", CLIENT),
    ("PATCH", CLIENT),
];

const PLACE: Place<'_> = Place {
    service: "barman-cloud",
    namespace: "cnpg-system",
};

fn now() -> DateTime<Utc> {
    cellarman::clock::now()
}

#[tokio::test]
async fn they_are_made_once_and_replicas_agree() {
    let api = Api::start(RIGHTS).await;
    let (one, other) = (installed(&api, "one"), installed(&api, "other"));
    let (made, read) = tokio::join!(see_to(&one), see_to(&other));
    let (made, read) = (made.unwrap().unwrap(), read.unwrap().unwrap());
    assert_eq!(made, read);
    server_config(&made).unwrap();
    api.calls();
    assert_eq!(see_to(&one).await.unwrap(), Some(made.clone()));
    assert!(api.calls().iter().all(|call| call.starts_with("GET")));
    let shown = format!("{made:?}");
    assert!(!shown.contains("BEGIN"), "{shown}");
}

#[tokio::test]
async fn they_are_renewed_in_time_and_keep_their_keys() {
    let api = Api::start(RIGHTS).await;
    let long_ago = now() - TimeDelta::days(70);
    for (path, purpose) in [(SERVER, Use::Server), (CLIENT, Use::Client)] {
        api.put(path, secret(purpose, &PLACE, None, long_ago).unwrap());
    }
    let before = api.object(SERVER).unwrap();
    assert_eq!(standing(Some(&before), now()), Standing::Due);
    assert_eq!(standing(Some(&before), long_ago), Standing::Good);
    let renewed = see_to(&installed(&api, "one")).await.unwrap().unwrap();
    let after = api.object(SERVER).unwrap();
    assert_eq!(standing(Some(&after), now()), Standing::Good);
    assert_eq!(value(&after, "tls.key"), value(&before, "tls.key"));
    assert_ne!(value(&after, "tls.crt"), value(&before, "tls.crt"));
    assert_eq!(
        Some(renewed.server_certificate.text),
        value(&after, "tls.crt")
    );
}

#[tokio::test]
async fn what_is_broken_is_made_anew() {
    let api = Api::start(RIGHTS).await;
    let mut broken = secret(Use::Server, &PLACE, None, now()).unwrap();
    broken["data"]["tls.key"] = json!("bm8ga2V5");
    api.put(SERVER, broken);
    let made = see_to(&installed(&api, "one")).await.unwrap().unwrap();
    server_config(&made).unwrap();
}

#[tokio::test]
async fn those_of_others_are_left_alone() {
    let theirs = json!({
        "metadata": {"annotations": {"cert-manager.io/certificate-name": "x"}},
        "data": {"tls.crt": "", "tls.key": ""},
    });
    for foreign in [theirs, json!({"data": {"tls.crt": "eA=="}})] {
        let api = Api::start(RIGHTS).await;
        api.put(CLIENT, foreign.clone());
        assert_eq!(see_to(&installed(&api, "one")).await.unwrap(), None);
        assert_eq!(api.object(CLIENT).unwrap()["data"], foreign["data"]);
        assert_eq!(api.object(SERVER), None);
    }
}

#[tokio::test]
async fn without_the_right_to_write_the_files_are_served() {
    let api = Api::start(RIGHTS).await;
    api.deny(("POST", "/api/v1/"));
    assert_eq!(see_to(&installed(&api, "one")).await.unwrap(), None);
}
