//! Secrets: documents of kind Secret in the manifest's own file or in the YAML files beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde::Deserialize;
use serde_norway::Value;

use super::error::ConfigError;
use super::manifest::SecretKey;

/// The largest file beside the manifest that is looked into.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where Secrets are looked for.
#[derive(Debug)]
pub(super) struct Secrets<'a> {
    /// The manifest's file.
    pub(super) path: &'a Path,
    /// Its documents.
    pub(super) documents: &'a [Value],
    /// The manifest's namespace, if it names one.
    pub(super) namespace: Option<&'a str>,
    /// Whether the files beside the manifest's are looked into.
    pub(super) looks_beside: bool,
    /// What the user should know, as full sentences.
    pub(super) warnings: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Secret {
    metadata: Metadata,
    data: BTreeMap<String, Option<String>>,
    string_data: BTreeMap<String, Option<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: Option<String>,
}

impl Secrets<'_> {
    /// A value as text, without the newline that editors and `base64` leave at its end.
    pub(super) fn text(
        &mut self,
        field: &str,
        selector: &SecretKey,
    ) -> Result<String, ConfigError> {
        let bytes = self.bytes(field, selector)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| self.bad_key(field, selector, "is not text".to_owned()))?;
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(self.bad_key(field, selector, "is empty".to_owned()));
        }
        if trimmed.len() != text.len() {
            self.warnings.push(format!(
                "The key {} of the Secret {} has white space around its value; it was left out.",
                selector.key, selector.name
            ));
        }
        Ok(trimmed.to_owned())
    }

    /// As [`text`](Self::text), for what must not be shown.
    pub(super) fn secret(
        &mut self,
        field: &str,
        selector: &SecretKey,
    ) -> Result<SecretString, ConfigError> {
        self.text(field, selector).map(SecretString::from)
    }

    /// A value as it is.
    pub(super) fn bytes(&self, field: &str, selector: &SecretKey) -> Result<Vec<u8>, ConfigError> {
        let secret = self.find(field, selector)?;
        if let Some(Some(text)) = secret.string_data.get(&selector.key) {
            return Ok(text.clone().into_bytes());
        }
        let Some(Some(encoded)) = secret.data.get(&selector.key) else {
            let keys: Vec<&str> = secret
                .data
                .keys()
                .chain(secret.string_data.keys())
                .map(String::as_str)
                .collect();
            let problem = format!("is not there; it has {}", keys.join(", "));
            return Err(self.bad_key(field, selector, problem));
        };
        let compact: String = encoded.split_whitespace().collect();
        STANDARD.decode(compact).map_err(|_| {
            let problem = "is not base64, as data must be: use stringData for plain text";
            self.bad_key(field, selector, problem.to_owned())
        })
    }

    fn bad_key(&self, field: &str, selector: &SecretKey, problem: String) -> ConfigError {
        ConfigError::SecretKey {
            path: self.path.to_path_buf(),
            field: field.to_owned(),
            secret: selector.name.clone(),
            key: selector.key.clone(),
            problem,
        }
    }

    /// The Secret of that name: in the manifest's file first, then in those beside it by name.
    fn find(&self, field: &str, selector: &SecretKey) -> Result<Secret, ConfigError> {
        if let Some(secret) = self.among(self.documents, &selector.name) {
            return Ok(secret);
        }
        let mut searched = vec![self.path.display().to_string()];
        let beside = if self.looks_beside {
            siblings(self.path)
        } else {
            Vec::new()
        };
        for path in beside {
            match documents_of_file(&path) {
                Ok(documents) => {
                    if let Some(secret) = self.among(&documents, &selector.name) {
                        return Ok(secret);
                    }
                    searched.push(path.display().to_string());
                }
                Err(error) => {
                    searched.push(format!(
                        "{} ({})",
                        path.display(),
                        crate::fault::chain(&error)
                    ));
                }
            }
        }
        Err(ConfigError::SecretMissing {
            path: self.path.to_path_buf(),
            field: field.to_owned(),
            secret: selector.name.clone(),
            searched,
        })
    }

    fn among(&self, documents: &[Value], name: &str) -> Option<Secret> {
        documents
            .iter()
            .filter(|document| kind_of(document) == Some("Secret"))
            .filter_map(|document| serde_norway::from_value::<Secret>(document.clone()).ok())
            .find(|secret| {
                let namespaces = (self.namespace, secret.metadata.namespace.as_deref());
                let is_elsewhere = matches!(namespaces, (Some(ours), Some(its)) if ours != its);
                secret.metadata.name == name && !is_elsewhere
            })
    }
}

/// The kind of a document.
pub(super) fn kind_of(document: &Value) -> Option<&str> {
    document.get("kind")?.as_str()
}

/// The documents of a file.
pub(super) fn documents_of_file(path: &Path) -> Result<Vec<Value>, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    documents_of_text(path, &text)
}

/// The documents of a file's text.
pub(super) fn documents_of_text(path: &Path, text: &str) -> Result<Vec<Value>, ConfigError> {
    serde_norway::Deserializer::from_str(text)
        .map(Value::deserialize)
        .collect::<Result<_, _>>()
        .map_err(|source| ConfigError::Yaml {
            path: path.to_path_buf(),
            source,
        })
}

/// The YAML files beside a file, by name. Unreadable directories have none.
fn siblings(path: &Path) -> Vec<PathBuf> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|other| {
            let is_yaml = other
                .extension()
                .is_some_and(|extension| extension == "yaml" || extension == "yml");
            let is_small = fs::metadata(other)
                .is_ok_and(|metadata| metadata.is_file() && metadata.len() <= FILE_BYTES_MAX);
            is_yaml && is_small && other.file_name() != path.file_name()
        })
        .collect();
    found.sort();
    found
}
