//! Looks after ObjectStores: whether their credentials can be used, and that Roles follow them.
//!
//! A pass looks at everything that is cached and writes only what differs. Not here: whether a
//! store answers, which the sidecars say.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use cellarman::config;
use cellarman::fault::{Fault, chain};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cache::Caches;
use crate::controller::access::{self, Part, Place};
use crate::object_store::{essence, secret_keys};
use crate::operator::{ObjectStores, Settings, roles};
use crate::resources::api::ApiServer;
use crate::resources::kubernetes::{CnpgApi, Kubernetes};
use crate::resources::{
    Condition, Event, EventType, ObjectKind, ObjectRef, ResourceError, Resources, SecretData,
};

/// The condition that is kept here.
pub const CREDENTIALS_VALID: &str = "CredentialsValid";

/// Secrets change without notice: how often they are looked at again.
const LOOK_AGAIN: Duration = Duration::from_mins(5);

/// The same where something is wrong, and somebody may be about to correct it.
const LOOK_AGAIN_SOON: Duration = Duration::from_secs(20);

/// Changes come in bursts, and one pass serves them all.
const GATHER: Duration = Duration::from_millis(300);

/// When to look again at an ObjectStore.
struct Looked {
    generation: Value,
    uid: Value,
    again: Instant,
    is_valid: Option<bool>,
}

/// Looks after ObjectStores until `cancel`.
pub async fn run(api: &ApiServer, caches: &Caches, settings: &Settings, cancel: CancellationToken) {
    let mut looked = HashMap::new();
    loop {
        if caches.are_filled() {
            pass(api, caches, settings, &mut looked).await;
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = caches.stores.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN_SOON) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}

async fn pass(
    api: &ApiServer,
    caches: &Caches,
    settings: &Settings,
    looked: &mut HashMap<(String, String), Looked>,
) {
    let mut there = Vec::new();
    for (namespace, stores) in caches.stores.all() {
        refresh_roles(api, caches, &namespace, &stores).await;
        let cnpg = CnpgApi::or_default(
            Some(&settings.cluster_group),
            Some(&settings.cluster_version),
        );
        let kubernetes = Kubernetes::new(api.clone(), &namespace, cnpg);
        for (name, store) in &*stores {
            let key = (namespace.clone(), name.clone());
            if is_due(looked.get(&key), store) {
                let before = looked.get(&key).and_then(|looked| looked.is_valid);
                let is_valid = look(&kubernetes, name, store, before).await;
                let pause = if is_valid == Some(true) {
                    LOOK_AGAIN
                } else {
                    LOOK_AGAIN_SOON
                };
                let now = Looked {
                    generation: store["metadata"]["generation"].clone(),
                    uid: store["metadata"]["uid"].clone(),
                    again: Instant::now() + pause,
                    is_valid,
                };
                looked.insert(key.clone(), now);
            }
            there.push(key);
        }
    }
    looked.retain(|key, _| there.contains(key));
}

fn is_due(looked: Option<&Looked>, store: &Value) -> bool {
    looked.is_none_or(|looked| {
        looked.generation != store["metadata"]["generation"]
            || looked.uid != store["metadata"]["uid"]
            || looked.again <= Instant::now()
    })
}

/// Lets the Roles of a namespace follow its ObjectStores.
async fn refresh_roles(api: &ApiServer, caches: &Caches, namespace: &str, stores: &ObjectStores) {
    for (name, role) in &*caches.roles.of(namespace) {
        let place = Place {
            part: Part::Role,
            namespace,
            name,
        };
        let change = |current: Option<&Value>| {
            current.map_or(roles::Change::Nothing, |role| {
                roles::refreshed(role, stores)
            })
        };
        if let Err(error) = access::write(api, &place, Some(role), &change).await {
            let hint = error.hint();
            tracing::warn!(namespace, role = name, %error, hint, "cannot keep a Role in step");
        }
    }
}

/// Looks at one ObjectStore and says what was seen; whether its credentials can be used.
async fn look(
    kubernetes: &Kubernetes,
    name: &str,
    store: &Value,
    before: Option<bool>,
) -> Option<bool> {
    let condition = credentials(kubernetes, store).await;
    let is_valid = condition.is_true;
    let namespace = kubernetes.namespace();
    if let Err(error) = kubernetes.set_condition(name, &condition).await
        && !error.is_not_found()
    {
        tracing::warn!(namespace, object_store = name, %error, "cannot set a condition");
    }
    if is_valid == Some(false) && before != Some(false) {
        let event = Event {
            about: ObjectRef::new(ObjectKind::ObjectStore, name),
            event_type: EventType::Warning,
            reason: "CredentialsInvalid",
            message: condition.message,
        };
        tracing::warn!(namespace, object_store = name, "{}", event.message);
        if let Err(error) = kubernetes.emit(&event).await {
            tracing::debug!(%error, "cannot tell an Event");
        }
    }
    is_valid
}

/// Whether the Secrets of an ObjectStore are there with their keys, and its settings make sense.
///
/// A Secret that is named and not needed may be missing.
pub async fn credentials(resources: &dyn Resources, store: &Value) -> Condition {
    let mut secrets: BTreeMap<String, SecretData> = BTreeMap::new();
    let mut missing = None;
    for key in secret_keys(store) {
        if !secrets.contains_key(&key.secret) {
            match resources.secret(&key.secret).await {
                Ok(secret) => {
                    secrets.insert(key.secret.clone(), secret);
                }
                Err(error) => {
                    missing.get_or_insert(unread(&error, &key.field));
                    continue;
                }
            }
        }
        let secret = secrets.get(&key.secret);
        if !secret.is_some_and(|secret| secret.0.contains_key(&key.key)) {
            let message = format!(
                "Secret {} in namespace {} has no key {}, which {} names. Add the key, or correct \
                 the name.",
                key.secret,
                resources.namespace(),
                key.key,
                key.field
            );
            missing.get_or_insert(condition(Some(false), "SecretKeyMissing", message));
        }
    }
    match (validated(store, &secrets), missing) {
        (Ok(()), _) => condition(
            Some(true),
            "Valid",
            "The Secrets are there, and the settings can be used.".to_owned(),
        ),
        (Err(_), Some(missing)) => missing,
        (Err(message), None) => condition(Some(false), "SettingsInvalid", message),
    }
}

fn unread(error: &ResourceError, field: &str) -> Condition {
    let message = format!("{error}, and {field} names it. {}", error.hint());
    match error {
        ResourceError::NotFound { .. } => condition(Some(false), "SecretMissing", message),
        ResourceError::Unreadable { .. } => condition(Some(false), "SecretUnreadable", message),
        _ => condition(None, "CannotLook", message),
    }
}

fn condition(is_true: Option<bool>, reason: &'static str, message: String) -> Condition {
    Condition {
        condition_type: CREDENTIALS_VALID,
        is_true,
        reason,
        message,
    }
}

/// Whether the settings can be used with these Secrets, as a sidecar will see them.
fn validated(store: &Value, secrets: &BTreeMap<String, SecretData>) -> Result<(), String> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    let mut documents = vec![essence(store)];
    for (name, secret) in secrets {
        let data: BTreeMap<&String, String> = secret
            .0
            .iter()
            .map(|(key, value)| (key, STANDARD.encode(value)))
            .collect();
        documents.push(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "data": data,
        }));
    }
    let documents: Result<Vec<serde_norway::Value>, _> =
        documents.iter().map(serde_norway::to_value).collect();
    let documents = documents.map_err(|error| error.to_string())?;
    let variables = variables(store);
    let env = |name: &str| variables.get(name).cloned();
    let name = store["metadata"]["name"].as_str().unwrap_or_default();
    let origin = format!("ObjectStore {name}");
    match config::from_documents(Path::new(&origin), &documents, &env) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{}. {}", chain(&error), error.hint())),
    }
}

/// The variables that the ObjectStore gives its sidecars. Those that are taken from elsewhere are
/// not known here.
fn variables(store: &Value) -> HashMap<String, String> {
    let env = store.pointer("/spec/instanceSidecarConfiguration/env");
    let env = env.and_then(Value::as_array).into_iter().flatten();
    env.filter_map(|variable| {
        let name = variable["name"].as_str()?.to_owned();
        let value = variable["value"].as_str()?.to_owned();
        Some((name, value))
    })
    .collect()
}
