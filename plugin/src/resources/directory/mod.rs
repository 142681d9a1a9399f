//! Objects in a directory of YAML files, several documents a file if wanted.
//!
//! A change rewrites the one document it is about, in the file that holds it; the file appears whole
//! and is never half-written. A lock keeps apart the processes that share the directory. Events
//! go to `events.jsonl`, of which the last are kept. Not here: Kubernetes.

mod documents;
mod events;
mod files;

use std::path::PathBuf;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cellarman::clock;
use chrono::SecondsFormat;
use serde_json::{Map, Value, json};
use tokio::task;

use crate::resources::directory::files::Files;
use crate::resources::{
    Condition, Event, ObjectKind, ObjectRef, ResourceError, Resources, SecretData,
};

/// The objects of one namespace in a directory.
#[derive(Debug, Clone)]
pub struct Directory {
    files: Files,
}

impl Directory {
    /// The objects of `namespace` below `root`. One that names no namespace belongs to any.
    pub fn new(root: impl Into<PathBuf>, namespace: impl Into<String>) -> Self {
        let files = Files {
            root: root.into(),
            namespace: namespace.into(),
        };
        Self { files }
    }

    /// Runs `work` on the files where it may block.
    async fn on<T: Send + 'static>(
        &self,
        object: String,
        work: impl FnOnce(&Files) -> Result<T, ResourceError> + Send + 'static,
    ) -> Result<T, ResourceError> {
        let files = self.files.clone();
        let done = task::spawn_blocking(move || work(&files)).await;
        done.unwrap_or_else(|_| {
            let reason = "the work on it was stopped".to_owned();
            Err(ResourceError::Unreachable { object, reason })
        })
    }

    /// Changes the status of an ObjectStore.
    async fn change_status(
        &self,
        object_store: &str,
        change: impl FnOnce(&mut Value) + Send + 'static,
    ) -> Result<(), ResourceError> {
        let object = ObjectRef::new(ObjectKind::ObjectStore, object_store);
        self.on(object.to_string(), move |files| {
            let _lock = files.lock(&object)?;
            let mut found = files.find(&object)?;
            let mut json = found.json(&object)?;
            let status = json.get_mut("status").map_or(Value::Null, Value::take);
            let mut status = if status.is_object() {
                status
            } else {
                Value::Object(Map::new())
            };
            change(&mut status);
            found.set("status", &status, &object)
        })
        .await
    }
}

#[async_trait]
impl Resources for Directory {
    fn namespace(&self) -> &str {
        &self.files.namespace
    }

    async fn get(&self, object: &ObjectRef) -> Result<Value, ResourceError> {
        let object = object.clone();
        self.on(object.to_string(), move |files| {
            files.find(&object)?.json(&object)
        })
        .await
    }

    async fn secret(&self, name: &str) -> Result<SecretData, ResourceError> {
        let secret = self.get(&ObjectRef::new(ObjectKind::Secret, name)).await?;
        secret_data(name, &secret)
    }

    async fn backups(&self) -> Result<Vec<Value>, ResourceError> {
        self.on("Backups".to_owned(), |files| {
            let found = files.all(ObjectKind::Backup)?;
            let backups = found.iter();
            backups
                .map(|one| one.json(&ObjectRef::new(ObjectKind::Backup, one.name())))
                .collect()
        })
        .await
    }

    async fn delete_backup(&self, name: &str, uid: &str) -> Result<(), ResourceError> {
        let object = ObjectRef::new(ObjectKind::Backup, name);
        let uid = uid.to_owned();
        self.on(object.to_string(), move |files| {
            let _lock = files.lock(&object)?;
            let found = match files.find(&object) {
                Err(error) if error.is_not_found() => return Ok(()),
                found => found?,
            };
            let json = found.json(&object)?;
            let there = json["metadata"]["uid"].as_str().unwrap_or_default();
            if there == uid {
                found.remove(&object)
            } else {
                Ok(())
            }
        })
        .await
    }

    async fn merge_status(&self, object_store: &str, patch: &Value) -> Result<(), ResourceError> {
        let patch = patch.clone();
        self.change_status(object_store, move |status| {
            json_patch::merge(status, &patch);
        })
        .await
    }

    async fn set_condition(
        &self,
        object_store: &str,
        condition: &Condition,
    ) -> Result<(), ResourceError> {
        let condition = condition.clone();
        self.change_status(object_store, move |status| {
            put_condition(status, &condition);
        })
        .await
    }

    async fn emit(&self, event: &Event) -> Result<(), ResourceError> {
        let event = event.clone();
        self.on(event.about.to_string(), move |files| {
            let _lock = files.lock(&event.about)?;
            events::add(files, &event)
        })
        .await
    }
}

/// The values of a Secret: `data` in base64, `stringData` as it stands.
fn secret_data(name: &str, secret: &Value) -> Result<SecretData, ResourceError> {
    let fields = |field: &str| secret[field].as_object().cloned().unwrap_or_default();
    let text = |key: &str, value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        _ => Err(unreadable_key(name, key, "is no text")),
    };
    let mut data = SecretData::default();
    for (key, value) in fields("data") {
        let encoded = text(&key, &value)?;
        let bytes = STANDARD.decode(encoded.trim());
        let bytes = bytes.map_err(|_| unreadable_key(name, &key, "is no base64"))?;
        data.0.insert(key, bytes);
    }
    for (key, value) in fields("stringData") {
        let bytes = text(&key, &value)?.into_bytes();
        data.0.insert(key, bytes);
    }
    Ok(data)
}

fn unreadable_key(name: &str, key: &str, problem: &str) -> ResourceError {
    ResourceError::Unreadable {
        object: ObjectRef::new(ObjectKind::Secret, name).to_string(),
        reason: format!("its key {key} {problem}"),
    }
}

/// Sets the condition among those of the status. Its time changes only with its status.
fn put_condition(status: &mut Value, condition: &Condition) {
    let word = match condition.is_true {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let mut conditions = match status.get_mut("conditions").map(Value::take) {
        Some(Value::Array(conditions)) => conditions,
        _ => Vec::new(),
    };
    let same = |one: &Value| one["type"] == condition.condition_type;
    let old = conditions.iter().position(same);
    let since = old
        .and_then(|at| conditions.get(at))
        .filter(|one| one["status"] == word)
        .and_then(|one| one["lastTransitionTime"].as_str());
    let new = json!({
        "type": condition.condition_type,
        "status": word,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": since.map_or_else(now, str::to_owned),
    });
    match old.and_then(|at| conditions.get_mut(at)) {
        Some(place) => *place = new,
        None => conditions.push(new),
    }
    status["conditions"] = Value::Array(conditions);
}

/// The time, as Kubernetes writes it.
fn now() -> String {
    clock::now().to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests;
