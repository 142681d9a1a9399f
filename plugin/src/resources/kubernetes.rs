//! The objects of one namespace on the Kubernetes API.
//!
//! Needs no more rights than the Roles of the Cluster's service account give: get, list and watch
//! of what is named there, update and patch of an ObjectStore's status, create and patch of
//! Events. Not here: the call itself (`api`), and caches.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cellarman::clock;
use chrono::{DateTime, SecondsFormat, Utc};
use http::Method;
use serde_json::{Value, json};

use super::api::{ApiError, ApiServer, Body};
use super::{
    Condition, Event, EventType, ObjectKind, ObjectRef, ResourceError, Resources, SecretData,
};

/// The API group of ObjectStores.
pub const OBJECT_STORE_GROUP: &str = "barmancloud.cnpg.io";

/// The API version of ObjectStores.
pub const OBJECT_STORE_API: &str = "barmancloud.cnpg.io/v1";

/// The same news again within this time is counted, and told with the next.
const EVENT_INTERVAL: Duration = Duration::from_mins(1);

/// So many different pieces of news are remembered for counting.
const EVENTS_REMEMBERED_MAX: usize = 256;

/// Objects that one page of a list holds.
const PAGE_OBJECTS: u32 = 250;

/// The group and version of CloudNativePG's own kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CnpgApi {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
}

impl CnpgApi {
    /// What the environment says; what is absent or empty is CloudNativePG's own.
    pub fn or_default(group: Option<&str>, version: Option<&str>) -> Self {
        let given = |value: Option<&str>, default: &str| {
            let value = value.filter(|value| !value.is_empty());
            value.unwrap_or(default).to_owned()
        };
        Self {
            group: given(group, "postgresql.cnpg.io"),
            version: given(version, "v1"),
        }
    }

    /// As it stands in an object's `apiVersion`.
    pub fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }
}

/// The API, for one namespace.
#[derive(Debug)]
pub struct Kubernetes {
    api: ApiServer,
    namespace: String,
    cnpg: CnpgApi,
    /// The parts of events' names, by what they tell.
    told: Mutex<HashMap<String, Told>>,
}

/// News that was told before.
#[derive(Debug)]
struct Told {
    at: Instant,
    /// How often since then.
    kept_back: u64,
}

impl Kubernetes {
    /// The objects of `namespace` at `api`.
    pub fn new(api: ApiServer, namespace: impl Into<String>, cnpg: CnpgApi) -> Self {
        Self {
            api,
            namespace: namespace.into(),
            cnpg,
            told: Mutex::new(HashMap::new()),
        }
    }

    fn api_version(&self, kind: ObjectKind) -> String {
        match kind {
            ObjectKind::Cluster | ObjectKind::Backup => self.cnpg.api_version(),
            ObjectKind::ObjectStore => OBJECT_STORE_API.to_owned(),
            ObjectKind::Secret => "v1".to_owned(),
        }
    }

    /// Where all objects of a kind are.
    fn path_of_kind(&self, kind: ObjectKind) -> String {
        let plural = match kind {
            ObjectKind::Cluster => "clusters",
            ObjectKind::Backup => "backups",
            ObjectKind::ObjectStore => "objectstores",
            ObjectKind::Secret => "secrets",
        };
        let root = if kind == ObjectKind::Secret {
            "api"
        } else {
            "apis"
        };
        let api_version = self.api_version(kind);
        format!(
            "/{root}/{api_version}/namespaces/{}/{plural}",
            self.namespace
        )
    }

    /// Where an object is. A name that no object can have is not found, and never becomes a path.
    fn path(&self, object: &ObjectRef) -> Result<String, ResourceError> {
        if !is_object_name(&object.name) {
            return Err(self.not_found(object));
        }
        Ok(format!(
            "{}/{}",
            self.path_of_kind(object.kind),
            object.name
        ))
    }

    fn not_found(&self, object: &ObjectRef) -> ResourceError {
        ResourceError::NotFound {
            object: object.clone(),
            namespace: self.namespace.clone(),
        }
    }

    fn failure(&self, object: &ObjectRef, error: ApiError) -> ResourceError {
        if error.is_not_found() {
            return self.not_found(object);
        }
        error.concerning(&object.to_string(), &self.namespace)
    }

    /// Whether this is told now; else it is kept for the next time. With it, how often.
    fn is_due(&self, name: &str) -> Option<u64> {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = told.get_mut(name) {
            if now.duration_since(before.at) < EVENT_INTERVAL {
                before.kept_back += 1;
                return None;
            }
            let count = before.kept_back + 1;
            before.at = now;
            before.kept_back = 0;
            return Some(count);
        }
        if told.len() >= EVENTS_REMEMBERED_MAX {
            told.clear();
        }
        let first = Told {
            at: now,
            kept_back: 0,
        };
        told.insert(name.to_owned(), first);
        Some(1)
    }

    /// Tells the readers of an object whose uid is known; an empty one is asked for.
    ///
    /// `kubectl describe` shows no Event without the uid of the object.
    pub async fn emit_with_uid(&self, event: &Event, uid: &str) -> Result<(), ResourceError> {
        let name = event_name(event);
        let Some(count) = self.is_due(&name) else {
            return Ok(());
        };
        let events = format!("/api/v1/namespaces/{}/events", self.namespace);
        let path = format!("{events}/{name}");
        let failure = |error: ApiError| {
            error.concerning(&format!("an Event about {}", event.about), &self.namespace)
        };
        let object = self.event_object(event, uid, &name, count).await;
        match self
            .api
            .call(Method::POST, &events, Body::Json(&object))
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => {
                self.count_event(&path, count).await.map_err(failure)
            }
            Err(error) => Err(failure(error)),
        }
    }

    /// The event as it is first told.
    async fn event_object(&self, event: &Event, uid: &str, name: &str, count: u64) -> Value {
        let about = &event.about;
        let asked;
        let uid = if uid.is_empty() {
            // Without an answer the event is still found by name.
            asked = self.get(about).await.unwrap_or_default();
            asked["metadata"]["uid"].as_str()
        } else {
            Some(uid)
        };
        let now = api_time(clock::now());
        let mut involved = json!({
            "apiVersion": self.api_version(about.kind),
            "kind": about.kind.as_str(),
            "name": about.name,
            "namespace": self.namespace,
        });
        if let Some(uid) = uid {
            involved["uid"] = json!(uid);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": self.namespace},
            "involvedObject": involved,
            "type": match event.event_type {
                EventType::Normal => "Normal",
                EventType::Warning => "Warning",
            },
            "reason": event.reason,
            "message": cut(&event.message),
            "source": {"component": "cellarman"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": count,
        })
    }

    /// Counts `count` more of an event that exists. Its reading is not among the rights given, so
    /// the answer to a first change tells the count so far.
    async fn count_event(&self, path: &str, count: u64) -> Result<(), ApiError> {
        let now = api_time(clock::now());
        let touch = json!({"lastTimestamp": now});
        let event = self
            .api
            .call(Method::PATCH, path, Body::Merge(&touch))
            .await?;
        let total = event["count"].as_u64().unwrap_or(0).saturating_add(count);
        let counted = json!({"count": total});
        self.api
            .call(Method::PATCH, path, Body::Merge(&counted))
            .await?;
        Ok(())
    }
}

#[async_trait]
impl Resources for Kubernetes {
    fn namespace(&self) -> &str {
        &self.namespace
    }

    async fn get(&self, object: &ObjectRef) -> Result<Value, ResourceError> {
        let path = self.path(object)?;
        let answer = self.api.get(&path).await;
        answer.map_err(|error| self.failure(object, error))
    }

    async fn secret(&self, name: &str) -> Result<SecretData, ResourceError> {
        let object = ObjectRef::new(ObjectKind::Secret, name);
        let secret = self.get(&object).await?;
        secret_data(&secret).map_err(|reason| ResourceError::Unreadable {
            object: object.to_string(),
            reason,
        })
    }

    async fn backups(&self) -> Result<Vec<Value>, ResourceError> {
        let path = self.path_of_kind(ObjectKind::Backup);
        let mut backups = Vec::new();
        let mut page_token = String::new();
        loop {
            let page = format!("{path}?limit={PAGE_OBJECTS}{page_token}");
            let mut page = self.api.get(&page).await.map_err(|error| {
                error.concerning(
                    &format!("the {}s", ObjectKind::Backup.as_str()),
                    &self.namespace,
                )
            })?;
            if let Value::Array(items) = page["items"].take() {
                backups.extend(items);
            }
            match page["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => {
                    page_token = format!("&continue={}", escape(token));
                }
                _ => return Ok(backups),
            }
        }
    }

    async fn delete_backup(&self, name: &str, uid: &str) -> Result<(), ResourceError> {
        let object = ObjectRef::new(ObjectKind::Backup, name);
        let path = self.path(&object)?;
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
        });
        let answer = self
            .api
            .call(Method::DELETE, &path, Body::Json(&options))
            .await;
        match answer {
            Ok(_) => Ok(()),
            // A conflict says that another one has the name by now: this one is gone.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(self.failure(&object, error)),
        }
    }

    async fn merge_status(&self, object_store: &str, patch: &Value) -> Result<(), ResourceError> {
        let object = ObjectRef::new(ObjectKind::ObjectStore, object_store);
        let place = format!("{}/status", self.path(&object)?);
        let status = json!({"status": patch});
        let answer = self
            .api
            .call(Method::PATCH, &place, Body::Merge(&status))
            .await;
        answer.map_err(|error| self.failure(&object, error))?;
        Ok(())
    }

    async fn set_condition(
        &self,
        object_store: &str,
        condition: &Condition,
    ) -> Result<(), ResourceError> {
        let object = ObjectRef::new(ObjectKind::ObjectStore, object_store);
        let store = self.get(&object).await?;
        let Some(entry) = condition_entry(&store, condition) else {
            return Ok(());
        };
        let path = format!("{}/status", self.path(&object)?);
        let wanted = json!({
            "apiVersion": OBJECT_STORE_API,
            "kind": ObjectKind::ObjectStore.as_str(),
            "metadata": {"name": object_store, "namespace": self.namespace},
            "status": {"conditions": [entry]},
        });
        let manager = format!("cellarman-{}", condition.condition_type);
        let apply = Body::Apply {
            object: &wanted,
            manager: &manager,
        };
        match self.api.call(Method::PATCH, &path, apply).await {
            Ok(_) => Ok(()),
            // The definition of ObjectStores that plugin-barman-cloud brings has no conditions.
            Err(ApiError::Answer { reason, .. })
                if reason.contains("field not declared in schema") =>
            {
                tracing::debug!(%object, condition = condition.condition_type, "no conditions kept");
                Ok(())
            }
            Err(error) => Err(self.failure(&object, error)),
        }
    }

    async fn emit(&self, event: &Event) -> Result<(), ResourceError> {
        self.emit_with_uid(event, "").await
    }
}

/// The condition as it is to stand in `store`, or nothing where it stands so.
fn condition_entry(store: &Value, condition: &Condition) -> Option<Value> {
    let status = match condition.is_true {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let now = api_time(clock::now());
    let mut entry = json!({
        "type": condition.condition_type,
        "status": status,
        "reason": condition.reason,
        "message": cut(&condition.message),
        "lastTransitionTime": now,
    });
    if let Some(generation) = store["metadata"]["generation"].as_i64() {
        entry["observedGeneration"] = json!(generation);
    }
    let conditions = store["status"]["conditions"].as_array();
    let before = conditions.and_then(|all| {
        let mut all = all.iter();
        all.find(|before| before["type"] == condition.condition_type)
    });
    if let Some(before) = before
        && before["status"] == status
        && before["lastTransitionTime"].is_string()
    {
        entry["lastTransitionTime"] = before["lastTransitionTime"].clone();
    }
    (before != Some(&entry)).then_some(entry)
}

/// A time as the API writes it: UTC, whole seconds.
pub fn api_time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The decoded values of a Secret; in the error, which of them is no base64.
pub fn secret_data(secret: &Value) -> Result<SecretData, String> {
    let mut data = SecretData::default();
    let Some(values) = secret["data"].as_object() else {
        return Ok(data);
    };
    for (key, value) in values {
        let value = value.as_str().unwrap_or_default();
        let value = STANDARD
            .decode(value)
            .map_err(|_invalid| format!("the value of its key {key} is no base64"))?;
        data.0.insert(key.clone(), value);
    }
    Ok(data)
}

/// Whether Kubernetes would let an object have this name (a DNS subdomain, RFC 1123).
pub fn is_object_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    name.len() <= 253
        && bytes.first().copied().is_some_and(is_inner)
        && bytes.last().copied().is_some_and(is_inner)
        && !name.contains("..")
        && bytes
            .iter()
            .all(|&byte| is_inner(byte) || byte == b'-' || byte == b'.')
}

/// The same for the same news of the same object, whichever Pod tells it.
fn event_name(event: &Event) -> String {
    let about = &event.about;
    let text = format!(
        "{}\n{}\n{}\n{}",
        about.kind.as_str(),
        about.name,
        event.reason,
        event.message
    );
    let digest = blake3::hash(text.as_bytes()).to_hex();
    let name: String = about.name.chars().take(200).collect();
    let name = name.trim_end_matches(['.', '-']);
    format!("{name}.{}", &digest.as_str()[..16])
}

/// Kubernetes keeps at most 1,024 bytes of an event's message; more would be refused.
fn cut(message: &str) -> &str {
    let mut end = message.len().min(1000);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

fn escape(token: &str) -> String {
    use std::fmt::Write;

    token.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}
