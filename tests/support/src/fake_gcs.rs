//! A fake-gcs-server of one test, on a free port of the loopback interface, its objects in memory.
//!
//! It judges conditions, checksums, ranges, batches and sessions. It takes any credentials, knows no
//! KMS keys, and answers a question about a session by ending it: those are not judged by it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cache;
use crate::scratch::Scratch;
use crate::storage::{Storage, free_port};
use crate::wait;

/// The bucket every test finds.
pub const BUCKET: &str = "cellar";

/// A running fake-gcs-server with one bucket.
#[derive(Debug)]
pub struct FakeGcs {
    child: Child,
    port: u16,
}

impl FakeGcs {
    /// Where the server's binary is, or why there is none.
    pub fn installed() -> Result<PathBuf, String> {
        let binary = cache::directory().join("bin/fake-gcs-server");
        cache::installed("gcs", &binary)
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Stops the server without telling it, as a machine that dies would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Storage for FakeGcs {
    const BARMAN_PROVIDER: &'static str = "google-cloud-storage";

    fn start(scratch: &Scratch) -> Result<Self, String> {
        let binary = Self::installed()?;
        let log = scratch.path().join("fake-gcs-server.log");
        // Another process may take the port between the look and the start.
        for _ in 0..5 {
            let port = free_port();
            let mut child = spawn(&binary, port, &log);
            let is_up = wait::for_value("fake-gcs-server to start", || {
                if matches!(child.try_wait(), Ok(Some(_))) {
                    return Some(false);
                }
                (status_of(port, "GET /storage/v1/b", "").as_deref() == Some("200")).then_some(true)
            });
            if is_up {
                let bucket = format!(r#"{{"name":"{BUCKET}"}}"#);
                let made = status_of(port, "POST /storage/v1/b?project=test", &bucket);
                assert_eq!(made.as_deref(), Some("200"), "the bucket is made");
                return Ok(Self { child, port });
            }
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        panic!("fake-gcs-server does not start: {said}")
    }

    fn url(&self, path: &str) -> String {
        format!("gs://{BUCKET}/{path}")
    }

    fn environment(&self) -> Vec<(String, String)> {
        [
            ("STORAGE_EMULATOR_HOST", self.endpoint()),
            ("GOOGLE_CLOUD_PROJECT", "test".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

impl Drop for FakeGcs {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(binary: &Path, port: u16, log: &Path) -> Child {
    let file =
        File::create(log).unwrap_or_else(|error| panic!("cannot write {}: {error}", log.display()));
    Command::new(binary)
        .args([
            "-scheme",
            "http",
            "-backend",
            "memory",
            "-log-level",
            "error",
        ])
        .args(["-host", "127.0.0.1", "-port", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(file))
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start fake-gcs-server: {error}"))
}

/// The status of a request, in the plainest HTTP there is.
fn status_of(port: u16, request: &str, body: &str) -> Option<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request = format!(
        "{request} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1).map(str::to_owned)
}
