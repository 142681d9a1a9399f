//! Requests as they go over the wire, and answers that no healthy server gives.

mod md5;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use futures::TryStreamExt;
use secrecy::SecretString;

use super::*;
use crate::fault::{Fault, Kind};
use crate::store::config::S3Credentials;

/// A server that gives the scripted answers in turn, one per connection.
struct Stub {
    store: S3Store,
    requests: Receiver<String>,
}

impl Stub {
    async fn new(answers: Vec<String>, adjust: impl FnOnce(&mut S3Config)) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, requests) = mpsc::channel();
        thread::spawn(move || {
            for answer in answers {
                let (mut connection, _) = listener.accept().unwrap();
                let request = read_request(&mut BufReader::new(&connection));
                sender.send(request).unwrap();
                connection.write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut config = S3Config::new("bucket", credentials());
        config.endpoint_url = Some(format!("http://127.0.0.1:{port}").parse().unwrap());
        adjust(&mut config);
        let store = S3Store::new(&config).await;
        Self { store, requests }
    }

    async fn answering(answers: Vec<String>) -> Self {
        Self::new(answers, |_| {}).await
    }

    /// The next request: its head in lower case, then its body.
    fn request(&self) -> String {
        self.requests.recv().unwrap()
    }
}

fn credentials() -> S3Credentials {
    S3Credentials::Static {
        access_key_id: "id".to_owned(),
        secret_access_key: SecretString::from("secret"),
        session_token: None,
    }
}

fn read_request(reader: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "a whole head");
    }
    let head = head.to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    head + &String::from_utf8_lossy(&body)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
    )
}

fn refusal(status: &str, code: &str) -> String {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    answer(status, "", &body)
}

fn key() -> ObjectKey {
    ObjectKey::new("a/key")
}

fn kind_of<T>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.err().expect("it fails").kind
}

#[tokio::test]
async fn a_put_says_all_that_was_set_and_has_no_trailer() {
    let stub = Stub::new(vec![answer("200 OK", "", "")], |config| {
        config.encryption = Some(Encryption::AwsKms {
            key_id: Some("key-1".to_owned()),
        });
        config.storage_class = Some("STANDARD_IA".to_owned());
    });
    let stub = stub.await;
    let options = PutOptions {
        if_absent: true,
        tags: vec![("a".to_owned(), "b c".to_owned())],
        ..PutOptions::default()
    };
    stub.store
        .put(&key(), "body".into(), &options)
        .await
        .unwrap();
    let request = stub.request();
    assert!(
        request.starts_with("put /bucket/a/key?x-id=putobject http/1.1\r\n"),
        "{request}"
    );
    for line in [
        "if-none-match: *",
        "x-amz-tagging: a=b+c",
        "x-amz-server-side-encryption: aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id: key-1",
        "x-amz-storage-class: standard_ia",
        "content-type: binary/octet-stream",
        "content-length: 4",
    ] {
        assert!(
            request.contains(&format!("\r\n{line}\r\n")),
            "{line}: {request}"
        );
    }
    for word in ["trailer", "aws-chunked", "x-amz-checksum"] {
        assert!(!request.contains(word), "{word}: {request}");
    }
}

#[tokio::test]
async fn a_bulk_delete_has_an_md5_and_gives_way_to_single_ones() {
    let stub = Stub::answering(vec![
        refusal("501 Not Implemented", "NotImplemented"),
        answer("204 No Content", "", ""),
        answer("204 No Content", "", ""),
    ]);
    let stub = stub.await;
    let keys = ["one", "two"].map(ObjectKey::new);
    stub.store.delete(&keys).await.unwrap();
    let bulk = stub.request();
    assert!(bulk.starts_with("post /bucket/?delete"), "{bulk}");
    assert!(
        bulk.contains("\r\ncontent-md5: ") && !bulk.contains("x-amz-checksum"),
        "{bulk}"
    );
    for _ in keys {
        assert!(stub.request().starts_with("delete /bucket/"));
    }
}

#[tokio::test]
async fn what_a_bulk_delete_could_not_delete_is_an_error() {
    let failed =
        "<DeleteResult><Error><Key>two</Key><Code>AccessDenied</Code></Error></DeleteResult>";
    let stub = Stub::answering(vec![answer("200 OK", "", failed)]).await;
    let deleted = stub.store.delete(&["one", "two"].map(ObjectKey::new)).await;
    let error = deleted.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Denied);
    assert!(error.subject.ends_with("/two"), "{error}");
}

#[tokio::test]
async fn the_404_of_a_head_is_looked_at_again() {
    let not_found = answer("404 Not Found", "", "");
    let from_between = answer("404 Not Found", "", "<html>no such page</html>");
    for (second, kind) in [
        (
            refusal("404 Not Found", "NoSuchKey"),
            StoreErrorKind::NotFound,
        ),
        (
            refusal("404 Not Found", "NoSuchBucket"),
            StoreErrorKind::NoContainer,
        ),
        (
            refusal("403 Forbidden", "AccessDenied"),
            StoreErrorKind::Denied,
        ),
        (from_between, StoreErrorKind::Unreachable),
    ] {
        let stub = Stub::answering(vec![not_found.clone(), second]).await;
        assert_eq!(kind_of(stub.store.head(&key()).await), kind);
        assert!(stub.request().starts_with("head /bucket/a/key "));
        assert!(stub.request().contains("\r\nrange: bytes=0-0\r\n"));
    }
}

#[tokio::test]
async fn an_object_that_appears_between_head_and_get_is_there() {
    let headers = "Content-Range: bytes 0-0/77\r\nETag: \"e\"\r\n";
    let stub = Stub::answering(vec![
        answer("404 Not Found", "", ""),
        answer("206 Partial Content", headers, "x"),
    ]);
    let meta = stub.await.store.head(&key()).await.unwrap();
    assert_eq!((meta.size, meta.etag.as_deref()), (77, Some("\"e\"")));
}

#[tokio::test]
async fn a_body_cut_short_is_an_error() {
    let cut = answer("200 OK", "", "0123456789").replace("Length: 10", "Length: 11");
    let stub = Stub::answering(vec![cut]).await;
    let body = stub.store.get(&key(), None).await.unwrap();
    let bytes: Result<Vec<Bytes>, StoreError> = body.chunks.try_collect().await;
    assert_eq!(kind_of(bytes), StoreErrorKind::Unreachable);
}

#[tokio::test]
async fn a_service_that_ignores_ranges_is_not_trusted() {
    let stub = Stub::answering(vec![answer("200 OK", "", "0123456789")]).await;
    let get = stub.store.get(&key(), Some(2..4)).await;
    assert_eq!(kind_of(get), StoreErrorKind::Unsupported);
    let headers = "Content-Range: bytes 2-4/10\r\n";
    let stub = Stub::answering(vec![answer("206 Partial Content", headers, "234")]).await;
    let get = stub.store.get(&key(), Some(2..4)).await;
    assert_eq!(kind_of(get), StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn a_completion_that_fails_under_status_200_fails() {
    let stub = Stub::answering(vec![refusal("200 OK", "InternalError")]).await;
    let parts = [PartTag {
        number: 1,
        tag: "t".to_owned(),
    }];
    let upload = UploadId("u".to_owned());
    let options = PutOptions::default();
    let complete = stub
        .store
        .complete_upload(&key(), &upload, &parts, &options)
        .await;
    assert!(complete.unwrap_err().is_retryable());
}

#[tokio::test]
async fn a_listing_that_does_not_say_where_it_goes_on_is_refused() {
    let page = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
    let stub = Stub::answering(vec![answer("200 OK", "", page)]).await;
    let list = stub.store.list(&ListRequest::default()).await;
    assert_eq!(kind_of(list), StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn a_bucket_elsewhere_says_where() {
    let moved = refusal("301 Moved Permanently", "PermanentRedirect")
        .replace("\r\n\r\n", "\r\nx-amz-bucket-region: eu-west-3\r\n\r\n");
    let stub = Stub::answering(vec![moved]).await;
    let error = stub.store.check_container().await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Config);
    assert!(
        crate::fault::chain(&error).contains("region eu-west-3"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_body_is_signed_over_plain_http_alone() {
    let large = Bytes::from(vec![7; 200_000]);
    for (body, known, wanted) in [
        (
            "body".into(),
            None,
            "230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5",
        ),
        (
            large,
            None,
            "8cfcba83dcfc81a193bb4e52fd3161efb513906f52cbbe2328fac5f1a79c2b6e",
        ),
        ("body".into(), Some("known".to_owned()), "known"),
    ] {
        let stub = Stub::answering(vec![answer("200 OK", "", "")]).await;
        let options = PutOptions {
            sha256: known,
            ..PutOptions::default()
        };
        stub.store.put(&key(), body, &options).await.unwrap();
        let header = format!("x-amz-content-sha256: {wanted}\r\n");
        let request = stub.request();
        assert!(request.contains(&header), "{wanted}: {request:.1000}");
    }
    let tls = S3Store::new(&S3Config::new("bucket", credentials())).await;
    let signature = tls.signature(&"body".into(), None).await;
    assert!(
        format!("{signature:?}").contains("UnsignedPayload"),
        "{signature:?}"
    );
}

#[tokio::test]
async fn an_upload_that_is_gone_is_no_missing_backup() {
    let gone = || refusal("404 Not Found", "NoSuchUpload");
    let stub = Stub::answering(vec![gone(), gone(), gone()]).await;
    let (key, upload) = (key(), UploadId("u".to_owned()));
    let options = PutOptions::default();
    let put = stub.store.put_part(&key, &upload, 1, "body".into()).await;
    let complete = stub.store.complete_upload(&key, &upload, &[], &options);
    for error in [put.unwrap_err(), complete.await.unwrap_err()] {
        assert_eq!(error.kind, StoreErrorKind::NoUpload);
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(!error.hint().contains("backup list"), "{}", error.hint());
    }
    stub.store.abort_upload(&key, &upload).await.unwrap();
}

#[tokio::test]
async fn an_upload_says_all_that_was_set_when_it_begins_and_its_condition_at_the_end() {
    let upload_begun =
        "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
    let done = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>";
    let answers = vec![
        answer("200 OK", "", upload_begun),
        answer("200 OK", "ETag: t\r\n", ""),
        answer("200 OK", "", done),
        refusal("412 Precondition Failed", "PreconditionFailed"),
    ];
    let stub = Stub::new(answers, |config| {
        config.encryption = Some(Encryption::Aes256);
        config.storage_class = Some("STANDARD_IA".to_owned());
    });
    let Stub { store, requests } = stub.await;
    let options = PutOptions {
        if_absent: true,
        tags: vec![("a".to_owned(), "b c".to_owned())],
        ..PutOptions::default()
    };
    let upload = store.begin_upload(&key(), &options).await.unwrap();
    let part = store.put_part(&key(), &upload, 1, "x".into()).await;
    let parts = [part.unwrap()];
    let key = key();
    let complete = || store.complete_upload(&key, &upload, &parts, &options);
    complete().await.unwrap();
    assert_eq!(kind_of(complete().await), StoreErrorKind::Exists);
    let [begin, put, complete] = [(); 3].map(|()| requests.recv().unwrap());
    for line in [
        "x-amz-tagging: a=b+c",
        "x-amz-server-side-encryption: aes256",
        "x-amz-storage-class: standard_ia",
    ] {
        assert!(
            begin.contains(&format!("\r\n{line}\r\n")),
            "{line}: {begin}"
        );
        assert!(!put.contains(line), "{put}");
    }
    assert!(!begin.contains("if-none-match"), "{begin}");
    assert!(complete.contains("\r\nif-none-match: *\r\n"), "{complete}");
}
