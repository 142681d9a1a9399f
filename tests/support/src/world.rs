//! What most tests begin with: a store, a PostgreSQL release, and the program set up for both.

use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::cluster::{Cluster, Release};
use crate::minio::Minio;
use crate::process::Ended;
use crate::program::Program;
use crate::scratch::Scratch;
use crate::storage::Storage;
use crate::workload;

/// The pieces. Clusters made with it must be dropped before it.
#[derive(Debug)]
pub struct World<S = Minio> {
    /// The program, with its store and server.
    pub cellarman: Program,
    any_server: Program,
    /// The store: MinIO, unless a test asks for another.
    pub store: S,
    /// The PostgreSQL that clusters are made with.
    pub release: Release,
    /// Where all files are.
    pub scratch: Scratch,
}

/// The folder in the bucket.
pub const PATH: &str = "backups";
/// The server's name in the archive.
pub const SERVER: &str = "main";

impl World<Minio> {
    /// A new one on MinIO; `binary` is what Cargo built. An error says why the test cannot run.
    pub fn new(binary: &str, release: Result<Release, String>) -> Result<Self, String> {
        Self::on_store(binary, release)
    }
}

impl<S: Storage> World<S> {
    /// A new one on this kind of store.
    pub fn on_store(binary: &str, release: Result<Release, String>) -> Result<Self, String> {
        let release = release?;
        let scratch = Scratch::new(Account::of_servers()?);
        let store = S::start(&scratch)?;
        let url = store.url(PATH);
        let arguments = store.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let any_server = Program::built(binary, &scratch)
            .with_arguments(&["--store", &url])
            .with_arguments(&arguments)
            .with_environment(&store.environment());
        Ok(Self {
            cellarman: any_server.clone().with_arguments(&["--server", SERVER]),
            any_server,
            store,
            release,
            scratch,
        })
    }

    /// The program, with another server's archive.
    pub fn cellarman_for(&self, server: &str) -> Program {
        self.any_server
            .clone()
            .with_arguments(&["--server", server])
    }

    /// A cluster that archives through the program, started, with the workload's tables.
    pub fn primary(&self, initdb: &[&str]) -> Cluster {
        self.primary_with(initdb, &self.archiving())
    }

    /// A cluster with these settings, started, with the workload's tables.
    pub fn primary_with(&self, initdb: &[&str], settings: &str) -> Cluster {
        let cluster = Cluster::create(&self.release, &self.scratch, "primary", initdb)
            .with_environment(self.cellarman.environment());
        cluster.configure(settings);
        cluster.start();
        workload::prepare(&cluster, &self.scratch.make("cold"));
        cluster
    }

    /// The settings that make a server archive through the program.
    pub fn archiving(&self) -> String {
        let command = self.archive_command(&[]);
        format!("archive_mode = on\narchive_command = '{command}'")
    }

    /// An `archive_command` with further options.
    pub fn archive_command(&self, options: &[&str]) -> String {
        let words = [&["wal", "archive"], options, &["%p"]].concat();
        self.cellarman.shell_line(&words)
    }

    /// The program, talking to `cluster`.
    pub fn beside(&self, cluster: &Cluster) -> Program {
        self.cellarman
            .clone()
            .with_server(cluster.socket_directory())
    }

    /// Takes a backup of `cluster`.
    #[track_caller]
    pub fn back_up(&self, cluster: &Cluster, options: &[&str]) -> Ended {
        let words = [&["backup", "create", "--immediate-checkpoint"], options].concat();
        let ended = self.beside(cluster).run(&words);
        ended.ok();
        ended
    }

    /// The directory that a restore called `name` goes to.
    pub fn place(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The words of a restore to the place `name`, the tablespace beside it.
    pub fn restore_words(&self, name: &str, options: &[&str]) -> Vec<String> {
        let directory = self.place(name).display().to_string();
        let tablespace = format!("cold={directory}.cold");
        [
            "restore",
            "--pgdata",
            &directory,
            "--tablespace",
            &tablespace,
        ]
        .iter()
        .chain(options)
        .map(|&word| word.to_owned())
        .collect()
    }

    /// Restores to the place `name`; fails the test unless it succeeds.
    #[track_caller]
    pub fn restore(&self, name: &str, options: &[&str]) -> Cluster {
        let words = self.restore_words(name, options);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.cellarman.run(&words).ok();
        self.verify_backup(&self.place(name));
        self.adopt(name)
    }

    /// The cluster that somebody restored to the place `name`.
    pub fn adopt(&self, name: &str) -> Cluster {
        Cluster::adopt(&self.release, &self.scratch, name, self.place(name))
            .with_environment(self.cellarman.environment())
    }

    /// Has `pg_verifybackup` judge a directory, where the release has one.
    #[track_caller]
    pub fn verify_backup(&self, directory: &Path) {
        if let Some(tool) = self.release.tool("pg_verifybackup") {
            let directory = directory.display().to_string();
            Program::at(tool, self.scratch.account())
                .run(&["-n", &directory])
                .ok();
        }
    }
}
