//! Each kind of Google's credentials, with the real program and a small endpoint that gives tokens.

use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use testbed::account::Account;
use testbed::endpoint::{Endpoint, Request, Response};
use testbed::process::Ended;
use testbed::program::Program;
use testbed::scratch::Scratch;

const KEY: &str = include_str!("../fixtures/gcs/key.pem");
const ACCOUNT: &str = "backup@cellar.iam.gserviceaccount.com";

const REFUSED: &str = r#"{"error": {"code": 401, "message": "Invalid Credentials",
    "errors": [{"reason": "authError"}]}}"#;

/// Gives tokens `token-1`, `token-2`, ... and lists an empty bucket for those from `valid_from` on.
fn google(valid_from: u32) -> Endpoint {
    let given = AtomicU32::new(0);
    Endpoint::start(move |request| {
        if request.path().ends_with("/token") {
            let number = given.fetch_add(1, Ordering::SeqCst) + 1;
            let token = format!(r#"{{"access_token": "token-{number}", "expires_in": 3600}}"#);
            return Response::json(200, &token);
        }
        let header = request.header("authorization").unwrap_or_default();
        let number = header.strip_prefix("Bearer token-");
        let number: Option<u32> = number.and_then(|number| number.parse().ok());
        if number.is_some_and(|number| number >= valid_from) {
            Response::json(200, "{}")
        } else {
            Response::json(401, REFUSED)
        }
    })
}

/// Lists the backups of an empty bucket, with these variables.
fn list(scratch: &Scratch, google: &Endpoint, variables: &[(&str, &str)]) -> Ended {
    list_at(scratch, &google.url(), variables)
}

fn list_at(scratch: &Scratch, url: &str, variables: &[(&str, &str)]) -> Ended {
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Program::built(env!("CARGO_BIN_EXE_cellarman"), scratch)
        .with_arguments(&["--store", "gs://cellar/p", "--endpoint-url", url])
        .with_arguments(&["--server", "main"])
        .with_environment(&variables)
        .run(&["backup", "list"])
}

fn scratch() -> Scratch {
    Scratch::new(Account::of_servers().expect("an account"))
}

/// A file that only its text tells from those that Google gives.
fn key_file(scratch: &Scratch, document: &Value) -> String {
    let path = scratch.path().join("key.json");
    std::fs::write(&path, document.to_string()).expect("the key is written");
    path.display().to_string()
}

fn account_key(scratch: &Scratch, google: &Endpoint) -> String {
    let document = serde_json::json!({
        "type": "service_account", "project_id": "cellar", "private_key_id": "key-1",
        "private_key": KEY, "client_email": ACCOUNT, "token_uri": format!("{}/token", google.url()),
    });
    key_file(scratch, &document)
}

/// The requests for tokens.
fn asked_for_tokens(google: &Endpoint) -> Vec<Request> {
    let is_token = |request: &Request| request.path().ends_with("/token");
    google.requests().into_iter().filter(is_token).collect()
}

#[test]
fn a_service_account_signs_for_its_token() {
    let (scratch, google) = (scratch(), google(1));
    let key = account_key(&scratch, &google);
    list(
        &scratch,
        &google,
        &[("GOOGLE_APPLICATION_CREDENTIALS", &key)],
    )
    .ok();
    let asked = asked_for_tokens(&google);
    assert_eq!(asked.len(), 1, "one token serves all requests");
    let grant = asked[0].form_value("grant_type");
    assert_eq!(
        grant.as_deref(),
        Some("urn:ietf:params:oauth:grant-type:jwt-bearer")
    );
    let assertion = asked[0].form_value("assertion").expect("an assertion");
    let parts: Vec<Vec<u8>> = assertion
        .split('.')
        .map(|part| URL_SAFE_NO_PAD.decode(part).expect("base64"))
        .collect();
    let [header, claims, signature] = parts.as_slice() else {
        unreachable!("an assertion has three parts");
    };
    let header: Value = serde_json::from_slice(header).expect("JSON");
    let claims: Value = serde_json::from_slice(claims).expect("JSON");
    assert_eq!(
        (&header["alg"], &header["kid"]),
        (&"RS256".into(), &"key-1".into())
    );
    assert_eq!(claims["iss"], ACCOUNT);
    assert_eq!(claims["aud"], format!("{}/token", google.url()));
    assert!(
        claims["scope"]
            .as_str()
            .is_some_and(|scope| scope.contains("devstorage"))
    );
    let seconds = |name: &str| claims[name].as_i64().expect("a time");
    assert_eq!(seconds("exp") - seconds("iat"), 3600);
    assert_eq!(signature.len(), 256);
}

#[test]
fn a_person_has_a_token_refreshed() {
    let (scratch, google) = (scratch(), google(1));
    let key = key_file(
        &scratch,
        &serde_json::json!({
            "type": "authorized_user", "client_id": "c", "client_secret": "s",
            "refresh_token": "r", "token_uri": format!("{}/token", google.url()),
        }),
    );
    list(
        &scratch,
        &google,
        &[("GOOGLE_APPLICATION_CREDENTIALS", &key)],
    )
    .ok();
    let asked = asked_for_tokens(&google);
    let said = |name: &str| asked[0].form_value(name).unwrap_or_default();
    assert_eq!(said("grant_type"), "refresh_token");
    assert_eq!(
        [
            said("client_id"),
            said("client_secret"),
            said("refresh_token")
        ],
        ["c", "s", "r"]
    );
}

#[test]
fn a_machine_is_asked_for_its_token() {
    let (scratch, google) = (scratch(), google(1));
    let host = format!("127.0.0.1:{}", google.port());
    list(&scratch, &google, &[("GCE_METADATA_HOST", &host)]).ok();
    let asked = asked_for_tokens(&google);
    assert_eq!(asked[0].header("metadata-flavor"), Some("Google"));
    assert_eq!(
        asked[0].path(),
        "/computeMetadata/v1/instance/service-accounts/default/token"
    );
}

#[test]
fn a_machine_is_asked_for_its_token_without_the_proxy() {
    let (scratch, google) = (scratch(), google(1));
    let proxy = Endpoint::start(|_| Response::new(403));
    let host = format!("127.0.0.1:{}", google.port());
    let variables = [
        ("GCE_METADATA_HOST", host.as_str()),
        ("HTTP_PROXY", &proxy.url()),
        ("NO_PROXY", "localhost"),
    ];
    let store = format!("http://localhost:{}", google.port());
    list_at(&scratch, &store, &variables).ok();
    assert_eq!(asked_for_tokens(&google).len(), 1);
    assert!(proxy.requests().is_empty());
    list_at(&scratch, &google.url(), &variables).exits_with(5);
    assert!(!proxy.requests().is_empty(), "the store is asked by it");
}

/// Exchanges the token of Kubernetes for one of its own, and that for the service account's, and
/// lists an empty bucket for the latter.
fn federation() -> Endpoint {
    Endpoint::start(|request| {
        let token = request.header("authorization").unwrap_or_default();
        let subject = request.form_value("subject_token");
        match (request.path(), token) {
            ("/sts/token", _) if subject.as_deref() == Some("from.kubernetes") => {
                Response::json(200, r#"{"access_token": "federated", "expires_in": 3600}"#)
            }
            ("/sts/token", _) => Response::json(
                400,
                r#"{"error": "invalid_grant", "error_description": "The subject token is odd."}"#,
            ),
            ("/v1/backup:generateAccessToken", "Bearer federated") => Response::json(
                200,
                r#"{"accessToken": "of-account", "expireTime": "2099-01-01T00:00:00Z"}"#,
            ),
            (_, "Bearer of-account") => Response::json(200, "{}"),
            _ => Response::json(401, REFUSED),
        }
    })
}

#[test]
fn a_token_of_kubernetes_becomes_a_service_accounts() {
    let (scratch, google) = (scratch(), federation());
    let token = scratch.write("token", r#"{"id": "from.kubernetes"}"#);
    let key = key_file(
        &scratch,
        &serde_json::json!({
            "type": "external_account", "audience": "//iam/providers/p",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/sts/token", google.url()),
            "credential_source": {
                "file": token, "format": {"type": "json", "subject_token_field_name": "id"},
            },
            "service_account_impersonation_url":
                format!("{}/v1/backup:generateAccessToken", google.url()),
            "service_account_impersonation": {"token_lifetime_seconds": 1800},
        }),
    );
    let variables = [("GOOGLE_APPLICATION_CREDENTIALS", key.as_str())];
    list(&scratch, &google, &variables).ok();
    let requests = google.requests();
    let [exchange, account, ..] = requests.as_slice() else {
        unreachable!("two tokens are asked for: {requests:?}");
    };
    for (name, value) in [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("audience", "//iam/providers/p"),
        ("scope", "https://www.googleapis.com/auth/cloud-platform"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
    ] {
        assert_eq!(exchange.form_value(name).as_deref(), Some(value), "{name}");
    }
    let asked: Value = serde_json::from_slice(&account.body).expect("JSON");
    assert_eq!(asked["lifetime"], "1800s");

    for (content, exit_code, words) in [
        (r#"{"id": "another"}"#, 5, "The subject token is odd"),
        (r#"{"other": "from.kubernetes"}"#, 3, "there is no token in"),
    ] {
        scratch.write("token", content);
        let ended = list(&scratch, &google, &variables);
        ended.exits_with(exit_code);
        assert!(ended.stderr.contains(words), "{}", ended.describe());
        assert!(!ended.stderr.contains("kubernetes"), "{}", ended.describe());
    }
}

#[test]
fn a_token_of_another_authority_opens_the_bucket_by_itself() {
    let scratch = scratch();
    let google = Endpoint::start(|request| {
        let token = request.header("authorization").unwrap_or_default();
        match (request.path(), token) {
            ("/sts/token", _) => Response::json(200, r#"{"access_token": "federated"}"#),
            (_, "Bearer federated") => Response::json(200, "{}"),
            _ => Response::json(401, REFUSED),
        }
    });
    let token = scratch.write("token", "from.kubernetes\n");
    let key = key_file(
        &scratch,
        &serde_json::json!({
            "type": "external_account", "audience": "//iam/providers/p",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/sts/token", google.url()),
            "credential_source": {"file": token},
        }),
    );
    let variables = [("GOOGLE_APPLICATION_CREDENTIALS", key.as_str())];
    list(&scratch, &google, &variables).ok();
    let asked = asked_for_tokens(&google);
    assert_eq!(asked.len(), 1, "one token serves all requests");
    let said = |name: &str| asked[0].form_value(name).unwrap_or_default();
    assert_eq!(said("subject_token"), "from.kubernetes");
    assert!(said("scope").contains("devstorage"), "{}", said("scope"));
}

#[test]
fn a_token_that_is_refused_is_asked_for_again_once() {
    let (scratch, google) = (scratch(), google(2));
    let key = account_key(&scratch, &google);
    list(
        &scratch,
        &google,
        &[("GOOGLE_APPLICATION_CREDENTIALS", &key)],
    )
    .ok();
    assert_eq!(asked_for_tokens(&google).len(), 2);
}

#[test]
fn tokens_that_are_always_refused_are_denied() {
    let (scratch, google) = (scratch(), google(u32::MAX));
    let key = account_key(&scratch, &google);
    let ended = list(
        &scratch,
        &google,
        &[("GOOGLE_APPLICATION_CREDENTIALS", &key)],
    );
    ended.exits_with(5);
    assert!(
        ended.stderr.contains("Invalid Credentials"),
        "{}",
        ended.describe()
    );
    assert!(!ended.stderr.contains("token-"), "{}", ended.describe());
}

#[test]
fn a_key_that_is_not_known_any_more_is_denied() {
    let scratch = scratch();
    let google = Endpoint::start(|_| {
        let text = r#"{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}"#;
        Response::json(400, text)
    });
    let key = account_key(&scratch, &google);
    let ended = list(
        &scratch,
        &google,
        &[("GOOGLE_APPLICATION_CREDENTIALS", &key)],
    );
    ended.exits_with(5);
    assert!(
        ended.stderr.contains("Invalid JWT Signature"),
        "{}",
        ended.describe()
    );
}
