//! The program itself: it opens the port that it is told, and brings its certificate to the API.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::super::api::{Api, Right};
use super::certificate::{CONFIGURATION, configuration};
use super::{PATH, cluster, exchange, review, untouched};

const SECRETS: &str = "/api/v1/namespaces/cnpg-system/secrets";

const RIGHTS: &[Right] = &[
    ("GET", "/apis/barmancloud.cnpg.io/v1/objectstores"),
    ("GET", "/apis/postgresql.cnpg.io/v1/backups"),
    ("GET", "/apis/rbac.authorization.k8s.io/v1/roles"),
    ("GET", "/apis/rbac.authorization.k8s.io/v1/rolebindings"),
    ("GET", SECRETS),
    ("POST", SECRETS),
    ("GET", CONFIGURATION),
    ("PATCH", CONFIGURATION),
];

/// The program; killed when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &std::path::Path, api: &Api, webhook: &str) -> Program {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": api.address()}}],
        "users": [{"name": "c", "user": {}}],
        "contexts": [{"name": "c", "context": {
            "cluster": "c", "user": "c", "namespace": "cnpg-system"}}],
    });
    let path = folder.join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_cellarman-plugin"))
        .args(["operator", "--server-address=127.0.0.1:0"])
        .arg("--health-probe-bind-address=127.0.0.1:0")
        .arg(format!("--webhook-address={webhook}"))
        .env_clear()
        .env("KUBECONFIG", path)
        .env("SIDECAR_IMAGE", "sidecar:1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Program(child.unwrap())
}

#[tokio::test]
async fn the_port_is_open_where_it_is_told_with_the_certificate_that_the_api_has() {
    let folder = tempfile::tempdir().unwrap();
    let api = Api::start(RIGHTS).await;
    api.put(CONFIGURATION, configuration());
    let address = {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        free.local_addr().unwrap()
    };
    let _program = start(folder.path(), &api, &address.to_string());
    let authority = |object: &Value| {
        let bundle = &object["webhooks"][0]["clientConfig"]["caBundle"];
        bundle.as_str().map(str::to_owned)
    };
    let object = api
        .until(CONFIGURATION, |object| authority(object).is_some())
        .await;
    let authority = STANDARD.decode(authority(&object).unwrap()).unwrap();
    let opened = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), opened)
        .await
        .unwrap();
    let review = review("UPDATE", &cluster(&json!({"targetName": "none"}))).to_string();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        review.len()
    );
    let answer = exchange(address, format!("{head}{review}").as_bytes()).await;
    let mut body: Value = serde_json::from_str(&answer.body).unwrap();
    untouched(&body["response"].take());
    let expected = CertificateDer::from_pem_slice(&authority).unwrap();
    assert_eq!(answer.certificate, expected);
}
