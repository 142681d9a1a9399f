//! The sidecar's container and the volume it brings.
//!
//! Not here: where they go in a Pod.

use serde_json::{Map, Value, json};

use crate::cluster::{ArchiveRef, Archives, Cluster};
use crate::object_store;
use crate::operator::lifecycle::{LifecycleError, Request, Target};
use crate::operator::{ObjectStores, in_order};

/// The volume with the sockets of all plugins.
pub(super) const SOCKETS_VOLUME: &str = "plugins";

/// Where it is, in every container.
pub(super) const SOCKETS_PATH: &str = "/plugins";

/// Where the certificates are in the sidecar; the sidecar's own code reads them there.
const CERTIFICATES_PATH: &str = "/barman-certificates";

/// What the reference calls its spool. Ours lies elsewhere and the variable stays, for a Pod is
/// to look the same to those who read it.
const SPOOL_DIRECTORY: &str = "/controller/wal-restore-spool";

/// The fields of a container that are decided here. Others, of an injected container that is
/// already there, stay.
const OWN_FIELDS: [&str; 16] = [
    "name",
    "image",
    "imagePullPolicy",
    "command",
    "args",
    "restartPolicy",
    "startupProbe",
    "livenessProbe",
    "readinessProbe",
    "lifecycle",
    "ports",
    "securityContext",
    "resources",
    "env",
    "envFrom",
    "volumeMounts",
];

/// What a sidecar is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Duty {
    /// It stays with an instance.
    Instance,
    /// It stays with a recovery Job.
    Recovery,
}

/// A sidecar but for what it takes over from the main container.
#[derive(Debug)]
pub(super) struct Sidecar {
    /// Its name.
    pub(super) name: &'static str,
    /// The volume of certificates, if any store has its own.
    pub(super) certificates: Option<Value>,
    /// What that volume is called.
    pub(super) certificates_volume: &'static str,
    fields: Map<String, Value>,
    env_before: Vec<Value>,
    env_after: Vec<Value>,
}

impl Sidecar {
    /// The sidecar for this target.
    pub(super) fn of(request: &Request<'_>, target: &Target) -> Result<Self, LifecycleError> {
        let names = &request.settings.names;
        let first = leading_archive(target);
        let configuration = first.map_or(Ok(object_store::Sidecar::default()), |archive| {
            configuration(request.stores, archive)
        })?;
        let mut env_after = environment(request);
        for archive in in_order(&target.archives) {
            env_after.extend(configuration_env(request.stores, archive)?);
        }
        let image = configuration.image.as_deref().map(str::trim);
        let image = image.filter(|image| !image.is_empty());
        let image = image.unwrap_or(&request.settings.sidecar_image);
        Ok(Self {
            name: names.container,
            certificates: certificates(
                names.certificates_volume,
                request.stores,
                &target.archives,
            )?,
            certificates_volume: names.certificates_volume,
            fields: fields(request.cluster, image, &configuration, target.duty),
            env_before: if names.are_usual() {
                Vec::new()
            } else {
                vec![variable("PLUGIN_NAME", &names.plugin)]
            },
            env_after,
        })
    }

    /// The container, where `existing` is what it replaces and `main` what it goes with.
    pub(super) fn container(&self, main: &Map<String, Value>, existing: Option<&Value>) -> Value {
        let mut container = existing
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        container.retain(|field, _| !OWN_FIELDS.contains(&field.as_str()));
        container.insert("name".to_owned(), json!(self.name));
        container.extend(self.fields.clone());
        container.insert("env".to_owned(), json!(self.env(main)));
        container.insert("volumeMounts".to_owned(), json!(self.mounts(main)));
        Value::Object(container)
    }

    /// The variables: of several with one name the first counts.
    fn env<'a>(&'a self, main: &'a Map<String, Value>) -> Vec<&'a Value> {
        let mut env: Vec<&Value> = Vec::new();
        let all = self.env_before.iter();
        for variable in all.chain(list(main, "env")).chain(&self.env_after) {
            if env.iter().all(|known| known["name"] != variable["name"]) {
                env.push(variable);
            }
        }
        env
    }

    /// The mounts: those of the main container, of each volume the last, and its own.
    fn mounts(&self, main: &Map<String, Value>) -> Vec<Value> {
        let mut mounts: Vec<Value> = Vec::new();
        let mut own = vec![mount(SOCKETS_VOLUME, SOCKETS_PATH)];
        if self.certificates.is_some() {
            own.push(mount(self.certificates_volume, CERTIFICATES_PATH));
        }
        for mount in list(main, "volumeMounts").chain(&own) {
            match mounts
                .iter_mut()
                .find(|known| known["name"] == mount["name"])
            {
                Some(known) => known.clone_from(mount),
                None => mounts.push(mount.clone()),
            }
        }
        mounts
    }
}

/// A mount.
pub(super) fn mount(volume: &str, path: &str) -> Value {
    json!({"name": volume, "mountPath": path})
}

fn list<'a>(object: &'a Map<String, Value>, field: &str) -> impl Iterator<Item = &'a Value> {
    let list = object.get(field).and_then(Value::as_array);
    list.into_iter().flatten()
}

/// The archive whose ObjectStore says how the container is to be.
fn leading_archive(target: &Target) -> Option<&ArchiveRef> {
    match target.duty {
        Duty::Instance => in_order(&target.archives).first().copied(),
        Duty::Recovery => target.archives.recovery.as_ref(),
    }
}

fn configuration(
    stores: &ObjectStores,
    archive: &ArchiveRef,
) -> Result<object_store::Sidecar, LifecycleError> {
    let store = stores.get(&archive.object_store).unwrap_or(&Value::Null);
    object_store::sidecar(store).map_err(|source| LifecycleError::UnreadableStore {
        store: archive.object_store.clone(),
        source,
    })
}

fn configuration_env(
    stores: &ObjectStores,
    archive: &ArchiveRef,
) -> Result<Vec<Value>, LifecycleError> {
    Ok(configuration(stores, archive)?.env.unwrap_or_default())
}

/// The fields that depend on nothing of the Pod.
fn fields(
    cluster: &Cluster,
    image: &str,
    configuration: &object_store::Sidecar,
    duty: Duty,
) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut set = |field: &str, value: Value| {
        fields.insert(field.to_owned(), value);
    };
    set("image", json!(image));
    set("args", json!(arguments(configuration, duty)));
    set("restartPolicy", json!("Always"));
    set(
        "startupProbe",
        json!({
            "exec": {"command": ["/manager", "healthcheck", "unix"]},
            "timeoutSeconds": 5,
            "periodSeconds": 1,
            "failureThreshold": 30,
        }),
    );
    set(
        "securityContext",
        json!({
            "capabilities": {"drop": ["ALL"]},
            "privileged": false,
            "runAsNonRoot": true,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "seccompProfile": {"type": "RuntimeDefault"},
        }),
    );
    if let Some(policy) = cluster.spec.image_pull_policy.as_deref()
        && !policy.is_empty()
    {
        set("imagePullPolicy", json!(policy));
    }
    if let Some(resources) = &configuration.resources
        && resources.as_object().is_some_and(|all| !all.is_empty())
    {
        set("resources", resources.clone());
    }
    fields
}

/// The arguments. The operator does not compare them, so that a change of theirs waits for the
/// next restart.
fn arguments(configuration: &object_store::Sidecar, duty: Duty) -> Vec<String> {
    let level = configuration.log_level.as_deref();
    let level = level.filter(|level| !level.is_empty()).unwrap_or("info");
    let level = format!("--log-level={level}");
    match duty {
        Duty::Instance => {
            let mut arguments = vec!["instance".to_owned()];
            let additional = configuration.additional_container_args.iter();
            arguments.extend(additional.flatten().cloned());
            arguments.push(level);
            arguments
        }
        Duty::Recovery => vec!["restore".to_owned(), level],
    }
}

/// The variables that every sidecar has.
fn environment(request: &Request<'_>) -> Vec<Value> {
    let metadata = &request.cluster.metadata;
    let (group, version) = request.settings.group_and_version(request.cluster);
    vec![
        variable("NAMESPACE", &metadata.namespace),
        variable("CLUSTER_NAME", &metadata.name),
        variable("SPOOL_DIRECTORY", SPOOL_DIRECTORY),
        variable("CUSTOM_CNPG_GROUP", group),
        variable("CUSTOM_CNPG_VERSION", version),
    ]
}

/// A variable; Kubernetes leaves out the value of an empty one.
fn variable(name: &str, value: &str) -> Value {
    if value.is_empty() {
        json!({"name": name})
    } else {
        json!({"name": name, "value": value})
    }
}

/// The volume with the certificates of all stores that have their own.
fn certificates(
    volume: &str,
    stores: &ObjectStores,
    archives: &Archives,
) -> Result<Option<Value>, LifecycleError> {
    let mut sources = Vec::new();
    for name in archives.object_stores() {
        let store = stores.get(name).unwrap_or(&Value::Null);
        let certificate =
            object_store::endpoint_ca(store).map_err(|source| LifecycleError::UnreadableStore {
                store: name.to_owned(),
                source,
            })?;
        if let Some(certificate) = certificate {
            let path = format!("{name}/barman-ca.crt");
            sources.push(json!({"secret": {
                "name": certificate.secret,
                "items": [{"key": certificate.key, "path": path}],
            }}));
        }
    }
    let is_needed = !sources.is_empty();
    Ok(is_needed.then(|| json!({"name": volume, "projected": {"sources": sources}})))
}
