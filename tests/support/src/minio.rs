//! A MinIO server of one test, on a free port of the loopback interface.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cache;
use crate::scratch::Scratch;
use crate::storage::{Storage, free_port};
use crate::wait;

/// A running MinIO with one bucket.
#[derive(Debug)]
pub struct Minio {
    child: Child,
    port: u16,
    binary: PathBuf,
    directory: PathBuf,
    certificates: Option<PathBuf>,
}

/// The bucket every test finds.
pub const BUCKET: &str = "cellar";
/// The credentials: access key and secret key.
pub const CREDENTIALS: (&str, &str) = ("cellarman-test", "cellarman-test-secret");

impl Minio {
    /// Where the server's binary is, or why there is none.
    pub fn installed() -> Result<PathBuf, String> {
        cache::installed("minio", &cache::directory().join("bin/minio"))
    }

    /// Starts a server with its data in `scratch` and makes [`BUCKET`].
    pub fn start(scratch: &Scratch) -> Result<Self, String> {
        Self::start_with(scratch, None)
    }

    /// The same behind TLS, with the key and certificate in that directory. It serves soon after.
    pub fn start_with_tls(scratch: &Scratch, certificates: &Path) -> Result<Self, String> {
        Self::start_with(scratch, Some(certificates))
    }

    fn start_with(scratch: &Scratch, certificates: Option<&Path>) -> Result<Self, String> {
        let binary = Self::installed()?;
        let directory = scratch.path().to_path_buf();
        // A directory of a fresh drive is a bucket: no client needed to make one.
        fs::create_dir(scratch.make("minio").join(BUCKET))
            .unwrap_or_else(|error| panic!("cannot make the bucket: {error}"));
        // Another process may take the port between the look and the start.
        for _ in 0..5 {
            let port = free_port();
            let child = spawn(&binary, port, &directory, certificates);
            let mut started = Self {
                child,
                port,
                binary: binary.clone(),
                directory: directory.clone(),
                certificates: certificates.map(Path::to_path_buf),
            };
            if started.becomes_ready() {
                return Ok(started);
            }
        }
        fail(&directory)
    }

    /// Starts it again after [`Minio::kill`], where it was and with what it held.
    pub fn start_again(&mut self) {
        let certificates = self.certificates.as_deref();
        self.child = spawn(&self.binary, self.port, &self.directory, certificates);
        if !self.becomes_ready() {
            fail(&self.directory);
        }
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        let scheme = if self.certificates.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    fn becomes_ready(&mut self) -> bool {
        wait::for_value("MinIO to start", || {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return Some(false);
            }
            let is_ready = match self.certificates {
                // What it answers to whoever speaks without TLS.
                Some(_) => status_of(self.port, "/") == Some(*b"400"),
                None => is_ready(self.port),
            };
            is_ready.then_some(true)
        })
    }

    /// The bucket's URL with `path` in it.
    pub fn url(&self, path: &str) -> String {
        format!("s3://{BUCKET}/{path}")
    }

    /// What a client needs in its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ACCESS_KEY_ID", CREDENTIALS.0.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", CREDENTIALS.1.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT_URL", self.endpoint()),
            // Without it every cold client first asks 169.254.169.254 and waits.
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Stops the server without telling it, as a machine that dies would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Storage for Minio {
    const BARMAN_PROVIDER: &'static str = "aws-s3";

    fn start(scratch: &Scratch) -> Result<Self, String> {
        Self::start(scratch)
    }

    fn url(&self, path: &str) -> String {
        self.url(path)
    }

    fn arguments(&self) -> Vec<String> {
        vec!["--endpoint-url".to_owned(), self.endpoint()]
    }

    fn environment(&self) -> Vec<(String, String)> {
        self.environment()
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        self.kill();
    }
}

fn fail(directory: &Path) -> ! {
    let log = fs::read_to_string(directory.join("minio.log")).unwrap_or_default();
    panic!("MinIO does not start: {log}")
}

fn spawn(binary: &Path, port: u16, directory: &Path, certificates: Option<&Path>) -> Child {
    let log_path = directory.join("minio.log");
    let log = File::create(&log_path)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", log_path.display()));
    let mut command = Command::new(binary);
    command
        .args(["server", "--quiet", "--address"])
        .arg(format!("127.0.0.1:{port}"));
    if let Some(certificates) = certificates {
        command.arg("--certs-dir").arg(certificates);
    }
    command
        .arg(directory.join("minio"))
        .env("MINIO_ROOT_USER", CREDENTIALS.0)
        .env("MINIO_ROOT_PASSWORD", CREDENTIALS.1)
        .env("MINIO_BROWSER", "off")
        .env("MINIO_UPDATE", "off")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(Stdio::from(log))
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start MinIO: {error}"))
}

/// Whether it says that it is ready, and serves: it answers 503 for a moment after it says so.
fn is_ready(port: u16) -> bool {
    status_of(port, "/minio/health/ready").is_some_and(|status| status == *b"200")
        && status_of(port, &format!("/{BUCKET}")).is_some_and(|status| status == *b"403")
}

/// The status of a page, in the plainest HTTP there is.
fn status_of(port: u16, path: &str) -> Option<[u8; 3]> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n");
    connection.write_all(request.as_bytes()).ok()?;
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).ok()?;
    answer[9..].try_into().ok()
}
