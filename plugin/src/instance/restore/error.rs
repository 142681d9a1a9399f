//! How restoring a Cluster fails, in the words of its user.

use cellarman::barman::repository::RepositoryError;
use cellarman::domain::log::reach::Unreachable;
use cellarman::domain::recovery::{Refusal, Target};
use cellarman::fault::{Fault, Kind};
use cellarman::service::restore::error::RestoreError;
use cellarman::service::targets::resolve::ResolveError;
use cellarman::store::ObjectKey;
use cellarman::store::error::StoreError;

use crate::cluster::ClusterError;
use crate::instance::archives::OpenError;
use crate::instance::choice::NoArchive;
use crate::instance::restore::target::TargetError;
use crate::instance::restore::wal_storage::MoveError;

/// A Cluster that was not restored. What was written is gone again.
#[derive(Debug, thiserror::Error)]
pub(super) enum HookError {
    /// A field of the request is missing.
    #[error("the request lacks {0}")]
    Missing(&'static str),
    /// The Cluster makes no sense.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The target makes no sense.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// No archive is named.
    #[error(transparent)]
    NoArchive(#[from] NoArchive),
    /// An archive cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What the new Cluster will archive to holds WAL already.
    #[error("expected empty archive: {archive} holds {found}")]
    NotEmpty {
        /// The archive.
        archive: String,
        /// A file in it.
        found: ObjectKey,
        /// The field that names its ObjectStore.
        field: String,
    },
    /// The store cannot be looked at.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalog cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The restore failed.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The WAL could not be moved to its volume.
    #[error(transparent)]
    WalStorage(#[from] MoveError),
    /// The restore broke off in a way that should not happen.
    #[error("the restore ended abnormally: {0}")]
    Task(String),
}

impl HookError {
    /// Whether it may be otherwise in a moment, with nothing done about it.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Open(error) => error.may_pass() || error.kind().is_retryable(),
            _ => self.kind().is_retryable(),
        }
    }
}

impl Fault for HookError {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing(_) | Self::Cluster(_) => Kind::Usage,
            Self::Target(error) => error.kind(),
            Self::NoArchive(error) => error.kind(),
            Self::Open(error) => error.kind(),
            Self::NotEmpty { .. } => Kind::Conflict,
            Self::Store(error) => error.kind(),
            Self::Repository(error) => error.kind(),
            Self::Restore(error) => error.kind(),
            Self::WalStorage(_) => Kind::Local,
            Self::Task(_) => Kind::Internal,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Target(error) => error.hint(),
            Self::NoArchive(error) => error.hint(),
            Self::Open(error) => error.hint(),
            Self::NotEmpty { field, .. } => format!(
                "Set {} to a name that no other cluster uses, or annotate the Cluster with \
                 cnpg.io/skipEmptyWalArchiveCheck: enabled if what is there may be added to.",
                field.replace("barmanObjectName", "serverName")
            ),
            Self::Store(error) => error.hint(),
            Self::Repository(error) => in_our_words(self.kind(), error.hint()),
            Self::Restore(error) => {
                hint_of(error).unwrap_or_else(|| in_our_words(self.kind(), error.hint()))
            }
            Self::Missing(_) | Self::Cluster(_) | Self::WalStorage(_) | Self::Task(_) => {
                self.kind().hint().to_owned()
            }
        }
    }
}

/// The hint, unless it speaks of the command line.
fn in_our_words(kind: Kind, hint: String) -> String {
    if hint.contains("--") || hint.contains("`cellarman") {
        kind.hint().to_owned()
    } else {
        hint
    }
}

/// What to do in a Cluster where the command line has options.
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
