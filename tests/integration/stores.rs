//! The S3 engine on a real MinIO: the same suite as every store, and the errors people meet.

use std::sync::Arc;

use cellarman::store::config::{S3Config, S3Credentials, StoreConfig};
use cellarman::store::error::StoreErrorKind;
use cellarman::store::open::{open, open_with};
use cellarman::store::retry::RetryPolicy;
use cellarman::store::s3::S3Store;
use cellarman::store::{ObjectStore, conformance};
use secrecy::SecretString;
use testbed::account::Account;
use testbed::minio::{BUCKET, CREDENTIALS, Minio};
use testbed::or_not_run;
use testbed::scratch::Scratch;

use crate::engines::{self, check_all, runtime};

fn config(minio: &Minio, bucket: &str, secret: &str) -> S3Config {
    let credentials = S3Credentials::Static {
        access_key_id: CREDENTIALS.0.to_owned(),
        secret_access_key: SecretString::from(secret),
        session_token: None,
    };
    let mut config = S3Config::new(bucket, credentials);
    config.endpoint_url = Some(minio.endpoint().parse().expect("a URL"));
    config
}

#[test]
fn a_bucket_conforms() {
    let scratch = Scratch::new(Account::of_servers().expect("an account"));
    let minio = or_not_run!(Minio::start(&scratch));
    let config = config(&minio, BUCKET, CREDENTIALS.1);
    runtime().block_on(async {
        let settings = StoreConfig::S3(Box::new(config.clone()));
        let store = open(&settings).await.expect("it opens");
        store.check_container().await.expect("MinIO answers");
        // The engine itself, so that no repeat hides a failure.
        let engine = S3Store::new(&config).await;
        // MinIO refuses them by design; reading one is answered as absent, which the suite checks.
        let traits = conformance::Traits {
            has_doubled_slashes: false,
            ..conformance::Traits::default()
        };
        conformance::run_with(Arc::new(engine), "scratch", traits).await;
    });
}

/// The kinds of failure of every request on such a bucket, each with its name.
async fn failures(config: &S3Config) -> Vec<(&'static str, Option<StoreErrorKind>)> {
    let config = StoreConfig::S3(Box::new(config.clone()));
    // MinIO answers 503 in its first moments, ready or not.
    let policy = RetryPolicy {
        attempts_max: 5,
        ..RetryPolicy::ONCE
    };
    let store = open_with(&config, policy).await.expect("it opens");
    engines::failures(&*store).await
}

#[test]
fn a_missing_bucket_is_never_a_missing_object_and_can_be_made() {
    let scratch = Scratch::new(Account::of_servers().expect("an account"));
    let minio = or_not_run!(Minio::start(&scratch));
    let config = config(&minio, "not-there-yet", CREDENTIALS.1);
    runtime().block_on(async {
        check_all(&failures(&config).await, StoreErrorKind::NoContainer);
        engines::check_it_can_be_made(&S3Store::new(&config).await).await;
    });
}

#[test]
fn a_wrong_secret_is_denied_and_says_so() {
    let scratch = Scratch::new(Account::of_servers().expect("an account"));
    let minio = or_not_run!(Minio::start(&scratch));
    let config = config(&minio, BUCKET, "wrong-secret-key");
    runtime().block_on(async {
        check_all(&failures(&config).await, StoreErrorKind::Denied);
        let store = S3Store::new(&config).await;
        let error = store.check_container().await.expect_err("it is refused");
        let text = cellarman::fault::chain(&error);
        assert!(text.contains("secret access key does not fit"), "{text}");
        assert!(!text.contains("wrong-secret-key"), "{text}");
    });
}

#[test]
fn a_server_that_is_gone_is_unreachable() {
    let scratch = Scratch::new(Account::of_servers().expect("an account"));
    let mut minio = or_not_run!(Minio::start(&scratch));
    minio.kill();
    let config = config(&minio, BUCKET, CREDENTIALS.1);
    runtime().block_on(async {
        check_all(&failures(&config).await, StoreErrorKind::Unreachable);
    });
}
