//! The sidecar of an instance, and of a recovery job: gRPC on a unix socket.
//!
//! Not here: what the services do.

pub mod absence;
pub mod archiving;
pub mod backup;
pub mod choice;
pub mod maintenance;
pub mod metrics;
pub mod observer;
pub mod restore;
pub mod status;
pub mod targets;
pub mod wal;
pub mod wal_wish;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cellarman::cnpgi::identity::plugin_capability::service::Type as ServiceType;
use cellarman::fault::{AnyFault, Fault, Kind};
use cellarman::metrics::Metrics;
use cellarman::postgres::connect::{ConnectError, ConnectOptions};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::warn;

use crate::archives::ArchiveCache;
use crate::arguments::{CommonArguments, InstanceArguments};
use crate::cluster::{Cluster, ClusterError};
use crate::grpc::{health, identity, socket};
use crate::instance::archiving::Outcomes;
use crate::resources::api::{ApiError, ApiServer};
use crate::resources::directory::Directory;
use crate::resources::kubernetes::{CnpgApi, Kubernetes};
use crate::resources::{ObjectKind, ObjectRef, ResourceError, Resources};

/// Beside whom the sidecar runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// An instance: all services.
    Instance,
    /// The job that recovers a cluster's first instance.
    RecoveryJob,
}

/// What every service of a sidecar works with.
#[derive(Debug, Clone)]
pub struct Context {
    /// Manifests, secrets, status and events.
    pub resources: Arc<dyn Resources>,
    /// The plugin's name.
    pub plugin_name: String,
    /// The Cluster's name.
    pub cluster_name: String,
    /// The instance's name; in a recovery job that of the job.
    pub pod_name: String,
    /// The data directory.
    pub pgdata: PathBuf,
    /// Where `pg_wal` goes when the Cluster has a volume for it.
    pub wal_storage: PathBuf,
    /// The opened archives.
    pub archives: ArchiveCache,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How archiving goes.
    pub archiving: Outcomes,
    /// Cancelled when the process is to end.
    pub cancel: CancellationToken,
}

impl Context {
    /// The Cluster, as it is now.
    pub async fn cluster<E>(&self) -> Result<Cluster, E>
    where
        E: From<ResourceError> + From<ClusterError>,
    {
        let object = ObjectRef::new(ObjectKind::Cluster, &self.cluster_name);
        let cluster = self.resources.get(&object).await?;
        Ok(Cluster::parse(cluster.to_string().as_bytes())?)
    }
}

/// A sidecar that cannot start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("there is no namespace: the variable NAMESPACE is not set")]
    NoNamespace,
    #[error("the Kubernetes API cannot be found")]
    NoApi(#[from] ApiError),
}

impl Fault for StartError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoNamespace | Self::NoApi(_) => Kind::Config,
        }
    }
}

/// Serves a sidecar until `cancel`.
pub async fn serve(
    mode: Mode,
    common: &CommonArguments,
    arguments: &InstanceArguments,
    socket: &Path,
    cancel: CancellationToken,
) -> Result<(), AnyFault> {
    let resources = resources(arguments).await?;
    let context = Context {
        archives: ArchiveCache::new(Arc::clone(&resources)),
        resources,
        plugin_name: common.plugin_name.clone(),
        cluster_name: arguments.cluster_name.clone(),
        pod_name: arguments.pod_name.clone(),
        pgdata: arguments.pgdata.clone(),
        wal_storage: arguments.wal_storage.clone(),
        metrics: Arc::default(),
        archiving: Outcomes::default(),
        cancel: cancel.clone(),
    };
    let wake = Arc::new(Notify::new());
    let routes = routes(mode, &context, &wake);
    if mode == Mode::Instance {
        if let Err(error) = absence::clear(&context.pgdata) {
            warn!(%error, "cannot remove what a recovery left");
        }
        tokio::spawn(observer::run(context.clone(), Arc::clone(&wake)));
        tokio::spawn(archiving::run(context.clone(), Arc::clone(&wake)));
        tokio::spawn(maintenance::run(context, wake));
    }
    socket::serve(socket, routes, cancel).await?;
    Ok(())
}

/// The services. `wake` tells the maintenance of a new backup.
fn routes(mode: Mode, context: &Context, wake: &Arc<Notify>) -> Routes {
    // Each service that is added below goes in here as well.
    let services: &[ServiceType] = match mode {
        Mode::Instance => &[
            ServiceType::WalService,
            ServiceType::BackupService,
            ServiceType::RestoreJob,
            ServiceType::Metrics,
        ],
        Mode::RecoveryJob => &[ServiceType::WalService, ServiceType::RestoreJob],
    };
    let mut routes = Routes::builder();
    routes
        .add_service(identity::server(&context.plugin_name, services))
        .add_service(health::server())
        .add_service(wal::server(context))
        .add_service(restore::server(context))
        // None of CNPG-I's: it has no word for it among what a plugin can do.
        .add_service(targets::server(mode, context));
    if mode == Mode::Instance {
        routes
            .add_service(backup::server(context, wake))
            .add_service(metrics::server(context));
    }
    routes.routes()
}

/// The keeper of the objects: the Kubernetes API, or a directory. Nobody is asked yet.
async fn resources(arguments: &InstanceArguments) -> Result<Arc<dyn Resources>, StartError> {
    let namespace = &arguments.namespace;
    if let Some(root) = &arguments.resources {
        return Ok(Arc::new(Directory::new(root, namespace)));
    }
    if namespace.is_empty() {
        return Err(StartError::NoNamespace);
    }
    let cnpg = CnpgApi::or_default(
        Some(&arguments.cnpg.custom_cnpg_group),
        Some(&arguments.cnpg.custom_cnpg_version),
    );
    let api = ApiServer::find().await?;
    Ok(Arc::new(Kubernetes::new(api, namespace, cnpg)))
}

/// How the sidecar reaches the instance's server.
fn connection() -> Result<ConnectOptions, ConnectError> {
    ConnectOptions::resolve(None, &variable)
}

/// libpq's variables, with the places of CloudNativePG where they are missing.
fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.or_else(|| match name {
        "PGHOST" => Some("/controller/run".to_owned()),
        "PGUSER" => Some("postgres".to_owned()),
        _ => None,
    })
}
