//! One restore: the checks, the plan, the run, and WAL to its volume.
//!
//! Not here: the call (`restore`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cellarman::barman::repository::Repository;
use cellarman::fault::{Fault, chain};
use cellarman::service::restore::error::RestoreError;
use cellarman::service::restore::plan::{self, RestorePlan};
use cellarman::service::restore::request::{Configuration, RestoreRequest};
use cellarman::service::restore::run;
use cellarman::service::restore::settings::{RestoreCommand, TargetAction};
use cellarman::service::wal_archive::contents;
use cellarman::store::open;
use cellarman::store::retry::RetryPolicy;
use tokio::task;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::archives::OpenArchive;
use crate::cluster::Cluster;
use crate::instance::Context;
use crate::instance::choice::{Asker, Named};
use crate::instance::restore::error::HookError;
use crate::instance::restore::wal_storage;
use crate::recovery::target::{self, Asked};

/// How long what may pass is waited out before anything is written: rights that come late, a
/// store that is away for a moment.
const PATIENCE: Duration = Duration::from_mins(2);

/// How long rights of a new Cluster may take to come: then the error is told.
const PATIENCE_WITH_OBJECTS: Duration = Duration::from_secs(15);

/// The pause between attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Once the restore writes, it rides out a store that is away for some ten minutes: beginning
/// anew costs more.
const PATIENT: RetryPolicy = RetryPolicy {
    attempts_max: 70,
    ..RetryPolicy::NETWORK
};

/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// What one restore works with.
pub(super) struct Hook {
    pub(super) context: Context,
    pub(super) cluster: Cluster,
    /// The operator's word on whether the own archive must be empty.
    pub(super) must_check_empty: Option<bool>,
    pub(super) cancel: CancellationToken,
}

impl Hook {
    /// Restores, or leaves nothing behind.
    pub(super) async fn run(&self) -> Result<(), HookError> {
        let recovery = self.cluster.recovery();
        let asked = target::asked(recovery.and_then(|recovery| recovery.recovery_target.as_ref()))?;
        let source = self.asker().recovery()?;
        self.patiently(|| self.check_own_archive()).await?;
        let archive = self.patiently(|| self.open(&source)).await?;
        let store = &archive.settings.destination.store;
        let repository = Repository::new(
            open::open_with(store, PATIENT).await?,
            archive.repository.layout.clone(),
        );
        let plan = self
            .patiently(|| self.plan(&archive, asked.clone()))
            .await?;
        tell_plan(&plan, &source);
        self.run_plan(&repository, plan).await?;
        if self.cluster.spec.wal_storage.is_some() {
            self.move_wal().await?;
        }
        Ok(())
    }

    fn asker(&self) -> Asker<'_> {
        Asker {
            cluster: &self.cluster,
            plugin: &self.context.plugin_name,
            pod: &self.context.pod_name,
        }
    }

    async fn open(&self, named: &Named) -> Result<Arc<OpenArchive>, HookError> {
        let archives = &self.context.archives;
        Ok(archives.open(&named.archive, &named.field).await?)
    }

    /// A new Cluster must not write among the WAL of another.
    async fn check_own_archive(&self) -> Result<(), HookError> {
        let asker = self.asker();
        let must_check = self
            .must_check_empty
            .unwrap_or_else(|| !asker.skips_empty_check());
        let Some(own) = asker.own().ok().filter(|_| must_check) else {
            return Ok(());
        };
        let archive = self.open(&own).await?;
        match contents::first_found(&archive.repository).await? {
            None => Ok(()),
            Some(found) => {
                let url = archive.settings.destination.url.trim_end_matches('/');
                Err(HookError::NotEmpty {
                    archive: format!("{url}/{}", own.archive.server),
                    found,
                    field: own.field,
                })
            }
        }
    }

    async fn plan(&self, archive: &OpenArchive, asked: Asked) -> Result<RestorePlan, HookError> {
        let repository = &archive.repository;
        let request = RestoreRequest {
            recovery: asked.into_request(repository).await?,
            action: TargetAction::Promote,
            accepts_gap: false,
            pgdata: self.context.pgdata.clone(),
            tablespaces: Vec::new(),
            restore_command: RestoreCommand {
                program: String::new(),
                options: Vec::new(),
            },
            configuration: Configuration::LeftToCaller,
            jobs: archive.settings.data.jobs,
        };
        Ok(plan::plan(repository, &request).await?)
    }

    async fn run_plan(&self, repository: &Repository, plan: RestorePlan) -> Result<(), HookError> {
        let fetched = Arc::new(AtomicU64::new(0));
        let on_bytes: run::OnBytes = {
            let fetched = Arc::clone(&fetched);
            Arc::new(move |bytes| {
                fetched.fetch_add(bytes, Ordering::Relaxed);
            })
        };
        let total_bytes = plan.fetch_bytes;
        let restore = run::run(repository, plan, &self.cancel, on_bytes);
        let mut restore = std::pin::pin!(restore);
        let restored = loop {
            tokio::select! {
                restored = &mut restore => break restored?,
                () = time::sleep(TELL_EVERY) => {
                    let bytes = fetched.load(Ordering::Relaxed);
                    info!(bytes, total_bytes, "restoring");
                }
            }
        };
        for note in &restored.notes {
            info!("{note}");
        }
        info!(
            files = restored.files,
            bytes = restored.bytes,
            archives_verified = restored.archives_verified,
            "restored the data directory"
        );
        Ok(())
    }

    async fn move_wal(&self) -> Result<(), HookError> {
        let (pgdata, target) = (
            self.context.pgdata.clone(),
            self.context.wal_storage.clone(),
        );
        let moved = task::spawn_blocking(move || {
            let moved = wal_storage::move_to(&pgdata, &target);
            if moved.is_err() {
                // Without its WAL's place it is no data directory to keep.
                wal_storage::clear(&pgdata);
            }
            moved
        });
        let moved = moved.await;
        Ok(moved.map_err(|error| HookError::Task(error.to_string()))??)
    }

    /// Does it again while what stands in the way may pass by itself.
    async fn patiently<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, HookError>
    where
        F: Future<Output = Result<T, HookError>>,
    {
        let begun = Instant::now();
        loop {
            let outcome = tokio::select! {
                outcome = attempt() => outcome,
                () = self.cancel.cancelled() => Err(RestoreError::Cancelled.into()),
            };
            let error = match outcome {
                Err(error) if error.may_pass() => error,
                outcome => return outcome,
            };
            let patience = if error.kind().is_retryable() {
                PATIENCE
            } else {
                PATIENCE_WITH_OBJECTS
            };
            if begun.elapsed() >= patience {
                return Err(error);
            }
            warn!(error = chain(&error), "trying again");
            tokio::select! {
                () = time::sleep(PAUSE) => {}
                () = self.cancel.cancelled() => return Err(RestoreError::Cancelled.into()),
            }
        }
    }
}

fn tell_plan(plan: &RestorePlan, source: &Named) {
    info!(
        backup = %plan.backup.id,
        timeline = %plan.timeline,
        target = %plan.target,
        object_store = source.archive.object_store,
        server = source.archive.server,
        fetch_bytes = plan.fetch_bytes,
        reasons = plan.reasons.join(" "),
        "restoring this backup"
    );
    for (backup, reason) in &plan.passed_over {
        debug!(%backup, reason, "passed over a backup");
    }
    for warning in &plan.warnings {
        warn!("{warning}");
    }
}
