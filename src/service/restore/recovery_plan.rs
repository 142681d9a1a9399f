//! How recovery gets from a backup to its target: a value, with its reasons, whoever is to recover.
//!
//! Not here: where the restored files go (`plan`), choosing among backups (`chosen`).

use chrono::{DateTime, FixedOffset};

use crate::barman::repository::Repository;
use crate::domain::backup::Backup;
use crate::domain::log::reach::{self, Reach, StopPoint, Unreachable};
use crate::domain::recovery::{Refusal, Request, Target, TimelineWish};
use crate::domain::segment::{SegmentName, SegmentNumber};
use crate::domain::timeline::{KnownTimelines, TimelineHistory};
use crate::fault;
use crate::service::restore::chosen::{Chosen, Known};
use crate::service::restore::error::RestoreError;
use crate::service::restore::needed_wal::WalRange;
use crate::service::restore::settings;
use crate::service::restore::way::Way;
use crate::service::targets::resolve::{self, ResolveError};
use crate::service::targets::window;

/// What is asked of a recovery.
#[derive(Debug, Clone, Copy)]
pub struct RecoveryRequest<'a> {
    /// How far, along which timeline, from which backup.
    pub recovery: &'a Request,
    /// Whether to begin although recovery does not get to its target.
    pub accepts_gap: bool,
    /// Whether PostgreSQL can be given another target than was asked for.
    pub may_reword: bool,
}

/// How recovery gets to its target.
#[derive(Debug)]
pub struct RecoveryPlan {
    /// The backup and the timeline, with the reasons for them.
    pub chosen: Chosen,
    /// What PostgreSQL is to be told: what was asked for, or what comes to the same.
    pub target: Target,
    /// Whether the target itself is replayed.
    pub is_inclusive: bool,
    /// The record at which recovery stops, where the target has one and the log was looked at.
    pub stop: Option<StopPoint>,
    /// What is odd without being in the way.
    pub warnings: Vec<String>,
}

/// The log that recovery reads, from the backup on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeededWal {
    /// The segments.
    pub range: WalRange,
    /// Whether these are all. Otherwise there may be more behind them, up to the target or to the
    /// end of the archive.
    pub is_all: bool,
}

impl RecoveryPlan {
    /// The log that recovery reads.
    pub fn wal(&self) -> NeededWal {
        let (backup, size) = (&self.chosen.wal, self.chosen.backup.segment_size);
        let name = |lsn| self.chosen.files.name(SegmentNumber::holding(lsn, size));
        let last = match (&self.stop, &self.target) {
            (Some(point), _) => Some(point.segment),
            (None, Target::Lsn(lsn)) => name(*lsn),
            (None, Target::Immediate) => Some(backup.end),
            (None, _) => None,
        };
        let number = |segment: SegmentName| segment.number(size).map(SegmentNumber::to_u64);
        let end = last.filter(|last| number(*last) > number(backup.end));
        let end = end.unwrap_or(backup.end);
        let length = number(end).zip(number(backup.begin));
        let count = length.map_or(0, |(end, begin)| end.saturating_sub(begin) + 1);
        NeededWal {
            range: WalRange {
                begin: backup.begin,
                end,
                count,
            },
            is_all: last.is_some(),
        }
    }

    /// The line that recovery follows, as far as the archive tells.
    pub fn line(&self) -> &TimelineHistory {
        self.chosen.files.line()
    }

    /// The settings of PostgreSQL that lead there: name and value.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let timeline = self.chosen.choice.recovery_target_timeline();
        let target = settings::target_setting(&self.target).into_iter();
        target
            .chain([
                settings::inclusive_setting(self.is_inclusive),
                ("recovery_target_timeline", timeline),
            ])
            .collect()
    }

    /// How many bytes of the backup are fetched, as stored.
    pub fn fetch_bytes(&self) -> u64 {
        let archives = self.chosen.archives.iter();
        archives.map(|archive| archive.stored.size).sum()
    }
}

/// Decides how recovery gets to its target. Reads the store and changes nothing.
///
/// # Errors
/// Where it does not get there, as far as the archive tells.
pub async fn plan(
    repository: &Repository,
    request: &RecoveryRequest<'_>,
) -> Result<RecoveryPlan, RestoreError> {
    let refusal = match plan_as_asked(repository, request).await {
        Err(refusal) => refusal,
        plan => return plan,
    };
    let is_short =
        refusal.is_gap() || matches!(refusal, RestoreError::Choice(Refusal::TooEarly { .. }));
    match &request.recovery.target {
        Target::Time(time) if is_short && request.recovery.backup.is_none() => {
            let during = plan_from_later(repository, request, *time).await?;
            during.ok_or(refusal)
        }
        _ => Err(elsewhere(repository, request.recovery, refusal).await),
    }
}

/// The same refusal or, where what is nowhere on the newest line is on another, that.
async fn elsewhere(
    repository: &Repository,
    recovery: &Request,
    refusal: RestoreError,
) -> RestoreError {
    let is_unknown = matches!(
        refusal,
        RestoreError::Resolve(ResolveError::Unreachable(Unreachable::Unknown { .. }))
    );
    if !is_unknown || recovery.timeline != TimelineWish::Latest {
        return refusal;
    }
    match window::on_any_line(repository, recovery).await {
        Ok(Some(point)) => {
            let before = before_backup(repository, recovery, &point).await;
            let where_it_is = before.unwrap_or_else(|| Unreachable::OtherTimeline {
                target: recovery.target.to_string(),
                timeline: point.segment.timeline(),
                lsn: point.record.begin,
            });
            ResolveError::from(where_it_is).into()
        }
        // What is known suffices to refuse it.
        Ok(None) | Err(_) => refusal,
    }
}

/// That the target comes before the backup asked for, on the backup's own line.
async fn before_backup(
    repository: &Repository,
    recovery: &Request,
    point: &StopPoint,
) -> Option<Unreachable> {
    let id = recovery.backup.as_ref()?;
    let backup = repository.backup_info(id).await.ok()?.to_backup(id);
    let ended_on = backup.end_wal.map(SegmentName::timeline);
    let (timeline, end) = (ended_on.or(backup.timeline)?, backup.end_lsn?);
    let (timelines, _) = known_timelines(repository).await.ok()?;
    let line = resolve::line_of(&timelines, timeline);
    let stop = reach::reached(point);
    let is_before = stop < end && line.holds(point.segment.timeline(), point.record.begin);
    is_before.then(|| Unreachable::BeforeBackupEnd {
        target: recovery.target.to_string(),
        backup: backup.id,
        stop,
        end,
    })
}

/// The plan from a backup that was being made at the time asked for, where no transaction ended
/// between then and its end: at its end the cluster is as it was then.
async fn plan_from_later(
    repository: &Repository,
    request: &RecoveryRequest<'_>,
    time: DateTime<FixedOffset>,
) -> Result<Option<RecoveryPlan>, RestoreError> {
    let entries = repository.list_backups_to_restore().await?.backups;
    let backups = entries.iter().rev().map(|entry| &entry.backup);
    let was_made = |backup: &&Backup| {
        backup.begin_time.is_some_and(|begin| begin <= time)
            && backup.end_time.is_some_and(|end| end > time)
    };
    for backup in backups.filter(was_made) {
        let recovery = Request {
            backup: Some(backup.id.clone()),
            may_end_later: true,
            ..request.recovery.clone()
        };
        let asked = RecoveryRequest {
            recovery: &recovery,
            ..*request
        };
        if let Ok(mut plan) = plan_as_asked(repository, &asked).await
            && (plan.stop.is_some() || plan.target != recovery.target)
        {
            if let Some(reason) = plan.chosen.choice.reasons.first_mut() {
                *reason = format!(
                    "Backup {} was being made then, and no transaction ended before its end.",
                    backup.id
                );
            }
            return Ok(Some(plan));
        }
    }
    Ok(None)
}

async fn plan_as_asked(
    repository: &Repository,
    request: &RecoveryRequest<'_>,
) -> Result<RecoveryPlan, RestoreError> {
    let catalog = repository.list_backups_to_restore().await?;
    let (timelines, mut warnings) = known_timelines(repository).await?;
    warnings.extend(catalog.unreadable.iter().map(|unreadable| {
        let (id, reason) = (&unreadable.id, &unreadable.reason);
        format!("Backup {id} could not be considered, because its record cannot be read: {reason}.")
    }));
    let entries = catalog.backups.into_iter();
    let backups: Vec<Backup> = entries.map(|entry| entry.backup).collect();
    let known = Known {
        repository,
        backups: &backups,
        timelines: &timelines,
    };
    let mut chosen = known.choose_by_log(request.recovery).await?;
    warnings.append(&mut chosen.warnings);
    let way = Way {
        repository,
        backup: &chosen.backup,
        backups: &backups,
        timeline: chosen.choice.timeline,
        timelines: &timelines,
        files: &chosen.files,
    };
    let reach = match (way.reach_of(request).await, chosen.instead_of.take()) {
        (Err(error), _) if request.accepts_gap && error.is_gap() => {
            warnings.push(format!("Accepted as asked: {error}."));
            None
        }
        // It does not lead to the same end after all.
        (Err(error), Some(damage)) if error.is_gap() => {
            return Err(RestoreError::NoOtherBackup {
                damage: Box::new(damage),
                other: chosen.backup.id,
                gap: Box::new(error),
            });
        }
        (reached, _) => {
            let (reach, mut told) = reached?;
            warnings.append(&mut told);
            reach
        }
    };
    let target = request.recovery.target.clone();
    let mut plan = RecoveryPlan {
        chosen,
        target,
        is_inclusive: request.recovery.inclusive,
        stop: None,
        warnings,
    };
    match reach {
        Some(Reach::AsAsked(point)) => plan.stop = Some(point),
        Some(Reach::UpTo { lsn, reason }) => {
            (plan.target, plan.is_inclusive) = (Target::Lsn(lsn), false);
            plan.chosen.choice.reasons.push(reason);
        }
        None => {}
    }
    Ok(plan)
}

/// What the archive tells of its timelines, with a warning for each history that makes no sense.
async fn known_timelines(
    repository: &Repository,
) -> Result<(KnownTimelines, Vec<String>), RestoreError> {
    let histories = repository.read_histories().await?;
    let unreadable = histories.unreadable.iter();
    let warnings = unreadable
        .clone()
        .map(|history| {
            let (timeline, key) = (history.timeline, &history.key);
            let reason = fault::chain(&history.error);
            format!(
                "Timeline {timeline} could not be considered, because its history {key} cannot be read: {reason}."
            )
        })
        .collect();
    let timelines = KnownTimelines {
        unreadable: unreadable.map(|history| history.timeline).collect(),
        histories: histories.read,
    };
    Ok((timelines, warnings))
}
