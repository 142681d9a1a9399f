//! Which failures of a plan are an answer, and what they say on the wire. Pure.
//!
//! An answer is that recovery does not get there; whatever keeps that from being told is an error.

use cellarman::api::recovery_targets as wire;
use cellarman::api::recovery_targets::resolve_response::Outcome;
use cellarman::api::recovery_targets::unreachable::Reason;
use cellarman::barman::repository::RepositoryError;
use cellarman::domain::log::reach::Unreachable;
use cellarman::domain::recovery::Refusal;
use cellarman::fault::{Fault, chain};
use cellarman::service::restore::error::RestoreError;
use cellarman::service::targets::resolve::ResolveError;

use crate::instance::targets::error::TargetsError;
use crate::instance::targets::shape;
use crate::recovery::hints;

/// The answer that a failed plan is.
pub(super) fn of(error: RestoreError) -> Result<wire::Unreachable, TargetsError> {
    let Some(reason) = reason(&error) else {
        return Err(error.into());
    };
    let (mut gap, mut timeline) = (None, 0);
    if let RestoreError::Resolve(ResolveError::Unreachable(unreachable)) = &error {
        match unreachable {
            Unreachable::Gap { first, last, .. } => gap = Some(shape::range(&(*first, *last))),
            Unreachable::OtherTimeline {
                timeline: other, ..
            } => timeline = other.to_u32(),
            _ => {}
        }
    }
    Ok(wire::Unreachable {
        reason: reason.into(),
        message: sentence(&error),
        hint: hints::of(&error),
        gap,
        timeline,
    })
}

/// The answer where no backup is of the id or the name that was asked for.
pub(super) fn of_name(error: RepositoryError) -> Result<wire::ResolveResponse, TargetsError> {
    let reason = match error {
        RepositoryError::UnknownBackup { .. } => Reason::UnknownBackup,
        RepositoryError::AmbiguousName { .. } => Reason::Ambiguous,
        _ => return Err(error.into()),
    };
    let unreachable = wire::Unreachable {
        reason: reason.into(),
        message: sentence(&error),
        hint: "Give the id of a backup.".to_owned(),
        gap: None,
        timeline: 0,
    };
    Ok(wire::ResolveResponse {
        outcome: Some(Outcome::Unreachable(unreachable)),
    })
}

fn sentence(error: &dyn Fault) -> String {
    let mut text = chain(error);
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}

/// Why recovery does not get there; `None` where that is not what the error says.
fn reason(error: &RestoreError) -> Option<Reason> {
    Some(match error {
        RestoreError::Choice(refusal) => return reason_of_refusal(refusal),
        RestoreError::Resolve(ResolveError::Unreachable(unreachable)) => match unreachable {
            Unreachable::BeforeBackupEnd { .. } => Reason::BeforeBackupEnd,
            Unreachable::Gap { .. } => Reason::Gap,
            Unreachable::Broken { .. } => Reason::DamagedWal,
            Unreachable::AfterLastEnd { .. } | Unreachable::AfterEnd { .. } => Reason::AfterEnd,
            Unreachable::OtherTimeline { .. } => Reason::OtherTimeline,
            Unreachable::Unknown { .. } => Reason::UnknownTarget,
        },
        RestoreError::Resolve(ResolveError::Several { .. }) => Reason::Ambiguous,
        RestoreError::TargetWalMissing { .. } => Reason::Gap,
        RestoreError::TargetAfterArchive { .. } => Reason::AfterEnd,
        RestoreError::Unsupported { .. } => Reason::BackupUnfit,
        RestoreError::WalMissing { .. }
        | RestoreError::ArchiveMissing { .. }
        | RestoreError::Record { .. }
        | RestoreError::NoOtherBackup { .. } => Reason::BackupDamaged,
        _ => return None,
    })
}

fn reason_of_refusal(refusal: &Refusal) -> Option<Reason> {
    Some(match refusal {
        Refusal::NoBackup | Refusal::NoCandidate { .. } => Reason::NoBackup,
        Refusal::UnknownBackup { .. } => Reason::UnknownBackup,
        Refusal::Unfit { .. } => Reason::BackupUnfit,
        Refusal::UnknownTimeline { .. } => Reason::UnknownTimeline,
        Refusal::TooEarly { .. } => Reason::BeforeBackupEnd,
        Refusal::Ambiguous { .. } => Reason::Ambiguous,
        Refusal::UnreadableHistory { .. } => return None,
    })
}
