//! The WAL service: what `archive_command` and `restore_command` of an instance come to.
//!
//! Each request brings the whole Cluster along, and that alone decides which archive it is about.
//! Not here: the archiving and the restoring itself (`cellarman::service`).

mod error;
mod first_required;
mod prefetch;
mod restore;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cellarman::clock;
use cellarman::cnpgi::wal::wal_capability::rpc::Type as RpcType;
use cellarman::cnpgi::wal::wal_capability::{Rpc, Type};
use cellarman::cnpgi::wal::wal_restore_request::Mode;
use cellarman::cnpgi::wal::wal_server::{Wal, WalServer};
use cellarman::cnpgi::wal::{
    SetFirstRequiredRequest, SetFirstRequiredResult, WalArchiveRequest, WalArchiveResult,
    WalCapabilitiesRequest, WalCapabilitiesResult, WalCapability, WalRestoreRequest,
    WalRestoreResult, WalStatusRequest, WalStatusResult,
};
use cellarman::fault::chain;
use cellarman::metrics::{Metric, Timing};
use cellarman::service::wal_archive::{Archived, Demand, contents};
use tonic::{Request, Response, Status};
use tracing::{debug, warn};

use crate::archives::OpenArchive;
use crate::cluster::Cluster;
use crate::instance::Context;
use crate::instance::archiving::{self, Outcome};
use crate::instance::choice::{Asker, Named};
use crate::instance::wal::error::WalError;
use crate::instance::wal::prefetch::Prefetch;

/// The service.
pub fn server(context: &Context) -> WalServer<impl Wal> {
    WalServer::new(WalService {
        context: context.clone(),
        prefetch: Arc::new(Prefetch::new(context.cancel.clone())),
    })
}

#[derive(Debug)]
struct WalService {
    context: Context,
    prefetch: Arc<Prefetch>,
}

/// The Cluster of a request, and who asks in it.
struct Call<'a> {
    context: &'a Context,
    cluster: Cluster,
}

impl<'a> Call<'a> {
    fn new(context: &'a Context, definition: &[u8]) -> Result<Self, WalError> {
        if definition.is_empty() {
            return Err(WalError::Missing("cluster_definition"));
        }
        let cluster = Cluster::parse(definition)?;
        Ok(Self { context, cluster })
    }

    fn asker(&self) -> Asker<'_> {
        Asker {
            cluster: &self.cluster,
            plugin: &self.context.plugin_name,
            pod: &self.context.pod_name,
        }
    }

    async fn open(&self, named: &Named) -> Result<Arc<OpenArchive>, WalError> {
        let archives = &self.context.archives;
        Ok(archives.open(&named.archive, &named.field).await?)
    }
}

/// A field of a request that must be there.
fn required<'a>(text: &'a str, field: &'static str) -> Result<&'a str, WalError> {
    Some(text)
        .filter(|text| !text.is_empty())
        .ok_or(WalError::Missing(field))
}

#[tonic::async_trait]
impl Wal for WalService {
    async fn get_capabilities(
        &self,
        _: Request<WalCapabilitiesRequest>,
    ) -> Result<Response<WalCapabilitiesResult>, Status> {
        let all = [
            RpcType::ArchiveWal,
            RpcType::RestoreWal,
            RpcType::Status,
            RpcType::SetFirstRequired,
        ];
        let capability = |rpc: RpcType| WalCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: rpc.into() })),
        };
        Ok(Response::new(WalCapabilitiesResult {
            capabilities: all.into_iter().map(capability).collect(),
        }))
    }

    async fn archive(
        &self,
        request: Request<WalArchiveRequest>,
    ) -> Result<Response<WalArchiveResult>, Status> {
        let request = request.into_inner();
        let metrics = &self.context.metrics;
        let _running = metrics.running(Metric::WalArchiveRunning);
        let begun = Instant::now();
        let mut named = None;
        let outcome = self.archive_file(&request, &mut named).await;
        let outcome = outcome.map_err(|error| {
            let field = named.as_ref().map_or("", |named| named.field.as_str());
            let status = error.to_status(field);
            (error, status)
        });
        if let Some(named) = named {
            let archive = named.archive;
            let failure = outcome.as_ref().err();
            let failure = failure.map(|(_, status)| status.message().to_owned());
            archiving::note(&self.context.archiving, Outcome { archive, failure });
        }
        let file = &request.source_file_name;
        match outcome {
            Ok(archived) => {
                let took = begun.elapsed();
                metrics.observe(Timing::WalArchive, took);
                metrics.increment(Metric::WalArchived);
                metrics.advance_time(Metric::WalLastArchived, clock::now());
                let took_ms = took.as_millis().to_string();
                // The archiver itself has told what became of the file.
                debug!(file, %archived, took_ms, "answered");
                Ok(Response::new(WalArchiveResult {}))
            }
            Err((error, status)) => {
                metrics.increment(Metric::WalArchiveFailures);
                metrics.advance_time(Metric::WalLastArchiveFailure, clock::now());
                warn!(file, error = chain(&error), "cannot archive WAL");
                Err(status)
            }
        }
    }

    async fn restore(
        &self,
        request: Request<WalRestoreRequest>,
    ) -> Result<Response<WalRestoreResult>, Status> {
        let request = request.into_inner();
        let metrics = &self.context.metrics;
        let _running = metrics.running(Metric::WalRestoreRunning);
        let begun = Instant::now();
        let outcome = self.restore_file(&request).await;
        let file = &request.source_wal_name;
        match outcome {
            Ok(()) => {
                metrics.observe(Timing::WalRestore, begun.elapsed());
                metrics.increment(Metric::WalRestored);
                Ok(Response::new(WalRestoreResult {}))
            }
            Err(error) if error.is_not_in_archive() => {
                metrics.increment(Metric::WalRestoreNotFound);
                // Servers ask for much that never was: that is no news.
                debug!(file, "the WAL file is not in the archive");
                Err(error.to_status(""))
            }
            Err(error) => {
                metrics.increment(Metric::WalRestoreFailures);
                warn!(file, error = chain(&error), "cannot restore WAL");
                Err(error.to_status(""))
            }
        }
    }

    async fn status(
        &self,
        request: Request<WalStatusRequest>,
    ) -> Result<Response<WalStatusResult>, Status> {
        let outcome = self.extent(&request.into_inner()).await;
        let result = outcome.map_err(|error| error.to_status(""))?;
        Ok(Response::new(result))
    }

    async fn set_first_required(
        &self,
        request: Request<SetFirstRequiredRequest>,
    ) -> Result<Response<SetFirstRequiredResult>, Status> {
        let outcome = self.note_first_required(&request.into_inner()).await;
        outcome.map_err(|error| error.to_status(""))?;
        Ok(Response::new(SetFirstRequiredResult {}))
    }
}

impl WalService {
    async fn archive_file(
        &self,
        request: &WalArchiveRequest,
        destination: &mut Option<Named>,
    ) -> Result<Archived, WalError> {
        let call = Call::new(&self.context, &request.cluster_definition)?;
        let path = required(&request.source_file_name, "source_file_name")?;
        let path = self.in_pgdata(path);
        let asker = call.asker();
        let named = asker.own()?;
        *destination = Some(named.clone());
        // Operators before 1.30 leave the decision to the plugin: a marker says it.
        let demand = match request.check_empty_wal_archive {
            Some(true) => Demand::Empty,
            Some(false) => Demand::Own,
            None if asker.skips_empty_check() => Demand::Own,
            None => Demand::ByMarker,
        };
        let archive = call.open(&named).await?;
        let service = archive.archiver.demanding(demand);
        let outcome = service.archive(&path).await;
        let metrics = &self.context.metrics;
        metrics.add(Metric::WalArchiveStoredBytes, service.take_stored_bytes());
        let archived = outcome?;
        if let Ok(meta) = tokio::fs::metadata(&path).await {
            metrics.add(Metric::WalArchiveRawBytes, meta.len());
            let is_segment = path.file_name().is_some_and(|name| name.len() == 24);
            // What the server wrote into it last can be recovered from now on, unless something
            // before it is missing.
            if let Ok(written) = meta.modified()
                && is_segment
                && metrics.value(Metric::RecoveryWindowCut) < 0.5
            {
                metrics.advance_time(Metric::LastRecoverable, written.into());
            }
        }
        Ok(archived)
    }

    async fn restore_file(&self, request: &WalRestoreRequest) -> Result<(), WalError> {
        let call = Call::new(&self.context, &request.cluster_definition)?;
        let name = required(&request.source_wal_name, "source_wal_name")?.parse()?;
        let destination = required(&request.destination_file_name, "destination_file_name")?;
        let wanted = restore::Wanted {
            name,
            destination: self.in_pgdata(destination),
            is_rewind: request.mode() == Mode::Rewind,
        };
        restore::run(&call, &wanted, &self.prefetch).await
    }

    async fn extent(&self, request: &WalStatusRequest) -> Result<WalStatusResult, WalError> {
        let call = Call::new(&self.context, &request.cluster_definition)?;
        let named = call.asker().own()?;
        let archive = call.open(&named).await?;
        let extent = contents::extent(&archive.repository).await?;
        let text = |segment: Option<cellarman::domain::segment::SegmentName>| {
            segment
                .map(|segment| segment.to_string())
                .unwrap_or_default()
        };
        let required = first_required::read(&archive.repository).await?;
        let mut additional_information = HashMap::from([
            ("objectStore".to_owned(), named.archive.object_store),
            ("serverName".to_owned(), named.archive.server),
        ]);
        additional_information
            .extend(required.map(|name| ("firstRequiredWal".to_owned(), name.to_string())));
        Ok(WalStatusResult {
            first_wal: text(extent.map(|extent| extent.first)),
            last_wal: text(extent.map(|extent| extent.last)),
            additional_information,
        })
    }

    async fn note_first_required(&self, request: &SetFirstRequiredRequest) -> Result<(), WalError> {
        let call = Call::new(&self.context, &request.cluster_definition)?;
        let name = required(&request.first_required_wal, "first_required_wal")?.parse()?;
        let named = call.asker().own()?;
        let archive = call.open(&named).await?;
        Ok(first_required::write(&archive.repository, name).await?)
    }

    /// PostgreSQL's own paths are relative to the data directory; the operator's are absolute.
    fn in_pgdata(&self, path: &str) -> PathBuf {
        self.context.pgdata.join(Path::new(path))
    }
}
