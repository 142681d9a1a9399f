//! The files of the directory: found, read, written whole, locked.
//!
//! Not here: what is changed in an object.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

use serde_json::Value;
use serde_norway::Value as Yaml;

use crate::resources::directory::documents::Documents;
use crate::resources::{ObjectKind, ObjectRef, ResourceError};

/// Files of these kinds hold objects.
const SUFFIXES: [&str; 3] = ["yaml", "yml", "json"];
const LOCK_NAME: &str = ".lock";

/// The directory, and the namespace that is looked at.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub root: PathBuf,
    pub namespace: String,
}

/// An object, and where it stands.
#[derive(Debug)]
pub(super) struct Found {
    path: PathBuf,
    documents: Documents,
    at: usize,
    value: Yaml,
}

impl Files {
    /// Keeps other processes, and other tasks of this one, from changing anything until it is dropped.
    pub(super) fn lock(&self, object: &ObjectRef) -> Result<File, ResourceError> {
        let path = self.root.join(LOCK_NAME);
        let locked = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .and_then(|file| file.lock().map(|()| file));
        locked.map_err(|error| ResourceError::Rejected {
            object: object.to_string(),
            reason: format!("{} cannot be locked: {error}", path.display()),
        })
    }

    /// The object. A file that makes no sense might hold it, and so is told before "not found".
    pub(super) fn find(&self, object: &ObjectRef) -> Result<Found, ResourceError> {
        let mut broken = None;
        for path in self.paths(&object.to_string())? {
            match self.read(&path, object.kind) {
                Ok(found) => {
                    let mut found = found.into_iter();
                    if let Some(found) = found.find(|one| one.name() == object.name) {
                        return Ok(found);
                    }
                }
                Err(reason) => {
                    broken.get_or_insert(reason);
                }
            }
        }
        Err(match broken {
            Some(reason) => ResourceError::Unreadable {
                object: object.to_string(),
                reason,
            },
            None => ResourceError::NotFound {
                object: object.clone(),
                namespace: self.namespace.clone(),
            },
        })
    }

    /// All objects of a kind.
    pub(super) fn all(&self, kind: ObjectKind) -> Result<Vec<Found>, ResourceError> {
        let object = format!("{}s", kind.as_str());
        let mut all = Vec::new();
        for path in self.paths(&object)? {
            let found = self.read(&path, kind);
            let found = found.map_err(|reason| ResourceError::Unreadable {
                object: object.clone(),
                reason,
            })?;
            all.extend(found);
        }
        Ok(all)
    }

    /// The files, in the order of their names.
    fn paths(&self, object: &str) -> Result<Vec<PathBuf>, ResourceError> {
        let unreachable = |error: io::Error| ResourceError::Unreachable {
            object: object.to_owned(),
            reason: format!("{} cannot be read: {error}", self.root.display()),
        };
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(unreachable)? {
            let path = entry.map_err(unreachable)?.path();
            let suffix = path.extension().and_then(|suffix| suffix.to_str());
            let is_hidden = path
                .file_name()
                .is_none_or(|name| name.to_string_lossy().starts_with('.'));
            if !is_hidden && suffix.is_some_and(|suffix| SUFFIXES.contains(&suffix)) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// The objects of a kind in one file; an error says why the file makes no sense.
    fn read(&self, path: &Path, kind: ObjectKind) -> Result<Vec<Found>, String> {
        let reason = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            // Its last object was deleted meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(reason(&error)),
        };
        let documents = Documents::cut(&text);
        let mut found = Vec::new();
        for (at, value) in documents.read() {
            let value = value.map_err(|error| reason(&error))?;
            if self.is_ours(&value, kind) {
                found.push(Found {
                    path: path.to_owned(),
                    documents: documents.clone(),
                    at,
                    value,
                });
            }
        }
        Ok(found)
    }

    fn is_ours(&self, value: &Yaml, kind: ObjectKind) -> bool {
        let text = |value: Option<&Yaml>| value.and_then(Yaml::as_str).map(str::to_owned);
        let metadata = value.get("metadata");
        let namespace = text(metadata.and_then(|metadata| metadata.get("namespace")));
        text(value.get("kind")).as_deref() == Some(kind.as_str())
            && namespace.is_none_or(|namespace| namespace == self.namespace)
    }
}

impl Found {
    /// The object's name.
    pub(super) fn name(&self) -> &str {
        let metadata = self.value.get("metadata");
        let name = metadata.and_then(|metadata| metadata.get("name"));
        name.and_then(Yaml::as_str).unwrap_or_default()
    }

    /// The object as JSON.
    pub(super) fn json(&self, object: &ObjectRef) -> Result<Value, ResourceError> {
        serde_json::to_value(&self.value).map_err(|error| ResourceError::Unreadable {
            object: object.to_string(),
            reason: format!("{}: {error}", self.path.display()),
        })
    }

    /// Sets a field at the object's top and writes the file.
    pub(super) fn set(
        &mut self,
        field: &str,
        value: &Value,
        object: &ObjectRef,
    ) -> Result<(), ResourceError> {
        let value = serde_norway::to_value(value)
            .map_err(|error| rejected(object, &self.path, &error.to_string()))?;
        let mapping = self.value.as_mapping_mut();
        let mapping = mapping.ok_or_else(|| rejected(object, &self.path, "it is no mapping"))?;
        mapping.insert(Yaml::String(field.to_owned()), value);
        let replaced = self.documents.replace(self.at, &self.value);
        replaced.map_err(|error| rejected(object, &self.path, &error.to_string()))?;
        write(&self.path, self.documents.to_text().as_bytes())
            .map_err(|error| rejected(object, &self.path, &error.to_string()))
    }

    /// Takes the object away, and the file with its last one.
    pub(super) fn remove(mut self, object: &ObjectRef) -> Result<(), ResourceError> {
        let is_any_left = self.documents.remove(self.at);
        let removed = if is_any_left {
            write(&self.path, self.documents.to_text().as_bytes())
        } else {
            fs::remove_file(&self.path)
        };
        removed.map_err(|error| rejected(object, &self.path, &error.to_string()))
    }
}

fn rejected(object: &ObjectRef, path: &Path, reason: &str) -> ResourceError {
    ResourceError::Rejected {
        object: object.to_string(),
        reason: format!("{}: {reason}", path.display()),
    }
}

/// Puts a file that appears whole, with the rights of the one that is there.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", process::id()));
    let written = File::create(&temporary).and_then(|mut file| {
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        // The first error is the one to tell.
        fs::remove_file(&temporary).ok();
    }
    written?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
