//! Writes Roles and RoleBindings as they have to be.
//!
//! What is cached decides whether anything is written at all; a write that meets a change in
//! between looks again. Not here: how they have to be (`roles`).

use http::Method;
use serde_json::Value;

use crate::cache::Caches;
use crate::operator::roles::{Access, Change};
use crate::resources::ResourceError;
use crate::resources::api::{ApiError, ApiServer, Body};

/// Where Roles and RoleBindings are.
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// So often a write looks again after somebody else was faster.
const ATTEMPTS_MAX: u32 = 4;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The Role.
    Role,
    /// The RoleBinding.
    Binding,
}

impl Part {
    fn plural(self) -> &'static str {
        match self {
            Self::Role => "roles",
            Self::Binding => "rolebindings",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Role => "Role",
            Self::Binding => "RoleBinding",
        }
    }
}

/// Which object is written.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Whether it is a Role or a RoleBinding.
    pub part: Part,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl Place<'_> {
    fn all(&self) -> String {
        let plural = self.part.plural();
        format!("{RBAC}/namespaces/{}/{plural}", self.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.all(), self.name)
    }

    fn failure(&self, error: ApiError) -> ResourceError {
        let object = format!("{} {}", self.part.kind(), self.name);
        if error.is_not_found() {
            // What an object goes into is gone: the namespace.
            return ResourceError::Rejected {
                object,
                reason: error.to_string(),
            };
        }
        error.concerning(&object, self.namespace)
    }
}

/// Brings the Role and the RoleBinding of a Cluster in step.
pub async fn ensure(
    api: &ApiServer,
    caches: &Caches,
    access: &Access,
) -> Result<(), ResourceError> {
    for part in [Part::Role, Part::Binding] {
        let cache = match part {
            Part::Role => &caches.roles,
            Part::Binding => &caches.bindings,
        };
        let place = Place {
            part,
            namespace: &access.namespace,
            name: &access.name,
        };
        let objects = cache.of(&access.namespace);
        let current = objects.get(&access.name);
        let change = |current: Option<&Value>| match part {
            Part::Role => access.role_change(current),
            Part::Binding => access.binding_change(current),
        };
        write(api, &place, current, &change).await?;
    }
    Ok(())
}

/// Makes the change that `change` wants, beginning with what is known of the object.
pub async fn write(
    api: &ApiServer,
    place: &Place<'_>,
    known: Option<&Value>,
    change: &(dyn Fn(Option<&Value>) -> Change + Sync),
) -> Result<(), ResourceError> {
    let mut wanted = change(known);
    let mut attempt = 1;
    loop {
        let written = match &wanted {
            Change::Nothing => return Ok(()),
            Change::Refuse(reason) => {
                return Err(ResourceError::Rejected {
                    object: format!("{} {}", place.part.kind(), place.name),
                    reason: reason.clone(),
                });
            }
            Change::Create(object) => {
                let body = Body::Json(object);
                api.call(Method::POST, &place.all(), body).await
            }
            Change::Patch(patch) => {
                let body = Body::Merge(patch);
                api.call(Method::PATCH, &place.path(), body).await
            }
        };
        let Err(error) = written else {
            let (kind, name) = (place.part.kind(), place.name);
            let namespace = place.namespace;
            tracing::info!(kind, namespace, name, "brought in step");
            return Ok(());
        };
        // There already, changed since, or gone since: what is there now decides.
        let is_gone = error.is_not_found() && matches!(wanted, Change::Patch(_));
        if attempt >= ATTEMPTS_MAX || !(error.is_conflict() || is_gone) {
            return Err(place.failure(error));
        }
        attempt += 1;
        wanted = match api.get(&place.path()).await {
            Ok(current) => change(Some(&current)),
            Err(error) if error.is_not_found() => change(None),
            Err(error) => return Err(place.failure(error)),
        };
    }
}
