//! The objects of all namespaces that the hooks look at, kept by watches: ObjectStores, Backups
//! that name an ObjectStore, Roles and RoleBindings of ours.
//!
//! What is kept may be a moment old. Not here: what is done about it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use futures::TryStreamExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::operator::{Settings, roles};
use crate::resources::api::ApiServer;

/// The objects that the calls look at.
#[derive(Debug, Clone)]
pub struct Caches {
    /// All ObjectStores.
    pub stores: Cache,
    /// The Backups that name an ObjectStore on their own.
    pub backups: Cache,
    /// Our Roles.
    pub roles: Cache,
    /// Our RoleBindings.
    pub bindings: Cache,
}

impl Caches {
    /// Begins to watch; `tasks` keep watching until `cancel`.
    pub fn start(
        api: &ApiServer,
        settings: &Settings,
        tasks: &mut JoinSet<()>,
        cancel: &CancellationToken,
    ) -> Self {
        let mut start = |watched| {
            let (cache, keeping) = Cache::start(api, watched, cancel.clone());
            tasks.spawn(keeping);
            cache
        };
        let rbac = |kind, plural| Watched {
            label: Some(settings.names.role_label.to_owned()),
            ..Watched::all("rbac.authorization.k8s.io", "v1", kind, plural)
        };
        let (group, version) = (&settings.cluster_group, &settings.cluster_version);
        Self {
            stores: start(Watched::all(
                "barmancloud.cnpg.io",
                "v1",
                "ObjectStore",
                "objectstores",
            )),
            backups: start(Watched {
                trim: Some(backup_with_store),
                ..Watched::all(group, version, "Backup", "backups")
            }),
            roles: start(rbac("Role", "roles")),
            bindings: start(rbac("RoleBinding", "rolebindings")),
        }
    }

    /// Whether all objects have come.
    pub fn are_filled(&self) -> bool {
        let all = [&self.stores, &self.backups, &self.roles, &self.bindings];
        all.into_iter().all(Cache::is_filled)
    }
}

/// Objects of one namespace by name.
pub type Objects = BTreeMap<String, Value>;

/// What is kept of an object; `None` for one that does not matter.
type Trim = fn(Value) -> Option<Value>;

/// Which objects are watched.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Their kind.
    pub kind: ApiResource,
    /// The label that they all have, if they are told by one.
    pub label: Option<String>,
    /// What is kept of each; all, if nothing is said.
    pub trim: Option<Trim>,
}

impl Watched {
    /// All objects of a kind.
    pub fn all(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        let kind = GroupVersionKind::gvk(group, version, kind);
        Self {
            kind: ApiResource::from_gvk_with_plural(&kind, plural),
            label: None,
            trim: None,
        }
    }
}

/// The objects of one kind.
#[derive(Clone)]
pub struct Cache {
    kept: Arc<Kept>,
    filled: watch::Receiver<bool>,
}

#[derive(Default)]
struct Kept {
    namespaces: RwLock<HashMap<String, Arc<Objects>>>,
    changed: Notify,
}

impl fmt::Debug for Cache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Cache").finish_non_exhaustive()
    }
}

impl Cache {
    /// The objects as they come, and what keeps them: it runs until `cancel`.
    pub fn start(
        api: &ApiServer,
        watched: Watched,
        cancel: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (filled_sender, filled) = watch::channel(false);
        let kept = Arc::new(Kept::default());
        let cache = Self {
            kept: Arc::clone(&kept),
            filled,
        };
        let client = api.client();
        let keeping = async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = keep(client, watched, kept, filled_sender) => {}
            }
        };
        (cache, keeping)
    }

    /// Whether all objects have come.
    pub fn is_filled(&self) -> bool {
        *self.filled.borrow()
    }

    /// The objects of a namespace.
    pub fn of(&self, namespace: &str) -> Arc<Objects> {
        let namespaces = self.kept.read();
        namespaces.get(namespace).cloned().unwrap_or_default()
    }

    /// All objects, by namespace.
    pub fn all(&self) -> Vec<(String, Arc<Objects>)> {
        let namespaces = self.kept.read();
        let all = namespaces.iter();
        all.map(|(namespace, objects)| (namespace.clone(), Arc::clone(objects)))
            .collect()
    }

    /// Returns after the next change, or at once where there was one since the last return.
    /// For one task alone.
    pub async fn changed(&self) {
        self.kept.changed.notified().await;
    }
}

impl Kept {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Arc<Objects>>> {
        self.namespaces
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<String, Arc<Objects>>)) {
        let namespaces = self.namespaces.write();
        change(&mut namespaces.unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }
}

async fn keep(
    client: kube::Client,
    watched: Watched,
    kept: Arc<Kept>,
    filled: watch::Sender<bool>,
) {
    let api: Api<DynamicObject> = Api::all_with(client, &watched.kind);
    let mut config = watcher::Config::default();
    config.label_selector.clone_from(&watched.label);
    let mut events = Box::pin(watcher(api, config).default_backoff());
    // A list that is not whole yet takes the place of the last one only when it is.
    let mut coming = HashMap::new();
    let mut failures: u32 = 0;
    loop {
        match events.try_next().await {
            Ok(Some(event)) => {
                failures = 0;
                apply(event, &watched, &kept, &mut coming, &filled);
            }
            Ok(None) => return,
            Err(error) => {
                failures = failures.saturating_add(1);
                let kind = &watched.kind.plural;
                // The API cuts watches off now and then.
                if failures == 3 {
                    tracing::warn!(kind, %error, "cannot watch; trying again");
                } else {
                    tracing::debug!(kind, %error, "a watch ended; trying again");
                }
            }
        }
    }
}

fn apply(
    event: watcher::Event<DynamicObject>,
    watched: &Watched,
    kept: &Kept,
    coming: &mut HashMap<String, Arc<Objects>>,
    filled: &watch::Sender<bool>,
) {
    match event {
        watcher::Event::Init => coming.clear(),
        watcher::Event::InitApply(object) => put(coming, object, watched),
        watcher::Event::InitDone => {
            let all = std::mem::take(coming);
            kept.change(|namespaces| *namespaces = all);
            filled.send_replace(true);
        }
        watcher::Event::Apply(object) => {
            kept.change(|namespaces| put(namespaces, object, watched));
        }
        watcher::Event::Delete(object) => kept.change(|namespaces| remove(namespaces, &object)),
    }
}

fn put(namespaces: &mut HashMap<String, Arc<Objects>>, object: DynamicObject, watched: &Watched) {
    let (Some(namespace), Some(name)) = (
        object.metadata.namespace.clone(),
        object.metadata.name.clone(),
    ) else {
        return;
    };
    let value = raw(object, &watched.kind);
    let objects = Arc::make_mut(namespaces.entry(namespace).or_default());
    let value = match watched.trim {
        Some(trim) => value.and_then(trim),
        None => value,
    };
    match value {
        Some(value) => objects.insert(name, value),
        None => objects.remove(&name),
    };
}

fn remove(namespaces: &mut HashMap<String, Arc<Objects>>, object: &DynamicObject) {
    if let (Some(namespace), Some(name)) = (&object.metadata.namespace, &object.metadata.name)
        && let Some(objects) = namespaces.get_mut(namespace)
    {
        Arc::make_mut(objects).remove(name);
        if objects.is_empty() {
            namespaces.remove(namespace);
        }
    }
}

/// As the API would give it for itself: in lists, objects do not name their kind.
fn raw(mut object: DynamicObject, kind: &ApiResource) -> Option<Value> {
    object.metadata.managed_fields = None;
    let mut value = serde_json::to_value(object).ok()?;
    value["apiVersion"] = json!(kind.api_version);
    value["kind"] = json!(kind.kind);
    Some(value)
}

/// Keeps of a Backup what says which ObjectStore it names on its own, and of others nothing.
pub fn backup_with_store(mut backup: Value) -> Option<Value> {
    roles::store_of_backup(&backup)?;
    let phase = backup["status"]["phase"].take();
    Some(json!({
        "apiVersion": backup["apiVersion"].take(),
        "kind": "Backup",
        "metadata": {
            "name": backup["metadata"]["name"].take(),
            "namespace": backup["metadata"]["namespace"].take(),
        },
        "spec": backup["spec"].take(),
        "status": {"phase": phase},
    }))
}
