//! An Azurite of one test, on a free port of the loopback interface: Azure's Blob Storage in
//! small.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cache;
use crate::scratch::Scratch;
use crate::storage::free_port;
use crate::wait;

/// The account that every emulator has, and its key.
pub const ACCOUNT: (&str, &str) = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
);

/// The container that tests use. Nobody has made it yet.
pub const CONTAINER: &str = "cellar";

/// A running Azurite.
#[derive(Debug)]
pub struct Azurite {
    child: Child,
    port: u16,
}

impl Azurite {
    /// Where its program is, or why there is none.
    pub fn installed() -> Result<PathBuf, String> {
        let path = "azurite/node_modules/azurite/dist/src/blob/main.js";
        cache::installed("azurite", &cache::directory().join(path))
    }

    /// Starts one with its data in `scratch`.
    pub fn start(scratch: &Scratch) -> Result<Self, String> {
        let program = Self::installed()?;
        let directory = scratch.make("azurite");
        // Another process may take the port between the look and the start.
        for _ in 0..5 {
            let port = free_port();
            let mut child = spawn(&program, port, &directory)?;
            if becomes_ready(&mut child, &directory) {
                return Ok(Self { child, port });
            }
        }
        let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
        panic!("Azurite does not start: {log}")
    }

    /// The account's URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{}", self.port, ACCOUNT.0)
    }

    /// The container's URL with `path` in it.
    pub fn url(&self, path: &str) -> String {
        format!("{}/{CONTAINER}/{path}", self.endpoint())
    }

    /// What the program needs in its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![("AZURE_STORAGE_KEY".to_owned(), ACCOUNT.1.to_owned())]
    }

    /// What a client of Microsoft's needs in its environment.
    pub fn connection_string(&self) -> Vec<(String, String)> {
        let text = format!(
            "DefaultEndpointsProtocol=http;AccountName={};AccountKey={};BlobEndpoint={};",
            ACCOUNT.0,
            ACCOUNT.1,
            self.endpoint()
        );
        vec![("AZURE_STORAGE_CONNECTION_STRING".to_owned(), text)]
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, port: u16, directory: &Path) -> Result<Child, String> {
    let log_path = directory.join("log");
    let log = File::create(&log_path)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", log_path.display()));
    Command::new("node")
        .arg(program)
        .args(["--blobHost", "127.0.0.1", "--blobPort"])
        .arg(port.to_string())
        .arg("--location")
        .arg(directory)
        // Barman's library is newer than the newest version of the interface that it knows.
        .args(["--silent", "--disableTelemetry", "--skipApiVersionCheck"])
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(Stdio::from(log))
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("azurite: node does not start: {error}"))
}

/// Whether it says that it listens, before it ends.
fn becomes_ready(child: &mut Child, directory: &Path) -> bool {
    wait::for_value("Azurite to start", || {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return Some(false);
        }
        let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
        log.contains("successfully listens").then_some(true)
    })
}
