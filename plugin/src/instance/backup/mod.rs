//! The service Backup: one base backup at a time, into the archive that the request names.
//!
//! A caller that goes away cancels its backup, which then cleans up behind itself. Not here: how a
//! backup is taken (the library), and WAL in another archive than the server's own (`extra_archive`).

mod extra_archive;
mod progress;
mod request;
mod result;

pub use crate::instance::backup::result::{
    DESTINATION_KEY, OBJECT_STORE_KEY, PLUGIN_ELSEWHERE_KEY, PLUGIN_KEY, SERVER_KEY,
};

use std::sync::Arc;
use std::time::Duration;

use cellarman::clock;
use cellarman::cnpgi::backup::backup_capability::rpc::Type as RpcType;
use cellarman::cnpgi::backup::backup_capability::{self, Rpc};
use cellarman::cnpgi::backup::{
    BackupCapabilitiesRequest, BackupCapabilitiesResult, BackupCapability, BackupRequest,
    BackupResult,
    backup_server::{self, BackupServer},
};
use cellarman::domain::segment::SegmentName;
use cellarman::fault::{Fault, Kind, chain};
use cellarman::metrics::Metric;
use cellarman::postgres::connect::ConnectError;
use cellarman::service::base_backup::error::BackupError;
use cellarman::service::base_backup::{self, BackupReport, BaseBackup, WalSupply};
use cellarman::store::PutOptions;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::archives::{OpenArchive, OpenError};
use crate::cluster::ArchiveRef;
use crate::grpc::status;
use crate::instance::backup::extra_archive::ExtraArchive;
use crate::instance::backup::progress::Shown;
use crate::instance::backup::request::Wanted;
use crate::instance::status::{Summary, report, report_failed_backup};
use crate::instance::wal_wish::{self, Waiting};
use crate::instance::{Context, connection};
use crate::resources::{Event, EventType, ObjectKind, ObjectRef, ResourceError};

/// How long a right may take to come: the operator's side extends the Role when it sees the Backup.
const RIGHTS_TIMEOUT: Duration = Duration::from_mins(1);
const RIGHTS_PAUSE: Duration = Duration::from_secs(2);

/// A backup that is not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("another backup of this instance is running")]
    Busy,
}

impl Fault for Refusal {
    fn kind(&self) -> Kind {
        match self {
            Self::Open(error) => error.kind(),
            Self::Connect(error) => error.kind(),
            Self::Backup(error) => error.kind(),
            Self::Busy => Kind::Refused,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Open(error) => error.hint(),
            Self::Connect(_) => {
                "Correct PGHOST and PGPORT among the sidecar's variables.".to_owned()
            }
            Self::Backup(error) => hint(error),
            Self::Busy => "Ask for this one when that has ended.".to_owned(),
        }
    }
}

/// The library's hints, without its command line.
fn hint(error: &BackupError) -> String {
    let hint = match error {
        BackupError::NotArchiving { .. } => {
            "Set isWALArchiver of this plugin in spec.plugins of the Cluster."
        }
        BackupError::ForeignArchive { .. } => {
            "Set serverName in the plugin's parameters: two Clusters must never share an archive."
        }
        BackupError::MissingWal { .. } => {
            "See the condition ContinuousArchiving of the Cluster, and why archiving fails on its \
             primary; then take another backup."
        }
        BackupError::NotAcknowledged { .. } => {
            "See why archiving fails in the log of the primary: where the archive holds other WAL \
             of the same name, set serverName in the plugin's parameters."
        }
        _ => return error.hint(),
    };
    hint.to_owned()
}

/// The service. `maintenance` is told of each new backup.
pub fn server(
    context: &Context,
    maintenance: &Arc<Notify>,
) -> BackupServer<impl backup_server::Backup> {
    BackupServer::new(BackupService {
        context: context.clone(),
        maintenance: Arc::clone(maintenance),
        running: Arc::default(),
    })
}

#[derive(Debug)]
struct BackupService {
    context: Context,
    /// Told of each new backup.
    maintenance: Arc<Notify>,
    /// Held by the backup under way, until it has cleaned up.
    running: Arc<Mutex<()>>,
}

#[tonic::async_trait]
impl backup_server::Backup for BackupService {
    async fn get_capabilities(
        &self,
        _request: Request<BackupCapabilitiesRequest>,
    ) -> Result<Response<BackupCapabilitiesResult>, Status> {
        let rpc = Rpc {
            r#type: RpcType::Backup.into(),
        };
        let capability = BackupCapability {
            r#type: Some(backup_capability::Type::Rpc(rpc)),
        };
        Ok(Response::new(BackupCapabilitiesResult {
            capabilities: vec![capability],
        }))
    }

    async fn backup(
        &self,
        request: Request<BackupRequest>,
    ) -> Result<Response<BackupResult>, Status> {
        let wanted = Wanted::parse(
            &request.into_inner(),
            &self.context.plugin_name,
            clock::now(),
        )
        .map_err(status::invalid)?;
        let Ok(turn) = Arc::clone(&self.running).try_lock_owned() else {
            return Err(status::of(&Refusal::Busy));
        };
        // Dropped with this call, when the caller goes away.
        let cancel = self.context.cancel.child_token();
        let _caller = cancel.clone().drop_guard();
        let attempt = Attempt {
            context: self.context.clone(),
            wanted,
            cancel,
        };
        let done = tokio::spawn(attempt.run(turn)).await;
        let result = done.unwrap_or_else(|_| Err(status::of(&BackupError::Broken)))?;
        self.maintenance.notify_one();
        Ok(Response::new(result))
    }
}

/// One backup, from its request to its result.
struct Attempt {
    context: Context,
    wanted: Wanted,
    cancel: CancellationToken,
}

impl Attempt {
    async fn run(self, turn: OwnedMutexGuard<()>) -> Result<BackupResult, Status> {
        let metrics = Arc::clone(&self.context.metrics);
        self.warn_of_parameters().await;
        metrics.set_flag(Metric::BackupRunning, true);
        let taken = self.take().await;
        for metric in [
            Metric::BackupRunning,
            Metric::BackupRunningCopiedBytes,
            Metric::BackupRunningTotalBytes,
        ] {
            metrics.set(metric, 0);
        }
        drop(turn);
        match taken {
            Ok((archive, backup)) => {
                self.tell_of_wal(&backup).await;
                self.after_success(&archive, &backup).await;
                Ok(result::of(&self.wanted, &archive, &backup, &self.context))
            }
            Err(refusal) => {
                let status = status::of(&refusal);
                self.after_failure(status.message()).await;
                Err(status)
            }
        }
    }

    async fn take(&self) -> Result<(Arc<OpenArchive>, BackupReport), Refusal> {
        let archive = self.open(&self.wanted.archive, "the Backup").await?;
        let supply = self.supply(&archive).await?;
        let connection = connection()?;
        let data = &archive.settings.data;
        let waits = Arc::new(Notify::new());
        let backup = BaseBackup {
            repository: archive.repository.clone(),
            connection,
            request: base_backup::BackupRequest {
                name: Some(self.wanted.backup_name.clone()),
                jobs: data.jobs,
                compression: data.compression,
                is_immediate: self.wanted.is_immediate || data.immediate_checkpoint,
                bandwidth_max: data.bandwidth_max,
                archive_timeout: None,
                waits_for_wal: self.wanted.waits_for_wal(),
                put: PutOptions {
                    tags: archive.settings.tags.clone(),
                    ..PutOptions::default()
                },
            },
            supply,
            watcher: Arc::new(Waiting {
                inner: Shown::new(Arc::clone(&self.context.metrics)),
                begun: Arc::clone(&waits),
            }),
            cancel: self.cancel.clone(),
        };
        let taken = self.wishing(Box::pin(backup.take()), &waits).await?;
        Ok((archive, taken))
    }

    /// Runs the backup; on a standby, the primary is asked for WAL as soon as the backup waits.
    async fn wishing<T>(&self, backup: impl Future<Output = T>, waits: &Notify) -> T {
        let cluster = &self.wanted.cluster;
        let own = self.wanted.own.as_ref();
        let own = own.filter(|_| wal_wish::is_standby(cluster, &self.context.pod_name));
        let Some(own) = own else {
            return backup.await;
        };
        let taken = tokio::select! {
            taken = backup => taken,
            never = wal_wish::note(&self.context, own, waits) => match never {},
        };
        wal_wish::take_back(&self.context, own).await;
        taken
    }

    /// Opens an archive. The right to it may come a little later than the Backup.
    async fn open(
        &self,
        archive: &ArchiveRef,
        named_by: &str,
    ) -> Result<Arc<OpenArchive>, Refusal> {
        let begun = Instant::now();
        loop {
            match self.context.archives.open(archive, named_by).await {
                Err(error) if is_denied(&error) && begun.elapsed() < RIGHTS_TIMEOUT => {
                    info!(
                        error = chain(&error),
                        "waiting for the right to the archive"
                    );
                }
                opened => return Ok(opened?),
            }
            tokio::select! {
                () = self.cancel.cancelled() => return Err(BackupError::Cancelled.into()),
                () = time::sleep(RIGHTS_PAUSE) => {}
            }
        }
    }

    /// Who puts the backup's WAL beside it, where the server's archiver puts it somewhere else.
    async fn supply(&self, to: &Arc<OpenArchive>) -> Result<Option<Arc<dyn WalSupply>>, Refusal> {
        let Some(own) = &self.wanted.own else {
            return Ok(None);
        };
        if *own == self.wanted.archive {
            return Ok(None);
        }
        let from = self.open(own, "the Cluster").await?;
        let extra = ExtraArchive {
            from,
            to: Arc::clone(to),
        };
        Ok(Some(Arc::new(extra)))
    }

    async fn warn_of_parameters(&self) {
        let unknown = &self.wanted.unknown_parameters;
        if unknown.is_empty() {
            return;
        }
        let names = unknown.join(", ");
        warn!(parameters = names, "parameters of the Backup are not known");
        let message = format!(
            "Parameters of the Backup are not known and count for nothing: {names}. Known are \
             barmanObjectName and serverName."
        );
        let backup = ObjectRef::new(ObjectKind::Backup, &self.wanted.resource_name);
        self.emit(backup, "UnknownParameters", message).await;
    }

    /// A backup that did not wait is not known to be restorable.
    async fn tell_of_wal(&self, backup: &BackupReport) {
        if self.wanted.waits_for_wal() {
            return;
        }
        let name = |wal: Option<SegmentName>| wal.map(|wal| wal.to_string()).unwrap_or_default();
        let message = format!(
            "Backup {} did not wait for its WAL, as waitForArchive false asks. It can be restored \
             only once WAL from {} to {} is archived, which nobody has looked at.",
            backup.id,
            name(backup.info.begin_wal),
            name(backup.info.end_wal)
        );
        let about = ObjectRef::new(ObjectKind::Backup, &self.wanted.resource_name);
        self.emit(about, "WalNotAwaited", message).await;
    }

    async fn after_success(&self, archive: &OpenArchive, backup: &BackupReport) {
        let metrics = &self.context.metrics;
        let stored = backup.objects.iter().map(|object| object.size).sum();
        metrics.increment(Metric::BackupsCompleted);
        metrics.set_duration(Metric::BackupLastDuration, backup.took);
        metrics.set(Metric::BackupLastCopiedBytes, backup.copied_bytes);
        metrics.set(Metric::BackupLastStoredBytes, stored);
        metrics.set(Metric::BackupLastDamagedPages, backup.damaged_count);
        if backup.damaged_count > 0 {
            let files: Vec<&str> = backup
                .damaged
                .iter()
                .map(|file| file.path.as_str())
                .collect();
            let first = files.first().copied().unwrap_or_default();
            let message = format!(
                "Damaged pages in backup {}: {}, in files: {}, the first of them {first}. The \
                 database itself has them; the backup holds them as they are.",
                backup.id,
                backup.damaged_count,
                files.len()
            );
            self.emit(self.cluster(), "DamagedPages", message).await;
        }
        // The backup is there, whatever becomes of the news of it.
        match archive.repository.list_backups().await {
            Ok(catalog) => {
                let summary = Summary::of(&catalog);
                if Some(&archive.reference) == self.wanted.own.as_ref() {
                    summary.show(metrics);
                }
                let resources = self.context.resources.as_ref();
                if let Err(error) =
                    report(resources, &archive.reference, (&summary, None), true).await
                {
                    warn!(error = chain(&error), "cannot report the recovery window");
                }
            }
            Err(error) => warn!(error = chain(&error), "cannot list the backups"),
        }
    }

    async fn after_failure(&self, text: &str) {
        let metrics = &self.context.metrics;
        let now = clock::now();
        metrics.increment(Metric::BackupsFailed);
        metrics.set_time(Metric::LastFailedBackup, Some(now));
        let message = format!("Backup {} failed: {text}", self.wanted.resource_name);
        self.emit(self.cluster(), "BackupFailed", message).await;
        let resources = self.context.resources.as_ref();
        report_failed_backup(resources, &self.wanted.archive, text, now).await;
    }

    fn cluster(&self) -> ObjectRef {
        ObjectRef::new(ObjectKind::Cluster, &self.wanted.cluster.metadata.name)
    }

    async fn emit(&self, about: ObjectRef, reason: &'static str, message: String) {
        let event = Event {
            about,
            event_type: EventType::Warning,
            reason,
            message,
        };
        if let Err(error) = self.context.resources.emit(&event).await {
            warn!(error = chain(&error), reason, "cannot emit an event");
        }
    }
}

fn is_denied(error: &OpenError) -> bool {
    matches!(
        error,
        OpenError::Object {
            cause: ResourceError::Denied { .. },
            ..
        }
    )
}
