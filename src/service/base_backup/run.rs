//! A backup under way, step by step, from its id to its end.
//!
//! Not here: finding the id, and what happens after the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tracing::{error, info, warn};

use crate::barman::backup_info::BackupInfo;
use crate::barman::stored_objects::{StoredObject, StoredObjects};
use crate::clock;
use crate::domain::backup::{BackupId, BackupStatus};
use crate::domain::timeline::{TimelineHistory, TimelineId};
use crate::fault::chain;
use crate::pgfile::backup_label::BackupLabel;
use crate::pgfile::manifest::{ManifestBuilder, WalRange};
use crate::postgres::facts::{BackupBegin, BackupEnd};
use crate::service::base_backup::archive::{ArchiveMaker, OpenArchive};
use crate::service::base_backup::copy::{Copy, Gathered, Source};
use crate::service::base_backup::error::BackupError;
use crate::service::base_backup::last::{self, Ending};
use crate::service::base_backup::prepare::Prepared;
use crate::service::base_backup::wal_wait::{self, WalWait, default_timeout};
use crate::service::base_backup::{BackupReport, BaseBackup, Stage, record};
use crate::service::running::Heartbeat;
use crate::service::wal_state::PgWal;
use crate::store::PutOptions;
use crate::store::parts::{PART_BYTES, PartPool};
use crate::store::rate::RateLimiter;
use crate::store::upload::UploadOptions;

/// The stored size that archives reach: a restore works on several at once.
const PIECE_BYTES: u64 = 1 << 30;
/// Workers at most: the stores need some of the runtime's blocking threads, or nothing would go.
const JOBS_MAX: usize = 64;
/// Between two looks at the session while files are copied.
const SESSION_INTERVAL: Duration = Duration::from_secs(2);
/// The memory that parts of archives may take, where the number of jobs allows it.
const PART_BUFFERS_BYTES: usize = 48 << 20;

/// A backup under way: it has an id and a record.
pub(super) struct Run<'a> {
    pub(super) backup: &'a BaseBackup,
    pub(super) prepared: Prepared,
    pub(super) id: BackupId,
    pub(super) info: BackupInfo,
    pub(super) heartbeat: Heartbeat,
    pub(super) begun: Instant,
}

impl Run<'_> {
    pub(super) async fn take(&mut self) -> Result<BackupReport, BackupError> {
        let begin = self.begin().await?;
        let copy_begun = Instant::now();
        let copy = Arc::new(self.new_copy(&begin)?);
        let first = self.copy_files(&copy).await?;
        let (first, manifest) = self.copy_control(&copy, first).await?;
        let (end, ranges) = match self.end(&begin).await {
            Ok(ended) => ended,
            Err(error) => {
                tokio::task::spawn_blocking(move || first.abort())
                    .await
                    .ok();
                return Err(error);
            }
        };
        self.finish_archives(&copy, first, manifest, (&end, &ranges))
            .await?;
        let copy_took = copy_begun.elapsed();
        if self.backup.request.waits_for_wal {
            self.backup.watcher.enter(Stage::WaitForWal);
            self.wait_for_wal(&ranges).await?;
        } else {
            warn!(id = %self.id, "not waiting for the WAL that the backup needs, as was asked");
        }
        let timeline = ranges
            .last()
            .map_or(TimelineId::FIRST, |range| range.timeline);
        self.commit(&copy, &end, (timeline, copy_took)).await
    }

    async fn begin(&mut self) -> Result<BackupBegin, BackupError> {
        self.backup.watcher.enter(Stage::Checkpoint);
        let label = format!("Cellarman backup {}", self.id);
        let server = &self.prepared.server;
        let begin = tokio::select! {
            () = self.backup.cancel.cancelled() => return Err(BackupError::Cancelled),
            begin = server.begin_backup(&label, self.backup.request.is_immediate) => begin?,
        };
        self.prepared.check_directory(begin.lsn).await?;
        // The checkpoint it has just made, on a standby the one it starts from.
        let timeline = server.control().await?.timeline;
        self.prepared.renew_tablespaces().await?;
        record::set_tablespaces(&mut self.info, &self.prepared.tablespaces);
        record::set_begin(&mut self.info, &begin, timeline);
        self.backup.put_record(&self.id, &self.info).await?;
        Ok(begin)
    }

    fn new_copy(&self, begin: &BackupBegin) -> Result<Copy, BackupError> {
        let BaseBackup {
            repository,
            request,
            ..
        } = self.backup;
        let prepared = &self.prepared;
        let settings = &prepared.settings;
        let jobs = request.jobs.clamp(1, JOBS_MAX);
        // Each job fills a part, so does the first archive while it waits; the rest are on their way.
        let filling = jobs + 1;
        let parts_max = (PART_BUFFERS_BYTES / PART_BYTES).max(filling + 1);
        let options = UploadOptions {
            pool: PartPool::new(PART_BYTES, parts_max),
            parts_in_flight: 2,
            put: request.put.clone(),
            limiter: request
                .bandwidth_max
                .map(|bytes| Arc::new(RateLimiter::new(bytes))),
        };
        let manifest = ManifestBuilder::new(
            settings.version.manifest_version,
            prepared.control.system_id.0,
        )
        .map_err(BackupError::Manifest)?;
        Ok(Copy {
            source: Source {
                data: prepared.data.clone(),
                tablespaces: prepared.tablespaces.clone(),
                outside: prepared.outside.clone(),
                version: settings.version,
                checked_page_bytes: settings
                    .has_data_checksums
                    .then_some(settings.block_bytes)
                    .filter(|bytes| *bytes > 0),
                begin_lsn: begin.lsn,
                jobs,
                piece_bytes: PIECE_BYTES,
            },
            archives: ArchiveMaker {
                store: Arc::clone(&repository.store),
                layout: repository.layout.clone(),
                id: self.id.clone(),
                compression: request.compression,
                options,
                observer: Arc::new(self.heartbeat.record()),
                runtime: Handle::current(),
                cancel: self.backup.cancel.child_token(),
                pieces: Mutex::new(BTreeMap::new()),
            },
            watcher: Arc::clone(&self.backup.watcher),
            gathered: Mutex::new(Gathered {
                manifest: Some(manifest),
                objects: Vec::new(),
                damaged: Vec::new(),
                damaged_count: 0,
                copied_bytes: 0,
                copied_files: 0,
                first: None,
            }),
        })
    }

    /// Copies everything, and stops early when the session is lost.
    async fn copy_files(&self, copy: &Arc<Copy>) -> Result<OpenArchive, BackupError> {
        self.backup.watcher.enter(Stage::Copy {
            bytes: self.prepared.cluster_size,
        });
        let mut running = std::pin::pin!(copy.run());
        let mut is_lost = false;
        loop {
            tokio::select! {
                copied = &mut running => {
                    return if is_lost { Err(BackupError::SessionLost) } else { copied };
                }
                () = tokio::time::sleep(SESSION_INTERVAL) => {
                    if self.prepared.server.is_closed() && !is_lost {
                        is_lost = true;
                        copy.archives.cancel.cancel();
                    }
                }
            }
        }
    }

    async fn copy_control(
        &self,
        copy: &Arc<Copy>,
        first: OpenArchive,
    ) -> Result<(OpenArchive, ManifestBuilder), BackupError> {
        let manifest = copy.gathered().manifest.take();
        let root = self.root();
        let system_id = self.prepared.control.system_id;
        tokio::task::spawn_blocking(move || {
            let Some(mut manifest) = manifest else {
                first.abort();
                return Err(BackupError::Broken);
            };
            let first = last::append_control(first, &mut manifest, &root, system_id)?;
            Ok((first, manifest))
        })
        .await
        .unwrap_or(Err(BackupError::Broken))
    }

    /// Ends the backup on the server, and finds out what log it needs.
    async fn end(
        &mut self,
        begin: &BackupBegin,
    ) -> Result<(BackupEnd, Vec<WalRange>), BackupError> {
        let server = &self.prepared.server;
        if server.is_closed() {
            return Err(BackupError::SessionLost);
        }
        let end = tokio::select! {
            () = self.backup.cancel.cancelled() => return Err(BackupError::Cancelled),
            end = server.end_backup() => end?,
        };
        let label = BackupLabel::parse(&end.label)?;
        if label.start_lsn != begin.lsn {
            return Err(BackupError::OtherBegin {
                label: label.start_lsn.to_string(),
                begin: begin.lsn.to_string(),
            });
        }
        let control = server.control().await?;
        let end_timeline = match control.min_recovery_timeline {
            Some(timeline) if self.prepared.is_standby => timeline,
            _ => control.timeline,
        };
        record::set_begin(&mut self.info, begin, label.start_timeline);
        let history = if end_timeline == label.start_timeline {
            TimelineHistory::root(end_timeline)
        } else {
            wal_wait::read_history(self.prepared.data.root(), end_timeline)?
        };
        let ranges = wal_wait::ranges(
            (label.start_timeline, begin.lsn),
            (end_timeline, end.lsn),
            &history,
        );
        Ok((end, ranges))
    }

    async fn finish_archives(
        &self,
        copy: &Arc<Copy>,
        first: OpenArchive,
        manifest: ManifestBuilder,
        (end, ranges): (&BackupEnd, &[WalRange]),
    ) -> Result<(), BackupError> {
        let root = self.root();
        let (label, ranges) = (end.label.clone(), ranges.to_vec());
        let now = clock::now().timestamp();
        let object = tokio::task::spawn_blocking(move || {
            let ending = Ending {
                label: &label,
                wal_ranges: &ranges,
                now,
            };
            last::append_ending(first, manifest, &root, &ending)
        })
        .await
        .unwrap_or(Err(BackupError::Broken))?;
        let mut gathered = copy.gathered();
        gathered.objects.push(object);
        gathered.objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    async fn wait_for_wal(&self, ranges: &[WalRange]) -> Result<(), BackupError> {
        let settings = &self.prepared.settings;
        let supply = self.backup.supply.as_ref();
        // A standby's own archiver, if it has one, is not the only one that may have put them, and
        // none of the server's puts what is supplied.
        let is_archiver = !self.prepared.is_standby && supply.is_none();
        let pg_wal = is_archiver.then(|| self.root().join("pg_wal"));
        let wait = WalWait {
            repository: &self.backup.repository,
            ranges,
            archiver: pg_wal.as_deref().and_then(PgWal::at),
            segment_size: settings.segment_size,
            timeout: self
                .backup
                .request
                .archive_timeout
                .unwrap_or_else(|| default_timeout(settings.archive_timeout)),
            is_standby: self.prepared.is_standby,
        };
        let waiting = wait.run(&self.backup.cancel);
        let Some(supply) = supply else {
            return waiting.await;
        };
        let stretches = wal_wait::segments(ranges, settings.segment_size);
        let mut waiting = std::pin::pin!(waiting);
        tokio::select! {
            waited = &mut waiting => waited,
            supplied = supply.supply(&stretches, settings.segment_size) => {
                supplied.map_err(|cause| BackupError::Supply { cause })?;
                waiting.await
            }
        }
    }

    /// Makes sure that everything is there, and then says so.
    async fn commit(
        &mut self,
        copy: &Copy,
        end: &BackupEnd,
        (timeline, copy_took): (TimelineId, Duration),
    ) -> Result<BackupReport, BackupError> {
        let repository = &self.backup.repository;
        let (objects, damaged) = {
            let mut gathered = copy.gathered();
            (
                std::mem::take(&mut gathered.objects),
                std::mem::take(&mut gathered.damaged),
            )
        };
        let stored = StoredObjects { objects, damaged };
        self.check_stored(&stored.objects).await?;
        let json = stored.to_json().map_err(|_| BackupError::Broken)?;
        let key = StoredObjects::key(&repository.layout, &self.id);
        repository
            .store
            .put(&key, json.into(), &PutOptions::default())
            .await?;
        // A run that was taken for dead must not make a backup of what others may be deleting.
        let record = repository.backup_info(&self.id).await?;
        if record.status != BackupStatus::Started {
            return Err(BackupError::GivenUp {
                id: self.id.clone(),
            });
        }
        let mut info = self.info.clone();
        record::set_done(&mut info, end, timeline);
        info.backup_name.clone_from(&self.backup.request.name);
        let took = self.begun.elapsed();
        info.copy_stats = Some(record::copy_stats(
            took,
            copy_took,
            copy.source.jobs,
            &self.items(),
        ));
        self.backup.put_record(&self.id, &info).await?;
        info!(id = %self.id, "backup done");
        let gathered = copy.gathered();
        Ok(BackupReport {
            id: self.id.clone(),
            info,
            objects: stored.objects,
            damaged: stored.damaged,
            damaged_count: gathered.damaged_count,
            copied_bytes: gathered.copied_bytes,
            copied_files: gathered.copied_files,
            took,
        })
    }

    async fn check_stored(&self, objects: &[StoredObject]) -> Result<(), BackupError> {
        let archives = self.backup.repository.archives(&self.id).await?;
        for object in objects {
            let is_there = archives.iter().any(|archive| {
                archive.key.base_name() == object.name && archive.size == object.size
            });
            if !is_there {
                return Err(BackupError::NotStored {
                    id: self.id.clone(),
                    name: object.name.clone(),
                    size: object.size,
                });
            }
        }
        Ok(())
    }

    /// What Barman counts as one: the data directory and each tablespace.
    fn items(&self) -> Vec<String> {
        let tablespaces = self.prepared.tablespaces.iter();
        tablespaces
            .map(|tablespace| tablespace.oid.to_string())
            .chain(["data".to_owned()])
            .collect()
    }

    fn root(&self) -> PathBuf {
        self.prepared.data.root().to_owned()
    }

    /// Leaves a record FAILED. The sign of life goes last: with it, another run would finish this.
    pub(super) async fn give_up(mut self, cause: &BackupError) {
        error!(id = %self.id, error = chain(cause), "backup failed");
        self.prepared.server.close().await;
        record::set_failed(&mut self.info, &chain(cause));
        match self.backup.put_record(&self.id, &self.info).await {
            Ok(()) => self.heartbeat.stop().await,
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "cannot record that the backup failed"
                );
            }
        }
    }
}
