//! An ObjectStore with the Secrets it names, as they are at the moment, and the settings they make.
//!
//! Not here: the store, and keeping anything of it open.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cellarman::config::error::ConfigError;
use cellarman::config::{self, Settings};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::archives::OpenError;
use crate::object_store::{self, SecretKeyRef};
use crate::resources::{ObjectKind, ObjectRef, ResourceError, Resources, SecretData};

/// An ObjectStore with the Secrets it names.
pub struct Documents {
    /// The ObjectStore, without its status.
    pub(super) object_store: Value,
    secrets: Vec<Value>,
    /// Secrets that may not be read, by name.
    denied: BTreeMap<String, (String, ResourceError)>,
    /// What they are, for errors.
    origin: PathBuf,
}

/// Where the documents are.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// Who keeps them.
    pub resources: &'a dyn Resources,
    /// Where the certificates of ObjectStores are mounted, if they are.
    pub certificates: Option<&'a Path>,
}

impl Reader<'_> {
    /// Reads the ObjectStore and the Secrets it names. `named_by` is the field that names it.
    pub async fn read(&self, name: &str, named_by: &str) -> Result<Documents, OpenError> {
        let object = ObjectRef::new(ObjectKind::ObjectStore, name);
        let object_store =
            self.resources
                .get(&object)
                .await
                .map_err(|cause| OpenError::Object {
                    named_by: named_by.to_owned(),
                    cause,
                })?;
        let object_store = object_store::essence(&object_store);
        let keys = object_store::secret_keys(&object_store);
        let certificate = self.mounted_certificate(name);
        let names: BTreeSet<&str> = keys
            .iter()
            .filter(|key| certificate.is_none() || !key.is_certificate())
            .map(|key| key.secret.as_str())
            .collect();
        let read = names
            .into_iter()
            .map(|secret| async move { (secret, self.resources.secret(secret).await) });
        let mut values: BTreeMap<&str, SecretData> = BTreeMap::new();
        let mut denied = BTreeMap::new();
        for (secret, outcome) in join_all(read).await {
            let field = field_of(&keys, secret, &object);
            match outcome {
                Ok(data) => drop(values.insert(secret, data)),
                // Whether it is needed shows when the settings are read.
                Err(ResourceError::NotFound { .. }) => {}
                Err(cause @ ResourceError::Denied { .. }) => {
                    denied.insert(secret.to_owned(), (field, cause));
                }
                Err(cause) => {
                    return Err(OpenError::Object {
                        named_by: field,
                        cause,
                    });
                }
            }
        }
        if let (Some(bytes), Some(key)) =
            (certificate, keys.iter().find(|key| key.is_certificate()))
        {
            let secret = values.entry(&key.secret).or_default();
            secret.0.insert(key.key.clone(), bytes);
        }
        let secrets = values
            .iter()
            .map(|(name, data)| document_of(name, data))
            .collect();
        let namespace = self.resources.namespace();
        Ok(Documents {
            object_store,
            secrets,
            denied,
            origin: PathBuf::from(format!("{object} in namespace {namespace}")),
        })
    }

    /// The certificates that the Pod has, which need no right to read the Secret.
    fn mounted_certificate(&self, object_store: &str) -> Option<Vec<u8>> {
        let path = self.certificates?.join(object_store).join("barman-ca.crt");
        std::fs::read(path).ok()
    }
}

impl Documents {
    /// The settings. `env` answers for the variables of the process.
    pub fn settings(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, OpenError> {
        let all = std::iter::once(&self.object_store).chain(&self.secrets);
        let all: Result<Vec<_>, _> = all.map(serde_norway::to_value).collect();
        let all = all.map_err(|source| ConfigError::Yaml {
            path: self.origin.clone(),
            source,
        })?;
        let settings = config::from_documents(&self.origin, &all, env);
        settings.map_err(|error| match &error {
            ConfigError::SecretMissing { secret, .. } => match self.denied.get(secret) {
                Some((named_by, cause)) => OpenError::Object {
                    named_by: named_by.clone(),
                    cause: cause.clone(),
                },
                None => error.into(),
            },
            _ => error.into(),
        })
    }

    pub(super) fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for document in std::iter::once(&self.object_store).chain(&self.secrets) {
            hasher.update(document.to_string().as_bytes());
            hasher.update(b"\n");
        }
        hasher.finalize()
    }
}

/// The first field that names this Secret.
fn field_of(keys: &[SecretKeyRef], secret: &str, object_store: &ObjectRef) -> String {
    let key = keys.iter().find(|key| key.secret == secret);
    let field = key.map_or("spec.configuration", |key| key.field.as_str());
    format!("{field} of {object_store}")
}

fn document_of(name: &str, data: &SecretData) -> Value {
    let encoded = data.0.iter();
    let encoded = encoded.map(|(key, bytes)| (key.clone(), STANDARD.encode(bytes).into()));
    let encoded: serde_json::Map<String, Value> = encoded.collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded})
}
