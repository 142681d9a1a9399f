//! The certificate that the webhook shows, and the one in its configuration.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cellarman_plugin::controller::webhook;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::api::{Api, Right};
use super::super::lease::installed;
use super::{PATH, Webhook, credentials};

pub(super) const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/barman-cloud-recovery-target";

const RIGHTS: &[Right] = &[("GET", CONFIGURATION), ("PATCH", CONFIGURATION)];

#[tokio::test]
async fn a_renewed_certificate_is_shown_at_once() {
    let webhook = Webhook::start().await;
    let name = ServerName::try_from("barman-cloud.cnpg-system.svc").unwrap();
    for _ in 0..2 {
        let credentials = credentials(cellarman::clock::now());
        let expected = CertificateDer::from_pem_slice(&credentials.server_certificate.text);
        webhook.held.send_replace(Some(credentials));
        let shown = webhook.post(PATH, "").await.certificate;
        assert_eq!(shown, expected.unwrap());
        let shown = webpki::EndEntityCert::try_from(&shown).unwrap();
        shown.verify_is_valid_for_subject_name(&name).unwrap();
    }
}

pub(super) fn configuration() -> Value {
    let client = json!({"service": {"name": "barman-cloud", "port": 9443}});
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "webhooks": [{"name": "w", "clientConfig": client, "failurePolicy": "Ignore"}],
    })
}

#[tokio::test]
async fn the_configuration_gets_the_certificate_and_each_later_one() {
    let api = Api::start(RIGHTS).await;
    let installed = installed(&api, "one");
    let first = credentials(cellarman::clock::now());
    webhook::bring_in_step(&installed, &first).await.unwrap();
    assert_eq!(api.object(CONFIGURATION), None, "it is the manifests'");
    api.put(CONFIGURATION, configuration());
    let (held, receiver) = watch::channel(Some(first.clone()));
    let cancel = CancellationToken::new();
    let keeping = webhook::keep(&installed, receiver, cancel.clone());
    let second = credentials(cellarman::clock::now());
    let checking = async {
        for credentials in [first, second] {
            held.send_replace(Some(credentials.clone()));
            let expected = json!(STANDARD.encode(&credentials.server_certificate.text));
            let has =
                |object: &Value| object["webhooks"][0]["clientConfig"]["caBundle"] == expected;
            let mut object = api.until(CONFIGURATION, has).await;
            object["webhooks"][0]["clientConfig"]
                .as_object_mut()
                .unwrap()
                .remove("caBundle");
            assert_eq!(object["webhooks"], configuration()["webhooks"]);
            api.calls();
            webhook::bring_in_step(&installed, &credentials)
                .await
                .unwrap();
            assert!(api.calls().iter().all(|call| call.starts_with("GET")));
        }
        cancel.cancel();
    };
    let both = async { tokio::join!(keeping, checking) };
    tokio::time::timeout(Duration::from_mins(1), both)
        .await
        .unwrap();
}
