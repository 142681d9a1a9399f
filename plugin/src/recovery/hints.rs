//! What to do about a recovery that is refused, where the command line has options and a Cluster
//! has fields. Pure. Not here: the refusals.

use cellarman::barman::repository::RepositoryError;
use cellarman::domain::log::reach::Unreachable;
use cellarman::domain::recovery::{Refusal, Target};
use cellarman::fault::{Fault, Kind};
use cellarman::service::restore::error::RestoreError;
use cellarman::service::targets::resolve::ResolveError;

/// What to do about a recovery that cannot be.
pub fn of(error: &RestoreError) -> String {
    hint_of(error).unwrap_or_else(|| in_our_words(error.kind(), error.hint()))
}

/// What to do about a catalog that cannot be read, or lacks a backup.
pub fn of_repository(error: &RepositoryError) -> String {
    in_our_words(error.kind(), error.hint())
}

/// The hint, unless it speaks of the command line.
fn in_our_words(kind: Kind, hint: String) -> String {
    if hint.contains("--") || hint.contains("`cellarman") {
        kind.hint().to_owned()
    } else {
        hint
    }
}

fn hint_of(error: &RestoreError) -> Option<String> {
    let text = match error {
        RestoreError::Choice(refusal) => return hint_of_refusal(refusal),
        RestoreError::Resolve(error) => return hint_of_target(error),
        RestoreError::TargetWalMissing {
            target: Target::Latest,
            ..
        } => {
            "Wait if the source is still to archive it. Else recovery reaches the first of these \
             segments and no further: say so with a recoveryTarget before it, such as targetLSN \
             or targetTime; what lies behind is then lost to the new Cluster."
        }
        RestoreError::TargetWalMissing { .. } => {
            "Recovery reaches the first of these segments and no further: choose a recoveryTarget \
             before it or, if the source is still to archive it, wait."
        }
        RestoreError::TargetAfterArchive { .. } => {
            "Leave the target out of recoveryTarget to recover to the end of the archive, follow \
             another timeline with targetTLI where the target lies on that or, if the source is \
             still to archive the rest, wait."
        }
        RestoreError::NoOtherBackup { .. } => {
            "Put back what is missing, or choose a recoveryTarget that the other backup reaches."
        }
        RestoreError::WalMissing { .. } | RestoreError::Incomplete { .. } => {
            "Choose another backup with recoveryTarget.backupID; this one cannot be used."
        }
        RestoreError::Unsupported { .. } => {
            "Choose another backup with recoveryTarget.backupID, or restore this one with the tool \
             that made it."
        }
        RestoreError::Target { .. } => {
            "The volume must be empty there: look what else writes to it."
        }
        RestoreError::Space { .. } => "Give the Cluster a larger volume.",
        _ => return None,
    };
    Some(text.to_owned())
}

fn hint_of_target(error: &ResolveError) -> Option<String> {
    let text = match error {
        ResolveError::Unreachable(unreachable) => match unreachable {
            Unreachable::BeforeBackupEnd { .. } => {
                "Choose a later target in recoveryTarget, or an earlier backup with recoveryTarget.backupID."
            }
            Unreachable::Gap { .. } | Unreachable::Broken { .. } => {
                "Choose a recoveryTarget before that, or with recoveryTarget.backupID a backup behind it."
            }
            Unreachable::AfterLastEnd { .. } | Unreachable::AfterEnd { .. } => {
                "Choose an earlier target in recoveryTarget, leave it out to recover to the end of the \
                 archive or, if the source is still to archive the rest, wait."
            }
            Unreachable::OtherTimeline { timeline, .. } => {
                return Some(format!("Set recoveryTarget.targetTLI to \"{timeline}\"."));
            }
            Unreachable::Unknown { .. } => {
                "Correct recoveryTarget; `cellarman targets` shows what there is."
            }
        },
        ResolveError::Several { .. } => {
            "Set recoveryTarget.backupID to the backup of the one that is meant, or \
             recoveryTarget.targetLSN to its position."
        }
        ResolveError::Locate(_) => return None,
    };
    Some(text.to_owned())
}

fn hint_of_refusal(refusal: &Refusal) -> Option<String> {
    let text = match refusal {
        Refusal::NoBackup => {
            "Check serverName in the parameters of the external cluster's plugin: without it, the \
             name of the new Cluster is taken."
        }
        Refusal::Unfit { .. } => {
            "Leave recoveryTarget.backupID out to have a backup chosen, or choose another."
        }
        Refusal::UnknownTimeline { .. } => {
            "Set recoveryTarget.targetTLI to one of those, or to latest."
        }
        Refusal::UnreadableHistory { .. } => {
            "Put the server's own copy of that .history file back into the archive, or choose \
             another timeline with recoveryTarget.targetTLI."
        }
        Refusal::Ambiguous { .. } => {
            "Set recoveryTarget.backupID to the last backup that ended before the target."
        }
        Refusal::UnknownBackup { .. } | Refusal::NoCandidate { .. } => {
            "Compare recoveryTarget with the Backups of the source."
        }
        Refusal::TooEarly { .. } => return None,
    };
    Some(text.to_owned())
}
