//! How settings are wrong: which file or variable, which field, and what to do.

use std::io;
use std::path::PathBuf;

use crate::fault::{Fault, Kind};

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not YAML, or a field has another type.
    #[error("{} is not as it should be", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_norway::Error,
    },
    /// The file does not hold exactly one ObjectStore.
    #[error("{} holds {} ObjectStores, expected one", path.display(), names.len())]
    ManifestCount {
        /// The file.
        path: PathBuf,
        /// Those that are there.
        names: Vec<String>,
        /// The kinds of its documents.
        kinds: Vec<String>,
    },
    /// A field that does not exist.
    #[error("{}: {field} is not a field of an ObjectStore", path.display())]
    UnknownField {
        /// The file.
        path: PathBuf,
        /// The field, from the document's root.
        field: String,
        /// The field that may have been meant.
        nearest: Option<String>,
    },
    /// A field whose value cannot be.
    #[error("{}: {field} {problem}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, from the document's root.
        field: String,
        /// What is wrong with it.
        problem: String,
        /// What to do, as a full sentence.
        advice: String,
    },
    /// A Secret that is nowhere.
    #[error("{}: {field} names the Secret {secret}, which is not there", path.display())]
    SecretMissing {
        /// The file that names it.
        path: PathBuf,
        /// The field that names it.
        field: String,
        /// Its name.
        secret: String,
        /// Where it was looked for, and what could not be read there.
        searched: Vec<String>,
    },
    /// A Secret without the key asked for, or with one that cannot be read.
    #[error("{}: {field} names the key {key} of the Secret {secret}, which {problem}", path.display())]
    SecretKey {
        /// The file that names it.
        path: PathBuf,
        /// The field that names it.
        field: String,
        /// The Secret's name.
        secret: String,
        /// The key.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// A variable whose value cannot be, or that is missing beside another.
    #[error("the variable {name} {problem}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A place that cannot be understood.
    #[error("{place} {problem}")]
    Place {
        /// The option or field that says the place.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Fault for ConfigError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read { .. } => Kind::Local,
            _ => Kind::Config,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Read { .. } => {
                "Check that the file is there and may be read by this user.".to_owned()
            }
            Self::Yaml { .. } => {
                "Correct the place that the message names; indentation and types count in YAML."
                    .to_owned()
            }
            Self::ManifestCount { names, kinds, .. } if names.is_empty() => format!(
                "Give a file with a document of kind ObjectStore; this one has {}.",
                listed(kinds, "no document with a kind")
            ),
            Self::ManifestCount { names, .. } => format!(
                "Put each in a file of its own: {}.",
                listed(names, "those without a name")
            ),
            Self::UnknownField {
                nearest: Some(nearest),
                ..
            } => format!("Write {nearest} if that was meant, or leave the field out."),
            Self::UnknownField { .. } => "Leave the field out.".to_owned(),
            Self::Field { advice, .. } => advice.clone(),
            Self::SecretMissing {
                secret, searched, ..
            } => format!(
                "Put a document of kind Secret named {secret} into the same file or one beside it; looked in {}.",
                listed(searched, "nothing")
            ),
            Self::SecretKey { .. } => {
                "Correct the key in the ObjectStore, or add it to the Secret.".to_owned()
            }
            Self::Variable { name, .. } => format!("Correct or unset {name}."),
            Self::Place { .. } => {
                "Give s3://BUCKET/PATH, gs://BUCKET/PATH, https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH, file:///DIRECTORY or a directory.".to_owned()
            }
        }
    }
}

fn listed(items: &[String], none: &str) -> String {
    if items.is_empty() {
        none.to_owned()
    } else {
        items.join(", ")
    }
}
