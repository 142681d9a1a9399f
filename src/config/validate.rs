//! From a manifest to settings: each value checked, each error with its field and what to do.

use std::fs;
use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::arguments;
use super::bandwidth;
use super::endpoint;
use super::environment::{self, Lookup};
use super::error::ConfigError;
use super::manifest::{AzureCredentials, Configuration, GoogleCredentials, ObjectStore, SecretKey};
use super::place::Place;
use super::secrets::{self, Secrets};
use super::{
    DataSettings, Destination, Settings, WalSettings, azure_destination, certificates, directory,
    document, google_destination,
};
use crate::codec::{Codec, Compression};
use crate::domain::retention::policy::RetentionPolicy;
use crate::store::config::{Addressing, Encryption, S3Config, S3Credentials, StoreConfig};

const CONFIGURATION: &str = "spec.configuration";

/// More at once is a slip of the pen.
const JOBS_MAX: usize = 64;

/// Reads a manifest's file.
pub(super) fn file(path: &Path, env: Lookup<'_>) -> Result<Settings, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let documents = secrets::documents_of_text(path, &text)?;
    let object_store = document::object_store(path, &text, &documents)?;
    let mut validator = Validator::new(path, &documents, env, &object_store);
    validator.secrets.looks_beside = true;
    validator.finish(&object_store)
}

/// Reads a manifest among documents that are at hand.
pub(super) fn documents(
    origin: &Path,
    documents: &[serde_norway::Value],
    env: Lookup<'_>,
) -> Result<Settings, ConfigError> {
    let (object_store, unknown) = document::lenient_object_store(origin, documents)?;
    let mut validator = Validator::new(origin, documents, env, &object_store);
    validator.is_lenient = true;
    validator.warnings.extend(unknown);
    validator.finish(&object_store)
}

pub(super) struct Validator<'a> {
    path: &'a Path,
    pub(super) env: Lookup<'a>,
    pub(super) secrets: Secrets<'a>,
    pub(super) warnings: Vec<String>,
    /// Whether what can be put right is, with a warning.
    is_lenient: bool,
}

impl<'a> Validator<'a> {
    fn new(
        path: &'a Path,
        documents: &'a [serde_norway::Value],
        env: Lookup<'a>,
        object_store: &'a ObjectStore,
    ) -> Self {
        let metadata = object_store.metadata.as_ref();
        Self {
            path,
            env,
            secrets: Secrets {
                path,
                documents,
                namespace: metadata.and_then(|metadata| metadata.get("namespace")?.as_str()),
                looks_beside: false,
                warnings: Vec::new(),
            },
            warnings: Vec::new(),
            is_lenient: false,
        }
    }

    fn finish(mut self, object_store: &ObjectStore) -> Result<Settings, ConfigError> {
        let mut settings = self.settings(object_store)?;
        settings.warnings = self.warnings;
        settings.warnings.append(&mut self.secrets.warnings);
        Ok(settings)
    }

    pub(super) fn refuse(
        &self,
        field: &str,
        problem: impl Into<String>,
        advice: &str,
    ) -> ConfigError {
        ConfigError::Field {
            path: self.path.to_path_buf(),
            field: format!("{CONFIGURATION}.{field}"),
            problem: problem.into(),
            advice: advice.to_owned(),
        }
    }

    fn settings(&mut self, object_store: &ObjectStore) -> Result<Settings, ConfigError> {
        let configuration = &object_store.spec.configuration;
        if configuration.server_name.is_some() {
            return Err(self.refuse(
                "serverName",
                "is not allowed: a store serves many servers",
                "Leave it out and name the server with --server.",
            ));
        }
        let wal = self.wal(configuration)?;
        let data = self.data(configuration)?;
        Ok(Settings {
            destination: self.destination(configuration)?,
            wal,
            data,
            tags: configuration.tags.clone().into_iter().collect(),
            history_tags: configuration.history_tags.clone().into_iter().collect(),
            retention_policy: self.retention_policy(object_store)?,
            warnings: Vec::new(),
        })
    }

    fn retention_policy(
        &self,
        object_store: &ObjectStore,
    ) -> Result<Option<RetentionPolicy>, ConfigError> {
        let policy = object_store.spec.retention_policy.as_deref();
        let parsed = policy.map(str::parse).transpose();
        parsed.map_err(|_| ConfigError::Field {
            path: self.path.to_path_buf(),
            field: "spec.retentionPolicy".to_owned(),
            problem: format!("is {:?}", policy.unwrap_or_default()),
            advice: "Write a number and d, w or m: 30d, 4w or 6m.".to_owned(),
        })
    }

    fn destination(&mut self, configuration: &Configuration) -> Result<Destination, ConfigError> {
        let text = configuration.destination_path.trim();
        if text.is_empty() {
            return Err(self.refuse(
                "destinationPath",
                "is missing",
                "Give s3://BUCKET/PATH, gs://BUCKET/PATH, https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH or file:///DIRECTORY.",
            ));
        }
        let name = format!("{}: {CONFIGURATION}.destinationPath", self.path.display());
        match Place::parse(&name, text)? {
            Place::Directory(_) if !text.contains("://") && !text.starts_with('/') => Err(self
                .refuse(
                    "destinationPath",
                    format!("is {text:?}, which begins nowhere"),
                    "Give the whole path of the directory, or s3://BUCKET/PATH.",
                )),
            Place::Directory(root) => Ok(directory(root)),
            Place::Bucket { bucket, path } => {
                let s3 = self.s3(configuration, bucket)?;
                Ok(Destination {
                    url: format!("s3://{}/{path}", s3.bucket),
                    store: StoreConfig::S3(Box::new(s3)),
                    path,
                })
            }
            Place::Container { container, path } => {
                let azure = self.azure(configuration, container)?;
                Ok(azure_destination(azure, path))
            }
            Place::GoogleBucket { bucket, path } => {
                let gcs = self.gcs(configuration, bucket)?;
                Ok(google_destination(gcs, path))
            }
        }
    }

    fn s3(
        &mut self,
        configuration: &Configuration,
        bucket: String,
    ) -> Result<S3Config, ConfigError> {
        let credentials = self.credentials(configuration)?;
        let mut s3 = S3Config::new(bucket, credentials);
        s3.endpoint_url = self.endpoint_url(configuration)?;
        s3.region = match &configuration.s3_credentials.region {
            Some(selector) => Some(self.text("s3Credentials.region", selector)?),
            None => environment::region(self.env),
        };
        s3.ca_bundle = self.ca_bundle(configuration, s3.endpoint_url.as_ref())?;
        s3.storage_class.clone_from(&configuration.storage_class);
        s3.addressing = match configuration.addressing_style.as_deref() {
            None | Some("auto") => Addressing::Auto,
            Some("path") => Addressing::Path,
            Some("virtual") => Addressing::Virtual,
            Some(other) => {
                return Err(self.refuse(
                    "addressingStyle",
                    format!("is {other:?}"),
                    "Write auto, path or virtual.",
                ));
            }
        };
        let data = self.encryption(configuration, "data")?;
        let wal = self.encryption(configuration, "wal")?;
        s3.encryption = data.or(wal);
        s3.read_timeout = self.read_timeout(configuration);
        self.warn_of_kms_key_name(configuration);
        Ok(s3)
    }

    pub(super) fn text(
        &mut self,
        field: &str,
        selector: &SecretKey,
    ) -> Result<String, ConfigError> {
        self.secrets
            .text(&format!("{CONFIGURATION}.{field}"), selector)
    }

    /// As [`text`](Self::text), for what must not be shown.
    pub(super) fn secret(
        &mut self,
        field: &str,
        selector: &SecretKey,
    ) -> Result<SecretString, ConfigError> {
        self.secrets
            .secret(&format!("{CONFIGURATION}.{field}"), selector)
    }

    fn credentials(&mut self, configuration: &Configuration) -> Result<S3Credentials, ConfigError> {
        let s3 = &configuration.s3_credentials;
        let profile = arguments::read(&configuration.wal.archive_additional_command_args)
            .profile
            .or(arguments::read(&configuration.data.additional_command_args).profile);
        if s3.inherit_from_iam_role {
            return Ok(S3Credentials::Chain { profile });
        }
        match (&s3.access_key_id, &s3.secret_access_key) {
            (Some(access_key_id), Some(secret_access_key)) => Ok(S3Credentials::Static {
                access_key_id: self.text("s3Credentials.accessKeyId", access_key_id)?,
                secret_access_key: self
                    .secret("s3Credentials.secretAccessKey", secret_access_key)?,
                session_token: s3
                    .session_token
                    .as_ref()
                    .map(|selector| self.secret("s3Credentials.sessionToken", selector))
                    .transpose()?,
            }),
            (None, None) if has_other_credentials(configuration) => Err(self.refuse(
                "s3Credentials",
                "is missing, and the credentials that are there are for another kind of store",
                "Give s3Credentials, or change destinationPath.",
            )),
            (None, None) if profile.is_some() => Ok(S3Credentials::Chain { profile }),
            (None, None) => environment::credentials(self.env),
            _ => Err(self.refuse(
                "s3Credentials",
                "has one half of a key pair",
                "Give accessKeyId and secretAccessKey, or inheritFromIAMRole: true.",
            )),
        }
    }

    fn endpoint_url(&self, configuration: &Configuration) -> Result<Option<Url>, ConfigError> {
        match self.service_url(configuration)? {
            None => environment::endpoint_url(self.env),
            given => Ok(given),
        }
    }

    /// The endpoint that the manifest itself names.
    pub(super) fn service_url(
        &self,
        configuration: &Configuration,
    ) -> Result<Option<Url>, ConfigError> {
        let text = configuration.endpoint_url.as_deref().unwrap_or_default();
        if text.trim().is_empty() {
            return Ok(None);
        }
        endpoint::parse(text.trim()).map(Some).map_err(|problem| {
            self.refuse(
                "endpointURL",
                problem,
                "Give the service's address, such as https://minio.example.org:9000.",
            )
        })
    }

    pub(super) fn ca_bundle(
        &self,
        configuration: &Configuration,
        endpoint_url: Option<&Url>,
    ) -> Result<Option<Vec<u8>>, ConfigError> {
        let Some(selector) = &configuration.endpoint_ca else {
            return environment::ca_bundle(self.env, environment::S3_CA_BUNDLE, endpoint_url);
        };
        let pem = self
            .secrets
            .bytes(&format!("{CONFIGURATION}.endpointCA"), selector)?;
        certificates::normalized(&pem).map(Some).map_err(|problem| {
            self.refuse(
                "endpointCA",
                format!("names a bundle that {problem}"),
                "Put the certificates in PEM into the Secret.",
            )
        })
    }

    /// The longest that any command asks for: the store is one for all of them.
    pub(super) fn read_timeout(&mut self, configuration: &Configuration) -> Option<Duration> {
        let fields = [
            (
                "wal.archiveAdditionalCommandArgs",
                &configuration.wal.archive_additional_command_args,
            ),
            (
                "wal.restoreAdditionalCommandArgs",
                &configuration.wal.restore_additional_command_args,
            ),
            (
                "data.additionalCommandArgs",
                &configuration.data.additional_command_args,
            ),
            (
                "data.restoreAdditionalCommandArgs",
                &configuration.data.restore_additional_command_args,
            ),
        ];
        let mut longest = None;
        for (field, items) in fields {
            let extra = arguments::read(items);
            longest = longest.max(extra.read_timeout_seconds);
            for option in extra.refused {
                self.warnings.push(format!(
                    "The option {option} in {CONFIGURATION}.{field} is not understood and was left out."
                ));
            }
        }
        longest.map(Duration::from_secs)
    }

    fn encryption(
        &self,
        configuration: &Configuration,
        part: &str,
    ) -> Result<Option<Encryption>, ConfigError> {
        let (word, items) = if part == "wal" {
            let wal = &configuration.wal;
            (&wal.encryption, &wal.archive_additional_command_args)
        } else {
            let data = &configuration.data;
            (&data.encryption, &data.additional_command_args)
        };
        match word.as_deref() {
            None | Some("") => Ok(None),
            Some("AES256") => Ok(Some(Encryption::Aes256)),
            Some("aws:kms") => Ok(Some(Encryption::AwsKms {
                key_id: arguments::read(items).encryption_key_id,
            })),
            Some(other) => Err(self.refuse(
                &format!("{part}.encryption"),
                format!("is {other:?}"),
                "Write AES256 or aws:kms.",
            )),
        }
    }

    fn compression(
        &self,
        part: &str,
        codec: Option<&str>,
        level: Option<i32>,
    ) -> Result<Compression, ConfigError> {
        let words = "Write none, gzip, bzip2, snappy, lz4, xz or zstd.";
        let word = codec.filter(|word| !word.is_empty()).unwrap_or("none");
        let codec = Codec::ALL
            .into_iter()
            .find(|codec| codec.as_str() == word)
            .ok_or_else(|| {
                self.refuse(
                    &format!("{part}.compression"),
                    format!("is {word:?}"),
                    words,
                )
            })?;
        let Some(level) = level else {
            return Ok(Compression { codec, level: None });
        };
        format!("{codec}:{level}").parse().map_err(|_| {
            let range = codec.levels().map_or_else(
                || format!("{codec} has no levels: leave it out."),
                |(lowest, _, highest)| format!("Write a number from {lowest} to {highest}."),
            );
            self.refuse(
                &format!("{part}.compressionLevel"),
                format!("is {level}"),
                &range,
            )
        })
    }

    fn jobs(
        &mut self,
        field: &str,
        asked: Option<usize>,
        default: usize,
    ) -> Result<usize, ConfigError> {
        let jobs = asked.unwrap_or(default);
        if (1..=JOBS_MAX).contains(&jobs) {
            return Ok(jobs);
        }
        if self.is_lenient {
            let nearest = jobs.clamp(1, JOBS_MAX);
            self.warnings.push(format!(
                "{CONFIGURATION}.{field} is {jobs} and was taken for {nearest}."
            ));
            return Ok(nearest);
        }
        let advice = format!("Write a number from 1 to {JOBS_MAX}.");
        Err(self.refuse(field, format!("is {jobs}"), &advice))
    }

    fn wal(&mut self, configuration: &Configuration) -> Result<WalSettings, ConfigError> {
        let wal = &configuration.wal;
        let extra = arguments::read(&wal.archive_additional_command_args);
        let default = WalSettings::default();
        let level = wal.compression_level.or(extra.compression_level);
        Ok(WalSettings {
            compression: self.compression("wal", wal.compression.as_deref(), level)?,
            jobs: self.jobs("wal.maxParallel", wal.max_parallel, default.jobs)?,
            encryption: self.encryption(configuration, "wal")?,
        })
    }

    fn data(&mut self, configuration: &Configuration) -> Result<DataSettings, ConfigError> {
        let data = &configuration.data;
        let default = DataSettings::default();
        let codec = data.compression.as_deref();
        Ok(DataSettings {
            compression: self.compression("data", codec, data.compression_level)?,
            jobs: self.jobs("data.jobs", data.jobs, default.jobs)?,
            immediate_checkpoint: data.immediate_checkpoint.unwrap_or(false),
            bandwidth_max: self.bandwidth(data.max_bandwidth.as_deref())?,
        })
    }

    fn bandwidth(&self, text: Option<&str>) -> Result<Option<NonZeroU64>, ConfigError> {
        let text = text.filter(|text| !text.is_empty());
        let problem = |_| {
            self.refuse(
                "data.maxBandwidth",
                "is no bandwidth",
                "Give a number of bytes a second, such as 50M.",
            )
        };
        text.map(|text| bandwidth::parse(text).map_err(problem))
            .transpose()
    }
}

fn has_other_credentials(configuration: &Configuration) -> bool {
    configuration.azure_credentials != AzureCredentials::default()
        || configuration.google_credentials != GoogleCredentials::default()
}
