//! A sidecar as the operator's instance manager meets it: the built program, its socket, and
//! objects in a directory.
//!
//! Not here: any test.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cellarman::cnpgi::wal::wal_client::WalClient;
use cellarman::cnpgi::wal::wal_restore_request::Mode;
use cellarman::cnpgi::wal::{WalArchiveRequest, WalRestoreRequest};
use serde_json::{Value, json};
use testbed::minio::{CREDENTIALS, Minio};
use testbed::program::Program;
use testbed::scratch::Scratch;
use testbed::wait;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// The plugin's name.
pub(crate) const PLUGIN: &str = "barman-cloud.cloudnative-pg.io";

/// The namespace of everything.
pub(crate) const NAMESPACE: &str = "db";

/// The instance whose sidecar it is.
pub(crate) const POD: &str = "pg-1";

/// A directory of objects.
pub(crate) struct Objects {
    folder: PathBuf,
}

impl Objects {
    /// An empty one.
    pub(crate) fn new(scratch: &Scratch) -> Self {
        let folder = scratch.make("objects");
        Self { folder }
    }

    /// Writes an object as its own file, over what is there.
    pub(crate) fn put(&self, object: &Value) {
        let kind = object["kind"].as_str().unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let path = self.folder.join(format!("{kind}-{name}.yaml"));
        let text = serde_norway::to_string(object).expect("JSON is YAML");
        let whole = self.folder.join("new");
        fs::write(&whole, text).expect("a file is written");
        fs::rename(whole, path).expect("a file is renamed");
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Puts an ObjectStore with its Secret, whose values end as editors leave them.
    pub(crate) fn put_store(&self, name: &str, store: &Minio, wal: &Value) {
        let key = |key: &str| json!({"name": "aws", "key": key});
        self.put(&json!({
            "apiVersion": "barmancloud.cnpg.io/v1",
            "kind": "ObjectStore",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"configuration": {
                "destinationPath": store.url("backups"),
                "endpointURL": store.endpoint(),
                "s3Credentials": {"accessKeyId": key("id"), "secretAccessKey": key("secret")},
                "wal": wal,
            }},
        }));
        self.put_secret(CREDENTIALS.1);
    }

    /// Puts the Secret with this for its secret.
    pub(crate) fn put_secret(&self, secret: &str) {
        self.put(&json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "aws", "namespace": NAMESPACE},
            "stringData": {"id": CREDENTIALS.0, "secret": format!("{secret}\n")},
        }));
    }
}

/// A Cluster with these archives, each `(ObjectStore, server)`.
pub(crate) fn cluster(own: Option<(&str, &str)>, recovery: Option<(&str, &str)>) -> Value {
    let parameters = |(store, server): (&str, &str)| {
        json!({
            "name": PLUGIN,
            "parameters": {"barmanObjectName": store, "serverName": server},
        })
    };
    let mut cluster = json!({
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": {"name": "pg", "namespace": NAMESPACE, "uid": "6f0c"},
        "spec": {"instances": 1, "plugins": []},
        "status": {"currentPrimary": ""},
    });
    if let Some(own) = own {
        cluster["spec"]["plugins"] = json!([parameters(own)]);
        cluster["status"]["currentPrimary"] = json!(POD);
    }
    if let Some(recovery) = recovery {
        cluster["spec"]["bootstrap"] = json!({"recovery": {"source": "origin"}});
        cluster["spec"]["externalClusters"] =
            json!([{"name": "origin", "plugin": parameters(recovery)}]);
        cluster["status"]["currentPrimary"] = json!("");
    }
    cluster
}

/// A running sidecar; killed when dropped.
pub(crate) struct Sidecar {
    child: Child,
    program: Program,
    arguments: Vec<String>,
    /// Its socket.
    pub(crate) socket: PathBuf,
    log: PathBuf,
    runtime: Runtime,
}

impl Sidecar {
    /// Starts one for this data directory.
    pub(crate) fn start(
        scratch: &Scratch,
        objects: &Objects,
        (mode, pgdata): (&str, &Path),
        options: &[&str],
    ) -> Self {
        let built = env!("CARGO_BIN_EXE_cellarman-plugin");
        let copy = scratch.path().join("cellarman-plugin");
        if !copy.exists() {
            fs::copy(built, &copy).expect("the program is copied");
        }
        let program = Program::at(copy, scratch.account()).with_environment(&[
            ("NAMESPACE".to_owned(), NAMESPACE.to_owned()),
            ("CLUSTER_NAME".to_owned(), "pg".to_owned()),
            ("POD_NAME".to_owned(), POD.to_owned()),
            ("PGDATA".to_owned(), pgdata.display().to_string()),
            // Where the harness puts the socket of that server.
            ("PGHOST".to_owned(), format!("{}.sock", pgdata.display())),
            ("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned()),
        ]);
        let socket = scratch.path().join(PLUGIN);
        let log = scratch.path().join("sidecar.log");
        let paths = [
            ("--resources", objects.folder()),
            ("--socket", &socket),
            ("--log-destination", &log),
        ];
        let paths = paths.map(|(option, path)| format!("{option}={}", path.display()));
        let arguments: Vec<String> = [mode, "--log-level=debug"]
            .iter()
            .chain(options)
            .map(|&word| word.to_owned())
            .chain(paths)
            .collect();
        let child = spawn(&program, &arguments);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let mut sidecar = Self {
            child,
            program,
            arguments,
            socket,
            log,
            runtime,
        };
        sidecar.wait_until_it_serves();
        sidecar
    }

    /// Kills it without a word, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, where it was.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.program, &self.arguments);
        self.wait_until_it_serves();
    }

    /// Asks it to end, and waits until it has; its exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        Command::new("kill").arg(pid).status().expect("a signal");
        wait::for_value("the sidecar to end", || {
            self.child.try_wait().expect("a child")
        })
        .code()
    }

    /// What `healthcheck unix` exits with.
    pub(crate) fn healthcheck(&self) -> Option<i32> {
        let socket = format!("--socket={}", self.socket.display());
        let ended = self.program.run(&["healthcheck", "unix", &socket]);
        ended.status.code()
    }

    /// Its log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until its log has these words.
    pub(crate) fn wait_for_log(&self, words: &str) {
        wait::until_true(&format!("the sidecar to log {words:?}"), || {
            self.log().contains(words)
        });
    }

    /// Runs calls to their end.
    pub(crate) fn block<T>(&self, calls: impl Future<Output = T>) -> T {
        self.runtime.block_on(calls)
    }

    /// Begins calls.
    pub(crate) fn spawn(&self, calls: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime.spawn(calls)
    }

    /// A new connection.
    pub(crate) fn channel(&self) -> Channel {
        self.block(connect(&self.socket)).expect("a connection")
    }

    /// Archives a file.
    pub(crate) fn archive(
        &self,
        cluster: &Value,
        file: &Path,
        must_be_empty: Option<bool>,
    ) -> Result<(), Status> {
        let request = archive_request(cluster, file, must_be_empty);
        let mut client = WalClient::new(self.channel());
        self.block(client.archive(request)).map(drop)
    }

    /// Restores a file.
    pub(crate) fn restore(
        &self,
        cluster: &Value,
        name: &str,
        destination: &Path,
    ) -> Result<(), Status> {
        let request = restore_request(cluster, name, destination);
        let mut client = WalClient::new(self.channel());
        self.block(client.restore(request)).map(drop)
    }

    fn wait_until_it_serves(&mut self) {
        wait::until_true("the sidecar to serve", || {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "the sidecar ended: {}", self.log());
            self.runtime.block_on(connect(&self.socket)).is_ok()
        });
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(program: &Program, arguments: &[String]) -> Child {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = program.command(&arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = None;
    wait::until_true("the sidecar's program to be free", || {
        match command.spawn() {
            Ok(started) => {
                child = Some(started);
                true
            }
            // Another test's process was begun while the program was copied, and holds that file open.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => false,
            Err(error) => panic!("the sidecar cannot be started: {error}"),
        }
    });
    child.expect("a process")
}

/// Connects to a socket.
pub(crate) async fn connect(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    endpoint.connect().await
}

/// A request to archive a file.
pub(crate) fn archive_request(
    cluster: &Value,
    file: &Path,
    must_be_empty: Option<bool>,
) -> WalArchiveRequest {
    WalArchiveRequest {
        cluster_definition: cluster.to_string().into(),
        source_file_name: file.display().to_string(),
        check_empty_wal_archive: must_be_empty,
        ..WalArchiveRequest::default()
    }
}

/// A request to restore a file in a recovery.
pub(crate) fn restore_request(
    cluster: &Value,
    name: &str,
    destination: &Path,
) -> WalRestoreRequest {
    WalRestoreRequest {
        cluster_definition: cluster.to_string().into(),
        source_wal_name: name.to_owned(),
        destination_file_name: destination.display().to_string(),
        mode: Mode::Recovery.into(),
        ..WalRestoreRequest::default()
    }
}
