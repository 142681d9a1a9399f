//! Base backups and WAL of either tool on Azure, restored by the other and started.

use testbed::account::Account;
use testbed::azurite::Azurite;
use testbed::barman::Barman;
use testbed::cluster::{Cluster, Release};
use testbed::or_not_run;
use testbed::program::Program;
use testbed::scratch::Scratch;
use testbed::workload::{self, Workload};

/// The servers whose archives each tool writes.
const OURS: &str = "ours";
const BARMANS: &str = "barmans";

struct Bed {
    release: Release,
    barman: Barman,
    any_server: Program,
    url: String,
    scratch: Scratch,
}

impl Bed {
    fn cellarman(&self, server: &str) -> Program {
        self.any_server
            .clone()
            .with_arguments(&["--server", server])
    }

    /// A server has the environment of both tools.
    fn with_environment(&self, cluster: Cluster) -> Cluster {
        cluster
            .with_environment(&[self.any_server.environment(), self.barman.environment()].concat())
    }

    /// Each WAL file goes to an archive of each tool.
    fn primary(&self) -> Cluster {
        let primary = Cluster::create(&self.release, &self.scratch, "primary", &["-k"]);
        let primary = self.with_environment(primary);
        let ours =
            self.cellarman(OURS)
                .shell_line(&["wal", "archive", "--compression", "gzip", "%p"]);
        let theirs = self
            .barman
            .bare("wal-archive")
            .shell_line(&["--gzip", &self.url, BARMANS, "%p"]);
        primary.configure(&format!(
            "archive_mode = on\narchive_command = '{ours} && {theirs}'"
        ));
        primary.start();
        workload::prepare(&primary, &self.scratch.make("cold"));
        primary
    }

    fn restored(&self, name: &str) -> Cluster {
        let directory = self.scratch.path().join(name);
        let restored = Cluster::adopt(&self.release, &self.scratch, name, directory);
        self.with_environment(restored)
    }
}

fn start_and_count(restored: &Cluster) -> u64 {
    restored.start_with(&["archive_mode=off"]);
    restored.wait_until_recovered();
    workload::verify(&restored.sql())
}

fn restored_by_barman(bed: &Bed) -> u64 {
    let path = bed.scratch.path().join("by-barman").display().to_string();
    let tablespace = format!("cold:{path}.cold");
    let words = ["--tablespace", &tablespace, &bed.url, OURS, "last", &path];
    bed.barman.run("restore", &words).ok();
    let restored = bed.restored("by-barman");
    let restore = bed
        .barman
        .bare("wal-restore")
        .shell_line(&[&bed.url, OURS, "%f", "%p"]);
    restored.recover(&format!("restore_command = '{restore}'"));
    start_and_count(&restored)
}

fn restored_by_us(bed: &Bed) -> u64 {
    let path = bed.scratch.path().join("by-us").display().to_string();
    let tablespace = format!("cold={path}.cold");
    bed.cellarman(BARMANS)
        .run(&["restore", "--pgdata", &path, "--tablespace", &tablespace])
        .ok();
    start_and_count(&bed.restored("by-us"))
}

#[test]
fn backups_on_azure_go_both_ways() {
    let scratch = Scratch::new(Account::of_servers().expect("an account"));
    let release = or_not_run!(Release::distribution());
    let azurite = or_not_run!(Azurite::start(&scratch));
    let barman = or_not_run!(Barman::on_azure(&scratch, &azurite));
    let url = azurite.url("a/path");
    let any_server = Program::built(env!("CARGO_BIN_EXE_cellarman"), &scratch)
        .with_arguments(&["--store", &url])
        .with_environment(&azurite.environment());
    let bed = Bed {
        release,
        barman,
        any_server,
        url,
        scratch,
    };
    bed.cellarman(OURS).run(&["check", "--create"]);
    let primary = bed.primary();
    let workload = Workload::start(&primary);
    workload.advance(50);
    let socket = primary.socket_directory();
    bed.cellarman(OURS)
        .with_server(socket)
        .run(&[
            "backup",
            "create",
            "--immediate-checkpoint",
            "--compression",
            "gzip",
        ])
        .ok();
    bed.barman
        .program("backup")
        .with_server(socket)
        .run(&["--gzip", "--immediate-checkpoint", &bed.url, BARMANS])
        .ok();
    workload.advance(50);
    let count = workload.stop();
    primary.archive_now();

    assert_eq!(restored_by_barman(&bed), count);
    assert_eq!(restored_by_us(&bed), count);
    bed.cellarman(BARMANS).run(&["backup", "list"]).ok();
    let last = ["-b", "last", &bed.url, OURS];
    bed.barman.run("backup-delete", &last).ok();
    let listed = bed.cellarman(OURS).run(&["backup", "list", "--json"]);
    listed.ok();
    assert!(!listed.stdout.contains("DONE"), "{}", listed.describe());
}
