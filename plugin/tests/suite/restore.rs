//! The restore hook through a sidecar's socket: a cluster from its archive, ready for a caller
//! that configures its recovery.

use std::fs;
use std::path::{Path, PathBuf};

use cellarman::api::recovery_targets::resolve_request::Target;
use cellarman::api::recovery_targets::resolve_response::Outcome;
use cellarman::cnpgi::wal::restore_job_hooks_client::RestoreJobHooksClient;
use cellarman::cnpgi::wal::{RestoreRequest, RestoreResponse};
use serde_json::{Value, json};
use testbed::cluster::{Cluster, Release};
use testbed::or_not_run;
use testbed::wait;
use testbed::workload;
use testbed::world::{SERVER, World};
use tonic::{Code, Status};

use crate::caller;
use crate::recovery_targets;
use crate::sidecar::{Objects, Sidecar, cluster};

/// An archive with a backup and WAL after it, and a sidecar beside an empty volume.
struct Bed {
    sidecar: Sidecar,
    pgdata: PathBuf,
    volume: PathBuf,
    objects: Objects,
    /// How many transactions the archive holds.
    committed: u64,
    world: World,
}

impl Bed {
    fn new(mode: &str) -> Result<Self, String> {
        let world = World::new(&built_beside("cellarman")?, Release::eighteen())?;
        let primary = world.primary(&[]);
        let work = workload::Workload::start(&primary);
        work.advance(5);
        world.back_up(&primary, &[]);
        work.advance(5);
        let committed = work.stop();
        primary.archive_now();
        primary.stop();
        drop(primary);
        // The new cluster has volumes of its own at the same places.
        let cold = world.place("cold");
        fs::rename(&cold, world.place("cold.old")).map_err(|error| error.to_string())?;
        let objects = Objects::new(&world.scratch);
        objects.put_store("store-a", &world.store, &json!({}));
        let pgdata = world.scratch.make("volume").join("pgdata");
        let volume = world.scratch.make("wal-volume").join("pg_wal");
        world.scratch.make("cold");
        let option = format!("--wal-storage={}", volume.display());
        let sidecar = Sidecar::start(&world.scratch, &objects, (mode, &pgdata), &[&option]);
        Ok(Self {
            sidecar,
            pgdata,
            volume,
            objects,
            committed,
            world,
        })
    }

    fn restore(&self, cluster: &Value) -> Result<RestoreResponse, Status> {
        let mut client = RestoreJobHooksClient::new(self.sidecar.channel());
        let request = RestoreRequest {
            cluster_definition: cluster.to_string().into(),
            check_empty_wal_archive: None,
        };
        let answer = self.sidecar.block(client.restore(request));
        answer.map(tonic::Response::into_inner)
    }

    /// Configures recovery as the operator does, and recovers.
    fn recover(&self, cluster: &Value, settings: &str) -> Cluster {
        let world = &self.world;
        let server = Cluster::adopt(
            &world.release,
            &world.scratch,
            "recovered",
            self.pgdata.clone(),
        );
        let command = caller::restore_command(&world.scratch, &self.sidecar, cluster);
        server.recover(&format!(
            "archive_mode = off\nrestore_command = '{command}'\n\
             recovery_target_action = promote\n{settings}"
        ));
        server.start();
        server.wait_until_recovered();
        server
    }

    fn is_clean(&self) -> bool {
        let is_empty =
            |path: &Path| fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
        is_empty(&self.pgdata) && is_empty(&self.volume) && is_empty(&self.world.place("cold"))
    }
}

/// Another program of the workspace: Cargo puts all of them into one folder.
pub(crate) fn built_beside(name: &str) -> Result<String, String> {
    let path = Path::new(env!("CARGO_BIN_EXE_cellarman-plugin")).with_file_name(name);
    let text = path.display().to_string();
    let missing = format!("{text} is not built: cargo build --workspace");
    path.exists().then_some(text).ok_or(missing)
}

/// The archive that clusters here come from.
const ORIGIN: Option<(&str, &str)> = Some(("store-a", SERVER));

/// A Cluster to be recovered that archives elsewhere.
fn new_cluster(target: &Value) -> Value {
    let mut cluster = cluster(Some(("store-a", "new")), ORIGIN);
    cluster["spec"]["bootstrap"]["recovery"]["recoveryTarget"] = target.clone();
    cluster
}

#[track_caller]
fn refused(outcome: Result<RestoreResponse, Status>, code: Code, words: &[&str]) {
    let status = outcome.expect_err("a refusal");
    assert_eq!(status.code(), code, "{status}");
    for word in words {
        assert!(status.message().contains(word), "{word}: {status}");
    }
    assert!(!status.message().contains("--"), "{status}");
}

#[test]
fn a_recovery_job_gets_its_cluster_with_tablespaces_and_wal_on_its_volume() {
    let bed = or_not_run!(Bed::new("restore"));
    let mut cluster = new_cluster(&json!({}));
    cluster["spec"]["walStorage"] = json!({"size": "1Gi"});
    let answer = bed.restore(&cluster).expect("it is restored");
    let given = "recovery_target_action = promote\nrestore_command = 'until /controller/manager \
                 wal-restore --log-destination /controller/log/postgres.json %f %p; do ";
    assert!(answer.restore_config.starts_with(given), "{answer:?}");
    assert_eq!(answer.restore_config.lines().count(), 2);
    assert!(answer.envs.is_empty());
    for name in [
        "recovery.signal",
        "standby.signal",
        "cellarman_restore_unfinished",
        "pg_wal/.cellarman",
    ] {
        assert!(!bed.pgdata.join(name).exists(), "{name}");
    }
    let automatic = fs::read_to_string(bed.pgdata.join("postgresql.auto.conf"));
    let automatic = automatic.expect("a file");
    assert!(!automatic.contains("restore_command"), "{automatic}");
    let linked = fs::read_link(bed.pgdata.join("pg_wal")).expect("a link");
    assert_eq!(linked, bed.volume);
    let server = bed.recover(&cluster, "");
    assert_eq!(workload::verify(&server.sql()), bed.committed);
}

#[test]
fn an_instance_that_bootstraps_itself_stops_at_its_target() {
    let bed = or_not_run!(Bed::new("instance"));
    let cluster = new_cluster(&json!({"targetImmediate": true}));
    bed.restore(&cluster).expect("it is restored");
    let server = bed.recover(&cluster, "recovery_target = 'immediate'");
    let recovered = workload::verify(&server.sql());
    assert!((5..bed.committed).contains(&recovered), "{recovered}");
}

#[test]
fn what_cannot_be_recovered_is_said_in_the_clusters_words() {
    let bed = or_not_run!(Bed::new("restore"));
    for (target, code, words) in [
        (
            json!({"backupID": "20200101T000000"}),
            Code::NotFound,
            ["20200101T000000", "recoveryTarget"],
        ),
        (
            json!({"targetTime": "2020-01-01 00:00:00"}),
            Code::FailedPrecondition,
            ["2020-01-01", "earliest"],
        ),
        (
            json!({"targetTime": "2099-01-01 00:00:00"}),
            Code::FailedPrecondition,
            ["2099-01-01", "recoveryTarget"],
        ),
        (
            json!({"targetTime": "tomorrow"}),
            Code::FailedPrecondition,
            ["recoveryTarget.targetTime", "tomorrow"],
        ),
        (
            json!({"targetTLI": "7"}),
            Code::FailedPrecondition,
            ["timeline", "recoveryTarget.targetTLI"],
        ),
    ] {
        refused(bed.restore(&new_cluster(&target)), code, &words);
    }
    let elsewhere = cluster(None, Some(("store-a", "nobody")));
    refused(
        bed.restore(&elsewhere),
        Code::NotFound,
        &["no backup", "serverName"],
    );
    refused(
        bed.restore(&cluster(None, None)),
        Code::FailedPrecondition,
        &["Cluster pg", "spec.externalClusters"],
    );
    let same = cluster(ORIGIN, ORIGIN);
    refused(
        bed.restore(&same),
        Code::FailedPrecondition,
        &[
            "expected empty archive",
            "serverName",
            "skipEmptyWalArchiveCheck",
        ],
    );
    let mut client = RestoreJobHooksClient::new(bed.sidecar.channel());
    let empty = bed.sidecar.block(client.restore(RestoreRequest::default()));
    refused(
        empty.map(tonic::Response::into_inner),
        Code::InvalidArgument,
        &["cluster_definition"],
    );
    assert!(bed.is_clean());
    let mut skipping = same;
    skipping["metadata"]["annotations"] = json!({"cnpg.io/skipEmptyWalArchiveCheck": "enabled"});
    bed.restore(&skipping).expect("the annotation says so");
}

#[test]
fn rights_that_come_a_little_later_are_waited_for() {
    let bed = or_not_run!(Bed::new("restore"));
    let store = bed.objects.folder().join("ObjectStore-store-a.yaml");
    let hidden = bed.world.place("hidden.yaml");
    fs::rename(&store, &hidden).expect("it is hidden");
    let cluster = new_cluster(&json!({}));
    std::thread::scope(|scope| {
        let call = scope.spawn(|| bed.restore(&cluster));
        bed.sidecar.wait_for_log("trying again");
        fs::rename(&hidden, &store).expect("it is there");
        let outcome = call.join().expect("a thread");
        outcome.expect("it is restored");
    });
    assert!(bed.pgdata.join("PG_VERSION").exists());
}

#[test]
fn a_store_that_goes_away_is_waited_for_and_a_caller_that_goes_away_leaves_nothing() {
    let mut bed = or_not_run!(Bed::new("restore"));
    let cluster = new_cluster(&json!({}));
    bed.world.store.kill();
    let request = RestoreRequest {
        cluster_definition: cluster.to_string().into(),
        check_empty_wal_archive: None,
    };
    let mut client = RestoreJobHooksClient::new(bed.sidecar.channel());
    bed.sidecar.block(async {
        tokio::select! {
            answer = client.restore(request) => panic!("{answer:?}"),
            () = told(&bed.sidecar) => {}
        }
    });
    drop(client);
    assert!(bed.is_clean());
    std::thread::scope(|scope| {
        let (sidecar, store) = (&bed.sidecar, &mut bed.world.store);
        let call = scope.spawn(|| {
            let mut client = RestoreJobHooksClient::new(sidecar.channel());
            let request = RestoreRequest {
                cluster_definition: cluster.to_string().into(),
                check_empty_wal_archive: None,
            };
            sidecar.block(client.restore(request)).map(drop)
        });
        wait::until_true("the second call to wait", || {
            sidecar.log().matches("trying again").count() > 1
        });
        store.start_again();
        let outcome = call.join().expect("a thread");
        outcome.expect("it is restored");
    });
    assert!(bed.pgdata.join("PG_VERSION").exists());
}

async fn told(sidecar: &Sidecar) {
    while !sidecar.log().contains("trying again") {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[test]
fn a_killed_sidecar_leaves_no_database_and_the_next_attempt_clears_it() {
    let mut bed = or_not_run!(Bed::new("restore"));
    let cluster = new_cluster(&json!({}));
    let marker = bed.pgdata.join("cellarman_restore_unfinished");
    let channel = bed.sidecar.channel();
    let request = RestoreRequest {
        cluster_definition: cluster.to_string().into(),
        check_empty_wal_archive: None,
    };
    let call = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let mut client = RestoreJobHooksClient::new(channel);
        runtime
            .expect("a runtime")
            .block_on(client.restore(request))
            .is_ok()
    });
    wait::until_true("the restore to write", || marker.exists());
    bed.sidecar.kill();
    assert!(!call.join().expect("a thread"));
    assert!(marker.exists());
    assert!(!bed.pgdata.join("global/pg_control").exists());
    bed.sidecar.start_again();
    bed.restore(&cluster).expect("it is restored");
    assert!(bed.pgdata.join("global/pg_control").exists() && !marker.exists());
}

#[test]
fn a_recovery_job_tells_of_the_archive_that_it_recovers_from() {
    let bed = or_not_run!(Bed::new("restore"));
    bed.objects.put(&new_cluster(&json!({})));
    let timelines = recovery_targets::windows(&bed.sidecar, None).expect("windows");
    assert_eq!((timelines.len(), timelines[0].backups.len()), (1, 1));
    let request = recovery_targets::request(Target::Immediate(()));
    let outcome = recovery_targets::resolve(&bed.sidecar, request).expect("an answer");
    let Outcome::Plan(plan) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(plan.backup_id, timelines[0].backups[0].backup_id);
}
