//! One round: retention, then the catalog, the status, and the Backups that went with it.
//!
//! Not here: when the next one comes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cellarman::barman::repository::{Catalog, Repository};
use cellarman::clock;
use cellarman::domain::backup::SystemId;
use cellarman::fault::{Fault, Kind, chain};
use cellarman::metrics::{Metric, Metrics};
use cellarman::service::expire::{self, error::ExpireError, run::Done};
use cellarman::service::store_clock;
use cellarman::service::verify::results;
use cellarman::service::wal_state::PgWal;
use serde_json::Value;
use tokio::task;
use tracing::{debug, info, warn};

use crate::archives::OpenArchive;
use crate::cluster::{ArchiveRef, Cluster, PluginEntry};
use crate::instance::Context;
use crate::instance::maintenance::collection::{self, Completed, Seen};
use crate::instance::maintenance::error::RoundError;
use crate::instance::maintenance::{conditions, named_by, reach, rules};
use crate::instance::status::{Summary, report, report_error};
use crate::resources::{EventType, ObjectKind, ObjectRef};

/// Archives beside the Cluster's own that are looked at in one round.
const EXTRA_ARCHIVES_MAX: usize = 8;

/// What retention did, and how many records cannot be read.
type Expired = (Option<Done>, usize);

/// How a round ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is not for this instance, and why.
    NotOurs(&'static str),
    /// Everything was done.
    Done,
}

/// One round.
pub(super) struct Round<'a> {
    context: &'a Context,
    /// Whether the last one failed.
    had_error: bool,
    /// Whether none has succeeded yet.
    is_first: bool,
    interval: Option<Duration>,
}

impl<'a> Round<'a> {
    pub(super) fn new(context: &'a Context, had_error: bool, is_first: bool) -> Self {
        Self {
            context,
            had_error,
            is_first,
            interval: None,
        }
    }

    /// The interval that the ObjectStore asks for, once it was read.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.interval
    }

    pub(super) async fn run(&mut self) -> Result<Outcome, RoundError> {
        let context = self.context;
        let cluster: Cluster = context.cluster::<RoundError>().await?;
        let entry = cluster.entry(&context.plugin_name);
        if !entry.is_some_and(PluginEntry::is_enabled) {
            return Ok(Outcome::NotOurs("the plugin is not in use"));
        }
        let own = cluster.archives(&context.plugin_name).own;
        let own = own.ok_or(RoundError::NoStore)?;
        if cluster.status.current_primary != context.pod_name {
            return Ok(Outcome::NotOurs("this is not the primary"));
        }
        let hibernation = cluster.metadata.annotations.get("cnpg.io/hibernation");
        if hibernation.is_some_and(|word| word == "on") {
            return Ok(Outcome::NotOurs("the Cluster is hibernated"));
        }
        let looked_after = self.look_after(&cluster, &own).await;
        if let Err(error) = &looked_after {
            let text = conditions::sentence(error);
            report_error(context.resources.as_ref(), &own, &text, clock::now()).await;
        }
        looked_after.map(|()| Outcome::Done)
    }

    async fn look_after(&mut self, cluster: &Cluster, own: &ArchiveRef) -> Result<(), RoundError> {
        let archive = match self.context.archives.open(own, &named_by(own)).await {
            Ok(archive) => archive,
            Err(error) => return Err(self.unreachable(own, error.into()).await),
        };
        self.interval = rules::interval(&archive.object_store);
        let retained = self.retain(cluster, &archive).await;
        // Those that there are now have their backup in a listing that comes later.
        let backups = self.context.resources.backups().await;
        let catalog = match archive.repository.list_backups().await {
            Ok(catalog) => catalog,
            Err(error) => return Err(self.unreachable(own, error.into()).await),
        };
        let reach = match reach::look(self.context, &archive.repository).await {
            Ok(reach) => reach,
            Err(error) => return Err(self.unreachable(own, error.into()).await),
        };
        let summary = Summary::of(&catalog);
        summary.show(&self.context.metrics);
        reach.show(&self.context.metrics);
        self.context.metrics.set_flag(Metric::StoreReachable, true);
        show_verification(&self.context.metrics, &archive.repository).await;
        let reachable = conditions::reachable(&own.server, summary.backups);
        conditions::set(self.context, &own.object_store, &reachable).await;
        let resources = self.context.resources.as_ref();
        let clears_error = (self.had_error || self.is_first) && retained.is_ok();
        report(resources, own, (&summary, Some(&reach)), clears_error).await?;
        self.collect(cluster, (&archive, &catalog), &backups?)
            .await?;
        retained
    }

    /// Deletes what retention no longer wants, and tells how that went.
    async fn retain(&self, cluster: &Cluster, archive: &OpenArchive) -> Result<(), RoundError> {
        let store = &archive.reference.object_store;
        let error = match self.expire(archive).await {
            Ok((done, unreadable)) => match left_behind(done.as_ref()) {
                None => {
                    let condition = conditions::retained(done.as_ref(), unreadable);
                    conditions::set(self.context, store, &condition).await;
                    return Ok(());
                }
                Some(error) => error,
            },
            Err(ExpireError::Cancelled { .. }) => return Ok(()),
            Err(error) => RoundError::from(error),
        };
        let condition = conditions::not_retained(&error);
        conditions::set(self.context, store, &condition).await;
        self.tell_not_retained(cluster, &error).await;
        Err(error)
    }

    async fn tell_not_retained(&self, cluster: &Cluster, error: &RoundError) {
        let about = ObjectRef::new(ObjectKind::Cluster, &cluster.metadata.name);
        let news = ("RetentionPolicyFailed", conditions::sentence(error));
        conditions::tell(self.context, about, EventType::Warning, news).await;
    }

    /// Runs retention; returns what it did, and how many records cannot be read.
    async fn expire(&self, archive: &OpenArchive) -> Result<Expired, ExpireError> {
        let rules = rules::rules(&archive.object_store, archive.settings.retention_policy);
        let Some(rules) = rules else {
            return Ok((None, 0));
        };
        let repository = &archive.repository;
        if !repository.has_server().await? {
            return Ok((None, 0));
        }
        let now = store_clock::now(repository, clock::now()).await?;
        let plan = expire::plan(repository, rules, now).await?;
        let metrics = &self.context.metrics;
        for one in &plan.unreadable {
            warn!(id = %one.id, reason = one.reason, "a backup's record cannot be read");
        }
        let done = expire::run::run(repository, &plan, &self.context.cancel).await?;
        let backups = u64::try_from(done.backups.len()).unwrap_or(u64::MAX);
        metrics.add(Metric::RetentionDeletedBackups, backups);
        metrics.add(Metric::RetentionDeletedWalFiles, done.wal_files);
        metrics.add(Metric::RetentionDeletedWalBytes, done.wal_bytes);
        if !plan.is_empty() {
            info!(
                server = archive.reference.server,
                "retention deleted {done}"
            );
        }
        Ok((Some(done), plan.unreadable.len()))
    }

    /// Deletes the Backups whose backup is gone.
    async fn collect(
        &self,
        cluster: &Cluster,
        (own, catalog): (&Arc<OpenArchive>, &Catalog),
        backups: &[Value],
    ) -> Result<(), RoundError> {
        let completed = collection::completed(backups, cluster, &self.context.plugin_name);
        if completed.is_empty() {
            return Ok(());
        }
        // Nothing at all of the server: this may be another bucket than it was.
        if own.repository.has_server().await? {
            let gone = collection::gone(&completed, seen(own, catalog, true));
            self.delete(cluster, &gone).await?;
        }
        for extra in extra_archives(&completed, &own.reference) {
            // Its Backups stay, and what is known of the Cluster's own archive counts.
            if let Err(error) = self.look_after_extra(cluster, &extra, &completed).await {
                info!(
                    object_store = extra.object_store,
                    error = chain(&error),
                    "cannot look after the archive that Backups went to"
                );
            }
        }
        Ok(())
    }

    /// Another archive that Backups went to: retention where it is this Cluster's alone, then the
    /// status and the Backups.
    async fn look_after_extra(
        &self,
        cluster: &Cluster,
        extra: &ArchiveRef,
        completed: &[Completed],
    ) -> Result<(), RoundError> {
        let Some((archive, mut catalog)) = self.look_at(extra).await? else {
            return Ok(());
        };
        let ours = system_id(self.context.pgdata.join("pg_wal")).await;
        if ours.is_some_and(|ours| {
            collection::is_ours(completed, seen(&archive, &catalog, false), ours)
        }) {
            self.retain_extra(cluster, &archive).await?;
            catalog = archive.repository.list_backups().await?;
        } else {
            debug!(
                object_store = extra.object_store,
                server = extra.server,
                "retention is not run here: the archive is not this Cluster's alone"
            );
        }
        let resources = self.context.resources.as_ref();
        report(resources, extra, (&Summary::of(&catalog), None), false).await?;
        let gone = collection::gone(completed, seen(&archive, &catalog, false));
        self.delete(cluster, &gone).await
    }

    /// Its conditions are for whose own archive is in that ObjectStore.
    async fn retain_extra(
        &self,
        cluster: &Cluster,
        archive: &OpenArchive,
    ) -> Result<(), RoundError> {
        let failed = match self.expire(archive).await {
            Ok((done, _)) => left_behind(done.as_ref()),
            Err(ExpireError::Cancelled { .. }) => None,
            Err(error) => Some(error.into()),
        };
        let Some(error) = failed else { return Ok(()) };
        self.tell_not_retained(cluster, &error).await;
        Err(error)
    }

    /// All backups of another archive, where there is anything of the server.
    async fn look_at(
        &self,
        extra: &ArchiveRef,
    ) -> Result<Option<(Arc<OpenArchive>, Catalog)>, RoundError> {
        let archives = &self.context.archives;
        let archive = archives.open(extra, "a Backup's metadata").await?;
        if !archive.repository.has_server().await? {
            return Ok(None);
        }
        let catalog = archive.repository.list_backups().await?;
        Ok(Some((archive, catalog)))
    }

    async fn delete(&self, cluster: &Cluster, gone: &[&Completed]) -> Result<(), RoundError> {
        for backup in gone {
            let resources = &self.context.resources;
            resources.delete_backup(&backup.name, &backup.uid).await?;
            info!(
                name = backup.name,
                id = backup.id,
                "deleted a Backup whose backup is gone"
            );
            let metrics = &self.context.metrics;
            metrics.increment(Metric::BackupResourcesDeleted);
        }
        if !gone.is_empty() {
            let names: Vec<&str> = gone.iter().map(|backup| backup.name.as_str()).collect();
            let names = names.join(", ");
            let message = format!("The archive no longer has the backups of {names}.");
            let about = ObjectRef::new(ObjectKind::Cluster, &cluster.metadata.name);
            let news = ("BackupsCollected", message);
            conditions::tell(self.context, about, EventType::Normal, news).await;
        }
        Ok(())
    }

    /// Tells that the archive cannot be looked at.
    async fn unreachable(&self, own: &ArchiveRef, error: RoundError) -> RoundError {
        self.context.metrics.set_flag(Metric::StoreReachable, false);
        let condition = conditions::unreachable(&error);
        conditions::set(self.context, &own.object_store, &condition).await;
        if matches!(error.kind(), Kind::Unreachable | Kind::Throttled) && !self.had_error {
            let about = ObjectRef::new(ObjectKind::ObjectStore, &own.object_store);
            let news = ("StoreUnreachable", conditions::sentence(&error));
            conditions::tell(self.context, about, EventType::Warning, news).await;
        }
        error
    }
}

/// Shows what the last verification of the archive found: somebody else may have run it.
async fn show_verification(metrics: &Metrics, repository: &Repository) {
    let summary = match results::Summary::read(repository).await {
        Ok(summary) => summary.unwrap_or_default(),
        Err(error) => {
            debug!(
                error = chain(&error),
                "cannot read what a verification found"
            );
            return;
        }
    };
    metrics.set_time(Metric::VerifyLastRun, summary.time());
    metrics.set(Metric::VerifiedBackups, summary.backups_verified);
    metrics.set(Metric::VerifiedDamagedBackups, summary.backups_damaged);
    metrics.set(Metric::VerifiedMissingWal, summary.wal_segments_missing);
}

/// The system that the data directory is of.
async fn system_id(pg_wal: PathBuf) -> Option<SystemId> {
    let read = task::spawn_blocking(move || PgWal::at(&pg_wal)?.control_file());
    Some(SystemId(read.await.ok()??.system_id))
}

fn seen<'a>(archive: &'a OpenArchive, catalog: &'a Catalog, is_own: bool) -> Seen<'a> {
    Seen {
        archive: &archive.reference,
        destination: &archive.settings.destination.url,
        catalog,
        is_own,
    }
}

fn extra_archives(completed: &[Completed], own: &ArchiveRef) -> Vec<ArchiveRef> {
    let named = completed.iter().filter_map(|backup| backup.archive.clone());
    let mut extra: Vec<ArchiveRef> = named.filter(|archive| archive != own).collect();
    extra.sort();
    extra.dedup();
    extra.truncate(EXTRA_ARCHIVES_MAX);
    extra
}

/// The failures of a run that went on in spite of them.
fn left_behind(done: Option<&Done>) -> Option<RoundError> {
    let failed = &done?.failed;
    let first = failed.first()?;
    Some(RoundError::LeftBehind {
        count: failed.len(),
        what: first.what.clone(),
        reason: first.reason.clone(),
        kind: first.kind,
    })
}
