//! What fake-gcs-server does not judge of Google Cloud Storage, on small endpoints of our own: what
//! goes over the wire, answers that are lost. Not here: who asks (`gcs_credentials`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cellarman::store::config::{GcsConfig, GcsCredentials, StoreConfig};
use cellarman::store::error::StoreErrorKind;
use cellarman::store::open::open_with;
use cellarman::store::retry::RetryPolicy;
use cellarman::store::{ObjectKey, PutOptions};
use testbed::endpoint::{Endpoint, Response};

fn bucket(google: &Endpoint) -> GcsConfig {
    GcsConfig {
        bucket: "cellar".to_owned(),
        endpoint_url: Some(google.url().parse().expect("a URL")),
        credentials: GcsCredentials::Anonymous,
        ca_bundle: None,
        kms_key_name: Some("projects/p/locations/l/keyRings/r/cryptoKeys/k".to_owned()),
        storage_class: Some("NEARLINE".to_owned()),
        project: None,
        read_timeout: None,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// What Google says of an object that was stored.
fn stored(name: &str, bytes: &[u8]) -> Response {
    let crc32c = STANDARD.encode(crc32c::crc32c(bytes).to_be_bytes());
    let text = serde_json::json!({
        "name": name, "size": bytes.len().to_string(), "generation": "7", "crc32c": crc32c,
    });
    Response::json(200, &text.to_string())
}

#[test]
fn tags_key_and_class_go_with_every_object() {
    let google = Endpoint::start(
        |request| match request.query_value("uploadType").as_deref() {
            Some("multipart") => stored("k", b"bytes"),
            _ => Response::json(200, "{}").header("location", "/u?upload_id=1"),
        },
    );
    let config = StoreConfig::Gcs(Box::new(bucket(&google)));
    let options = PutOptions {
        if_absent: true,
        tags: vec![("team".to_owned(), "a b".to_owned())],
        ..PutOptions::default()
    };
    runtime().block_on(async {
        let store = open_with(&config, RetryPolicy::ONCE)
            .await
            .expect("it opens");
        let key = ObjectKey::new("k");
        store
            .put(&key, "bytes".into(), &options)
            .await
            .expect("it is put");
        store.begin_upload(&key, &options).await.expect("it begins");
    });
    for request in google.requests() {
        let query = |name: &str| request.query_value(name);
        assert_eq!(query("ifGenerationMatch").as_deref(), Some("0"));
        assert_eq!(
            query("kmsKeyName").as_deref(),
            Some("projects/p/locations/l/keyRings/r/cryptoKeys/k")
        );
        let body = request.text();
        assert!(body.contains(r#""metadata":{"team":"a b"}"#), "{body}");
        assert!(body.contains(r#""storageClass":"NEARLINE""#), "{body}");
    }
}

/// A session that loses the answer to its first chunk, of which it has kept a quantum, and the
/// answer to its end.
fn forgetful(body: Bytes) -> Endpoint {
    let told: Mutex<Vec<String>> = Mutex::default();
    Endpoint::start(move |request| {
        let Some(range) = request.header("content-range") else {
            return Response::json(200, "{}").header("location", "http://other/u?upload_id=1");
        };
        let mut told = told.lock().expect("no test panics here");
        told.push(range.to_owned());
        match told.len() {
            1 | 4 => Response::dropped(),
            2 => Response::new(308).header("range", "bytes=0-262143"),
            3 => Response::new(308).header("range", "bytes=0-524287"),
            _ => stored("k", &body),
        }
    })
}

#[test]
fn a_session_goes_on_from_what_the_service_has() {
    let body: Bytes = (0..524_288 + 9)
        .map(|at: u32| u8::try_from(at % 251).expect("small"))
        .collect();
    let google = forgetful(body.clone());
    let config = StoreConfig::Gcs(Box::new(bucket(&google)));
    let policy = RetryPolicy {
        attempts_max: 3,
        ..RetryPolicy::ONCE
    };
    runtime().block_on(async {
        let store = open_with(&config, policy).await.expect("it opens");
        let (key, put) = (ObjectKey::new("k"), PutOptions::default());
        let upload = store.begin_upload(&key, &put).await.expect("it begins");
        let tag = store.put_part(&key, &upload, 1, body.clone()).await;
        let tag = tag.expect("the part arrives");
        let completed = store.complete_upload(&key, &upload, &[tag], &put).await;
        completed.expect("it is whole");
    });
    let chunks: Vec<(String, usize)> = google
        .requests()
        .iter()
        .filter_map(|request| {
            let range = request.header("content-range")?.to_owned();
            Some((range, request.body.len()))
        })
        .collect();
    let expected = [
        ("bytes 0-524287/*", 524_288),
        ("bytes */*", 0),
        ("bytes 262144-524287/*", 262_144),
        ("bytes 524288-524296/524297", 9),
        ("bytes */524297", 0),
    ];
    assert_eq!(
        chunks,
        expected.map(|(range, size)| (range.to_owned(), size))
    );
}

#[test]
fn what_was_stored_wrongly_stays_wrong_when_taking_it_away_goes_unheard() {
    let deletes = AtomicU32::new(0);
    let google = Endpoint::start(move |request| match request.method.as_str() {
        "POST" => Response::json(200, "{}").header("location", "/u?upload_id=1"),
        "PUT" | "GET" => stored("k", b"other"),
        _ if deletes.fetch_add(1, Ordering::SeqCst) == 0 => Response::dropped(),
        _ => Response::new(204),
    });
    let config = StoreConfig::Gcs(Box::new(bucket(&google)));
    let policy = RetryPolicy {
        attempts_max: 3,
        ..RetryPolicy::ONCE
    };
    let completed = runtime().block_on(async {
        let store = open_with(&config, policy).await.expect("it opens");
        let (key, put) = (ObjectKey::new("k"), PutOptions::default());
        let upload = store.begin_upload(&key, &put).await.expect("it begins");
        let part = store.put_part(&key, &upload, 1, "bytes".into()).await;
        let part = part.expect("the part is kept");
        store.complete_upload(&key, &upload, &[part], &put).await
    });
    let kind = completed.expect_err("other bytes are stored").kind;
    assert_eq!(kind, StoreErrorKind::Corrupt);
}

#[test]
fn an_object_that_was_stored_wrongly_is_taken_away() {
    let google = Endpoint::start(|request| match request.method.as_str() {
        "POST" => Response::json(200, "{}").header("location", "/u?upload_id=1"),
        "PUT" => stored("k", b"other"),
        _ => Response::new(204),
    });
    let config = StoreConfig::Gcs(Box::new(bucket(&google)));
    runtime().block_on(async {
        let store = open_with(&config, RetryPolicy::ONCE)
            .await
            .expect("it opens");
        let (key, put) = (ObjectKey::new("k"), PutOptions::default());
        let upload = store.begin_upload(&key, &put).await.expect("it begins");
        let part = store.put_part(&key, &upload, 1, "bytes".into()).await;
        let part = part.expect("the part is kept");
        let completed = store.complete_upload(&key, &upload, &[part], &put).await;
        assert!(completed.is_err());
    });
    let last = google.requests().pop().expect("a request");
    assert_eq!(
        (last.method.as_str(), last.query()),
        ("DELETE", "ifGenerationMatch=7")
    );
}

#[test]
fn a_service_that_takes_nothing_of_the_end_is_not_asked_without_a_pause() {
    let google = Endpoint::start(|request| match request.method.as_str() {
        "POST" => Response::json(200, "{}").header("location", "/u?upload_id=1"),
        _ => Response::new(308),
    });
    let config = StoreConfig::Gcs(Box::new(bucket(&google)));
    let completed = runtime().block_on(async {
        let store = open_with(&config, RetryPolicy::ONCE)
            .await
            .expect("it opens");
        let (key, put) = (ObjectKey::new("k"), PutOptions::default());
        let upload = store.begin_upload(&key, &put).await.expect("it begins");
        let part = store.put_part(&key, &upload, 1, "bytes".into()).await;
        let part = part.expect("the part is kept");
        store.complete_upload(&key, &upload, &[part], &put).await
    });
    let kind = completed.expect_err("nothing is stored").kind;
    assert_eq!(kind, StoreErrorKind::Unreachable);
    assert_eq!(google.requests().len(), 2, "its beginning and its end");
}

#[test]
fn a_session_that_is_gone_at_its_end_is_told_as_such_unless_an_object_stands() {
    for (stands, kind) in [
        (false, StoreErrorKind::NoUpload),
        (true, StoreErrorKind::Other),
    ] {
        let google = Endpoint::start(move |request| match request.method.as_str() {
            "POST" => Response::json(200, "{}").header("location", "/u?upload_id=1"),
            "PUT" => Response::new(410),
            "GET" if stands => stored("k", b"other"),
            _ => Response::with_body(404, "text/plain", "No such object: cellar/k"),
        });
        let config = StoreConfig::Gcs(Box::new(bucket(&google)));
        let completed = runtime().block_on(async {
            let store = open_with(&config, RetryPolicy::ONCE)
                .await
                .expect("it opens");
            let (key, put) = (ObjectKey::new("k"), PutOptions::default());
            let upload = store.begin_upload(&key, &put).await.expect("it begins");
            let part = store.put_part(&key, &upload, 1, "bytes".into()).await;
            let part = part.expect("the part is kept");
            store.complete_upload(&key, &upload, &[part], &put).await
        });
        assert_eq!(completed.expect_err("it is gone").kind, kind, "{stands}");
    }
}
