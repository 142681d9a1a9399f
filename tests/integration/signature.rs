//! Judges a signed S3 request: with which key, for which region, and whether the secret fits.
//!
//! Signature version 4, as Amazon describes it for S3: paths are signed as they are sent.

use sha2::{Digest, Sha256};
use testbed::endpoint::Request;

/// Credentials as an endpoint hands them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The public half.
    pub(crate) id: &'static str,
    /// The secret half.
    pub(crate) secret: &'static str,
    /// The token of temporary credentials.
    pub(crate) token: Option<&'static str>,
}

/// Fails the test unless exactly these credentials signed the request, for `region`.
#[track_caller]
pub(crate) fn check(request: &Request, credentials: Credentials, region: &str) {
    let token = request.header("x-amz-security-token");
    assert_eq!(token, credentials.token, "the session token");
    let authorization = request.header("authorization").expect("a signature");
    let field = |name: &str| {
        let (_, rest) = authorization.split_once(name).expect("a field");
        rest.split(',').next().unwrap_or_default().trim()
    };
    let scope = field("Credential=");
    let mut scope_parts = scope.split('/');
    assert_eq!(scope_parts.next(), Some(credentials.id), "{scope}");
    let day = scope_parts.next().expect("a day");
    assert_eq!(scope_parts.next(), Some(region), "{scope}");
    assert_eq!(
        scope_parts.collect::<Vec<_>>(),
        ["s3", "aws4_request"],
        "{scope}"
    );
    let signed: Vec<&str> = field("SignedHeaders=").split(';').collect();
    if credentials.token.is_some() {
        assert!(signed.contains(&"x-amz-security-token"), "{signed:?}");
    }
    let expected = signature(request, &signed, credentials.secret, (day, region));
    assert_eq!(field("Signature="), expected, "the secret signed it");
}

/// The signature that the secret gives.
fn signature(
    request: &Request,
    signed: &[&str],
    secret: &str,
    (day, region): (&str, &str),
) -> String {
    let header = |name: &str| request.header(name).unwrap_or_default();
    let mut query: Vec<String> = request
        .query()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let end = if pair.contains('=') { "" } else { "=" };
            format!("{pair}{end}")
        })
        .collect();
    query.sort();
    let headers = signed.iter().fold(String::new(), |text, name| {
        text + &format!("{name}:{}\n", header(name))
    });
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{}\n{}",
        request.method,
        request.path(),
        query.join("&"),
        signed.join(";"),
        header("x-amz-content-sha256"),
    );
    let text = format!(
        "AWS4-HMAC-SHA256\n{}\n{day}/{region}/s3/aws4_request\n{}",
        header("x-amz-date"),
        hex(&Sha256::digest(canonical)),
    );
    let key = [day, region, "s3", "aws4_request", &text]
        .iter()
        .fold(format!("AWS4{secret}").into_bytes(), |key, message| {
            hmac(&key, message.as_bytes())
        });
    hex(&key)
}

/// HMAC with SHA-256: RFC 2104. Keys here are shorter than a block.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x36))
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x5c))
        .chain_update(inner)
        .finalize()
        .to_vec()
}

fn hex(bytes: &[u8]) -> String {
    let pairs = bytes.iter().map(|byte| format!("{byte:02x}"));
    pairs.collect::<Vec<_>>().concat()
}
