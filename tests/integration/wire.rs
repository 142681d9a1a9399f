//! What goes over the wire for each setting of a manifest: addresses, encryption, class, tags.
//!
//! The program archives into a fake that keeps what is put and remembers each request.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::Mutex;

use testbed::account::Account;
use testbed::cluster::{Cluster, Release};
use testbed::endpoint::{Endpoint, Request, Response};
use testbed::or_not_run;
use testbed::process::Ended;
use testbed::program::Program;
use testbed::scratch::Scratch;

const HISTORY: &str = "00000002.history";

/// A store, the program beside it, and a history file to archive.
struct Bed {
    scratch: Scratch,
    store: Endpoint,
    program: Program,
}

impl Bed {
    fn new() -> Self {
        let objects = Mutex::new(BTreeMap::new());
        Self::answering(move |request| answer(&objects, request))
    }

    fn answering(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let scratch = Scratch::new(Account::of_servers().expect("an account"));
        scratch.write(HISTORY, "1\t0/3000000\tno recovery target specified\n");
        let program = Program::built(env!("CARGO_BIN_EXE_cellarman"), &scratch)
            .with_variable("AWS_ACCESS_KEY_ID", "id")
            .with_variable("AWS_SECRET_ACCESS_KEY", "secret");
        Self {
            scratch,
            store: Endpoint::start(answer),
            program,
        }
    }

    /// Runs the program with a manifest that has these lines.
    fn run(&self, endpoint: &str, lines: &[&str], words: &[&str]) -> Ended {
        let lines = lines
            .iter()
            .fold(String::new(), |text, line| text + &format!("    {line}\n"));
        let manifest = format!(
            "apiVersion: barmancloud.cnpg.io/v1\nkind: ObjectStore\nmetadata: {{name: store}}\n\
             spec:\n  configuration:\n    destinationPath: s3://bucket/path\n    \
             endpointURL: {endpoint}\n{lines}"
        );
        let manifest = self.scratch.write("store.yaml", &manifest);
        let manifest = manifest.display().to_string();
        let words = [&["--store-file", &manifest, "--server", "pg"], words].concat();
        self.program.run(&words)
    }

    /// Archives the history file under a manifest with these lines: the request that put it.
    #[track_caller]
    fn put(&self, lines: &[&str]) -> Request {
        let file = self.scratch.path().join(HISTORY).display().to_string();
        let ended = self.run(&self.store.url(), lines, &["wal", "archive", &file]);
        ended.ok();
        let requests = self.store.take_requests();
        let is_ours =
            |request: &&Request| request.method == "PUT" && request.path().contains(HISTORY);
        let mut ours = requests.iter().filter(is_ours);
        let put = ours.next().expect("the file is put").clone();
        assert!(ours.next().is_none(), "the file is put once");
        put
    }

    /// Lists the backups of a store at that endpoint, which is reached by a proxy.
    #[track_caller]
    fn lists_by_proxy(&self, endpoint: &str, lines: &[&str]) -> String {
        let by_proxy = Self {
            program: self
                .program
                .clone()
                .with_variable("HTTP_PROXY", &self.store.url()),
            scratch: Scratch::new(self.scratch.account()),
            store: Endpoint::start(|_| Response::new(500)),
        };
        by_proxy.run(endpoint, lines, &["backup", "list"]).ok();
        let requests = self.store.take_requests();
        requests.first().expect("a request").path().to_owned()
    }
}

#[test]
fn a_server_remembers_that_its_bucket_wants_an_md5() {
    const SEGMENTS: [&str; 2] = ["000000010000000000000001", "000000010000000000000002"];
    let objects = Mutex::new(BTreeMap::new());
    let bed = Bed::answering(move |request| {
        if request.method == "PUT" && request.header("content-md5").is_none() {
            let body = "<Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- \
                HTTP header is required for Put Object requests with Object Lock parameters\
                </Message></Error>";
            return Response::xml(400, body);
        }
        answer(&objects, request)
    });
    let pg_wal = bed.scratch.make("pg_wal");
    bed.scratch.make("pg_wal/archive_status");
    let mut segment = fs::read("tests/fixtures/postgresql/wal-15").expect("a segment");
    segment.resize(16 << 20, 0);
    let puts = SEGMENTS.map(|name| {
        // Its place in the log, in the header of its first page.
        segment[11] = name.bytes().last().expect("a digit") - b'0';
        let path = pg_wal.join(name);
        fs::write(&path, &segment).expect("a segment");
        bed.scratch.account().own(&path);
        let words = ["wal", "archive", &path.display().to_string()];
        bed.run(&bed.store.url(), &[], &words).ok();
        let mut requests = bed.store.take_requests();
        requests.retain(|request| request.method == "PUT");
        requests.len()
    });
    assert!(puts[0] > 1, "it is learnt by a refusal");
    assert_eq!(puts[1], 1, "and known to the next call");
}

/// As a bucket answers, roughly: one page holds everything.
fn answer(objects: &Mutex<BTreeMap<String, Vec<u8>>>, request: &Request) -> Response {
    let mut objects = objects.lock().expect("nobody panics with it");
    let key = request.path().to_owned();
    match request.method.as_str() {
        "PUT" => {
            objects.insert(key, request.body.clone());
            Response::new(200).header("etag", "\"1\"")
        }
        "DELETE" => {
            objects.remove(&key);
            Response::new(204)
        }
        _ if request.query_value("list-type").is_some() => {
            let prefix = request.query_value("prefix").unwrap_or_default();
            let keys = objects.iter().filter_map(|(path, bytes)| {
                let key = path.strip_prefix("/bucket/")?;
                key.starts_with(&prefix).then_some((key, bytes.len()))
            });
            let listed = keys.fold(String::new(), |mut text, (key, size)| {
                let _ = write!(
                    text,
                    "<Contents><Key>{key}</Key><Size>{size}</Size></Contents>"
                );
                text
            });
            let page = format!("<ListBucketResult>{listed}</ListBucketResult>");
            Response::xml(200, &page)
        }
        _ => match objects.get(&key) {
            Some(bytes) => Response::with_body(200, "binary/octet-stream", bytes.clone())
                .header("etag", "\"1\""),
            None => Response::xml(404, "<Error><Code>NoSuchKey</Code></Error>"),
        },
    }
}

#[test]
fn encryption_and_class_go_with_each_object() {
    const ENCRYPTION: &str = "x-amz-server-side-encryption";
    let key_of = |request: &Request| {
        let key = request.header("x-amz-server-side-encryption-aws-kms-key-id");
        key.map(str::to_owned)
    };
    let plain = Bed::new().put(&[]);
    assert_eq!(plain.header(ENCRYPTION), None);
    assert_eq!(plain.header("x-amz-storage-class"), None);
    let ours = Bed::new().put(&["wal: {encryption: AES256}", "storageClass: STANDARD_IA"]);
    assert_eq!(ours.header(ENCRYPTION), Some("AES256"));
    assert_eq!(ours.header("x-amz-storage-class"), Some("STANDARD_IA"));
    assert_eq!(key_of(&ours), None);
    let theirs = Bed::new().put(&["wal: {encryption: 'aws:kms'}"]);
    assert_eq!(theirs.header(ENCRYPTION), Some("aws:kms"));
    assert_eq!(key_of(&theirs), None, "the account's own key");
    let named = Bed::new().put(&[
        "wal: {encryption: 'aws:kms', archiveAdditionalCommandArgs: [--sse-kms-key-id=key-1]}",
    ]);
    assert_eq!(named.header(ENCRYPTION), Some("aws:kms"));
    assert_eq!(key_of(&named).as_deref(), Some("key-1"));
}

#[test]
fn history_files_have_their_own_tags_where_there_are_some() {
    for (lines, tags) in [
        (&[][..], None),
        (&["tags: {team: data base}"][..], Some("team=data+base")),
        (
            &["tags: {team: dba}", "historyTags: {keep: for ever, a: '1'}"],
            Some("a=1&keep=for+ever"),
        ),
    ] {
        let put = Bed::new().put(lines);
        assert_eq!(put.header("x-amz-tagging"), tags, "{lines:?}");
    }
}

#[test]
fn every_record_of_a_backup_has_its_tags() {
    let mut bed = Bed::new();
    let release = or_not_run!(Release::distribution());
    let server = Cluster::create(&release, &bed.scratch, "primary", &[]);
    server.configure("archive_mode = on\narchive_command = 'false'");
    server.start();
    bed.program = bed.program.with_server(server.socket_directory());
    // It takes no uploads in parts, so the backup fails once it has begun.
    let words = ["backup", "create", "--immediate-checkpoint"];
    let ended = bed.run(&bed.store.url(), &["tags: {team: dba}"], &words);
    assert!(!ended.status.success(), "{}", ended.describe());
    let requests = bed.store.take_requests();
    let is_record =
        |request: &&Request| request.method == "PUT" && request.path().ends_with("/backup.info");
    let records: Vec<&Request> = requests.iter().filter(is_record).collect();
    assert!(records.len() >= 3, "begun, under way and failed");
    for put in records {
        assert_eq!(put.header("x-amz-tagging"), Some("team=dba"));
    }
}

#[test]
fn the_bucket_is_in_the_path_or_in_the_host_as_asked() {
    const SERVICE: &str = "http://s3.example.test";
    for (style, place) in [
        ("auto", "http://s3.example.test/bucket"),
        ("path", "http://s3.example.test/bucket"),
        ("virtual", "http://bucket.s3.example.test/"),
    ] {
        let line = format!("addressingStyle: {style}");
        let asked = Bed::new().lists_by_proxy(SERVICE, &[&line]);
        assert_eq!(
            asked.trim_end_matches('/'),
            place.trim_end_matches('/'),
            "{style}"
        );
    }
}

#[test]
fn a_bucket_of_another_region_is_told_with_its_region() {
    for (status, code, region) in [
        (
            301,
            "PermanentRedirect",
            "the bucket is in the region eu-west-3",
        ),
        (
            307,
            "TemporaryRedirect",
            "the bucket is in the region eu-west-3",
        ),
        (
            400,
            "AuthorizationHeaderMalformed",
            "the bucket is in the region eu-west-3",
        ),
    ] {
        let bed = Bed::answering(move |_| {
            let body = format!("<Error><Code>{code}</Code></Error>");
            Response::xml(status, &body).header("x-amz-bucket-region", "eu-west-3")
        });
        let ended = bed.run(&bed.store.url(), &[], &["backup", "list"]);
        ended.exits_with(3);
        for word in [region, "hint: "] {
            assert!(ended.stderr.contains(word), "{word}: {}", ended.describe());
        }
        assert_eq!(
            bed.store.requests().len(),
            1,
            "a wrong setting is not asked again"
        );
    }
}
