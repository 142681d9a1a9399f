//! Every setting, validated: from an ObjectStore manifest or from a URL and the usual variables.
//!
//! Not here: the store itself, the server, and what single commands take.

mod arguments;
mod azure;
pub mod bandwidth;
mod certificates;
mod connection_string;
mod container;
mod document;
mod endpoint;
mod environment;
pub mod error;
mod gcs;
mod google_key;
pub mod manifest;
mod place;
mod secrets;
mod validate;

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use url::Url;

use crate::codec::Compression;
use crate::config::error::ConfigError;
use crate::config::place::Place;
use crate::domain::retention::policy::RetentionPolicy;
use crate::store::config::{
    AzureConfig, Encryption, GcsConfig, LocalConfig, S3Config, StoreConfig,
};

/// Where settings come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An ObjectStore manifest.
    File(PathBuf),
    /// A URL (`s3://bucket/path`, `gs://bucket/path`,
    /// `https://account.blob.core.windows.net/container/path`, `file:///directory`) or a bare path,
    /// and variables.
    Url {
        /// The URL or path.
        url: String,
        /// Where the service answers, before any variable.
        endpoint_url: Option<String>,
    },
}

/// What everything else works from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The store and the place in it.
    pub destination: Destination,
    /// How WAL is archived.
    pub wal: WalSettings,
    /// How base backups are made.
    pub data: DataSettings,
    /// Tags of every object.
    pub tags: Vec<(String, String)>,
    /// Tags of history files, instead of [`tags`](Self::tags) when there are any.
    pub history_tags: Vec<(String, String)>,
    /// What is kept where a command is not told otherwise.
    pub retention_policy: Option<RetentionPolicy>,
    /// What the user should know about these settings, as full sentences.
    pub warnings: Vec<String>,
}

/// The store and the place in it.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The store.
    pub store: StoreConfig,
    /// What every key begins with: verbatim, without a slash in front, with or without one behind.
    pub path: String,
    /// The whole, for people.
    pub url: String,
}

/// How WAL is archived.
#[derive(Debug, Clone)]
pub struct WalSettings {
    /// How files are compressed.
    pub compression: Compression,
    /// How many files are archived, or fetched, at once.
    pub jobs: usize,
    /// Encryption at rest where it differs from that of the rest, for `PutOptions`.
    pub encryption: Option<Encryption>,
}

impl Default for WalSettings {
    fn default() -> Self {
        Self {
            compression: Compression::NONE,
            jobs: 1,
            encryption: None,
        }
    }
}

/// How base backups are made.
#[derive(Debug, Clone)]
pub struct DataSettings {
    /// How archives are compressed.
    pub compression: Compression,
    /// How many archives are written at once.
    pub jobs: usize,
    /// Ask for a checkpoint at once instead of a spread one.
    pub immediate_checkpoint: bool,
    /// So many bytes a second leave at most.
    pub bandwidth_max: Option<NonZeroU64>,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            compression: Compression::NONE,
            jobs: 2,
            immediate_checkpoint: false,
            bandwidth_max: None,
        }
    }
}

/// Reads and validates settings. `env` answers for the process's variables.
pub fn load(
    source: &Source,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, ConfigError> {
    match source {
        Source::File(path) => validate::file(path, env),
        Source::Url { url, endpoint_url } => from_url(url, endpoint_url.as_deref(), env),
    }
}

/// Validates an ObjectStore that is at hand, with the Secrets it names among `documents`.
///
/// `origin` names it in errors. A field that is not known is a warning here: who keeps the
/// manifest may be newer than this program.
pub fn from_documents(
    origin: &Path,
    documents: &[serde_norway::Value],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, ConfigError> {
    validate::documents(origin, documents, env)
}

fn from_url(
    url: &str,
    endpoint_url: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, ConfigError> {
    let destination = match Place::parse("--store", url)? {
        Place::Directory(root) => directory(root),
        Place::Bucket { bucket, path } => {
            let mut s3 = S3Config::new(bucket, environment::credentials(env)?);
            s3.region = environment::region(env);
            s3.endpoint_url = match endpoint_url {
                Some(text) => Some(given_endpoint(text)?),
                None => environment::endpoint_url(env)?,
            };
            s3.ca_bundle =
                environment::ca_bundle(env, environment::S3_CA_BUNDLE, s3.endpoint_url.as_ref())?;
            Destination {
                url: format!("s3://{}/{path}", s3.bucket),
                store: StoreConfig::S3(Box::new(s3)),
                path,
            }
        }
        Place::Container { .. } if endpoint_url.is_some() => {
            return Err(ConfigError::Place {
                place: "--endpoint-url".to_owned(),
                problem: "is for S3: an Azure URL says itself where the service answers".to_owned(),
            });
        }
        Place::Container { container, path } => {
            azure_destination(azure::from_environment(container, env)?, path)
        }
        Place::GoogleBucket { bucket, path } => {
            let given = gcs::Given {
                endpoint_url: endpoint_url.map(given_endpoint).transpose()?,
                ..gcs::Given::default()
            };
            google_destination(gcs::config(bucket, given, env)?, path)
        }
    };
    Ok(Settings {
        destination,
        wal: WalSettings::default(),
        data: DataSettings::default(),
        tags: Vec::new(),
        history_tags: Vec::new(),
        retention_policy: None,
        warnings: Vec::new(),
    })
}

fn azure_destination(azure: AzureConfig, path: String) -> Destination {
    let base = azure.endpoint_url.as_str().trim_end_matches('/');
    Destination {
        url: format!("{base}/{}/{path}", azure.container),
        store: StoreConfig::Azure(Box::new(azure)),
        path,
    }
}

fn given_endpoint(text: &str) -> Result<Url, ConfigError> {
    endpoint::parse(text).map_err(|problem| ConfigError::Place {
        place: "--endpoint-url".to_owned(),
        problem,
    })
}

fn google_destination(gcs: GcsConfig, path: String) -> Destination {
    Destination {
        url: format!("gs://{}/{path}", gcs.bucket),
        store: StoreConfig::Gcs(Box::new(gcs)),
        path,
    }
}

fn directory(root: PathBuf) -> Destination {
    Destination {
        url: root.display().to_string(),
        store: StoreConfig::Local(LocalConfig { root }),
        path: String::new(),
    }
}

#[cfg(test)]
mod tests;
