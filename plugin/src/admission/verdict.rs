//! What a plan, or the want of one, means for a new Cluster.
//!
//! It is refused only where recovery would certainly fail. Pure. Not here: making the plan.

use cellarman::barman::repository::RepositoryError;
use cellarman::domain::recovery::{Refusal, Target};
use cellarman::fault::Fault;
use cellarman::service::restore::error::RestoreError;
use cellarman::service::restore::recovery_plan::RecoveryPlan;
use cellarman::service::targets::resolve::ResolveError;

use crate::admission::look::LookError;
use crate::admission::review::Verdict;
use crate::grpc::status;
use crate::recovery::target::{Asked, FIELD};

/// The verdict on a Cluster that asks for this.
pub fn of(asked: &Asked, plan: Result<RecoveryPlan, LookError>) -> Verdict {
    match plan {
        Ok(plan) => Verdict::Allowed {
            backup: must_name_backup(asked).then_some(plan.chosen.backup.id),
            warnings: plan.warnings,
        },
        Err(error) if is_certain(&error) => refusal(&error),
        Err(error) => unchecked(status::of(&error).message()),
    }
}

/// The Cluster is refused: for what is wrong, and with what to do.
pub fn refusal(fault: &dyn Fault) -> Verdict {
    Verdict::Denied(status::of(fault).message().to_owned())
}

/// The Cluster is let through, though nobody knows whether recovery reaches its target.
pub fn unchecked(reason: &str) -> Verdict {
    Verdict::Allowed {
        backup: None,
        warnings: vec![format!("{FIELD} was not checked. {reason}")],
    }
}

/// Whether the backup decides where recovery ends, or the operator asks for it by name.
///
/// From whichever backup, recovery gets to the same time, position, or end of the archive. That choice
/// is left to the recovery itself, which may then pass over a backup that is gone by then.
fn must_name_backup(asked: &Asked) -> bool {
    let is_decisive = matches!(
        asked.target,
        Target::Name(_) | Target::Xid(_) | Target::Immediate
    );
    is_decisive && asked.backup.is_none()
}

/// Whether recovery would certainly fail, as the archive is now.
fn is_certain(error: &LookError) -> bool {
    match error {
        LookError::Open(_) | LookError::OfPods(_) | LookError::Timeout(_) => false,
        LookError::Repository(error) => is_certain_of_repository(error),
        LookError::Plan(error) => is_certain_of_plan(error),
    }
}

fn is_certain_of_repository(error: &RepositoryError) -> bool {
    matches!(
        error,
        RepositoryError::UnknownBackup { .. } | RepositoryError::AmbiguousName { .. }
    )
}

fn is_certain_of_plan(error: &RestoreError) -> bool {
    match error {
        RestoreError::Repository(error) => is_certain_of_repository(error),
        RestoreError::Choice(refusal) => match refusal {
            Refusal::NoBackup
            | Refusal::UnknownBackup { .. }
            | Refusal::Unfit { .. }
            | Refusal::UnknownTimeline { .. }
            | Refusal::TooEarly { .. }
            | Refusal::NoCandidate { .. } => true,
            // The log was not looked at, or a file that tells is damaged.
            Refusal::Ambiguous { .. } | Refusal::UnreadableHistory { .. } => false,
        },
        RestoreError::Resolve(error) => match error {
            ResolveError::Unreachable(_) | ResolveError::Several { .. } => true,
            ResolveError::Locate(_) => false,
        },
        RestoreError::TargetWalMissing { .. }
        | RestoreError::TargetAfterArchive { .. }
        | RestoreError::WalMissing { .. }
        | RestoreError::NoOtherBackup { .. }
        | RestoreError::ArchiveMissing { .. }
        | RestoreError::Unsupported { .. } => true,
        // The store did not answer, or something is damaged; the rest is of the restore itself.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cellarman::domain::log::reach::Unreachable;
    use cellarman::domain::segment::SegmentName;
    use cellarman::domain::timeline::TimelineId;
    use cellarman::service::targets::locate::LocateError;

    use super::*;

    fn check(error: LookError, is_refused: bool) {
        let text = error.to_string();
        let asked = Asked {
            target: Target::Name("noon".to_owned()),
            inclusive: true,
            timeline: cellarman::domain::recovery::TimelineWish::Latest,
            backup: None,
        };
        match of(&asked, Err(error)) {
            Verdict::Denied(reason) => assert!(is_refused && reason.contains(&text), "{text}"),
            Verdict::Allowed { backup, warnings } => {
                assert!(!is_refused && warnings[0].contains(&text), "{text}");
                assert_eq!(backup, None);
            }
        }
    }

    fn segment() -> SegmentName {
        "000000010000000000000003".parse().unwrap()
    }

    fn target() -> String {
        "restore point \"noon\"".to_owned()
    }

    #[test]
    fn what_recovery_would_certainly_fail_on_is_refused() {
        let backup = || "20261121T054347".parse().unwrap();
        for error in [
            RestoreError::Choice(Refusal::NoBackup),
            RestoreError::Choice(Refusal::UnknownBackup { id: backup() }),
            RestoreError::Choice(Refusal::UnknownTimeline {
                timeline: TimelineId::FIRST,
                known: "2".to_owned(),
            }),
            RestoreError::Resolve(ResolveError::Unreachable(Unreachable::Gap {
                target: target(),
                first: segment(),
                last: segment(),
            })),
            RestoreError::Resolve(ResolveError::Several {
                target: target(),
                places: vec!["here".to_owned(), "there".to_owned()],
            }),
            RestoreError::TargetWalMissing {
                target: Target::Latest,
                segments: vec![segment().to_string()],
            },
            RestoreError::WalMissing {
                backup: backup(),
                segments: vec![segment().to_string()],
            },
        ] {
            check(LookError::Plan(error), true);
        }
        let unknown = RepositoryError::UnknownBackup {
            wanted: "x".to_owned(),
            server: "main".to_owned(),
        };
        check(LookError::Repository(unknown), true);
    }

    #[test]
    fn what_is_not_known_refuses_nobody() {
        for error in [
            RestoreError::Choice(Refusal::Ambiguous {
                target: target(),
                timeline: TimelineId::FIRST,
                candidates: Vec::new(),
            }),
            RestoreError::Choice(Refusal::UnreadableHistory {
                timeline: TimelineId::FIRST,
                needed: "it is the newest".to_owned(),
            }),
            RestoreError::Resolve(ResolveError::Locate(LocateError::NotIndexed {
                next: segment(),
            })),
            RestoreError::Thread("it broke".to_owned()),
        ] {
            check(LookError::Plan(error), false);
        }
        check(LookError::Timeout(Duration::from_secs(8)), false);
        check(LookError::OfPods("store".to_owned()), false);
        let unsure = RepositoryError::NameNotCertain {
            name: "x".to_owned(),
            ids: Vec::new(),
        };
        check(LookError::Repository(unsure), false);
    }
}
