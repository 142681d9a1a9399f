//! Every kind of S3 credentials, from where the host has them to the signature of a request.
//!
//! The program runs with the environment of such a host; what hands out credentials there (STS,
//! the agent of a pod, the metadata service) and the store itself are fakes that remember what
//! they were asked.

use std::path::Path;

use testbed::account::Account;
use testbed::endpoint::{Endpoint, Request, Response};
use testbed::process::Ended;
use testbed::program::Program;
use testbed::scratch::Scratch;

use crate::signature::{self, Credentials};

const STATIC: Credentials = Credentials {
    id: "AKIDSTATIC",
    secret: "static/secret",
    token: None,
};

const TEMPORARY: Credentials = Credentials {
    id: "ASIATEMPORARY",
    secret: "temporary/secret",
    token: Some("the+temporary/token=="),
};

/// What the store answers to a listing.
const EMPTY: &str = "<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount>\
                     <IsTruncated>false</IsTruncated></ListBucketResult>";

/// A store and the program beside it.
struct Bed {
    scratch: Scratch,
    store: Endpoint,
    program: Program,
}

impl Bed {
    fn new() -> Self {
        Self::answering(|_| Response::xml(200, EMPTY))
    }

    fn answering(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let scratch = Scratch::new(Account::of_servers().expect("an account"));
        let store = Endpoint::start(answer);
        let program = Program::built(env!("CARGO_BIN_EXE_cellarman"), &scratch)
            .with_variable("CELLARMAN_STORE", "s3://bucket/path")
            .with_variable("CELLARMAN_SERVER", "pg")
            .with_variable("AWS_ENDPOINT_URL_S3", &store.url());
        Self {
            scratch,
            store,
            program,
        }
    }

    /// Lists the backups in that environment.
    fn list(&self, environment: &[(&str, &str)]) -> Ended {
        let environment: Vec<(String, String)> = environment
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        self.program
            .clone()
            .with_environment(&environment)
            .run(&["backup", "list"])
    }

    /// Fails the test unless the program came to the store with these credentials alone.
    #[track_caller]
    fn signs_with(&self, environment: &[(&str, &str)], credentials: Credentials, region: &str) {
        let ended = self.list(environment);
        ended.ok();
        let requests = self.store.take_requests();
        assert!(!requests.is_empty(), "{}", ended.describe());
        for request in &requests {
            signature::check(request, credentials, region);
        }
        says_no_secret(&ended);
    }

    /// Fails the test unless the program was denied, said `words`, and gave a hint.
    #[track_caller]
    fn is_denied(&self, environment: &[(&str, &str)], words: &[&str]) {
        let ended = self.list(environment);
        ended.exits_with(5);
        for word in words.iter().chain(&["hint: "]) {
            assert!(ended.stderr.contains(word), "{word}: {}", ended.describe());
        }
        says_no_secret(&ended);
    }
}

/// Fails the test if a secret or token that any of these tests uses is in the output.
#[track_caller]
fn says_no_secret(ended: &Ended) {
    let secrets = [
        STATIC.secret,
        TEMPORARY.secret,
        "temporary/token",
        "identity.of.a.pod",
    ];
    for secret in secrets {
        let is_there = ended.stdout.contains(secret) || ended.stderr.contains(secret);
        assert!(!is_there, "{secret} was told: {}", ended.describe());
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// Temporary credentials as agents and the metadata service hand them out.
fn document() -> String {
    format!(
        r#"{{"Code":"Success","Type":"AWS-HMAC","LastUpdated":"2020-01-01T00:00:00Z",
            "AccessKeyId":"{}","SecretAccessKey":"{}","Token":"{}",
            "Expiration":"2099-01-01T00:00:00Z"}}"#,
        TEMPORARY.id,
        TEMPORARY.secret,
        TEMPORARY.token.unwrap_or_default()
    )
}

fn refusal(status: u16, code: &str) -> Response {
    let body = format!("<Error><Code>{code}</Code><Message>No.</Message></Error>");
    Response::xml(status, &body)
}

#[test]
fn a_key_pair_of_the_environment_signs_and_names_the_region() {
    let bed = Bed::new();
    let keys = [
        ("AWS_ACCESS_KEY_ID", STATIC.id),
        ("AWS_SECRET_ACCESS_KEY", STATIC.secret),
    ];
    bed.signs_with(&keys, STATIC, "us-east-1");
    let there = [&keys[..], &[("AWS_REGION", "eu-west-3")]].concat();
    bed.signs_with(&there, STATIC, "eu-west-3");
}

#[test]
fn a_session_token_is_sent_and_signed() {
    let keys = [
        ("AWS_ACCESS_KEY_ID", TEMPORARY.id),
        ("AWS_SECRET_ACCESS_KEY", TEMPORARY.secret),
        ("AWS_SESSION_TOKEN", TEMPORARY.token.unwrap_or_default()),
    ];
    Bed::new().signs_with(&keys, TEMPORARY, "us-east-1");
    for (status, code, words) in [
        (400, "ExpiredToken", "the session token has expired"),
        (403, "InvalidAccessKeyId", "access key id is not known"),
        (
            403,
            "SignatureDoesNotMatch",
            "secret access key does not fit",
        ),
        (
            403,
            "RequestTimeTooSkewed",
            "the clock of this host is wrong",
        ),
        (403, "AccessDenied", "may not do this"),
    ] {
        let bed = Bed::answering(move |_| refusal(status, code));
        bed.is_denied(&keys, &[code, words]);
    }
}

#[test]
fn a_profile_is_read_from_the_files_of_the_host() {
    let bed = Bed::new();
    let credentials = bed.scratch.write(
        "credentials",
        &format!(
            "[default]\naws_access_key_id = NOTTHIS\naws_secret_access_key = nor-this\n\
             [blue]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            STATIC.id, STATIC.secret
        ),
    );
    let config = bed.scratch.write(
        "config",
        "[default]\nregion = us-west-1\n[profile blue]\nregion = eu-central-1\n",
    );
    let (credentials, config) = (path(&credentials), path(&config));
    let files = [
        ("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str()),
        ("AWS_CONFIG_FILE", &config),
        ("AWS_PROFILE", "blue"),
    ];
    bed.signs_with(&files, STATIC, "eu-central-1");
    let there = [&files[..], &[("AWS_REGION", "eu-west-3")]].concat();
    bed.signs_with(&there, STATIC, "eu-west-3");
    let absent = [&files[..2], &[("AWS_PROFILE", "green")]].concat();
    bed.is_denied(&absent, &["the profile green"]);
}

/// An STS that gives [`TEMPORARY`] for the token of the pod, and refuses all else.
fn token_service() -> Endpoint {
    Endpoint::start(|request| {
        if request.form_value("WebIdentityToken").as_deref() != Some("identity.of.a.pod") {
            let body = "<ErrorResponse><Error><Type>Sender</Type>\
                <Code>ExpiredTokenException</Code><Message>Token expired</Message></Error>\
                <RequestId>r</RequestId></ErrorResponse>";
            return Response::xml(400, body);
        }
        let body = format!(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
             <AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
             <SessionToken>{}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
             </Credentials><AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn>\
             <AssumedRoleId>r:s</AssumedRoleId></AssumedRoleUser>\
             </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
            TEMPORARY.id,
            TEMPORARY.secret,
            TEMPORARY.token.unwrap_or_default()
        );
        Response::xml(200, &body)
    })
}

#[test]
fn a_web_identity_becomes_a_role_by_sts() {
    let bed = Bed::new();
    let service = token_service();
    let token = path(&bed.scratch.write("token", "identity.of.a.pod"));
    let url = service.url();
    let pod = [
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/backup"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ENDPOINT_URL_STS", &url),
    ];
    bed.signs_with(&pod, TEMPORARY, "eu-west-1");
    let asked = service.take_requests();
    assert_eq!(asked.len(), 1, "one token is enough for a command");
    let action = asked[0].form_value("Action");
    assert_eq!(action.as_deref(), Some("AssumeRoleWithWebIdentity"));
    let role = asked[0].form_value("RoleArn");
    assert_eq!(role.as_deref(), Some("arn:aws:iam::1:role/backup"));

    bed.scratch.write("token", "an.old.identity");
    bed.is_denied(&pod, &["ExpiredTokenException"]);
    assert!(bed.store.take_requests().is_empty(), "nothing is unsigned");
    let gone = [
        &pod[..1],
        &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/proc/no-token")],
        &pod[2..],
    ];
    bed.is_denied(
        &gone.concat(),
        &[
            "AWS_WEB_IDENTITY_TOKEN_FILE (/proc/no-token)",
            "No such file",
        ],
    );
}

#[test]
fn a_manifest_can_leave_the_credentials_to_the_role() {
    let bed = Bed::new();
    let service = token_service();
    let token = path(&bed.scratch.write("token", "identity.of.a.pod"));
    let manifest = format!(
        "apiVersion: barmancloud.cnpg.io/v1\nkind: ObjectStore\nmetadata: {{name: store}}\n\
         spec:\n  configuration:\n    destinationPath: s3://bucket/path\n    endpointURL: {}\n    \
         s3Credentials: {{inheritFromIAMRole: true}}\n",
        bed.store.url()
    );
    let manifest = path(&bed.scratch.write("store.yaml", &manifest));
    let url = service.url();
    let pod = [
        ("CELLARMAN_STORE", ""),
        ("CELLARMAN_STORE_FILE", manifest.as_str()),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/backup"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
        ("AWS_ENDPOINT_URL_STS", &url),
    ];
    bed.signs_with(&pod, TEMPORARY, "us-east-1");
}

#[test]
fn the_agent_of_a_pod_hands_out_credentials() {
    let bed = Bed::new();
    let agent = Endpoint::start(|request| match request.header("authorization") {
        Some("identity.of.a.pod") => Response::json(200, &document()),
        _ => Response::json(
            401,
            r#"{"code":"AccessDenied","message":"the pod is unknown"}"#,
        ),
    });
    let token = path(&bed.scratch.write("token", "identity.of.a.pod"));
    let url = format!("{}/v1/credentials", agent.url());
    let pod = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token),
        ("AWS_REGION", "eu-west-1"),
    ];
    bed.signs_with(&pod, TEMPORARY, "eu-west-1");
    let asked = agent.take_requests();
    assert_eq!(asked.len(), 1, "one answer is enough for a command");
    assert_eq!(asked[0].target, "/v1/credentials");

    bed.scratch.write("token", "another");
    bed.is_denied(&pod, &["AWS_CONTAINER_CREDENTIALS_FULL_URI", "401"]);
    assert!(bed.store.take_requests().is_empty(), "nothing is unsigned");
}

/// The metadata service of an instance with a role.
fn metadata_service() -> Endpoint {
    const PLACE: &str = "/latest/meta-data/iam/security-credentials/";
    Endpoint::start(|request| {
        let path = request.path();
        if request.method == "PUT" && path == "/latest/api/token" {
            return Response::with_body(200, "text/plain", "session")
                .header("x-aws-ec2-metadata-token-ttl-seconds", "21600");
        }
        if request.header("x-aws-ec2-metadata-token") != Some("session") {
            return Response::new(401);
        }
        match path.strip_prefix(PLACE) {
            Some("") => Response::with_body(200, "text/plain", "backup-role"),
            Some("backup-role") => Response::json(200, &document()),
            _ => Response::new(404),
        }
    })
}

#[test]
fn the_metadata_service_of_an_instance_hands_out_credentials() {
    let bed = Bed::new();
    let service = metadata_service();
    let url = service.url();
    let instance = [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str()),
        ("AWS_REGION", "eu-west-1"),
    ];
    bed.signs_with(&instance, TEMPORARY, "eu-west-1");
    let asked = service.take_requests();
    let token = asked.first().expect("a question");
    assert_eq!(
        (token.method.as_str(), token.path()),
        ("PUT", "/latest/api/token")
    );
    let first = "x-aws-ec2-metadata-token-ttl-seconds";
    assert!(token.header(first).is_some(), "a token of version 2");
}

#[test]
fn the_metadata_service_is_asked_without_the_proxy() {
    let (bed, service) = (Bed::new(), metadata_service());
    let proxy = Endpoint::start(|_| Response::new(403));
    let store = format!("http://localhost:{}", bed.store.port());
    let instance = [
        ("AWS_ENDPOINT_URL_S3", store.as_str()),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &service.url()),
        ("AWS_REGION", "eu-west-1"),
        ("HTTP_PROXY", &proxy.url()),
        ("NO_PROXY", "localhost"),
    ];
    bed.signs_with(&instance, TEMPORARY, "eu-west-1");
    assert!(!service.requests().is_empty() && proxy.requests().is_empty());
}

#[test]
fn a_host_without_credentials_is_told_so() {
    let bed = Bed::new();
    bed.is_denied(
        &[("AWS_EC2_METADATA_DISABLED", "true")],
        &["no credentials from the profile default or the instance"],
    );
    assert!(bed.store.take_requests().is_empty(), "nothing is unsigned");
}
