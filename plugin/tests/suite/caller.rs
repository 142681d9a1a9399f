//! What stands between PostgreSQL and the sidecar: this very test binary, called as an
//! `archive_command` or a `restore_command`, does what the instance manager does.
//!
//! Not here: any behaviour of the sidecar.

use std::fs;
use std::path::{Path, PathBuf};

use cellarman::cnpgi::wal::wal_client::WalClient;
use serde_json::Value;
use testbed::scratch::Scratch;
use tokio::runtime::Builder;

use crate::sidecar::{self, Sidecar};

const ERRAND: &str = "CELLARMAN_TEST_ERRAND";
const SOCKET: &str = "CELLARMAN_TEST_SOCKET";
const CLUSTER: &str = "CELLARMAN_TEST_CLUSTER";
const NAME: &str = "CELLARMAN_TEST_NAME";
const PATH: &str = "CELLARMAN_TEST_PATH";

/// The `archive_command` that goes through a sidecar.
pub(crate) fn archive_command(scratch: &Scratch, sidecar: &Sidecar, cluster: &Value) -> String {
    let words = format!("{ERRAND}=archive {PATH}=%p");
    command(scratch, sidecar, cluster, &words)
}

/// The `restore_command` that goes through a sidecar.
pub(crate) fn restore_command(scratch: &Scratch, sidecar: &Sidecar, cluster: &Value) -> String {
    let words = format!("{ERRAND}=restore {NAME}=%f {PATH}=%p");
    command(scratch, sidecar, cluster, &words)
}

/// What the restore hook gives to a server, through a sidecar: it asks until it has an answer.
pub(crate) fn insisting_restore_command(
    scratch: &Scratch,
    sidecar: &Sidecar,
    cluster: &Value,
) -> String {
    let given = cellarman_plugin::instance::absence::restore_command();
    let through_manager =
        "/controller/manager wal-restore --log-destination /controller/log/postgres.json %f %p";
    assert!(given.contains(through_manager), "{given}");
    given.replace(through_manager, &restore_command(scratch, sidecar, cluster))
}

fn command(scratch: &Scratch, sidecar: &Sidecar, cluster: &Value, words: &str) -> String {
    let copy = scratch.path().join("caller");
    if !copy.exists() {
        let this = std::env::current_exe().expect("the path of this program");
        fs::copy(this, &copy).expect("this program is copied");
    }
    let definition = scratch.write("cluster.json", &cluster.to_string());
    let test = "caller::runs_the_errand_it_was_sent_on";
    format!(
        "env {words} {SOCKET}={} {CLUSTER}={} {} --exact {test} --quiet",
        sidecar.socket.display(),
        definition.display(),
        copy.display()
    )
}

/// As a test it only shows that it can be called; as a command it fails when its call fails, and
/// with an exit code that PostgreSQL takes for "there is no such file".
#[test]
fn runs_the_errand_it_was_sent_on() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let errand = variable(ERRAND);
    if errand.is_empty() {
        return;
    }
    let here = std::env::current_dir().expect("a working directory");
    let path: PathBuf = here.join(variable(PATH));
    let definition = fs::read(variable(CLUSTER)).expect("a Cluster");
    let cluster: Value = serde_json::from_slice(&definition).expect("a Cluster");
    let runtime = Builder::new_current_thread().enable_all().build();
    let outcome = runtime.expect("a runtime").block_on(async {
        let socket = variable(SOCKET);
        let channel = sidecar::connect(Path::new(&socket)).await;
        let mut client = WalClient::new(channel.expect("a connection"));
        if errand == "archive" {
            let request = sidecar::archive_request(&cluster, &path, None);
            client.archive(request).await.map(drop)
        } else {
            let request = sidecar::restore_request(&cluster, &variable(NAME), &path);
            client.restore(request).await.map(drop)
        }
    });
    outcome.expect("the errand");
}
