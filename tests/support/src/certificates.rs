//! An authority of one test and a certificate of 127.0.0.1 that it signed, made by openssl.

use std::path::PathBuf;
use std::process::Command;

use crate::process;
use crate::scratch::Scratch;

/// The authority, with what a server needs to show that it is trusted by it.
#[derive(Debug)]
pub struct Authority {
    /// The authority's certificate, in PEM.
    pub bundle: PathBuf,
    /// A directory as MinIO expects it: `public.crt` and `private.key`.
    pub server: PathBuf,
}

impl Authority {
    /// Makes both in `scratch`, or says why not.
    pub fn new(scratch: &Scratch) -> Result<Self, String> {
        let bundle = scratch.path().join("authority.pem");
        let key = scratch.path().join("authority.key").display().to_string();
        let server = scratch.make("certificates");
        let place = |name: &str| server.join(name).display().to_string();
        let authority = bundle.display().to_string();
        issue(&["-subj", "/CN=Test authority"], &key, &authority)?;
        let words = [
            "-subj",
            "/CN=server",
            "-CA",
            &authority,
            "-CAkey",
            &key,
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        issue(&words, &place("private.key"), &place("public.crt"))?;
        Ok(Self { bundle, server })
    }
}

/// A key and its certificate, for two days.
fn issue(words: &[&str], key: &str, certificate: &str) -> Result<(), String> {
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(words)
        .args(["-keyout", key, "-out", certificate]);
    if Command::new("openssl").arg("version").output().is_err() {
        return Err("openssl is not installed".to_owned());
    }
    let ended = process::run(&mut command);
    ended
        .status
        .success()
        .then_some(())
        .ok_or_else(|| format!("openssl makes no certificate: {}", ended.describe()))
}
