//! The backup to restore: the one that the records speak for, if all of it is there.
//!
//! A record may be DONE and its archives gone: by hand, by a rule of the bucket, by a deletion of
//! another tool that was killed, for Barman leaves the record as it is until the tars have gone. Where
//! an older backup leads to the same end, that is taken and the damaged one named. Not here: judging by
//! records alone (`domain::recovery`), the log on the way to the target (`way`).

use crate::barman::backup_info::BackupInfo;
use crate::barman::repository::Repository;
use crate::domain::backup::{Backup, BackupId};
use crate::domain::recovery::{self, Choice, Refusal, Request, Target, TimelineWish};
use crate::domain::timeline::{KnownTimelines, TimelineId};
use crate::fault;
use crate::service::restore::archives::{PlannedArchive, planned_archives, stored_objects};
use crate::service::restore::error::RestoreError;
use crate::service::restore::needed_wal::{WalRange, needed_wal, span};
use crate::service::targets::line_files::LineFiles;
use crate::service::targets::resolve;

/// The first version whose recovery is configured as restores do it.
const VERSION_MIN: u32 = 120_000;

/// What the archive holds, as far as its records tell.
pub(crate) struct Known<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) backups: &'a [Backup],
    pub(crate) timelines: &'a KnownTimelines,
}

/// A backup that was looked at, and can be restored.
#[derive(Debug)]
pub struct Chosen {
    /// The choice, with its reasons.
    pub choice: Choice,
    /// The backup.
    pub backup: Backup,
    /// Its record, with the text of its `backup_label`.
    pub info: BackupInfo,
    /// What is fetched of it.
    pub archives: Vec<PlannedArchive>,
    /// The segments without which it never becomes consistent; all are in the archive.
    pub wal: WalRange,
    /// What there is of the line, from its begin on; up to its end, when that is the target.
    pub(crate) files: LineFiles,
    /// What is odd about it, and each damaged backup that was passed over.
    pub(crate) warnings: Vec<String>,
    /// What is wrong with the backup in whose place it was taken.
    pub(crate) instead_of: Option<RestoreError>,
}

impl Known<'_> {
    /// Chooses as [`Known::choose`] does; where records of backups cannot tell which of them come
    /// before the target, the log does.
    pub(crate) async fn choose_by_log(&self, request: &Request) -> Result<Chosen, RestoreError> {
        let refusal = match self.choose(request).await {
            Err(RestoreError::Choice(refusal)) => refusal,
            chosen => return chosen,
        };
        let (timeline, candidates) = match &refusal {
            Refusal::Ambiguous {
                timeline,
                candidates,
                ..
            } if request.timeline != TimelineWish::Current => (*timeline, candidates),
            _ => return Err(refusal.into()),
        };
        let is_candidate = |backup: &&Backup| candidates.contains(&backup.id);
        let backups: Vec<&Backup> = self.backups.iter().filter(is_candidate).collect();
        let line = resolve::line_of(self.timelines, timeline);
        match resolve::choose(self.repository, &backups, &line, request).await {
            Ok(backup) => {
                let request = Request {
                    backup: Some(backup.clone()),
                    timeline: TimelineWish::Number(timeline),
                    ..request.clone()
                };
                let mut chosen = self.choose(&request).await?;
                let (target, reasons) = (&request.target, &mut chosen.choice.reasons);
                if let Some(reason) = reasons.first_mut() {
                    *reason = format!("Backup {backup} is the last that ends before {target}.");
                }
                Ok(chosen)
            }
            Err(error) if error.is_unknown() => Err(refusal.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Chooses, and passes over damaged backups while that leads to the same end: along the same
    /// timeline, to a target that is no backup's own end.
    ///
    /// # Errors
    /// Where no other will do, what is wrong with the backup chosen first.
    pub(crate) async fn choose(&self, request: &Request) -> Result<Chosen, RestoreError> {
        let may_pass_over = request.backup.is_none() && request.target != Target::Immediate;
        let mut damaged: Vec<(BackupId, String)> = Vec::new();
        let mut first: Option<(TimelineId, RestoreError)> = None;
        loop {
            let choice = recovery::choose_past(self.backups, self.timelines, request, &damaged);
            let choice = match (choice, first.take()) {
                (Ok(choice), None) => choice,
                (Ok(choice), Some(known)) if choice.timeline == known.0 => {
                    first = Some(known);
                    choice
                }
                (Err(refusal), None) => return Err(refusal.into()),
                (_, Some((_, error))) => return Err(error),
            };
            let (id, timeline) = (choice.backup.clone(), choice.timeline);
            match self.look(choice, &request.target).await {
                Err(error) if may_pass_over && error.is_damage() => {
                    damaged.push((id, fault::chain(&error)));
                    first.get_or_insert((timeline, error));
                }
                looked => {
                    let mut chosen = looked?;
                    chosen.warnings.extend(damaged.iter().map(|(id, reason)| {
                        format!("Backup {id} was passed over, for it cannot be restored: {reason}.")
                    }));
                    chosen.instead_of = first.map(|(_, error)| error);
                    return Ok(chosen);
                }
            }
        }
    }

    /// Looks whether all of a backup is there.
    async fn look(&self, choice: Choice, target: &Target) -> Result<Chosen, RestoreError> {
        let repository = self.repository;
        let info = repository.backup_info(&choice.backup).await?;
        let backup = info.to_backup(&choice.backup);
        if !self.backups.contains(&backup) {
            return Err(RestoreError::RecordChanged { backup: backup.id });
        }
        check_kind(&backup, &info)?;
        let mut warnings = Vec::new();
        let objects = stored_objects(repository, &backup.id, &mut warnings).await?;
        let stored = repository.archives(&backup.id).await?;
        let archives = planned_archives(&backup, stored, objects.as_ref())?;
        let files = self.files(&backup, choice.timeline, target).await?;
        let wal = needed_wal(&backup, &files)?;
        Ok(Chosen {
            choice,
            backup,
            info,
            archives,
            wal,
            files,
            warnings,
            instead_of: None,
        })
    }

    /// The log that recovery from a backup follows, in one listing.
    async fn files(
        &self,
        backup: &Backup,
        timeline: TimelineId,
        target: &Target,
    ) -> Result<LineFiles, RestoreError> {
        let span = span(backup)?;
        let line = resolve::line_of(self.timelines, timeline);
        let until = (*target == Target::Immediate).then_some(span.end);
        let begin = (span.begin, backup.segment_size);
        Ok(LineFiles::list(self.repository, &line, begin, until).await?)
    }
}

/// Refuses backups that are no plain copy, or of servers that recover in another way.
fn check_kind(backup: &Backup, info: &BackupInfo) -> Result<(), RestoreError> {
    let unsupported = |reason: &'static str| {
        Err(RestoreError::Unsupported {
            backup: backup.id.clone(),
            reason,
        })
    };
    if info.snapshots_info.is_some() {
        return unsupported("it consists of volume snapshots");
    }
    if info
        .parent_backup_id
        .as_deref()
        .is_some_and(|parent| !parent.is_empty())
    {
        return unsupported("it is incremental and needs its parent combined with it");
    }
    match backup.version {
        Some(version) if version < VERSION_MIN => {
            unsupported("its server is older than PostgreSQL 12")
        }
        _ => Ok(()),
    }
}
