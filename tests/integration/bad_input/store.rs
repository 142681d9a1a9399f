//! A store that refuses, is not there, or holds what nobody knows.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use cellarman::fault::Kind;
use testbed::endpoint::{Endpoint, Response};
use testbed::minio::Minio;
use testbed::workload::Workload;
use testbed::world::{PATH, SERVER};
use testbed::{or_not_run, wait};

use crate::bad_input::{Host, assert_refused, world};
use crate::bucket::Bucket;
use crate::crash::check_restored;

fn variable(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Credentials that no service has to know.
fn some_credentials() -> Vec<(String, String)> {
    vec![
        variable("AWS_ACCESS_KEY_ID", "AKIASOMEBODY"),
        variable("AWS_SECRET_ACCESS_KEY", "not-to-be-printed"),
        variable("AWS_EC2_METADATA_DISABLED", "true"),
    ]
}

#[test]
fn wrong_credentials_are_refused_by_name() {
    let host = or_not_run!(Host::new());
    let minio = or_not_run!(Minio::start(&host.scratch));
    let url = minio.url(PATH);
    let endpoint = minio.endpoint();
    let program = host.with_store(
        &["--store", &url, "--endpoint-url", &endpoint],
        &minio.environment(),
    );
    let secret = program
        .clone()
        .with_variable("AWS_SECRET_ACCESS_KEY", "not-to-be-printed");
    let words = ["cellar", "the secret access key does not fit"];
    host.all_refuse(&secret, Kind::Denied, &words);
    let stranger = program.with_variable("AWS_ACCESS_KEY_ID", "AKIANOBODY");
    let words = ["cellar", "the access key id is not known"];
    host.all_refuse(&stranger, Kind::Denied, &words);
    assert!(Bucket::of(&minio).list("").is_empty());
}

#[test]
fn a_bucket_that_is_not_there_is_named() {
    let host = or_not_run!(Host::new());
    let minio = or_not_run!(Minio::start(&host.scratch));
    let endpoint = minio.endpoint();
    let store = [
        "--store",
        "s3://no-such-bucket/x",
        "--endpoint-url",
        &endpoint,
    ];
    let program = host.with_store(&store, &minio.environment());
    host.all_refuse(&program, Kind::NoContainer, &["no-such-bucket"]);
    // Nor is a directory made where a disk may not be mounted.
    let directory = host.place("not-mounted");
    let program = host.with_store(&["--store", &directory], &[]);
    host.all_refuse(&program, Kind::NoContainer, &[&directory]);
}

#[test]
fn a_store_without_a_route_to_it_is_named() {
    let host = or_not_run!(Host::new());
    // Bound and not listening: it stays refused.
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("an address").to_string();
    drop(nobody);
    let programs = [address.as_str(), "no-such-host.invalid:9000"].map(|place| {
        let endpoint = format!("http://{place}");
        let store = ["--store", "s3://cellar/x", "--endpoint-url", &endpoint];
        (place, host.with_store(&store, &some_credentials()))
    });
    std::thread::scope(|scope| {
        for (place, program) in &programs {
            let name = place.split(':').next().expect("a host");
            scope.spawn(|| host.all_refuse(program, Kind::Unreachable, &["cellar", name]));
        }
    });
}

/// A TLS server whose certificate nobody has signed but itself.
struct SelfSigned {
    child: Child,
    port: u16,
}

impl SelfSigned {
    fn start(host: &Host) -> Result<Self, String> {
        let (key, certificate) = (host.place("key.pem"), host.place("certificate.pem"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-keyout", &key, "-out", &certificate])
            .stderr(Stdio::null())
            .status();
        if !made.is_ok_and(|status| status.success()) {
            return Err("openssl is not installed, or makes no certificate".to_owned());
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port")
            .port();
        let child = Command::new("openssl")
            .args([
                "s_server",
                "-quiet",
                "-www",
                "-key",
                &key,
                "-cert",
                &certificate,
            ])
            .args(["-accept", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("openssl does not start: {error}"))?;
        wait::until_true("openssl to listen", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Ok(Self { child, port })
    }
}

impl Drop for SelfSigned {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_certificate_that_nobody_trusts_is_refused() {
    let host = or_not_run!(Host::new());
    let server = or_not_run!(SelfSigned::start(&host));
    let endpoint = format!("https://127.0.0.1:{}", server.port);
    let store = ["--store", "s3://cellar/x", "--endpoint-url", &endpoint];
    let program = host.with_store(&store, &some_credentials());
    host.all_refuse(&program, Kind::Config, &["cellar", "certificate"]);
    // A bundle that is none is named as well.
    let bundle = host.scratch.write("bundle.pem", "no certificate\n");
    let bundle = bundle.display().to_string();
    let program = program.with_variable("AWS_CA_BUNDLE", &bundle);
    let ended = program.run(&["backup", "list"]);
    assert_refused(&ended, Kind::Config, &[&bundle]);
}

#[test]
fn a_service_that_refuses_is_quoted_with_what_to_do() {
    let host = or_not_run!(Host::new());
    for (status, code, kind, words) in [
        (
            400,
            "ExpiredToken",
            Kind::Denied,
            ["the session token has expired", "Get new credentials"],
        ),
        (
            403,
            "RequestTimeTooSkewed",
            Kind::Denied,
            ["the clock of this host", "Set the clock"],
        ),
        (
            403,
            "AccessDenied",
            Kind::Denied,
            ["may not do this", "Check the credentials"],
        ),
        (
            403,
            "InvalidToken",
            Kind::Denied,
            ["the session token is not valid", "Check the credentials"],
        ),
        (
            301,
            "PermanentRedirect",
            Kind::Config,
            ["another region", "orrect"],
        ),
        (
            404,
            "NoSuchBucket",
            Kind::NoContainer,
            ["no such bucket", "Create the bucket"],
        ),
    ] {
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>No.</Message></Error>"
        );
        let service = Endpoint::start(move |_| Response::xml(status, &body));
        let endpoint = service.url();
        let store = ["--store", "s3://cellar/x", "--endpoint-url", &endpoint];
        let program = host.with_store(&store, &some_credentials());
        host.all_refuse(&program, kind, &["cellar", code, words[0]]);
        for call in [
            &["backup", "list"][..],
            &["wal", "archive", &host.wal.display().to_string()],
        ] {
            let ended = program.run(call);
            assert_refused(&ended, kind, &words);
            assert!(
                !ended.stderr.contains("not-to-be-printed"),
                "{}",
                ended.describe()
            );
        }
        assert!(
            service
                .requests()
                .iter()
                .all(|request| request.method != "PUT"),
            "{code}"
        );
    }
}

#[test]
fn a_store_that_is_full_is_told_at_once() {
    let host = or_not_run!(Host::new());
    let service = Endpoint::start(|request| match request.method.as_str() {
        "PUT" => Response::xml(
            507,
            "<Error><Code>XMinioStorageFull</Code><Message>No.</Message></Error>",
        ),
        _ if request.query().is_empty() || request.path().contains("archive.json") => {
            Response::xml(404, "<Error><Code>NoSuchKey</Code></Error>")
        }
        _ => Response::xml(
            200,
            "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
        ),
    });
    let endpoint = service.url();
    let store = ["--store", "s3://cellar/x", "--endpoint-url", &endpoint];
    let program = host.with_store(&store, &some_credentials());
    let ended = program.run(&["wal", "archive", &host.wal.display().to_string()]);
    let words = ["cellar", "the store is full", "Give the store more room"];
    assert_refused(&ended, Kind::Full, &words);
    let requests = service.requests();
    let puts = requests.iter().filter(|request| request.method == "PUT");
    assert_eq!(puts.count(), 1, "it is full a moment later as well");
}

#[test]
fn a_connection_that_ends_before_the_answer_is_tried_again() {
    let host = or_not_run!(Host::new());
    let asked = AtomicU32::new(0);
    let service = Endpoint::start(move |_| {
        if asked.fetch_add(1, Ordering::Relaxed) < 2 {
            return Response::dropped();
        }
        let nothing = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
        Response::xml(200, nothing)
    });
    let endpoint = service.url();
    let store = ["--store", "s3://cellar/x", "--endpoint-url", &endpoint];
    let program = host.with_store(&store, &some_credentials());
    program.run(&["backup", "list"]).ok();
    assert!(service.requests().len() > 2);
}

#[test]
fn foreign_objects_at_every_level_are_passed_over_and_stay() {
    let world = or_not_run!(world());
    let primary = world.primary(&["-k"]);
    let workload = Workload::start(&primary);
    workload.advance(20);
    world.back_up(&primary, &["--compression", "gzip"]);
    let count = workload.stop();
    let last = primary.archive_now();
    let bucket = Bucket::of(&world.store);
    let server = format!("{PATH}/{SERVER}");
    let keys = bucket.list(&format!("{server}/base/"));
    let record = keys
        .keys()
        .find(|key| key.ends_with("backup.info"))
        .expect("a record");
    let backup = record.trim_end_matches("backup.info").to_owned();
    let segments = bucket.list(&format!("{server}/wals/"));
    let segment = segments
        .keys()
        .find(|key| key.ends_with(&last))
        .expect("it is archived");
    let folder = segment.trim_end_matches(&last).to_owned();
    let foreign = [
        "README.txt".to_owned(),
        format!("{PATH}/notes"),
        format!("{PATH}/other-server/base/x"),
        format!("{server}/notes"),
        format!("{server}/base/notes"),
        format!("{server}/base/monthly/data.tar"),
        format!("{server}/base/20991231T999999/backup.info"),
        format!("{backup}checksums.md5"),
        format!("{backup}notes/a b ü.txt"),
        format!("{backup}backup.info~"),
        format!("{server}/wals/notes"),
        format!("{server}/wals/lost+found/x"),
        format!("{server}/wals/zz/{last}"),
        format!("{folder}notes"),
        format!("{folder}{last}.bak"),
        format!("{folder}.{last}.tmp"),
        format!("{server}/cellarman/notes"),
        format!("{server}/cellarman/backups/notes"),
    ];
    for key in &foreign {
        bucket.put(key, b"not ours".to_vec());
    }
    world.cellarman.run(&["backup", "list"]).ok();
    world.beside(&primary).run(&["check"]).ok();
    let asked = world.place("asked.wal");
    world
        .cellarman
        .run(&["wal", "restore", &last, &asked.display().to_string()])
        .ok();
    primary.archive_now();
    world.back_up(&primary, &[]);
    check_restored(&world, "restored", &[], count);
    let id = backup
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .expect("an id");
    check_restored(&world, "restored-by-id", &["--backup-id", id], count);
    // What could be a part of the backup, in a form to come, is not passed over.
    let odd = format!("{backup}data_0001.tar.later");
    bucket.put(&odd, b"not ours".to_vec());
    let call = world.restore_words("refused", &["--backup-id", id]);
    let call: Vec<&str> = call.iter().map(String::as_str).collect();
    let ended = world.cellarman.run(&call);
    assert_refused(&ended, Kind::Corrupt, &["data_0001.tar.later", id]);
    let there = bucket.list("");
    for key in &foreign {
        assert!(there.contains_key(key), "{key} is gone");
    }
}
