//! Services that take no body without an MD5.

use std::io;
use std::net::Shutdown;

use super::*;

/// How Amazon's refuses a body without an MD5 where objects are locked as they come.
fn wanting(what: &str) -> String {
    let body = format!(
        "<Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- HTTP header is \
         required for Put {what} requests with Object Lock parameters</Message></Error>"
    );
    answer("400 Bad Request", "", &body)
}

#[tokio::test]
async fn a_bucket_that_locks_objects_gets_an_md5_from_its_first_refusal_on() {
    const MD5: &str = "content-md5: hbotajrya9fhfedfpclg/a==\r\n";
    let done = || answer("200 OK", "ETag: t\r\n", "");
    let options = PutOptions::default();
    let stub = Stub::answering(vec![wanting("Object"), done(), done()]).await;
    let key = key();
    for _ in 0..2 {
        let put = stub.store.put(&key, "body".into(), &options);
        put.await.unwrap();
    }
    let [refused, again, further] = [(); 3].map(|()| stub.request());
    assert!(!refused.contains("content-md5"), "{refused}");
    for request in [again, further] {
        assert!(
            request.contains(MD5) && request.ends_with("body"),
            "{request}"
        );
    }
    let stub = Stub::answering(vec![wanting("Part"), done()]).await;
    let upload = UploadId("u".to_owned());
    let part = stub.store.put_part(&key, &upload, 1, "body".into()).await;
    part.unwrap();
    stub.request();
    assert!(stub.request().contains(MD5));
}

#[tokio::test]
async fn a_refusal_that_comes_before_the_body_was_read_is_heard() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut head = String::new();
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head).unwrap();
        }
        connection.write_all(wanting("Object").as_bytes()).unwrap();
        connection.shutdown(Shutdown::Write).unwrap();
        // What else comes is of no interest; that it ends is the client's doing.
        let _ = io::copy(&mut reader, &mut io::sink());
        let (mut connection, _) = listener.accept().unwrap();
        let again = read_request(&mut BufReader::new(&connection));
        let done = answer("200 OK", "", "");
        connection.write_all(done.as_bytes()).unwrap();
        again.contains("\r\ncontent-md5: ")
    });
    let mut config = S3Config::new("bucket", credentials());
    config.endpoint_url = Some(format!("http://127.0.0.1:{port}").parse().unwrap());
    let store = S3Store::new(&config).await;
    let body = Bytes::from(vec![7; 16 << 20]);
    let (key, options) = (key(), PutOptions::default());
    store.put(&key, body, &options).await.unwrap();
    assert!(service.join().unwrap());
}

#[tokio::test]
async fn a_refusal_for_another_reason_is_not_answered_by_an_md5() {
    let stub = Stub::answering(vec![refusal("400 Bad Request", "InvalidRequest")]).await;
    let put = stub
        .store
        .put(&key(), "body".into(), &PutOptions::default())
        .await;
    assert_eq!(kind_of(put), StoreErrorKind::Other);
}
