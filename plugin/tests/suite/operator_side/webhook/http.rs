//! What is no review, and how much of it is taken.

use serde_json::json;

use super::{PATH, Webhook, cluster, review, unchecked};

#[tokio::test]
async fn what_is_no_review_is_refused_in_words() {
    let webhook = Webhook::start().await;
    let review = review("CREATE", &cluster(&json!({}))).to_string();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (target, body, status, words) in [
        (PATH, "", 400, "no AdmissionReview"),
        (PATH, "{", 400, "no AdmissionReview"),
        (PATH, "{}", 400, "is expected"),
        (PATH, &deep, 400, "no AdmissionReview"),
        (PATH, &review[..review.len() / 2], 400, "no AdmissionReview"),
        ("/", &review, 404, PATH),
    ] {
        let answer = webhook.post(target, body).await;
        assert_eq!(answer.status, status, "{target}: {}", answer.body);
        assert!(answer.body.contains(words), "{target}: {}", answer.body);
        assert!(answer.body.ends_with('.'), "{target}: {}", answer.body);
    }
    let get = format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(webhook.exchange(get.as_bytes()).await.status, 405);
    // It goes on all the same.
    let response = webhook.create(&json!({"targetName": "noon"})).await;
    unchecked(&response, &["ObjectStore store"]);
}

#[tokio::test]
async fn a_body_that_no_object_has_is_not_read_to_its_end() {
    let webhook = Webhook::start().await;
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    let endless = format!("{head}{}", chunk.repeat(4));
    let answer = webhook.exchange(endless.as_bytes()).await;
    assert_eq!(answer.status, 413, "{}", answer.body);
}
