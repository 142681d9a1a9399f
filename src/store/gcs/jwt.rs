//! Assertions of a service account: what it claims, signed with its private key (RS256).
//!
//! Source: RFC 7523, and Google's "Using OAuth 2.0 for server to server applications".

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Serialize;

/// How long an assertion is good for, and the token it is exchanged for: the longest allowed.
const SECONDS_VALID: i64 = 3600;

/// A service account's private key.
pub(super) struct PrivateKey(RsaKeyPair);

/// What an assertion claims.
#[derive(Debug, Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

#[derive(Debug, Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

/// Who asserts, and what for.
#[derive(Debug)]
pub(super) struct Assertion<'a> {
    pub(super) account: &'a str,
    pub(super) key_id: Option<&'a str>,
    pub(super) scope: &'a str,
    pub(super) audience: &'a str,
}

impl PrivateKey {
    /// The key in PEM, PKCS #8 or PKCS #1. The error is what is wrong with it, never the key.
    pub(super) fn from_pem(pem: &str) -> Result<Self, String> {
        let (label, bytes) = pem_block(pem).ok_or("is no private key in PEM")?;
        let pair = match label {
            "PRIVATE KEY" => RsaKeyPair::from_pkcs8(&bytes),
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(&bytes),
            other => return Err(format!("is {other:?}, not an RSA private key in the clear")),
        };
        pair.map(Self)
            .map_err(|error| format!("is no RSA key that can sign: {error}"))
    }

    /// The signed assertion, at `now` in seconds since 1970.
    pub(super) fn assert(&self, assertion: &Assertion<'_>, now: i64) -> Result<String, String> {
        let header = Header {
            alg: "RS256",
            typ: "JWT",
            kid: assertion.key_id,
        };
        let claims = Claims {
            iss: assertion.account,
            scope: assertion.scope,
            aud: assertion.audience,
            iat: now,
            exp: now + SECONDS_VALID,
        };
        let signed = format!("{}.{}", encoded(&header)?, encoded(&claims)?);
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .map_err(|_| "the private key does not sign".to_owned())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn encoded(value: &impl Serialize) -> Result<String, String> {
    let json = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// The first block of a PEM text: its label and its bytes.
fn pem_block(pem: &str) -> Option<(&str, Vec<u8>)> {
    let (_, rest) = pem.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let compact: String = body.split_whitespace().collect();
    Some((label, STANDARD.decode(compact).ok()?))
}

#[cfg(test)]
pub(in crate::store::gcs) mod tests {
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    /// Made by `openssl genpkey -algorithm RSA`, for these tests alone.
    pub(in crate::store::gcs) const KEY: &str = include_str!("../../../tests/fixtures/gcs/key.pem");

    /// The same key as PKCS #1: what follows the 26 bytes that name the algorithm.
    fn key_pkcs1() -> String {
        let (_, bytes) = pem_block(KEY).unwrap();
        let body = STANDARD.encode(&bytes[26..]);
        format!("-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----\n")
    }

    const ASSERTION: Assertion<'_> = Assertion {
        account: "backup@project.iam.gserviceaccount.com",
        key_id: Some("key-1"),
        scope: "scope",
        audience: "https://token.example.org/",
    };

    #[test]
    fn an_assertion_is_signed_by_the_key_in_either_form() {
        for pem in [KEY, &key_pkcs1()] {
            let key = PrivateKey::from_pem(pem).unwrap();
            let text = key.assert(&ASSERTION, 1_700_000_000).unwrap();
            let (signed, signature) = text.rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let public = key.0.public().as_ref().to_vec();
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
                .verify(signed.as_bytes(), &signature)
                .unwrap();
            let decoded = signed.split('.').map(|part| {
                let json = URL_SAFE_NO_PAD.decode(part).unwrap();
                serde_json::from_slice::<Value>(&json).unwrap()
            });
            let decoded: Vec<Value> = decoded.collect();
            assert_eq!(
                (&decoded[0]["alg"], &decoded[0]["kid"]),
                (&Value::from("RS256"), &Value::from("key-1"))
            );
            assert_eq!(decoded[1]["exp"], 1_700_003_600);
            assert_eq!(decoded[1]["iss"], ASSERTION.account);
            assert_eq!(decoded[1]["aud"], ASSERTION.audience);
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_repeated() {
        let odd = KEY.replace("PRIVATE KEY", "EC PRIVATE KEY");
        let cut = KEY.replacen("\nMI", "\nNI", 1);
        for pem in ["", "hush", &odd, &cut, "-----BEGIN PRIVATE KEY-----\nhush"] {
            let error = PrivateKey::from_pem(pem).err().unwrap();
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
