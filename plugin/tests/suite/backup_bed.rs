//! A running server that archives through a sidecar, with objects in a directory and a store.
//!
//! Not here: any test.

use std::fs::{self, File};

use cellarman::barman::layout::Layout;
use cellarman::barman::repository::Repository;
use cellarman::cnpgi::backup::backup_client::BackupClient;
use cellarman::cnpgi::backup::{BackupRequest, BackupResult};
use cellarman::config::{self, Source};
use cellarman::domain::backup::BackupStatus;
use cellarman::store::open;
use serde_json::{Value, json};
use testbed::account::Account;
use testbed::cluster::{Cluster, Release};
use testbed::minio::Minio;
use testbed::scratch::Scratch;
use tonic::Status;

use crate::caller;
use crate::sidecar::{NAMESPACE, Objects, Sidecar, cluster};

/// The Cluster's own archive.
pub(crate) const OWN: (&str, &str) = ("store-a", "pg");

/// Everything that a backup takes. The server stops first, while its archiver is still there.
pub(crate) struct Bed {
    pub(crate) server: Cluster,
    pub(crate) sidecar: Sidecar,
    pub(crate) store: Minio,
    pub(crate) objects: Objects,
    pub(crate) cluster: Value,
    #[expect(dead_code, reason = "it holds the files until all else is gone")]
    scratch: Scratch,
}

impl Bed {
    /// A bed whose own ObjectStore has these fields beside its configuration.
    pub(crate) fn new(spec: &Value) -> Result<Self, String> {
        let release = Release::eighteen()?;
        let scratch = Scratch::new(Account::of_servers()?);
        let store = Minio::start(&scratch)?;
        let objects = Objects::new(&scratch);
        objects.put_store(OWN.0, &store, &json!({"compression": "gzip"}));
        put_store(&objects, OWN.0, "backups", &store, spec);
        let cluster = cluster(Some(OWN), None);
        objects.put(&cluster);
        let server = Cluster::create(&release, &scratch, "server", &["--wal-segsize=1"]);
        let mode = ("instance", server.directory());
        let sidecar = Sidecar::start(&scratch, &objects, mode, &[]);
        let command = caller::archive_command(&scratch, &sidecar, &cluster);
        server.configure(&format!("archive_mode = on\narchive_command = '{command}'"));
        server.start();
        Ok(Self {
            server,
            sidecar,
            store,
            objects,
            cluster,
            scratch,
        })
    }

    /// Puts one more ObjectStore, of another folder of the bucket.
    pub(crate) fn put_other_store(&self, name: &str) {
        put_store(&self.objects, name, name, &self.store, &json!({}));
    }

    /// A request of a Backup of this name, with these parameters.
    pub(crate) fn request(&self, name: &str, parameters: &[(&str, &str)]) -> BackupRequest {
        let parameters = parameters.iter();
        BackupRequest {
            cluster_definition: self.cluster.to_string().into(),
            backup_definition: backup(name, true).to_string().into(),
            parameters: parameters
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    /// Asks for a backup.
    pub(crate) fn ask(&self, request: BackupRequest) -> Result<BackupResult, Status> {
        let mut client = BackupClient::new(self.sidecar.channel());
        let answer = self.sidecar.block(client.backup(request));
        answer.map(tonic::Response::into_inner)
    }

    /// Takes a backup, and notes it in a Backup as the operator does.
    #[track_caller]
    pub(crate) fn take(&self, name: &str, parameters: &[(&str, &str)]) -> BackupResult {
        let result = self.ask(self.request(name, parameters)).expect("a backup");
        let mut backup = backup(name, true);
        backup["status"] = json!({
            "phase": "completed",
            "backupId": result.backup_id,
            "pluginMetadata": result.metadata,
        });
        self.objects.put(&backup);
        result
    }

    /// What the directory has of an object.
    pub(crate) fn object(&self, kind: &str, name: &str) -> Option<Value> {
        let path = self.objects.folder().join(format!("{kind}-{name}.yaml"));
        let text = fs::read_to_string(path).ok()?;
        Some(serde_norway::from_str(&text).expect("YAML"))
    }

    /// Changes an object, as the sidecar does: one of them at a time.
    pub(crate) fn change(&self, kind: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let lock = File::options()
            .write(true)
            .open(self.objects.folder().join(".lock"));
        let lock = lock.expect("the sidecar has made it");
        lock.lock().expect("a lock");
        let mut object = self.object(kind, name).expect("an object");
        change(&mut object);
        self.objects.put(&object);
    }

    /// What the status of an ObjectStore says of a server.
    pub(crate) fn window(&self, store: &str, server: &str) -> Value {
        let object = self.object("ObjectStore", store).expect("an ObjectStore");
        object["status"]["serverRecoveryWindow"][server].clone()
    }

    /// Whether there was an event of this reason; its message.
    pub(crate) fn event(&self, reason: &str) -> Option<String> {
        let path = self.objects.folder().join("events.jsonl");
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut events = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let found = events.find(|event| event["reason"] == reason)?;
        Some(found["message"].as_str().unwrap_or_default().to_owned())
    }

    /// The archive of a server below a folder of the bucket.
    pub(crate) fn repository(&self, folder: &str, server: &str) -> Repository {
        let source = Source::Url {
            url: self.store.url(folder),
            endpoint_url: None,
        };
        let variables = self.store.environment();
        let env = |name: &str| {
            let mut variables = variables.iter();
            let found = variables.find(|(known, _)| known == name)?;
            Some(found.1.clone())
        };
        let settings = config::load(&source, &env).expect("settings");
        let opened = self.sidecar.block(open::open(&settings.destination.store));
        let layout = Layout::new(&settings.destination.path, &server.parse().expect("a name"));
        Repository::new(opened.expect("a store"), layout)
    }

    /// The state of every backup of the Cluster's own archive, oldest first.
    pub(crate) fn states(&self) -> Vec<BackupStatus> {
        let repository = self.repository("backups", OWN.1);
        let catalog = self.sidecar.block(repository.list_backups());
        let backups = catalog.expect("a catalog").backups;
        backups.iter().map(|entry| entry.backup.status).collect()
    }
}

/// A Backup of this name, as the operator sends it.
pub(crate) fn backup(name: &str, is_immediate: bool) -> Value {
    json!({
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Backup",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}")},
        "spec": {
            "cluster": {"name": "pg"},
            "method": "plugin",
            "onlineConfiguration": {"immediateCheckpoint": is_immediate},
        },
    })
}

fn put_store(objects: &Objects, name: &str, folder: &str, store: &Minio, spec: &Value) {
    let key = |key: &str| json!({"name": "aws", "key": key});
    let mut object = json!({
        "apiVersion": "barmancloud.cnpg.io/v1",
        "kind": "ObjectStore",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"configuration": {
            "destinationPath": store.url(folder),
            "endpointURL": store.endpoint(),
            "s3Credentials": {"accessKeyId": key("id"), "secretAccessKey": key("secret")},
            "wal": {"compression": "gzip"},
            "data": {"compression": "gzip"},
        }},
        "status": {
            "later": 1,
            "serverRecoveryWindow": {"other": {"lastFailedBackupTime": "2026-01-02T03:04:05Z"}},
        },
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    objects.put(&object);
}
