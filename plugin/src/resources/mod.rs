//! The one seam to manifests, secrets, status and events: Kubernetes, or a directory of YAML.
//!
//! Everything lies in one namespace, that of the Cluster. Objects travel as raw JSON, so that
//! fields of newer versions survive. Not here: what the objects mean.

pub mod api;
pub mod directory;
pub mod kubernetes;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use cellarman::fault::{Fault, Kind};
use serde_json::Value;

/// The kinds of object that are read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// CloudNativePG's Cluster.
    Cluster,
    /// CloudNativePG's Backup.
    Backup,
    /// The store and how it is used.
    ObjectStore,
    /// Credentials and certificates.
    Secret,
}

impl ObjectKind {
    /// Kubernetes' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Backup => "Backup",
            Self::ObjectStore => "ObjectStore",
            Self::Secret => "Secret",
        }
    }
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its name.
    pub name: String,
}

impl ObjectRef {
    /// The object of this kind and name.
    pub fn new(kind: ObjectKind, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { kind, name }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind.as_str(), self.name)
    }
}

/// The keys of a Secret with their values, decoded. Never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretData(pub BTreeMap<String, Vec<u8>>);

impl fmt::Debug for SecretData {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

/// How news of an event is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// Nothing to do.
    Normal,
    /// A person should look.
    Warning,
}

/// News of an object, for its readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The object it is about.
    pub about: ObjectRef,
    /// How it is meant.
    pub event_type: EventType,
    /// One word in CamelCase, stable.
    pub reason: &'static str,
    /// Sentences, the cause first.
    pub message: String,
}

/// One condition of an ObjectStore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What it is about, in CamelCase, stable.
    pub condition_type: &'static str,
    /// Whether it holds; `None` when that is not known.
    pub is_true: Option<bool>,
    /// One word in CamelCase, stable.
    pub reason: &'static str,
    /// Sentences, the cause first.
    pub message: String,
}

/// How a request for an object fails.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResourceError {
    /// There is no such object, and who keeps the objects said so.
    #[error("{object} is not in namespace {namespace}")]
    NotFound {
        /// The object.
        object: ObjectRef,
        /// Where it was looked for.
        namespace: String,
    },
    /// The right is missing.
    #[error("access to {object} in namespace {namespace} is refused: {reason}")]
    Denied {
        /// The object, or the kind of objects.
        object: String,
        /// Where.
        namespace: String,
        /// The words of who refused.
        reason: String,
    },
    /// Nobody answered, or not in time.
    #[error("the Kubernetes API cannot be asked for {object}: {reason}")]
    Unreachable {
        /// The object, or the kind of objects.
        object: String,
        /// Why.
        reason: String,
    },
    /// The object, or the answer, makes no sense.
    #[error("{object} cannot be read: {reason}")]
    Unreadable {
        /// The object, or the kind of objects.
        object: String,
        /// Why.
        reason: String,
    },
    /// A change was refused for another reason.
    #[error("{object} cannot be changed: {reason}")]
    Rejected {
        /// The object.
        object: String,
        /// Why.
        reason: String,
    },
}

impl ResourceError {
    /// Whether the object is not there, for certain.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

impl Fault for ResourceError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } | Self::Unreadable { .. } => Kind::Config,
            Self::Denied { .. } => Kind::Denied,
            Self::Unreachable { .. } => Kind::Unreachable,
            Self::Rejected { .. } => Kind::Conflict,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::NotFound { object, namespace } => {
                format!("Create {object} in namespace {namespace}, or correct the name.")
            }
            Self::Denied { .. } => {
                "Check the Role and the RoleBinding of the Cluster's service account.".to_owned()
            }
            Self::Unreachable { .. } => {
                "Check the network between the Pod and the Kubernetes API.".to_owned()
            }
            Self::Unreadable { object, .. } => format!("Correct {object}."),
            Self::Rejected { .. } => "Correct what the message names.".to_owned(),
        }
    }
}

/// Who keeps the objects of one namespace.
#[async_trait]
pub trait Resources: fmt::Debug + Send + Sync {
    /// The namespace.
    fn namespace(&self) -> &str;

    /// An object, as JSON. Secrets are asked for by [`secret`](Self::secret) alone.
    async fn get(&self, object: &ObjectRef) -> Result<Value, ResourceError>;

    /// The values of a Secret.
    async fn secret(&self, name: &str) -> Result<SecretData, ResourceError>;

    /// All Backups.
    async fn backups(&self) -> Result<Vec<Value>, ResourceError>;

    /// Deletes the Backup of this name if it still has this uid; one that is gone is success.
    async fn delete_backup(&self, name: &str, uid: &str) -> Result<(), ResourceError>;

    /// Merges `patch` (RFC 7386) into the status of an ObjectStore: other keys stay as they are.
    async fn merge_status(&self, object_store: &str, patch: &Value) -> Result<(), ResourceError>;

    /// Sets one condition of an ObjectStore and leaves the others. Its time changes only with
    /// its status.
    async fn set_condition(
        &self,
        object_store: &str,
        condition: &Condition,
    ) -> Result<(), ResourceError>;

    /// Tells the readers of an object. Repeated news may be counted instead of told again.
    async fn emit(&self, event: &Event) -> Result<(), ResourceError>;
}
