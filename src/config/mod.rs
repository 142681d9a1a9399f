//! Every setting, validated: from an ObjectStore manifest or from a URL and the usual variables.
//!
//! Not here: the store itself, the server, and what single commands take.

use std::path::PathBuf;

use crate::codec::Compression;
use crate::fault::{Fault, Kind};
use crate::store::config::{Encryption, StoreConfig};

/// Where settings come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An ObjectStore manifest.
    File(PathBuf),
    /// A URL (`s3://bucket/path`, `file:///directory`) or a bare path, and variables.
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
    /// The recovery window, such as `30d`.
    pub retention_policy: Option<String>,
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

/// How base backups are made.
#[derive(Debug, Clone)]
pub struct DataSettings {
    /// How archives are compressed.
    pub compression: Compression,
    /// How many archives are written at once.
    pub jobs: usize,
    /// Ask for a checkpoint at once instead of a spread one.
    pub immediate_checkpoint: bool,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// To be told apart.
    #[error("{0}")]
    Invalid(String),
}

impl Fault for ConfigError {
    fn kind(&self) -> Kind {
        Kind::Config
    }
}

/// Reads and validates settings. `env` answers for the process's variables.
pub fn load(
    source: &Source,
    _env: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, ConfigError> {
    let Source::Url { url, .. } = source else {
        return Err(ConfigError::Invalid(
            "manifests are not read yet".to_owned(),
        ));
    };
    let root = url.strip_prefix("file://").unwrap_or(url);
    Ok(Settings {
        destination: Destination {
            store: StoreConfig::Local(crate::store::config::LocalConfig {
                root: PathBuf::from(root),
            }),
            path: String::new(),
            url: url.clone(),
        },
        wal: WalSettings {
            compression: Compression::NONE,
            jobs: 1,
            encryption: None,
        },
        data: DataSettings {
            compression: Compression::NONE,
            jobs: 2,
            immediate_checkpoint: false,
        },
        tags: Vec::new(),
        history_tags: Vec::new(),
        retention_policy: None,
        warnings: Vec::new(),
    })
}
