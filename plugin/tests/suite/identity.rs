//! Who the sidecar says it is, how it comes up and how it ends.

use std::fs;

use cellarman::cnpgi::identity::identity_client::IdentityClient;
use cellarman::cnpgi::identity::plugin_capability::Type;
use cellarman::cnpgi::identity::plugin_capability::service::Type as ServiceType;
use cellarman::cnpgi::identity::{
    GetPluginCapabilitiesRequest, GetPluginMetadataRequest, ProbeRequest,
};
use cellarman::cnpgi::wal::restore_job_hooks_client::RestoreJobHooksClient;
use cellarman::cnpgi::wal::wal_client::WalClient;
use cellarman::cnpgi::wal::{RestoreJobHooksCapabilitiesRequest, WalCapabilitiesRequest};
use testbed::account::Account;
use testbed::or_not_run;
use testbed::scratch::Scratch;

use crate::sidecar::{Objects, PLUGIN, Sidecar};

fn services(sidecar: &Sidecar) -> Vec<ServiceType> {
    let mut client = IdentityClient::new(sidecar.channel());
    let answer = sidecar.block(client.get_plugin_capabilities(GetPluginCapabilitiesRequest {}));
    let capabilities = answer.expect("capabilities").into_inner().capabilities;
    let service = |capability: cellarman::cnpgi::identity::PluginCapability| {
        let Some(Type::Service(service)) = capability.r#type else {
            panic!("a capability without a service");
        };
        service.r#type()
    };
    capabilities.into_iter().map(service).collect()
}

#[test]
fn a_sidecar_serves_at_once_and_says_what_it_can() {
    let scratch = Scratch::new(or_not_run!(Account::of_servers()));
    // No store, no ObjectStore, no data directory: none of it is in the way.
    let objects = Objects::new(&scratch);
    let pgdata = scratch.path().join("absent");
    for (mode, needed) in [
        (
            "instance",
            vec![ServiceType::WalService, ServiceType::RestoreJob],
        ),
        (
            "restore",
            vec![ServiceType::RestoreJob, ServiceType::WalService],
        ),
    ] {
        // Leftovers of a killed one, and arguments of somebody else's making.
        let options = ["-e AES256", "--nonsense", "--pprof-server=true", "word"];
        let mut sidecar = Sidecar::start(&scratch, &objects, (mode, &pgdata), &options);
        let metadata = {
            let mut client = IdentityClient::new(sidecar.channel());
            let answer = sidecar.block(client.get_plugin_metadata(GetPluginMetadataRequest {}));
            answer.expect("metadata").into_inner()
        };
        assert_eq!(metadata.name, PLUGIN);
        assert!(!metadata.version.is_empty());
        let known = services(&sidecar);
        assert!(
            needed.iter().all(|service| known.contains(service)),
            "{mode}: {known:?}"
        );
        let mut identity = IdentityClient::new(sidecar.channel());
        let ready = sidecar.block(identity.probe(ProbeRequest {}));
        assert!(ready.expect("an answer").into_inner().ready);
        let mut wal = WalClient::new(sidecar.channel());
        let answer = sidecar.block(wal.get_capabilities(WalCapabilitiesRequest {}));
        let capabilities = answer.expect("an answer").into_inner().capabilities;
        assert!(capabilities.len() >= 2 && capabilities.iter().all(|one| one.r#type.is_some()));
        let mut hooks = RestoreJobHooksClient::new(sidecar.channel());
        let answer = sidecar.block(hooks.get_capabilities(RestoreJobHooksCapabilitiesRequest {}));
        assert_eq!(
            answer.expect("an answer").into_inner().capabilities.len(),
            1
        );
        assert_eq!(sidecar.healthcheck(), Some(0));
        sidecar.kill();
        assert_eq!(sidecar.healthcheck(), Some(1));
        assert!(sidecar.socket.exists());
        sidecar.start_again();
        assert_eq!(sidecar.terminate(), Some(0));
        assert!(!sidecar.socket.exists());
    }
}

#[test]
fn every_line_of_the_log_is_json_with_the_references_fields() {
    let scratch = Scratch::new(or_not_run!(Account::of_servers()));
    let objects = Objects::new(&scratch);
    let pgdata = scratch.path().join("absent");
    let options = ["--nonsense"];
    let mut sidecar = Sidecar::start(&scratch, &objects, ("instance", &pgdata), &options);
    sidecar.terminate();
    let log = sidecar.log();
    assert!(log.contains("--nonsense"), "{log}");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        for field in ["level", "ts", "logger", "msg"] {
            assert!(line[field].is_string(), "{line}");
        }
        assert_eq!(line["logging_pod"], "pg-1");
    }
}

#[test]
fn a_second_sidecar_leaves_the_first_ones_socket_alone() {
    let scratch = Scratch::new(or_not_run!(Account::of_servers()));
    let objects = Objects::new(&scratch);
    let pgdata = scratch.path().join("absent");
    let sidecar = Sidecar::start(&scratch, &objects, ("instance", &pgdata), &[]);
    let program =
        testbed::program::Program::at(scratch.path().join("cellarman-plugin"), scratch.account());
    let socket = format!("--socket={}", sidecar.socket.display());
    let folder = format!("--resources={}", objects.folder().display());
    let second = program.run(&["instance", "--namespace=db", &socket, &folder]);
    assert!(!second.status.success());
    assert!(
        second.stderr.contains("another process serves"),
        "{}",
        second.describe()
    );
    assert_eq!(sidecar.healthcheck(), Some(0));
    assert!(fs::symlink_metadata(&sidecar.socket).is_ok());
}
