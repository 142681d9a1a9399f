//! The restore hook: a Cluster's first instance from its archive, for a recovery job and for an
//! instance that bootstraps itself.
//!
//! The operator configures recovery and starts the server; here the backup is chosen and its
//! files come back. Not here: the restoring itself (`cellarman::service::restore`).

mod error;
mod run;
mod wal_storage;

use std::sync::Arc;

use cellarman::cnpgi::wal::restore_job_hooks_capability::Kind as HookKind;
use cellarman::cnpgi::wal::restore_job_hooks_server::{RestoreJobHooks, RestoreJobHooksServer};
use cellarman::cnpgi::wal::{
    RestoreJobHooksCapabilitiesRequest, RestoreJobHooksCapabilitiesResult,
    RestoreJobHooksCapability, RestoreRequest, RestoreResponse,
};
use cellarman::fault::{Fault, chain};
use tokio::sync::Semaphore;
use tokio::time;
use tonic::{Request, Response, Status};
use tracing::{debug, error};

use crate::cluster::Cluster;
use crate::grpc::status;
use crate::instance::Context;
use crate::instance::absence;
use crate::instance::restore::error::HookError;
use crate::instance::restore::run::Hook;
use crate::resources::{Event, EventType, ObjectKind, ObjectRef};

/// How long telling of a failure may take.
const TELL_MAX: time::Duration = time::Duration::from_secs(2);

/// The service.
pub fn server(context: &Context) -> RestoreJobHooksServer<impl RestoreJobHooks> {
    RestoreJobHooksServer::new(HookService {
        context: context.clone(),
        one_at_a_time: Arc::new(Semaphore::new(1)),
    })
}

#[derive(Debug)]
struct HookService {
    context: Context,
    /// A caller that comes back waits until what it left behind is cleaned up.
    one_at_a_time: Arc<Semaphore>,
}

#[tonic::async_trait]
impl RestoreJobHooks for HookService {
    async fn get_capabilities(
        &self,
        _: Request<RestoreJobHooksCapabilitiesRequest>,
    ) -> Result<Response<RestoreJobHooksCapabilitiesResult>, Status> {
        Ok(Response::new(RestoreJobHooksCapabilitiesResult {
            capabilities: vec![RestoreJobHooksCapability {
                kind: HookKind::Restore.into(),
            }],
        }))
    }

    async fn restore(
        &self,
        request: Request<RestoreRequest>,
    ) -> Result<Response<RestoreResponse>, Status> {
        let request = request.into_inner();
        match self.restore_cluster(&request).await {
            Ok(()) => Ok(Response::new(RestoreResponse {
                restore_config: restore_config(),
                envs: Vec::new(),
            })),
            Err(error) => {
                let status = status::of(&error);
                error!(error = chain(&error), hint = error.hint(), "cannot restore");
                self.tell(&request, status.message()).await;
                Err(status)
            }
        }
    }
}

/// What the server is configured with: WAL through the instance manager, and writes at the end.
fn restore_config() -> String {
    let command = absence::restore_command();
    format!("recovery_target_action = promote\nrestore_command = '{command}'\n")
}

impl HookService {
    async fn restore_cluster(&self, request: &RestoreRequest) -> Result<(), HookError> {
        if request.cluster_definition.is_empty() {
            return Err(HookError::Missing("cluster_definition"));
        }
        let cluster = Cluster::parse(&request.cluster_definition)?;
        let cancel = self.context.cancel.child_token();
        let hook = Hook {
            context: self.context.clone(),
            cluster,
            must_check_empty: request.check_empty_wal_archive,
            cancel: cancel.clone(),
        };
        let turn = Arc::clone(&self.one_at_a_time);
        // When the caller goes away, the task is told and cleans up: it must not be dropped.
        let _cancel_on_drop = cancel.drop_guard();
        let task = tokio::spawn(async move {
            // The semaphore is never closed.
            let _turn = turn.acquire_owned().await;
            hook.run().await
        });
        task.await
            .unwrap_or_else(|error| Err(HookError::Task(error.to_string())))
    }

    async fn tell(&self, request: &RestoreRequest, message: &str) {
        let Ok(cluster) = Cluster::parse(&request.cluster_definition) else {
            return;
        };
        let event = Event {
            about: ObjectRef::new(ObjectKind::Cluster, cluster.metadata.name),
            event_type: EventType::Warning,
            reason: "RestoreFailed",
            message: message.to_owned(),
        };
        let emitted = time::timeout(TELL_MAX, self.context.resources.emit(&event)).await;
        if let Ok(Err(error)) = emitted {
            debug!(error = chain(&error), "cannot emit an Event");
        }
    }
}
