//! Which store to open and how: validated values, no secrets in `Debug`.
//!
//! Not here: manifests, URLs and variables, which `config` reads.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

/// A store to open.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// A directory of this host.
    Local(LocalConfig),
    /// A bucket of an S3 service.
    S3(Box<S3Config>),
    /// A container of Azure Blob Storage.
    Azure(Box<AzureConfig>),
    /// A bucket of Google Cloud Storage.
    Gcs(Box<GcsConfig>),
    /// A new, empty store in memory, gone with the process.
    Memory,
}

impl StoreConfig {
    /// Whether each put carries a SHA-256 of its body, which somebody must compute.
    pub fn signs_bodies(&self) -> bool {
        matches!(self, Self::S3(config) if config.is_plain_http())
    }

    /// Whether it is another store, or nobody's, where another host opens it: a directory of the
    /// host, or an identity that the host gives.
    pub fn depends_on_host(&self) -> bool {
        match self {
            Self::Local(_) | Self::Memory => true,
            Self::S3(s3) => matches!(s3.credentials, S3Credentials::Chain { .. }),
            Self::Azure(azure) => matches!(
                azure.credentials,
                AzureCredentials::WorkloadIdentity { .. }
                    | AzureCredentials::ManagedIdentity { .. }
            ),
            Self::Gcs(gcs) => matches!(
                gcs.credentials,
                GcsCredentials::Federated(_) | GcsCredentials::Metadata { .. }
            ),
        }
    }
}

/// A directory of this host as a store.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// The directory that holds the objects.
    pub root: PathBuf,
}

/// A bucket of an S3 service.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// The bucket's name.
    pub bucket: String,
    /// Where the service answers; Amazon's own when absent.
    pub endpoint_url: Option<Url>,
    /// The region; learnt from the profile, or `us-east-1`, when absent.
    pub region: Option<String>,
    /// Who asks.
    pub credentials: S3Credentials,
    /// Certificates (PEM, one or more) to trust instead of the host's.
    pub ca_bundle: Option<Vec<u8>>,
    /// Where the bucket's name goes in a request.
    pub addressing: Addressing,
    /// How the service encrypts what it stores, unless a request says otherwise.
    pub encryption: Option<Encryption>,
    /// The storage class of new objects, such as `STANDARD_IA`; the bucket's own when absent.
    pub storage_class: Option<String>,
    /// How long to wait for an answer to begin or to go on.
    pub read_timeout: Option<Duration>,
}

impl S3Config {
    /// Whether requests go over plain HTTP.
    pub fn is_plain_http(&self) -> bool {
        self.endpoint_url
            .as_ref()
            .is_some_and(|endpoint_url| endpoint_url.scheme() == "http")
    }

    /// The bucket with everything else left to the service and the host.
    pub fn new(bucket: impl Into<String>, credentials: S3Credentials) -> Self {
        Self {
            bucket: bucket.into(),
            endpoint_url: None,
            region: None,
            credentials,
            ca_bundle: None,
            addressing: Addressing::Auto,
            encryption: None,
            storage_class: None,
            read_timeout: None,
        }
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub enum S3Credentials {
    /// A key pair.
    Static {
        /// The public half.
        access_key_id: String,
        /// The secret half.
        secret_access_key: SecretString,
        /// The token of temporary credentials.
        session_token: Option<SecretString>,
    },
    /// What the host provides: profile, web identity, container or instance role.
    Chain {
        /// The profile of the shared configuration files; `default` when absent.
        profile: Option<String>,
    },
}

/// Where the bucket's name goes in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// In the path for a given endpoint, in the host name for Amazon's own.
    Auto,
    /// In the path.
    Path,
    /// In the host name.
    Virtual,
}

/// How the service encrypts an object at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// With a key of the service (`AES256`).
    Aes256,
    /// With a key of its key management (`aws:kms`).
    AwsKms {
        /// The key's id; the account's default key when absent.
        key_id: Option<String>,
    },
}

/// A container of Azure Blob Storage.
#[derive(Debug, Clone)]
pub struct AzureConfig {
    /// The storage account's name.
    pub account: String,
    /// The container's name.
    pub container: String,
    /// Where the account's blobs are: `https://ACCOUNT.blob.core.windows.net`, or the address of
    /// an emulator with the account as its path.
    pub endpoint_url: Url,
    /// Who asks.
    pub credentials: AzureCredentials,
    /// Certificates (PEM, one or more) to trust instead of the host's.
    pub ca_bundle: Option<Vec<u8>>,
    /// The encryption scope of new blobs; the container's own when absent.
    pub encryption_scope: Option<String>,
    /// How long to wait for an answer to begin or to go on.
    pub read_timeout: Option<Duration>,
}

/// Who asks Azure.
#[derive(Debug, Clone)]
pub enum AzureCredentials {
    /// A key of the account, in base64.
    AccountKey(SecretString),
    /// A shared access signature, with or without the question mark in front.
    SharedAccessSignature(SecretString),
    /// A registered application and its secret.
    ClientSecret {
        /// The directory it is registered in.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// Its secret.
        client_secret: SecretString,
        /// Where tokens are given; the public cloud's when absent.
        authority_url: Option<Url>,
    },
    /// A token that Kubernetes keeps in a file, exchanged for one of Azure.
    WorkloadIdentity {
        /// The directory.
        tenant_id: String,
        /// The application or managed identity.
        client_id: String,
        /// The file.
        token_file: PathBuf,
        /// Where tokens are given; the public cloud's when absent.
        authority_url: Option<Url>,
    },
    /// What the virtual machine's or the container's identity service gives.
    ManagedIdentity {
        /// The identity, where the host has more than one.
        client_id: Option<String>,
        /// Where the service answers; the virtual machine's own when absent.
        endpoint_url: Option<Url>,
    },
}

/// A bucket of Google Cloud Storage.
#[derive(Debug, Clone)]
pub struct GcsConfig {
    /// The bucket's name.
    pub bucket: String,
    /// Where the service answers; Google's own when absent.
    pub endpoint_url: Option<Url>,
    /// Who asks.
    pub credentials: GcsCredentials,
    /// Certificates (PEM, one or more) to trust instead of the host's.
    pub ca_bundle: Option<Vec<u8>>,
    /// The Cloud KMS key of new objects, `projects/...`; the bucket's own when absent.
    pub kms_key_name: Option<String>,
    /// The storage class of new objects; the bucket's own when absent.
    pub storage_class: Option<String>,
    /// The project that a new bucket is to belong to.
    pub project: Option<String>,
    /// How long to wait for an answer to begin or to go on.
    pub read_timeout: Option<Duration>,
}

/// Who asks Google.
#[derive(Debug, Clone)]
pub enum GcsCredentials {
    /// A service account that signs for itself.
    ServiceAccount {
        /// Its address.
        account: String,
        /// Which of its keys it is.
        key_id: Option<String>,
        /// The key, in PEM.
        private_key: SecretString,
        /// Where tokens are given.
        token_url: Url,
    },
    /// A person, as `gcloud auth application-default login` leaves it.
    AuthorizedUser {
        /// The program's id.
        client_id: String,
        /// The program's secret.
        client_secret: SecretString,
        /// What a token is given for.
        refresh_token: SecretString,
        /// Where tokens are given.
        token_url: Url,
    },
    /// Whoever another authority vouches for (workload identity federation).
    Federated(Box<GcsFederation>),
    /// What the metadata service of the machine, or of GKE, gives.
    Metadata {
        /// Where it answers; its usual place when absent.
        url: Option<Url>,
    },
    /// Nobody: for emulators.
    Anonymous,
}

/// A token of another authority's, such as Kubernetes, exchanged for one of Google's.
#[derive(Debug, Clone)]
pub struct GcsFederation {
    /// The pool and provider that know the authority.
    pub audience: String,
    /// What kind of token it is.
    pub token_type: String,
    /// The file that the authority keeps it in.
    pub token_file: PathBuf,
    /// The field that it is, where the file is a JSON document.
    pub token_field: Option<String>,
    /// Where it is exchanged.
    pub token_url: Url,
    /// The service account to act as, where that is not the authority's own word for whoever asks.
    pub account: Option<GcsFederatedAccount>,
}

/// A service account that somebody federated acts as.
#[derive(Debug, Clone)]
pub struct GcsFederatedAccount {
    /// Where its tokens are given.
    pub url: Url,
    /// How long its tokens are good.
    pub lifetime: Duration,
}
