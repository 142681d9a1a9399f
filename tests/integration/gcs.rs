//! The engine of Google Cloud Storage on a real fake-gcs-server: the same suite as every store, the
//! errors people meet, and a whole backup and restore.
//!
//! What that server cannot judge is in `gcs_endpoint.rs` and `gcs_credentials.rs`, or reported as not run.

use std::sync::Arc;

use cellarman::store::config::{GcsConfig, GcsCredentials};
use cellarman::store::conformance;
use cellarman::store::error::StoreErrorKind;
use cellarman::store::gcs::GcsStore;
use testbed::account::Account;
use testbed::cluster::Release;
use testbed::fake_gcs::{BUCKET, FakeGcs};
use testbed::scratch::Scratch;
use testbed::storage::Storage;
use testbed::workload::{self, Workload};
use testbed::world::World;
use testbed::{not_run, or_not_run};

use crate::engines::{self, check_all, runtime};

fn config(endpoint: &str, bucket: &str, credentials: GcsCredentials) -> GcsConfig {
    GcsConfig {
        bucket: bucket.to_owned(),
        endpoint_url: Some(endpoint.parse().expect("a URL")),
        credentials,
        ca_bundle: None,
        kms_key_name: None,
        storage_class: None,
        project: Some("test".to_owned()),
        read_timeout: None,
    }
}

fn emulator(gcs: &FakeGcs, bucket: &str) -> GcsConfig {
    config(&gcs.endpoint(), bucket, GcsCredentials::Anonymous)
}

#[test]
fn a_bucket_conforms() {
    let scratch = Scratch::new(Account::of_servers().expect("an account"));
    let gcs = or_not_run!(FakeGcs::start(&scratch));
    runtime().block_on(async {
        // The engine itself, so that no repeat hides a failure.
        let engine = GcsStore::new(&emulator(&gcs, BUCKET));
        let traits = conformance::Traits {
            has_parts_in_any_order: false,
            has_delimited_pages: false,
            ..conformance::Traits::default()
        };
        conformance::run_with(Arc::new(engine), "scratch", traits).await;
    });
}

#[test]
fn delimited_listings_come_in_pages() {
    not_run!("fake-gcs-server says the same prefixes on every page, where Google says each once");
}

#[test]
fn a_kms_key_encrypts() {
    not_run!("fake-gcs-server has no keys; that the key's name is sent is tested");
}

/// The kinds of failure of every request on such a bucket, each with its name.
async fn failures(config: &GcsConfig) -> Vec<(&'static str, Option<StoreErrorKind>)> {
    let mut failures = engines::failures(&GcsStore::new(config)).await;
    // The same answer for an object and a bucket that are not there, and an object gone is success.
    failures.retain(|(request, _)| *request != "delete");
    failures
}

#[test]
fn a_missing_bucket_is_never_a_missing_object_and_can_be_made() {
    let scratch = Scratch::new(Account::of_servers().expect("an account"));
    let gcs = or_not_run!(FakeGcs::start(&scratch));
    let config = emulator(&gcs, "not-there-yet");
    runtime().block_on(async {
        check_all(&failures(&config).await, StoreErrorKind::NoContainer);
        engines::check_it_can_be_made(&GcsStore::new(&config)).await;
    });
}

#[test]
fn a_server_that_is_gone_is_unreachable() {
    let scratch = Scratch::new(Account::of_servers().expect("an account"));
    let mut gcs = or_not_run!(FakeGcs::start(&scratch));
    gcs.kill();
    let config = emulator(&gcs, BUCKET);
    runtime().block_on(async {
        check_all(&failures(&config).await, StoreErrorKind::Unreachable);
    });
}

#[test]
fn a_backup_in_a_bucket_of_google_is_restored() {
    let world =
        World::<FakeGcs>::on_store(env!("CARGO_BIN_EXE_cellarman"), Release::distribution());
    let world = or_not_run!(world);
    let primary = world.primary(&["-k"]);
    let workload = Workload::start(&primary);
    workload.advance(50);
    // Uncompressed it is larger than a part: it goes up in a session.
    world.back_up(&primary, &["--compression", "none"]);
    workload.advance(50);
    let count = workload.stop();
    primary.archive_now();
    let restored = world.restore("restored", &[]);
    restored.start_with(&["archive_mode=off"]);
    restored.wait_until_recovered();
    assert_eq!(workload::verify(&restored.sql()), count);
}
