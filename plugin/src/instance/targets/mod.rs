//! The service RecoveryTargets: where an archive can be gone back to, for whoever is on the socket.
//!
//! Everything is asked of `cellarman::service::targets` and of the plan that restores follow. Not
//! here: the shape of the answers (`shape`, `resolve`).

mod error;
mod page_token;
mod resolve;
mod shape;
mod unreachable;

use std::sync::Arc;

use cellarman::api::recovery_targets as wire;
use cellarman::api::recovery_targets::recovery_targets_server::{
    RecoveryTargets, RecoveryTargetsServer,
};
use cellarman::fault::chain;
use cellarman::service::restore::recovery_plan;
use cellarman::service::targets::{list, window};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Request, Response, Status};
use tracing::debug;

use crate::archives::OpenArchive;
use crate::cluster::{ArchiveRef, Cluster};
use crate::grpc::status;
use crate::instance::choice::{Asker, Named};
use crate::instance::targets::error::TargetsError;
use crate::instance::{Context, Mode};

/// How many calls read the archive at a time: each may hold a listing and some segments.
const CALLS_MAX: usize = 2;

/// How many things a page has where the caller does not say.
const PAGE_SIZE: usize = 100;

/// The most that a page has.
const PAGE_SIZE_MAX: usize = 1000;

/// The service.
pub fn server(mode: Mode, context: &Context) -> RecoveryTargetsServer<impl RecoveryTargets> {
    RecoveryTargetsServer::new(TargetsService {
        mode,
        context: context.clone(),
        turns: Semaphore::new(CALLS_MAX),
    })
}

#[derive(Debug)]
struct TargetsService {
    mode: Mode,
    context: Context,
    turns: Semaphore,
}

#[tonic::async_trait]
impl RecoveryTargets for TargetsService {
    async fn window(
        &self,
        request: Request<wire::WindowRequest>,
    ) -> Result<Response<wire::WindowResponse>, Status> {
        answer(self.windows(request.into_inner()).await)
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListResponse>, Status> {
        answer(self.page(request.into_inner()).await)
    }

    async fn resolve(
        &self,
        request: Request<wire::ResolveRequest>,
    ) -> Result<Response<wire::ResolveResponse>, Status> {
        answer(self.plan(request.into_inner()).await)
    }
}

fn answer<T>(outcome: Result<T, TargetsError>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|error| {
        debug!(error = chain(&error), "cannot tell of recovery targets");
        status::of(&error)
    })
}

impl TargetsService {
    async fn windows(
        &self,
        request: wire::WindowRequest,
    ) -> Result<wire::WindowResponse, TargetsError> {
        let archive = self.open(request.archive).await?;
        let _turn = self.turn().await;
        let windows = window::windows(&archive.repository).await?;
        Ok(wire::WindowResponse {
            timelines: windows.into_iter().map(shape::window).collect(),
        })
    }

    async fn page(&self, request: wire::ListRequest) -> Result<wire::ListResponse, TargetsError> {
        let archive = self.open(request.archive).await?;
        let place = match request.page_token.as_str() {
            "" => None,
            token => {
                Some(page_token::read(token, &archive.reference).ok_or(TargetsError::PageToken)?)
            }
        };
        let size = match usize::try_from(request.page_size) {
            Ok(0) => PAGE_SIZE,
            size => size.unwrap_or(PAGE_SIZE_MAX).min(PAGE_SIZE_MAX),
        };
        let _turn = self.turn().await;
        let page = list::list(&archive.repository, place, size).await?;
        let token = page
            .next
            .map(|place| page_token::write(&place, &archive.reference));
        Ok(wire::ListResponse {
            listed: page.listed.into_iter().map(shape::listed).collect(),
            next_page_token: token.unwrap_or_default(),
        })
    }

    async fn plan(
        &self,
        request: wire::ResolveRequest,
    ) -> Result<wire::ResolveResponse, TargetsError> {
        let asked = resolve::asked(&request)?;
        let archive = self.open(request.archive).await?;
        let _turn = self.turn().await;
        let repository = &archive.repository;
        let mut recovery = asked;
        if !request.backup_id.is_empty() {
            recovery.backup = match repository.resolve(&request.backup_id).await {
                Ok(id) => Some(id),
                Err(error) => return unreachable::of_name(error),
            };
        }
        let asked = recovery_plan::RecoveryRequest {
            recovery: &recovery,
            accepts_gap: false,
            may_reword: request.may_reword,
        };
        let outcome = match recovery_plan::plan(repository, &asked).await {
            Ok(plan) => {
                let is_reworded = plan.target != recovery.target;
                wire::resolve_response::Outcome::Plan(resolve::plan(&plan, is_reworded))
            }
            Err(error) => wire::resolve_response::Outcome::Unreachable(unreachable::of(error)?),
        };
        Ok(wire::ResolveResponse {
            outcome: Some(outcome),
        })
    }

    /// A turn at the archive. The semaphore is never closed.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// The archive that a request is about.
    async fn open(&self, archive: Option<wire::Archive>) -> Result<Arc<OpenArchive>, TargetsError> {
        let named = match archive {
            Some(archive) => self.named(archive)?,
            None => self.named_by_cluster().await?,
        };
        let archives = &self.context.archives;
        Ok(archives.open(&named.archive, &named.field).await?)
    }

    /// The archive that the Cluster's manifest names.
    async fn named_by_cluster(&self) -> Result<Named, TargetsError> {
        let cluster: Cluster = self.context.cluster::<TargetsError>().await?;
        let asker = Asker {
            cluster: &cluster,
            plugin: &self.context.plugin_name,
            pod: &self.context.pod_name,
        };
        Ok(match self.mode {
            Mode::Instance => asker.own()?,
            Mode::RecoveryJob => asker.recovery()?,
        })
    }

    fn named(&self, archive: wire::Archive) -> Result<Named, TargetsError> {
        if archive.object_store.is_empty() {
            return Err(TargetsError::Missing("archive.object_store"));
        }
        let server = Some(archive.server_name).filter(|name| !name.is_empty());
        Ok(Named {
            archive: ArchiveRef {
                object_store: archive.object_store,
                server: server.unwrap_or_else(|| self.context.cluster_name.clone()),
            },
            field: "archive.object_store of the request".to_owned(),
        })
    }
}
