//! The patch of a Pod or a Job: the sidecar, its volumes, and the main container's way to it.
//!
//! The object stays raw JSON, so that fields of newer versions survive. The same request has the
//! same answer, and a patched object asks for no further patch: the operator compares, and a
//! difference restarts PostgreSQL. Pure. Not here: which ObjectStores there are.

mod container;
mod pod_spec;

use std::fmt;

use cellarman::cnpgi::operator_lifecycle::operator_operation_type::Type as OperationType;
use cellarman::fault::{Fault, Kind};
use serde_json::Value;

use crate::cluster::{Archives, Cluster};
use crate::operator::lifecycle::container::{Duty, Sidecar};
use crate::operator::lifecycle::pod_spec::Problem;
use crate::operator::{MissingStore, ObjectStores, Settings, missing_store};

/// The roles of Jobs that read an archive. Their main container has the role's name.
const RECOVERY_ROLES: [&str; 2] = ["full-recovery", "snapshot-recovery"];

/// The main container of an instance.
const POSTGRES: &str = "postgres";

/// A call of `LifecycleHook`.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What the operator is about to do, or to compare.
    pub operation: OperationType,
    /// The Cluster.
    pub cluster: &'a Cluster,
    /// The Pod or the Job.
    pub object: &'a Value,
    /// The ObjectStores of the Cluster's namespace, at least those it names.
    pub stores: &'a ObjectStores,
    /// What the operator's side was started with.
    pub settings: &'a Settings,
}

/// How a patch fails.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// An ObjectStore that is named is not there.
    #[error("{0}")]
    MissingStore(MissingStore),
    /// An ObjectStore is not what it should be.
    #[error("ObjectStore {store} cannot be read")]
    UnreadableStore {
        /// The ObjectStore.
        store: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The container that the sidecar goes with is not there.
    #[error("{object} has no container {container}")]
    NoMainContainer {
        /// The Pod or the Job.
        object: ObjectName,
        /// The container.
        container: String,
    },
    /// The object is no Pod and no Job.
    #[error("{field} of {object} is not what it should be")]
    Malformed {
        /// The Pod or the Job.
        object: ObjectName,
        /// The field.
        field: String,
    },
    /// The patch cannot be written.
    #[error("the patch cannot be written")]
    Patch(#[from] serde_json::Error),
}

impl Fault for LifecycleError {
    fn kind(&self) -> Kind {
        match self {
            Self::MissingStore(_) | Self::UnreadableStore { .. } => Kind::Config,
            Self::NoMainContainer { .. } | Self::Malformed { .. } => Kind::Unsupported,
            Self::Patch(_) => Kind::Internal,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::MissingStore(missing) => missing.hint(),
            Self::UnreadableStore { store, .. } => {
                format!("Correct spec.instanceSidecarConfiguration of ObjectStore {store}.")
            }
            Self::NoMainContainer { .. } | Self::Malformed { .. } => {
                "Check whether this version of the operator is known to work with the plugin."
                    .to_owned()
            }
            Self::Patch(_) => self.kind().hint().to_owned(),
        }
    }
}

/// What a Pod or a Job is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    kind: String,
    name: String,
}

impl ObjectName {
    fn of(object: &Value) -> Self {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        Self {
            kind: text("/kind").unwrap_or("object").to_owned(),
            name: text("/metadata/name").unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind, self.name)
    }
}

/// The JSON patch (RFC 6902) of the object; `None` when nothing has to change.
pub fn patch(request: &Request<'_>) -> Result<Option<Vec<u8>>, LifecycleError> {
    let Some(target) = target(request) else {
        return Ok(None);
    };
    let missing = missing_store(request.cluster, request.stores, &request.settings.names);
    if let Some(missing) = missing {
        return Err(LifecycleError::MissingStore(missing));
    }
    let sidecar = Sidecar::of(request, &target)?;
    let (path, main) = (target.pod_spec, &target.main_container);
    let operations = pod_spec::inject(request.object, path, main, &sidecar)
        .map_err(|problem| target.error(problem, request.object))?;
    if operations.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::to_vec(&operations)?))
}

/// Where a sidecar goes, and which.
#[derive(Debug)]
struct Target {
    pod_spec: &'static str,
    main_container: String,
    duty: Duty,
    archives: Archives,
}

impl Target {
    fn error(&self, problem: Problem, object: &Value) -> LifecycleError {
        let object = ObjectName::of(object);
        match problem {
            Problem::NoMainContainer => LifecycleError::NoMainContainer {
                object,
                container: self.main_container.clone(),
            },
            Problem::NoPodSpec => LifecycleError::Malformed {
                object,
                field: self.pod_spec.to_owned(),
            },
            Problem::NotAList(field) => LifecycleError::Malformed { object, field },
        }
    }
}

/// The target of the request; `None` where no sidecar is wanted.
fn target(request: &Request<'_>) -> Option<Target> {
    let archives = request.cluster.archives(&request.settings.names.plugin);
    let kind = request.object.get("kind").and_then(Value::as_str)?;
    let (pod_spec, main_container, duty) = match (kind, request.operation) {
        ("Pod", OperationType::Create | OperationType::Evaluate) => {
            let is_wanted = is_wanted_in_instances(request, &archives);
            is_wanted.then(|| ("/spec", POSTGRES.to_owned(), Duty::Instance))?
        }
        ("Job", OperationType::Create) => {
            archives.recovery.as_ref()?;
            let role = recovery_role(request.object)?;
            ("/spec/template/spec", role.to_owned(), Duty::Recovery)
        }
        _ => return None,
    };
    Some(Target {
        pod_spec,
        main_container,
        duty,
        archives,
    })
}

/// Whether instances need the sidecar.
///
/// One that has only a store to be recovered from needs it while there is no primary, where the
/// operator recovers inside the Pod: to take it out again later costs a restart.
fn is_wanted_in_instances(request: &Request<'_>, archives: &Archives) -> bool {
    let recovers = archives.recovery.is_some()
        && request.cluster.status.current_primary.is_empty()
        && may_bootstrap_itself(request.object);
    archives.own.is_some() || archives.replica_source.is_some() || recovers
}

/// Whether this Pod may have to make its own data directory, as from 1.31 on instead of a Job.
///
/// The container for it is added behind the plugins' work. What shows is that these operators
/// mount the account's token themselves, in every Pod.
fn may_bootstrap_itself(pod: &Value) -> bool {
    let automount = pod.pointer("/spec/automountServiceAccountToken");
    automount.and_then(Value::as_bool) == Some(false)
}

/// The role of a Job that reads an archive, as its Pods' label has it.
fn recovery_role(job: &Value) -> Option<&str> {
    let labels = job.pointer("/spec/template/metadata/labels")?.as_object()?;
    let mut roles = labels.iter().filter(|(key, _)| key.ends_with("/jobRole"));
    let role = roles.find_map(|(_, role)| role.as_str())?;
    RECOVERY_ROLES.contains(&role).then_some(role)
}

#[cfg(test)]
mod cases;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod tests;
