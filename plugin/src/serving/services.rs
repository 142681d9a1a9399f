//! The services that the operator calls: decisions of the pure modules over cached objects.
//!
//! No call asks the API for anything but an ObjectStore that is not known yet, and writes nothing
//! but Roles and RoleBindings: Events are left to be told (`news`). Not here: Identity (`grpc`), and
//! the listening (`serving`).

use std::sync::Arc;
use std::time::Duration;

use cellarman::cnpgi::operator::operator_server::Operator;
use cellarman::cnpgi::operator::{
    DeregisterRequest, DeregisterResponse, OperatorCapabilitiesRequest, OperatorCapabilitiesResult,
    OperatorMutateClusterRequest, OperatorMutateClusterResult,
    OperatorValidateClusterChangeRequest, OperatorValidateClusterChangeResult,
    OperatorValidateClusterCreateRequest, OperatorValidateClusterCreateResult,
    SetStatusInClusterRequest, SetStatusInClusterResponse, ValidationError,
};
use cellarman::cnpgi::operator_lifecycle::operator_lifecycle_server::OperatorLifecycle;
use cellarman::cnpgi::operator_lifecycle::operator_operation_type::Type as OperationType;
use cellarman::cnpgi::operator_lifecycle::{
    OperatorLifecycleCapabilitiesRequest, OperatorLifecycleCapabilitiesResponse,
    OperatorLifecycleRequest, OperatorLifecycleResponse,
};
use cellarman::cnpgi::reconciler::reconciler_hooks_result::Behavior;
use cellarman::cnpgi::reconciler::reconciler_hooks_server::ReconcilerHooks;
use cellarman::cnpgi::reconciler::{
    ReconcilerHooksCapabilitiesRequest, ReconcilerHooksCapabilitiesResult, ReconcilerHooksRequest,
    ReconcilerHooksResult,
};
use cellarman::fault::Fault;
use serde_json::Value;
use tonic::{Request, Response, Status};

use crate::cache::Caches;
use crate::cluster::Cluster;
use crate::controller::access;
use crate::grpc::status;
use crate::operator::missing_store;
use crate::operator::validation::{self, Finding, Severity};
use crate::operator::{ObjectStores, Settings, capabilities, hooks, lifecycle};
use crate::resources::api::ApiServer;
use crate::resources::kubernetes::{CnpgApi, Kubernetes};
use crate::resources::{ObjectKind, ObjectRef, Resources};
use crate::serving::news::{News, Subject, Teller};

/// What the calls work with.
#[derive(Debug, Clone)]
pub struct Services {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    api: ApiServer,
    caches: Caches,
    settings: Settings,
    teller: Teller,
}

impl Services {
    /// Calls answered from these caches; what is wrong with a Cluster goes to `teller`.
    pub fn new(api: ApiServer, caches: Caches, settings: Settings, teller: Teller) -> Self {
        let shared = Shared {
            api,
            caches,
            settings,
            teller,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The ObjectStores of the Cluster's namespace. One that the Cluster names and that is not
    /// known yet is asked for: both are often applied at the same time.
    async fn stores(&self, cluster: &Cluster) -> Result<Arc<ObjectStores>, Status> {
        let shared = &self.shared;
        if !shared.caches.are_filled() {
            return Err(Status::unavailable(
                "The plugin has just started and does not know all ObjectStores yet. It is asked \
                 again in a moment.",
            ));
        }
        let mut stores = shared.caches.stores.of(&cluster.metadata.namespace);
        let kubernetes = self.kubernetes(cluster);
        while let Some(missing) = missing_store(cluster, &stores, &shared.settings.names) {
            let object = ObjectRef::new(ObjectKind::ObjectStore, &missing.store);
            match kubernetes.get(&object).await {
                Ok(store) => {
                    Arc::make_mut(&mut stores).insert(missing.store, store);
                }
                Err(error) if error.is_not_found() => break,
                Err(error) => return Err(status::of(&error)),
            }
        }
        Ok(stores)
    }

    fn kubernetes(&self, cluster: &Cluster) -> Kubernetes {
        let settings = &self.shared.settings;
        let (group, version) = settings.group_and_version(cluster);
        let cnpg = CnpgApi::or_default(Some(group), Some(version));
        let namespace = &cluster.metadata.namespace;
        Kubernetes::new(self.shared.api.clone(), namespace, cnpg)
    }

    /// Leaves news of a Cluster for its readers.
    fn tell(&self, cluster: &Cluster, news: News) {
        let subject = Subject {
            kubernetes: self.kubernetes(cluster),
            name: cluster.metadata.name.clone(),
            uid: cluster.metadata.uid.clone(),
        };
        self.shared.teller.leave(subject, news);
    }
}

#[tonic::async_trait]
impl OperatorLifecycle for Services {
    async fn get_capabilities(
        &self,
        _: Request<OperatorLifecycleCapabilitiesRequest>,
    ) -> Result<Response<OperatorLifecycleCapabilitiesResponse>, Status> {
        Ok(Response::new(OperatorLifecycleCapabilitiesResponse {
            lifecycle_capabilities: capabilities::lifecycle(),
        }))
    }

    async fn lifecycle_hook(
        &self,
        request: Request<OperatorLifecycleRequest>,
    ) -> Result<Response<OperatorLifecycleResponse>, Status> {
        let request = request.into_inner();
        let operation = request.operation_type.unwrap_or_default();
        let cluster = cluster(&request.cluster_definition)?;
        let object = object(&request.object_definition)?;
        let stores = self.stores(&cluster).await?;
        let patch = lifecycle::patch(&lifecycle::Request {
            operation: OperationType::try_from(operation.r#type).unwrap_or_default(),
            cluster: &cluster,
            object: &object,
            stores: &stores,
            settings: &self.shared.settings,
        })
        .map_err(|error| status::of(&error))?;
        Ok(Response::new(OperatorLifecycleResponse {
            json_patch: patch.unwrap_or_default().into(),
        }))
    }
}

#[tonic::async_trait]
impl ReconcilerHooks for Services {
    async fn get_capabilities(
        &self,
        _: Request<ReconcilerHooksCapabilitiesRequest>,
    ) -> Result<Response<ReconcilerHooksCapabilitiesResult>, Status> {
        Ok(Response::new(ReconcilerHooksCapabilitiesResult {
            reconciler_capabilities: capabilities::reconciler(),
        }))
    }

    async fn pre(
        &self,
        request: Request<ReconcilerHooksRequest>,
    ) -> Result<Response<ReconcilerHooksResult>, Status> {
        let request = request.into_inner();
        let cluster = cluster(&request.cluster_definition)?;
        let resource = object(&request.resource_definition)?;
        if let Some(findings) = hooks::findings(&cluster, &resource, &self.shared.settings) {
            self.tell(&cluster, News::Findings(findings));
        }
        let stores = self.stores(&cluster).await?;
        let backups = self.shared.caches.backups.of(&cluster.metadata.namespace);
        let backups: Vec<Value> = backups.values().cloned().collect();
        let before = hooks::before(&hooks::Request {
            cluster: &cluster,
            resource: &resource,
            stores: &stores,
            backups: &backups,
            settings: &self.shared.settings,
        });
        match before {
            hooks::Before::Continue => {}
            hooks::Before::EnsureAccess(access) => {
                let (api, caches) = (&self.shared.api, &self.shared.caches);
                access::ensure(api, caches, &access)
                    .await
                    .map_err(|error| status::with_hint(&error, &hint_of_access(&error)))?;
            }
            hooks::Before::Requeue { after, missing } => {
                self.tell(&cluster, News::Missing(missing));
                return Ok(behavior(Behavior::Requeue, after));
            }
        }
        Ok(behavior(Behavior::Continue, Duration::ZERO))
    }

    async fn post(
        &self,
        _: Request<ReconcilerHooksRequest>,
    ) -> Result<Response<ReconcilerHooksResult>, Status> {
        Ok(behavior(Behavior::Continue, Duration::ZERO))
    }
}

#[tonic::async_trait]
impl Operator for Services {
    async fn get_capabilities(
        &self,
        _: Request<OperatorCapabilitiesRequest>,
    ) -> Result<Response<OperatorCapabilitiesResult>, Status> {
        Ok(Response::new(OperatorCapabilitiesResult {
            capabilities: capabilities::operator(),
        }))
    }

    async fn validate_cluster_create(
        &self,
        request: Request<OperatorValidateClusterCreateRequest>,
    ) -> Result<Response<OperatorValidateClusterCreateResult>, Status> {
        let cluster = cluster(&request.into_inner().definition)?;
        let findings = validation::of_new(&cluster, &self.shared.settings.names.plugin);
        Ok(Response::new(OperatorValidateClusterCreateResult {
            validation_errors: refusals(&cluster, findings),
        }))
    }

    async fn validate_cluster_change(
        &self,
        request: Request<OperatorValidateClusterChangeRequest>,
    ) -> Result<Response<OperatorValidateClusterChangeResult>, Status> {
        let request = request.into_inner();
        let (old, new) = (
            cluster(&request.old_cluster)?,
            cluster(&request.new_cluster)?,
        );
        let findings = validation::of_change(&old, &new, &self.shared.settings.names.plugin);
        Ok(Response::new(OperatorValidateClusterChangeResult {
            validation_errors: refusals(&new, findings),
        }))
    }

    async fn mutate_cluster(
        &self,
        _: Request<OperatorMutateClusterRequest>,
    ) -> Result<Response<OperatorMutateClusterResult>, Status> {
        Err(not_offered("MutateCluster"))
    }

    async fn set_status_in_cluster(
        &self,
        _: Request<SetStatusInClusterRequest>,
    ) -> Result<Response<SetStatusInClusterResponse>, Status> {
        Err(not_offered("SetStatusInCluster"))
    }

    async fn deregister(
        &self,
        _: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterResponse>, Status> {
        Err(not_offered("Deregister"))
    }
}

fn cluster(definition: &[u8]) -> Result<Cluster, Status> {
    let cluster = Cluster::parse(definition)
        .map_err(|error| status::invalid(format!("The Cluster cannot be read: {error}.")))?;
    if cluster.metadata.name.is_empty() || cluster.metadata.namespace.is_empty() {
        return Err(status::invalid("The Cluster has no name or no namespace."));
    }
    Ok(cluster)
}

fn object(definition: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(definition)
        .map_err(|error| status::invalid(format!("The object cannot be read: {error}.")))
}

fn behavior(behavior: Behavior, after: Duration) -> Response<ReconcilerHooksResult> {
    Response::new(ReconcilerHooksResult {
        behavior: behavior.into(),
        requeue_after: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
    })
}

/// Those that refuse the Cluster; the others are said in the log.
fn refusals(cluster: &Cluster, findings: Vec<Finding>) -> Vec<ValidationError> {
    let (refusals, warnings): (Vec<Finding>, Vec<Finding>) = findings
        .into_iter()
        .partition(|finding| finding.severity == Severity::Refuse);
    for warning in warnings {
        let metadata = &cluster.metadata;
        tracing::warn!(
            namespace = metadata.namespace,
            cluster = metadata.name,
            field = warning.field(),
            value = warning.value,
            "{}",
            warning.message
        );
    }
    refusals.into_iter().map(ValidationError::from).collect()
}

/// The service accounts' Roles are not what is missing: the plugin's own are.
fn hint_of_access(error: &crate::resources::ResourceError) -> String {
    if matches!(error, crate::resources::ResourceError::Denied { .. }) {
        "Check the ClusterRole of the plugin's own service account: it has to hold what it gives, \
         and to be allowed to write Roles and RoleBindings."
            .to_owned()
    } else {
        error.hint()
    }
}

fn not_offered(call: &str) -> Status {
    Status::unimplemented(format!("The plugin does not offer {call}."))
}
