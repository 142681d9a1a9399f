//! The admission webhook through its own port: HTTPS, reviews as the API server posts them, and an
//! API in memory that fails a test on each call beyond the rights.
//!
//! Not here: any test.

mod archive;
mod certificate;
mod doubt;
mod http;
mod program;

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cellarman_plugin::admission::Admission;
use cellarman_plugin::controller::certificates::make::{Place, Use, secret, value};
use cellarman_plugin::grpc::tls::{Credentials, Pem, Source};
use cellarman_plugin::operator::Settings;
use cellarman_plugin::serving::webhook::{self, PATH};
use chrono::{DateTime, Utc};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use testbed::minio::CREDENTIALS;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::api::{Api, Right};
use super::hooks::{PLUGIN, STORES};
use super::tls::client_config;

const SECRETS: &str = "/api/v1/namespaces/db/secrets";

/// A review reads, and changes nothing.
const RIGHTS: &[Right] = &[
    (
        "GET",
        "/apis/barmancloud.cnpg.io/v1/namespaces/db/objectstores/store",
    ),
    ("GET", "/api/v1/namespaces/db/secrets/aws"),
];

/// The webhook on its port.
struct Webhook {
    api: Api,
    address: SocketAddr,
    held: watch::Sender<Option<Credentials>>,
    cancel: CancellationToken,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// What came back.
struct Answer {
    status: u16,
    body: String,
    certificate: CertificateDer<'static>,
}

impl Webhook {
    async fn start() -> Self {
        Self::start_with(Settings::new(PLUGIN, "sidecar:1")).await
    }

    async fn start_with(settings: Settings) -> Self {
        let api = Api::start(RIGHTS).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (held, receiver) = watch::channel(Some(credentials(cellarman::clock::now())));
        let source = Source {
            held: receiver,
            files: None,
        };
        let admission = Admission::new(api.server(), settings);
        let cancel = CancellationToken::new();
        let serving = webhook::serve(listener, source, Arc::clone(&admission), cancel.clone());
        tokio::spawn(serving);
        Self {
            api,
            address,
            held,
            cancel,
        }
    }

    /// Puts the ObjectStore and its Secret.
    fn put_store(&self, endpoint: &str) {
        let key = |key: &str| json!({"name": "aws", "key": key});
        let store = json!({
            "apiVersion": "barmancloud.cnpg.io/v1",
            "kind": "ObjectStore",
            "spec": {"configuration": {
                "destinationPath": "s3://cellar/backups",
                "endpointURL": endpoint,
                "s3Credentials": {"accessKeyId": key("id"), "secretAccessKey": key("secret")},
            }},
        });
        self.api.put(&format!("{STORES}/store"), store);
        let values = [("id", CREDENTIALS.0), ("secret", CREDENTIALS.1)];
        let data = values.map(|(key, value)| (key.to_owned(), json!(STANDARD.encode(value))));
        let data: serde_json::Map<String, Value> = data.into_iter().collect();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": data});
        self.api.put(&format!("{SECRETS}/aws"), secret);
    }

    async fn exchange(&self, request: &[u8]) -> Answer {
        exchange(self.address, request).await
    }

    async fn post(&self, target: &str, body: &str) -> Answer {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.exchange(format!("{head}{body}").as_bytes()).await
    }

    /// The response to a review.
    async fn review(&self, review: &Value) -> Value {
        let target = format!("{PATH}?timeout=30s");
        let answer = self.post(&target, &review.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let mut answer: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        answer["response"].take()
    }

    /// The response to a new Cluster with this target.
    async fn create(&self, target: &Value) -> Value {
        self.review(&review("CREATE", &cluster(target))).await
    }
}

/// Sends these bytes, and reads until the connection is closed.
async fn exchange(address: SocketAddr, request: &[u8]) -> Answer {
    let config = client_config(None, &rustls::version::TLS13);
    let name = ServerName::try_from("barman-cloud.cnpg-system.svc").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.unwrap();
    // Who is refused for its head may be left with its body.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    Answer {
        status: status.parse().unwrap_or_default(),
        body: body.to_owned(),
        certificate: certificate.into_owned(),
    }
}

/// A certificate as the plugin makes it.
fn credentials(now: DateTime<Utc>) -> Credentials {
    let place = Place {
        service: "barman-cloud",
        namespace: "cnpg-system",
    };
    let made = secret(Use::Server, &place, None, now).unwrap();
    let pem = |key: &str| Pem {
        origin: key.to_owned(),
        text: value(&made, key).unwrap(),
    };
    Credentials {
        server_certificate: pem("tls.crt"),
        server_key: pem("tls.key"),
        client_certificate: pem("tls.crt"),
    }
}

/// A Cluster that is recovered from the ObjectStore to this target.
fn cluster(target: &Value) -> Value {
    json!({
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": {"name": "restored", "namespace": "db"},
        "spec": {
            "instances": 1,
            "bootstrap": {"recovery": {"source": "origin", "recoveryTarget": target}},
            "externalClusters": [{"name": "origin", "plugin": {
                "name": PLUGIN,
                "parameters": {"barmanObjectName": "store", "serverName": "main"},
            }}],
        },
    })
}

/// A review as the API server posts it.
fn review(operation: &str, cluster: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "postgresql.cnpg.io", "version": "v1", "kind": "Cluster"},
            "resource": {"group": "postgresql.cnpg.io", "version": "v1", "resource": "clusters"},
            "name": "restored",
            "namespace": "db",
            "operation": operation,
            "userInfo": {"username": "somebody"},
            "object": cluster,
            "oldObject": null,
            "dryRun": true,
        },
    })
}

/// The backup that a response fills in.
fn filled(response: &Value) -> Option<String> {
    let patch = STANDARD.decode(response["patch"].as_str()?).unwrap();
    assert_eq!(response["patchType"], "JSONPatch");
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut patched = cluster(&json!({"targetTLI": "latest"}));
    json_patch::patch(&mut patched, &patch).unwrap();
    let target = &patched["spec"]["bootstrap"]["recovery"]["recoveryTarget"];
    assert_eq!(target["targetTLI"], "latest");
    Some(target["backupID"].as_str().unwrap().to_owned())
}

/// The Cluster is let through as it is, and nobody is told anything.
#[track_caller]
fn untouched(response: &Value) {
    assert_eq!(response["allowed"], true, "{response}");
    assert!(response["patch"].is_null(), "{response}");
    assert!(response["warnings"].is_null(), "{response}");
}

/// The Cluster is refused with these words.
#[track_caller]
fn denied(response: &Value, words: &[&str]) {
    assert_eq!(response["allowed"], false, "{response}");
    assert_eq!(response["status"]["code"], 422, "{response}");
    assert!(response["patch"].is_null(), "{response}");
    let message = response["status"]["message"].as_str().unwrap();
    for word in words {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert!(!message.contains("--"), "{message}");
}

/// The Cluster is let through, and told what was not looked at, with these words.
#[track_caller]
fn unchecked(response: &Value, words: &[&str]) {
    assert_eq!(response["allowed"], true, "{response}");
    assert!(response["patch"].is_null(), "{response}");
    let warning = response["warnings"][0].as_str().unwrap();
    for word in [&["recoveryTarget was not checked"], words].concat() {
        assert!(warning.contains(word), "{word}: {warning}");
    }
}
