//! The Azure engine on a real Azurite: the same suite as every store, the errors people meet, and
//! a whole backup and restore.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cellarman::store::azure::AzureStore;
use cellarman::store::config::{AzureConfig, AzureCredentials, StoreConfig};
use cellarman::store::error::StoreErrorKind;
use cellarman::store::open::open;
use cellarman::store::{ObjectKey, ObjectStore, PutOptions, conformance};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use testbed::account::Account;
use testbed::azurite::{ACCOUNT, Azurite, CONTAINER};
use testbed::cluster::{Cluster, Release};
use testbed::program::Program;
use testbed::scratch::Scratch;
use testbed::workload::{self, Workload};
use testbed::{not_run, or_not_run};

use crate::engines::{self, check_all, runtime};

fn scratch() -> Scratch {
    Scratch::new(Account::of_servers().expect("an account"))
}

fn config(azurite: &Azurite, credentials: AzureCredentials) -> AzureConfig {
    AzureConfig {
        account: ACCOUNT.0.to_owned(),
        container: CONTAINER.to_owned(),
        endpoint_url: azurite.endpoint().parse().expect("a URL"),
        credentials,
        ca_bundle: None,
        encryption_scope: None,
        read_timeout: None,
    }
}

fn by_key(azurite: &Azurite) -> AzureConfig {
    let key = SecretString::from(ACCOUNT.1);
    config(azurite, AzureCredentials::AccountKey(key))
}

/// The engine itself, so that no repeat hides a failure.
async fn made(config: &AzureConfig) -> AzureStore {
    let store = AzureStore::new(config).expect("the credentials have their form");
    store.create_container().await.expect("it is made");
    store
}

/// Azure takes backslashes for slashes: the engine refuses such keys.
fn traits() -> conformance::Traits {
    conformance::Traits {
        has_backslashes: false,
        ..conformance::Traits::default()
    }
}

#[test]
fn a_container_conforms() {
    let scratch = scratch();
    let azurite = or_not_run!(Azurite::start(&scratch));
    runtime().block_on(async {
        let store = made(&by_key(&azurite)).await;
        store.create_container().await.expect("it is ours already");
        conformance::run_with(Arc::new(store), "scratch", traits()).await;
    });
}

/// The kinds of failure of every request on such a container, each with its name.
async fn failures(config: &AzureConfig) -> Vec<(&'static str, Option<StoreErrorKind>)> {
    let store = AzureStore::new(config).expect("the credentials have their form");
    let mut failures = engines::failures(&store).await;
    // Azure is not asked.
    failures.retain(|(request, _)| *request != "begin");
    failures
}

#[test]
fn a_missing_container_is_never_a_missing_object() {
    let scratch = scratch();
    let azurite = or_not_run!(Azurite::start(&scratch));
    runtime().block_on(async {
        let failures = failures(&by_key(&azurite)).await;
        check_all(&failures, StoreErrorKind::NoContainer);
    });
}

#[test]
fn a_wrong_account_key_is_denied_and_says_so() {
    let scratch = scratch();
    let azurite = or_not_run!(Azurite::start(&scratch));
    runtime().block_on(async {
        made(&by_key(&azurite)).await;
        let wrong = STANDARD.encode("another key");
        let key = AzureCredentials::AccountKey(SecretString::from(wrong.clone()));
        let config = config(&azurite, key);
        check_all(&failures(&config).await, StoreErrorKind::Denied);
        let store = AzureStore::new(&config).expect("it is base64");
        let error = store.check_container().await.expect_err("it is refused");
        let text = cellarman::fault::chain(&error);
        assert!(text.contains("403") && !text.contains(&wrong), "{text}");
    });
}

#[test]
fn a_server_that_is_gone_is_unreachable() {
    let scratch = scratch();
    let azurite = or_not_run!(Azurite::start(&scratch));
    let config = by_key(&azurite);
    drop(azurite);
    runtime().block_on(async {
        check_all(&failures(&config).await, StoreErrorKind::Unreachable);
    });
}

/// HMAC-SHA256, as Azure's signatures are made.
fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let pad = |with: u8| -> Vec<u8> {
        (0..64)
            .map(|at| key.get(at).copied().unwrap_or(0) ^ with)
            .collect()
    };
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(text)
        .finalize();
    let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner);
    outer.finalize().to_vec()
}

/// A signature for the container with these permissions, good until then.
fn signature(permissions: &str, until: &str) -> AzureCredentials {
    let version = "2023-11-03";
    let resource = format!("/blob/{}/{CONTAINER}", ACCOUNT.0);
    let text = format!("{permissions}\n\n{until}\n{resource}\n\n\n\n{version}\nc\n\n\n\n\n\n\n");
    let key = STANDARD.decode(ACCOUNT.1).expect("base64");
    let signature = STANDARD.encode(hmac(&key, &text));
    let signature = signature
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let token = format!("?sp={permissions}&se={until}&sv={version}&sr=c&sig={signature}");
    AzureCredentials::SharedAccessSignature(token.into())
}

#[test]
fn a_shared_access_signature_opens_its_container() {
    let scratch = scratch();
    let azurite = or_not_run!(Azurite::start(&scratch));
    runtime().block_on(async {
        made(&by_key(&azurite)).await;
        let granted = config(&azurite, signature("racwdlt", "2099-01-01T00:00:00Z"));
        let store = AzureStore::new(&granted).expect("it has its form");
        store.check_container().await.expect("it may list");
        conformance::run_with(Arc::new(store), "scratch", traits()).await;
    });
}

#[test]
fn a_signature_that_has_expired_or_may_not_write_is_denied() {
    let scratch = scratch();
    let azurite = or_not_run!(Azurite::start(&scratch));
    runtime().block_on(async {
        made(&by_key(&azurite)).await;
        let expired = config(&azurite, signature("racwdl", "2020-01-01T00:00:00Z"));
        check_all(&failures(&expired).await, StoreErrorKind::Denied);
        let reader = config(&azurite, signature("rl", "2099-01-01T00:00:00Z"));
        let store = AzureStore::new(&reader).expect("it has its form");
        store.check_container().await.expect("it may list");
        let put = store
            .put(&ObjectKey::new("a"), "x".into(), &PutOptions::default())
            .await;
        assert_eq!(
            put.err().map(|error| error.kind),
            Some(StoreErrorKind::Denied)
        );
    });
}

#[test]
fn tags_are_put_with_the_object() {
    let scratch = scratch();
    let azurite = or_not_run!(Azurite::start(&scratch));
    runtime().block_on(async {
        made(&by_key(&azurite)).await;
        let config = StoreConfig::Azure(Box::new(by_key(&azurite)));
        let store = open(&config).await.expect("it opens");
        let options = PutOptions {
            tags: vec![("team".to_owned(), "data base".to_owned())],
            ..PutOptions::default()
        };
        let key = ObjectKey::new("tagged");
        store
            .put(&key, "x".into(), &options)
            .await
            .expect("it is put");
        let upload = store.begin_upload(&key, &options).await.expect("it begins");
        let part = store.put_part(&key, &upload, 1, "y".into()).await;
        let part = part.expect("it is put");
        store
            .complete_upload(&key, &upload, &[part], &options)
            .await
            .expect("it is complete");
        assert_eq!(store.head(&key).await.expect("it is there").size, 1);
    });
}

#[test]
fn encryption_scopes_encrypt() {
    not_run!("Azurite knows no encryption scopes: the header alone is tested, against a fake");
}

#[test]
fn tokens_of_identities_open_a_storage_account() {
    not_run!(
        "Azurite takes tokens over HTTPS alone and checks no signature: they are tested against fakes"
    );
}

#[test]
fn blocks_of_an_aborted_upload_go_after_a_week() {
    not_run!("Azurite keeps them for ever: Azure alone drops them");
}

/// The program on `azurite`, with its container made.
fn program(azurite: &Azurite, scratch: &Scratch) -> Program {
    let program = Program::built(env!("CARGO_BIN_EXE_cellarman"), scratch)
        .with_arguments(&["--store", &azurite.url("a/path"), "--server", "main"])
        .with_environment(&azurite.environment());
    program.run(&["check", "--create"]);
    program
}

#[test]
fn a_backup_on_azure_is_restored_with_all_its_rows() {
    let scratch = scratch();
    let release = or_not_run!(Release::distribution());
    let azurite = or_not_run!(Azurite::start(&scratch));
    let program = program(&azurite, &scratch);
    let primary = Cluster::create(&release, &scratch, "primary", &["-k"])
        .with_environment(program.environment());
    let archive = program.shell_line(&["wal", "archive", "--compression", "lz4", "%p"]);
    primary.configure(&format!("archive_mode = on\narchive_command = '{archive}'"));
    primary.start();
    workload::prepare(&primary, &scratch.make("cold"));
    let workload = Workload::start(&primary);
    workload.advance(50);
    let beside = program.clone().with_server(primary.socket_directory());
    beside
        .run(&[
            "backup",
            "create",
            "--immediate-checkpoint",
            "--compression",
            "gzip",
        ])
        .ok();
    workload.advance(50);
    let count = workload.stop();
    primary.archive_now();
    program.run(&["backup", "list"]).ok();

    let directory = scratch.path().join("restored");
    let path = directory.display().to_string();
    let tablespace = format!("cold={path}.cold");
    program
        .run(&["restore", "--pgdata", &path, "--tablespace", &tablespace])
        .ok();
    let restored = Cluster::adopt(&release, &scratch, "restored", directory)
        .with_environment(program.environment());
    restored.start_with(&["archive_mode=off"]);
    restored.wait_until_recovered();
    assert_eq!(workload::verify(&restored.sql()), count);
}
