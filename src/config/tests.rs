//! Manifests and variables as people write them, right and wrong.

use std::fs;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;
use crate::fault::{Fault, Kind};
use crate::store::config::{Addressing, AzureConfig, S3Credentials, StoreConfig};

const HEAD: &str = "apiVersion: barmancloud.cnpg.io/v1
kind: ObjectStore
metadata: {name: store, namespace: db}
spec:
  configuration:
";

const SECRET: &str = "apiVersion: v1
kind: Secret
metadata: {name: aws, namespace: db}
data: {id: QUtJQQo=, broken: '%%%'}
stringData: {secret: s3cr3t, region: eu-west-1, token: tok, empty: ' ', ca: not a certificate}
";

const KEYS: &str = "    s3Credentials:
      accessKeyId: {name: aws, key: id}
      secretAccessKey: {name: aws, key: secret}
";

struct Files {
    directory: TempDir,
}

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        Self { directory }
    }

    fn load(&self, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let source = Source::File(self.directory.path().join("store.yaml"));
        load(&source, &variables_of(variables))
    }
}

fn variables_of(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    let owned: Vec<(String, String)> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    move |name| {
        let found = owned.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    }
}

fn s3_of(settings: &Settings) -> &S3Config {
    match &settings.destination.store {
        StoreConfig::S3(s3) => s3,
        other => unreachable!("expected S3: {other:?}"),
    }
}

fn pair_of(s3: &S3Config) -> (&str, &str, Option<&str>) {
    match &s3.credentials {
        S3Credentials::Static {
            access_key_id,
            secret_access_key,
            session_token,
        } => (
            access_key_id,
            secret_access_key.expose_secret(),
            session_token.as_ref().map(ExposeSecret::expose_secret),
        ),
        other @ S3Credentials::Chain { .. } => unreachable!("expected a pair: {other:?}"),
    }
}

#[test]
fn a_manifest_with_everything_is_read() {
    let manifest = format!(
        "{HEAD}    destinationPath: s3://bucket/a/path/
    endpointURL: http://localhost:9000
{KEYS}      region: {{name: aws, key: region}}
      sessionToken: {{name: aws, key: token}}
    addressingStyle: virtual
    storageClass: STANDARD_IA
    wal:
      compression: zstd
      compressionLevel: 7
      maxParallel: 4
      encryption: AES256
      archiveAdditionalCommandArgs: [--read-timeout=90, --max-concurrency=2]
    data:
      compression: gzip
      jobs: 3
      immediateCheckpoint: true
      maxBandwidth: 50M
      encryption: aws:kms
      additionalCommandArgs: [--sse-kms-key-id, key-1]
    tags: {{b: '2', a: '1'}}
    historyTags: {{h: x}}
    azureCredentials:
  retentionPolicy: 30d
  retention: {{redundancy: 3}}
---
{SECRET}"
    );
    let settings = Files::new(&[("store.yaml", &manifest)]).load(&[]).unwrap();
    assert_eq!(settings.destination.path, "a/path/");
    assert_eq!(settings.destination.url, "s3://bucket/a/path/");
    let s3 = s3_of(&settings);
    assert_eq!(pair_of(s3), ("AKIA", "s3cr3t", Some("tok")));
    assert_eq!(s3.region.as_deref(), Some("eu-west-1"));
    assert_eq!(
        s3.endpoint_url.as_ref().unwrap().as_str(),
        "http://localhost:9000/"
    );
    assert_eq!(s3.addressing, Addressing::Virtual);
    assert_eq!(s3.storage_class.as_deref(), Some("STANDARD_IA"));
    let key_id = Some("key-1".to_owned());
    assert_eq!(s3.encryption, Some(Encryption::AwsKms { key_id }));
    assert_eq!(s3.read_timeout.unwrap().as_secs(), 90);
    assert_eq!(settings.wal.compression.to_string(), "zstd:7");
    assert_eq!((settings.wal.jobs, settings.data.jobs), (4, 3));
    assert_eq!(settings.wal.encryption, Some(Encryption::Aes256));
    assert_eq!(settings.data.compression.to_string(), "gzip");
    assert!(settings.data.immediate_checkpoint);
    assert_eq!(settings.data.bandwidth_max, NonZeroU64::new(50 << 20));
    assert_eq!(settings.tags[0], ("a".to_owned(), "1".to_owned()));
    assert_eq!(settings.history_tags.len(), 1);
    assert_eq!(settings.retention_policy, "30d".parse().ok());
    assert_eq!(settings.warnings.len(), 2, "{:?}", settings.warnings);
    assert!(settings.warnings[0].contains("--max-concurrency"));
    assert!(settings.warnings[1].contains("white space"));
    assert!(!format!("{settings:?}").contains("s3cr3t"));
}

#[test]
fn a_secret_beside_the_manifest_is_found() {
    let manifest = format!("{HEAD}    destinationPath: s3://bucket\n{KEYS}");
    let files = Files::new(&[
        ("store.yaml", &manifest),
        ("a-chart.yaml", "{{ not yaml"),
        (
            "other.yaml",
            &SECRET
                .replace("namespace: db", "namespace: other")
                .replace("s3cr3t", "x"),
        ),
        ("secret.yml", SECRET),
    ]);
    let settings = files.load(&[]).unwrap();
    assert_eq!(pair_of(s3_of(&settings)), ("AKIA", "s3cr3t", None));
}

#[test]
fn a_manifest_without_credentials_takes_the_variables() {
    let manifest = format!("{HEAD}    destinationPath: s3://bucket\n    data:\n");
    let files = Files::new(&[("store.yaml", &manifest)]);
    let variables = [
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "eu-north-1"),
        ("AWS_ENDPOINT_URL", "https://s3.example.org"),
    ];
    let settings = files.load(&variables).unwrap();
    let s3 = s3_of(&settings);
    assert_eq!(pair_of(s3), ("id", "secret", None));
    assert_eq!(s3.region.as_deref(), Some("eu-north-1"));
    assert!(s3.endpoint_url.is_some());
    let settings = files.load(&[]).unwrap();
    assert!(matches!(
        s3_of(&settings).credentials,
        S3Credentials::Chain { profile: None }
    ));
}

#[test]
fn a_role_wins_over_keys() {
    let manifest =
        format!("{HEAD}    destinationPath: s3://bucket\n{KEYS}      inheritFromIAMRole: true\n");
    let settings = Files::new(&[("store.yaml", &manifest)]).load(&[]).unwrap();
    assert!(matches!(
        s3_of(&settings).credentials,
        S3Credentials::Chain { profile: None }
    ));
}

#[test]
fn a_directory_is_a_destination_too() {
    let manifest = format!("{HEAD}    destinationPath: file:///srv/backups\n");
    let settings = Files::new(&[("store.yaml", &manifest)]).load(&[]).unwrap();
    let StoreConfig::Local(local) = &settings.destination.store else {
        unreachable!("expected a directory");
    };
    assert_eq!(local.root, PathBuf::from("/srv/backups"));
}

/// Loads a manifest whose configuration is `body`; the Secret stands beside it.
fn check_refused(body: &str, kind: Kind, words: &[&str]) {
    let manifest = format!("{HEAD}{body}\n");
    let files = Files::new(&[("store.yaml", &manifest), ("secret.yaml", SECRET)]);
    let error = files.load(&[]).unwrap_err();
    let text = format!("{} {}", crate::fault::chain(&error), error.hint());
    assert_eq!(error.kind(), kind, "{body}: {text}");
    for word in words.iter().chain(&["store.yaml"]) {
        assert!(text.contains(word), "{body}: {word:?} is not in {text:?}");
    }
    assert!(
        error.hint().ends_with('.') || error.hint().ends_with("yaml."),
        "{text}"
    );
}

fn to_s3(rest: &str) -> String {
    format!("    destinationPath: s3://b\n{rest}")
}

#[test]
fn wrong_values_are_refused_with_field_and_advice() {
    for (rest, words) in [
        ("    serverName: x", ["serverName", "--server"]),
        (
            "    walls: {}",
            ["configuration.walls", "configuration.wal "],
        ),
        ("    wal: {maxParallel: many}", ["maxParallel", "line 7"]),
        ("    wal: {maxParallel: 0}", ["wal.maxParallel", "from 1"]),
        ("    data: {jobs: 100}", ["data.jobs", "to 64"]),
        ("    wal: {compression: zip}", ["wal.compression", "gzip"]),
        (
            "    data: {compression: gzip, compressionLevel: 12}",
            ["data.compressionLevel", "1 to 9"],
        ),
        (
            "    data: {encryption: rot13}",
            ["data.encryption", "AES256"],
        ),
        (
            "    data: {maxBandwidth: fast}",
            ["data.maxBandwidth", "such as 50M"],
        ),
        ("    endpointURL: minio:9000", ["endpointURL", "http://"]),
        ("    addressingStyle: x", ["addressingStyle", "virtual"]),
        (
            "  retentionPolicy: 30 days",
            ["spec.retentionPolicy", "30d"],
        ),
    ] {
        check_refused(&to_s3(rest), Kind::Config, &words);
    }
}

#[test]
fn wrong_destinations_are_refused_with_field_and_advice() {
    for (body, kind, words) in [
        (
            "wal: {}",
            Kind::Config,
            ["destinationPath is missing", "s3://"],
        ),
        ("destinationPath: a/b", Kind::Config, ["whole path", "a/b"]),
        (
            "destinationPath: gs://",
            Kind::Config,
            ["names no bucket", "gs://BUCKET/PATH"],
        ),
    ] {
        check_refused(&format!("    {body}"), kind, &words);
    }
}

#[test]
fn wrong_credentials_are_refused_with_field_and_advice() {
    let pair = |id: &str| {
        format!(
            "    s3Credentials: {{accessKeyId: {id}, secretAccessKey: {{name: aws, key: secret}}}}"
        )
    };
    let ca = format!("    endpointCA: {{name: aws, key: ca}}\n{KEYS}");
    for (rest, words) in [
        (
            "    azureCredentials: {inheritFromAzureAD: true}",
            ["s3Credentials", "another kind"],
        ),
        (
            "    s3Credentials: {accessKeyId: {name: aws, key: id}}",
            ["one half", "secretAccessKey"],
        ),
        (
            &pair("{name: none, key: id}"),
            ["Secret none", "secret.yaml"],
        ),
        (
            &pair("{name: aws, key: nope}"),
            ["key nope", "it has broken, id"],
        ),
        (
            &pair("{name: aws, key: broken}"),
            ["accessKeyId", "not base64"],
        ),
        (
            &pair("{name: aws, key: empty}"),
            ["accessKeyId", "is empty"],
        ),
        (&pair("{name: aws, kee: id}"), ["kee", "accessKeyId"]),
        (&ca, ["endpointCA", "no certificate"]),
    ] {
        check_refused(&to_s3(rest), Kind::Config, &words);
    }
}

#[test]
fn the_file_must_hold_one_object_store() {
    let one = format!("{HEAD}    destinationPath: /srv\n");
    for (text, words) in [
        (String::new(), "kind ObjectStore"),
        (SECRET.to_owned(), "this one has Secret"),
        (format!("{one}---\n{one}"), "store, store"),
        (
            one.replace("barmancloud.cnpg.io", "example.org"),
            "barmancloud.cnpg.io/v1",
        ),
        ("a: [".to_owned(), "indentation"),
    ] {
        let error = Files::new(&[("store.yaml", &text)]).load(&[]).unwrap_err();
        let text = format!("{error} {}", error.hint());
        assert!(text.contains(words), "{text}");
    }
    let error = Files::new(&[]).load(&[]).unwrap_err();
    assert_eq!(error.kind(), Kind::Local);
}

fn from_store(url: &str, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let source = Source::Url {
        url: url.to_owned(),
        endpoint_url: None,
    };
    load(&source, &variables_of(variables))
}

#[test]
fn a_url_takes_the_rest_from_the_variables() {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_SESSION_TOKEN", "token"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_DEFAULT_REGION", "other"),
        ("AWS_ENDPOINT_URL", "http://other"),
        ("AWS_ENDPOINT_URL_S3", "http://localhost:1"),
    ];
    let settings = from_store("s3://b/p", &variables).unwrap();
    let s3 = s3_of(&settings);
    assert_eq!(pair_of(s3), ("id", "secret", Some("token")));
    assert_eq!(s3.region.as_deref(), Some("eu-west-1"));
    assert_eq!(
        s3.endpoint_url.as_ref().unwrap().as_str(),
        "http://localhost:1/"
    );
    let settings = from_store("s3://b/p", &[("AWS_PROFILE", "blue"), ("AWS_REGION", "")]).unwrap();
    let s3 = s3_of(&settings);
    assert_eq!(s3.region, None);
    let S3Credentials::Chain { profile } = &s3.credentials else {
        unreachable!("expected the chain");
    };
    assert_eq!(profile.as_deref(), Some("blue"));
}

#[test]
fn wrong_variables_are_named() {
    for (variables, words) in [
        (vec![("AWS_ACCESS_KEY_ID", "id")], "AWS_SECRET_ACCESS_KEY"),
        (vec![("AWS_SECRET_ACCESS_KEY", "x")], "AWS_ACCESS_KEY_ID"),
        (vec![("AWS_ENDPOINT_URL", "minio:9000")], "AWS_ENDPOINT_URL"),
        (vec![("AWS_CA_BUNDLE", "/no/such/file")], "/no/such/file"),
        (vec![("AWS_CA_BUNDLE", "/dev/null")], "no certificate"),
    ] {
        let error = from_store("s3://b", &variables).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let source = Source::Url {
        url: "s3://b".to_owned(),
        endpoint_url: Some("localhost:9000".to_owned()),
    };
    let error = load(&source, &|_| None).unwrap_err();
    assert!(error.to_string().contains("--endpoint-url"), "{error}");
}

/// The settings of a manifest with this place and these lines of credentials.
fn azure_of(credentials: &str) -> Result<(AzureConfig, Vec<String>), ConfigError> {
    let manifest = format!(
        "kind: ObjectStore
apiVersion: barmancloud.cnpg.io/v1
metadata: {{name: store}}
spec:
  configuration:
    destinationPath: https://acc.blob.core.windows.net/cellar/a/
    wal: {{encryption: AES256}}
    data: {{additionalCommandArgs: [--encryption-scope=scope1]}}
    azureCredentials: {credentials}
---
kind: Secret
metadata: {{name: azure}}
stringData: {{account: acc, key: a2V5, sas: 'sv=1&sig=2', string: AccountName=acc;AccountKey=a2V5}}
"
    );
    let settings = Files::new(&[("store.yaml", &manifest)]).load(&[])?;
    let StoreConfig::Azure(azure) = settings.destination.store else {
        unreachable!("it is a container");
    };
    assert_eq!(settings.destination.path, "a/");
    Ok((*azure, settings.warnings))
}

#[test]
fn azures_credentials_are_read_in_each_form() {
    for (credentials, expected) in [
        (
            "{storageAccount: {name: azure, key: account}, storageKey: {name: azure, key: key}}",
            "AccountKey",
        ),
        (
            "{storageSasToken: {name: azure, key: sas}}",
            "SharedAccessSignature",
        ),
        (
            "{connectionString: {name: azure, key: string}}",
            "AccountKey",
        ),
        ("{inheritFromAzureAD: true}", "ManagedIdentity"),
        ("{useDefaultAzureCredentials: true}", "ManagedIdentity"),
        ("", "ManagedIdentity"),
    ] {
        let (azure, warnings) = azure_of(credentials).unwrap();
        let shown = format!("{:?}", azure.credentials);
        assert!(shown.starts_with(expected), "{credentials}: {shown}");
        assert_eq!(azure.encryption_scope.as_deref(), Some("scope1"));
        assert!(warnings[0].contains("wal.encryption"), "{warnings:?}");
    }
    for (credentials, words) in [
        (
            "{storageAccount: {name: azure, key: account}}",
            "proves who asks",
        ),
        (
            "{storageKey: {name: azure, key: key}, storageSasToken: {name: azure, key: sas}}",
            "not both",
        ),
        ("{connectionString: {name: azure, key: sas}}", "neither"),
    ] {
        let error = azure_of(credentials).unwrap_err();
        let text = format!("{error} {}", error.hint());
        assert!(text.contains(words), "{credentials}: {text}");
    }
}
