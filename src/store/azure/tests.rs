//! The engine against fakes: requests as they go over the wire, tokens, and answers that no
//! emulator gives.

use std::sync::atomic::{AtomicU32, Ordering};

use futures::TryStreamExt;
use secrecy::SecretString;
use testbed::endpoint::{Endpoint, Response};
use url::Url;

use super::*;
use crate::fault;
use crate::store::config::AzureCredentials;

fn config(storage: &Endpoint, credentials: AzureCredentials) -> AzureConfig {
    AzureConfig {
        account: "acc".to_owned(),
        container: "cellar".to_owned(),
        endpoint_url: format!("{}/acc", storage.url()).parse().unwrap(),
        credentials,
        ca_bundle: None,
        encryption_scope: None,
        read_timeout: None,
    }
}

fn key() -> AzureCredentials {
    AzureCredentials::AccountKey(SecretString::from("a2V5"))
}

fn url_of(endpoint: &Endpoint, path: &str) -> Url {
    format!("{}{path}", endpoint.url()).parse().unwrap()
}

/// A storage service to which everything is new.
fn storage() -> Endpoint {
    Endpoint::start(|_| Response::new(201))
}

fn plain() -> PutOptions {
    PutOptions::default()
}

async fn put(store: &AzureStore) -> Result<(), StoreError> {
    store.put(&ObjectKey::new("k"), "x".into(), &plain()).await
}

/// Puts an object with credentials that are tokens, twice; what storage saw of them.
async fn tokens_seen(credentials: AzureCredentials) -> Vec<String> {
    let storage = storage();
    let store = AzureStore::new(&config(&storage, credentials)).unwrap();
    for _ in 0..2 {
        put(&store).await.unwrap();
    }
    let requests = storage.requests();
    let seen = requests
        .iter()
        .map(|request| request.header("authorization"));
    seen.map(|header| header.unwrap_or_default().to_owned())
        .collect()
}

/// An identity service; its tokens are numbered.
fn identity_service() -> Endpoint {
    let given = AtomicU32::new(0);
    Endpoint::start(move |_| {
        let number = given.fetch_add(1, Ordering::SeqCst);
        let body = format!(
            r#"{{"access_token":"token-{number}","expires_in":3600,"expires_on":"4102444800","token_type":"Bearer"}}"#
        );
        Response::json(200, &body)
    })
}

#[tokio::test]
async fn a_managed_identity_gives_one_token_for_many_requests() {
    let service = identity_service();
    let seen = tokens_seen(AzureCredentials::ManagedIdentity {
        client_id: Some("me".to_owned()),
        endpoint_url: Some(url_of(&service, "/metadata/identity/oauth2/token")),
    })
    .await;
    assert_eq!(seen, ["Bearer token-0", "Bearer token-0"]);
    let [asked] = &service.requests()[..] else {
        unreachable!("it is asked once");
    };
    assert_eq!(asked.path(), "/metadata/identity/oauth2/token");
    assert_eq!(asked.header("metadata"), Some("true"));
    assert_eq!(asked.query_value("client_id").as_deref(), Some("me"));
    let resource = asked.query_value("resource").unwrap();
    assert!(resource.contains("storage.azure.com"), "{resource}");
}

/// Takes tokens but for the first ones, so many of them.
fn refusing_tokens(refused: usize) -> Endpoint {
    Endpoint::start(move |request| {
        let token = request.header("authorization").unwrap_or_default();
        let is_refused = (0..refused).any(|number| token == format!("Bearer token-{number}"));
        if is_refused {
            Response::new(401).header("x-ms-error-code", "InvalidAuthenticationInfo")
        } else {
            Response::new(201)
        }
    })
}

#[tokio::test]
async fn a_token_that_is_refused_is_asked_for_again_once() {
    for (refused, tokens, outcome) in [(1, 2, None), (9, 2, Some(StoreErrorKind::Denied))] {
        let (service, storage) = (identity_service(), refusing_tokens(refused));
        let identity = AzureCredentials::ManagedIdentity {
            client_id: None,
            endpoint_url: Some(url_of(&service, "/token")),
        };
        let store = AzureStore::new(&config(&storage, identity)).unwrap();
        let first = put(&store).await;
        assert_eq!(first.err().map(|error| error.kind), outcome);
        assert_eq!(service.requests().len(), tokens);
        if outcome.is_none() {
            put(&store).await.unwrap();
            assert_eq!(service.requests().len(), tokens, "the new one is kept");
        }
    }
    let storage = Endpoint::start(|_| Response::new(401));
    let store = AzureStore::new(&config(&storage, key())).unwrap();
    assert_eq!(put(&store).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(storage.requests().len(), 1, "a key stays what it is");
}

#[tokio::test]
async fn a_workload_identity_exchanges_the_files_token() {
    let service = identity_service();
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "from kubernetes").unwrap();
    let seen = tokens_seen(AzureCredentials::WorkloadIdentity {
        tenant_id: "tenant".to_owned(),
        client_id: "me".to_owned(),
        token_file,
        authority_url: Some(url_of(&service, "/")),
    })
    .await;
    assert_eq!(seen[0], "Bearer token-0");
    let asked = &service.requests()[0];
    assert_eq!(asked.path(), "/tenant/oauth2/v2.0/token");
    for (name, value) in [
        ("client_id", "me"),
        ("client_assertion", "from kubernetes"),
        ("grant_type", "client_credentials"),
        ("scope", "https://storage.azure.com/.default"),
    ] {
        assert_eq!(asked.form_value(name).as_deref(), Some(value), "{name}");
    }
}

#[tokio::test]
async fn a_registered_application_shows_its_secret_to_the_authority_alone() {
    let service = identity_service();
    let seen = tokens_seen(AzureCredentials::ClientSecret {
        tenant_id: "tenant".to_owned(),
        client_id: "me".to_owned(),
        client_secret: SecretString::from("s3cr3t"),
        authority_url: Some(url_of(&service, "/")),
    })
    .await;
    assert_eq!(seen[0], "Bearer token-0");
    let asked = &service.requests()[0];
    assert_eq!(asked.form_value("client_secret").as_deref(), Some("s3cr3t"));
}

#[tokio::test]
async fn without_a_token_the_reason_is_told_and_nothing_is_sent() {
    let refusing =
        |status, body: &'static str| Endpoint::start(move |_| Response::json(status, body));
    for (service, kind, words) in [
        (
            refusing(
                400,
                r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided"}"#,
            ),
            StoreErrorKind::Denied,
            "AADSTS7000215",
        ),
        (
            refusing(500, "<html>"),
            StoreErrorKind::Unreachable,
            "answered 500",
        ),
        (
            refusing(429, "{}"),
            StoreErrorKind::Throttled,
            "answered 429",
        ),
        (
            refusing(200, "no token"),
            StoreErrorKind::Denied,
            "no token",
        ),
        (
            refusing(200, "{\"access_token\":\"a\\nb\",\"expires_in\":3600}"),
            StoreErrorKind::Denied,
            "odd characters",
        ),
    ] {
        let storage = storage();
        let credentials = AzureCredentials::ClientSecret {
            tenant_id: "tenant".to_owned(),
            client_id: "me".to_owned(),
            client_secret: SecretString::from("s3cr3t"),
            authority_url: Some(url_of(&service, "")),
        };
        let store = AzureStore::new(&config(&storage, credentials)).unwrap();
        let error = put(&store).await.unwrap_err();
        let text = fault::chain(&error);
        assert_eq!(error.kind, kind, "{text}");
        assert!(text.contains(words) && !text.contains("s3cr3t"), "{text}");
        assert!(storage.requests().is_empty(), "{text}");
    }
}

#[tokio::test]
async fn an_identity_service_that_is_not_there_is_unreachable() {
    let storage = storage();
    let gone = url_of(&identity_service(), "/");
    let credentials = AzureCredentials::ManagedIdentity {
        client_id: None,
        endpoint_url: Some(gone),
    };
    let store = AzureStore::new(&config(&storage, credentials)).unwrap();
    let error = put(&store).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unreachable, "{error:?}");
}

#[tokio::test]
async fn a_signature_travels_in_the_query_and_in_no_error() {
    let storage = Endpoint::start(|_| {
        let body = "<Error><Code>AuthenticationFailed</Code><Message>Server failed.\n\
            RequestId:1</Message><AuthenticationErrorDetail>Signature not valid in the specified \
            time frame</AuthenticationErrorDetail></Error>";
        Response::xml(403, body)
    });
    let signature = AzureCredentials::SharedAccessSignature("?sv=1&sig=s3cr3t%2Bx".into());
    let store = AzureStore::new(&config(&storage, signature)).unwrap();
    let error = put(&store).await.unwrap_err();
    let text = fault::chain(&error);
    assert_eq!(error.kind, StoreErrorKind::Denied);
    assert!(
        text.contains("expired") && !text.contains("s3cr3t"),
        "{text}"
    );
    assert!(!format!("{store:?} {error:?}").contains("s3cr3t"));
    let request = &storage.requests()[0];
    assert_eq!(request.query_value("sig").as_deref(), Some("s3cr3t+x"));
}

#[test]
fn credentials_of_no_possible_form_are_refused() {
    let storage = storage();
    for credentials in [
        AzureCredentials::AccountKey(SecretString::from("s3cr3t!")),
        AzureCredentials::SharedAccessSignature(SecretString::from("s3cr3t")),
        AzureCredentials::SharedAccessSignature(SecretString::from("sv=s3cr3t")),
    ] {
        let error = AzureStore::new(&config(&storage, credentials)).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Config);
        assert!(!fault::chain(&error).contains("s3cr3t"), "{error:?}");
    }
}

#[tokio::test]
async fn what_is_written_carries_scope_tags_and_condition() {
    let storage = storage();
    let mut config = config(&storage, key());
    config.encryption_scope = Some("scope1".to_owned());
    let store = AzureStore::new(&config).unwrap();
    let options = PutOptions {
        if_absent: true,
        tags: vec![("a b".to_owned(), "c&d".to_owned())],
        ..plain()
    };
    let key = ObjectKey::new("p/a b//c#");
    store.put(&key, "body".into(), &options).await.unwrap();
    let upload = store.begin_upload(&key, &options).await.unwrap();
    let part = store.put_part(&key, &upload, 1, "y".into()).await.unwrap();
    store
        .complete_upload(&key, &upload, &[part], &options)
        .await
        .unwrap();
    let requests = storage.requests();
    assert_eq!(requests.len(), 3, "an upload begins with its first block");
    for request in &requests {
        assert_eq!(request.path(), "/acc/cellar/p/a%20b//c%23");
        assert_eq!(request.header("x-ms-encryption-scope"), Some("scope1"));
        let signed = request.header("authorization").unwrap();
        assert!(signed.starts_with("SharedKey acc:"), "{signed}");
    }
    for request in [&requests[0], &requests[2]] {
        assert_eq!(request.header("if-none-match"), Some("*"));
        assert_eq!(request.header("x-ms-tags"), Some("a%20b=c%26d"));
    }
    assert_eq!(requests[0].header("x-ms-blob-type"), Some("BlockBlob"));
    let content_type = requests[2].header("x-ms-blob-content-type");
    assert_eq!(content_type, Some(CONTENT_TYPE));
}

#[tokio::test]
async fn names_that_no_blob_can_have_are_absent_to_readers_and_refused_to_writers() {
    let storage = storage();
    let store = AzureStore::new(&config(&storage, key())).unwrap();
    for name in ["a\\b", "a/../b", "./a"] {
        let key = ObjectKey::new(name);
        let read = store.head(&key).await.unwrap_err();
        assert_eq!(read.kind, StoreErrorKind::NotFound, "{name}");
        let written = store.put(&key, "x".into(), &plain()).await.unwrap_err();
        assert_eq!(written.kind, StoreErrorKind::Unsupported, "{name}");
        store.delete(&[key]).await.unwrap();
    }
    assert!(storage.requests().is_empty());
}

#[tokio::test]
async fn a_body_cut_short_is_an_error() {
    let storage = Endpoint::start(|_| Response::with_body(200, CONTENT_TYPE, "0123456789").cut());
    let store = AzureStore::new(&config(&storage, key())).unwrap();
    let body = store.get(&ObjectKey::new("k"), None).await.unwrap();
    let read: Result<Vec<_>, _> = body.chunks.try_collect().await;
    assert_eq!(read.unwrap_err().kind, StoreErrorKind::Unreachable);
}

#[tokio::test]
async fn an_answer_that_is_not_azures_says_nothing_of_the_object() {
    for (answer, kind) in [
        (Response::new(404), StoreErrorKind::Unreachable),
        (
            Response::with_body(404, "text/html", "<html>proxy</html>"),
            StoreErrorKind::Unreachable,
        ),
        (
            Response::new(404).header("x-ms-error-code", "BlobNotFound"),
            StoreErrorKind::NotFound,
        ),
        (
            Response::new(404).header("x-ms-error-code", "ContainerNotFound"),
            StoreErrorKind::NoContainer,
        ),
        (
            Response::new(503).header("x-ms-error-code", "ServerBusy"),
            StoreErrorKind::Throttled,
        ),
        (Response::dropped(), StoreErrorKind::Unreachable),
    ] {
        let storage = Endpoint::start(move |_| answer.clone());
        let store = AzureStore::new(&config(&storage, key())).unwrap();
        let head = store.head(&ObjectKey::new("k")).await.unwrap_err();
        assert_eq!(head.kind, kind, "{head:?}");
    }
}

#[tokio::test]
async fn a_wrong_clock_is_named() {
    let storage = Endpoint::start(|_| {
        Response::new(403)
            .header("x-ms-error-code", "AuthenticationFailed")
            .header("date", "Sat, 01 Jan 2000 00:00:00 GMT")
    });
    let store = AzureStore::new(&config(&storage, key())).unwrap();
    let error = put(&store).await.unwrap_err();
    let text = fault::chain(&error);
    assert!(text.contains("clock of this host"), "{text}");
    assert_eq!(error.kind, StoreErrorKind::ClockSkewed);
}
