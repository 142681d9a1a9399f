//! How a restore fails.

use std::io;
use std::path::PathBuf;

use chrono::{DateTime, Utc};

use crate::barman::repository::RepositoryError;
use crate::domain::backup::BackupId;
use crate::domain::recovery::{Refusal, Target};
use crate::domain::timeline::TimelineId;
use crate::fault::{self, Fault, Kind};
use crate::service::targets::resolve::ResolveError;
use crate::store::ObjectKey;
use crate::store::error::StoreError;

/// A restore that could not be planned or done. What a run had made is gone again.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The repository could not be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// No backup reaches the target, or more than one might.
    #[error(transparent)]
    Choice(#[from] Refusal),
    /// Recovery would not get to the target, as far as the log tells.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The backup is not of a kind that can be restored here.
    #[error("backup {backup} cannot be restored: {reason}")]
    Unsupported {
        /// The backup.
        backup: BackupId,
        /// What it is.
        reason: &'static str,
    },
    /// Our record of the backup's objects makes no sense.
    #[error("cannot read {key}")]
    ObjectsRecord {
        /// Its key.
        key: ObjectKey,
        /// Where it fails.
        source: serde_json::Error,
    },
    /// The backup's record lacks what a restore needs.
    #[error("the record of backup {backup} does not say its {missing}")]
    Record {
        /// The backup.
        backup: BackupId,
        /// The key that is missing.
        missing: &'static str,
    },
    /// Archives that the record asks for are not in the store.
    #[error("backup {backup} has no archive of {missing}")]
    ArchiveMissing {
        /// The backup.
        backup: BackupId,
        /// `data`, or the tablespace.
        missing: String,
    },
    /// WAL without which the copy never becomes consistent is not in the archive.
    #[error("the archive lacks WAL that backup {backup} needs: {}", .segments.join(", "))]
    WalMissing {
        /// The backup.
        backup: BackupId,
        /// The first few of the missing segments.
        segments: Vec<String>,
    },
    /// The way to the target has a gap, or the archive ends before it.
    #[error("the archive lacks WAL on the way to {target}: {}", .segments.join(", "))]
    TargetWalMissing {
        /// The target.
        target: Target,
        /// The first few of the missing segments.
        segments: Vec<String>,
    },
    /// The archive ends before the target.
    #[error(
        "{target} lies after all that the archive holds on the way there along timeline {timeline}, of \
         which the newest was put at {}", .newest_put.format("%Y-%m-%d %H:%M:%S+00")
    )]
    TargetAfterArchive {
        /// The target.
        target: Target,
        /// Along which timeline.
        timeline: TimelineId,
        /// The others that the backup could be recovered along.
        others: Vec<TimelineId>,
        /// When the newest file was put, by the store's clock.
        newest_put: DateTime<Utc>,
    },
    /// The backup to restore is damaged, and from the last whole one recovery ends elsewhere.
    ///
    /// Both are in the text with their causes: an error can have one source only.
    #[error("{}; from backup {other}, the last that is whole, {gap}", fault::chain(.damage.as_ref()))]
    NoOtherBackup {
        /// What is wrong with the backup chosen first.
        damage: Box<Self>,
        /// The backup before it.
        other: BackupId,
        /// Why that does not do.
        gap: Box<Self>,
    },
    /// The record of the backup is another than when the choice was made.
    #[error("the record of backup {backup} was changed while the restore was planned")]
    RecordChanged {
        /// The backup.
        backup: BackupId,
    },
    /// A tablespace mapping names no tablespace of the backup.
    #[error("the backup has no tablespace {old:?}; it has {known}")]
    UnknownTablespace {
        /// The name or location given.
        old: String,
        /// Those that there are.
        known: String,
    },
    /// A target directory cannot be used.
    #[error("cannot restore into {}: {reason}", .path.display())]
    Target {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The file system is too small for what is certain to be written.
    #[error("{} has {available} bytes free, and the restore needs at least {needed}", .path.display())]
    Space {
        /// A directory on that file system.
        path: PathBuf,
        /// What is free.
        available: u64,
        /// What is needed at least.
        needed: u64,
    },
    /// An archive could not be fetched.
    #[error("cannot fetch {key}")]
    Fetch {
        /// The archive.
        key: ObjectKey,
        /// What the store said.
        source: StoreError,
    },
    /// An archive's bytes do not decode, or end too early.
    #[error("cannot read the archive {key}")]
    Archive {
        /// The archive.
        key: ObjectKey,
        /// Where it broke.
        source: io::Error,
    },
    /// An archive is not what was stored when the backup was taken.
    #[error("the archive {key} has blake3 {found}, and {recorded} was recorded when it was stored")]
    Digest {
        /// The archive.
        key: ObjectKey,
        /// What the record says.
        recorded: String,
        /// What came.
        found: String,
    },
    /// A member of an archive would leave the target directory.
    #[error("the archive {key} has a member that is not safe to write: {member:?}")]
    UnsafeMember {
        /// The archive.
        key: ObjectKey,
        /// The member's name as it stands there.
        member: String,
    },
    /// A directory of the server was a link when the backup was taken, and the tar has no more of it.
    #[error(
        "the archive {key} holds {member} only as a link to {target}, and not what lay behind it"
    )]
    LinkedAway {
        /// The archive.
        key: ObjectKey,
        /// The link.
        member: String,
        /// Where it leads.
        target: String,
    },
    /// Files that the backup's manifest lists did not come back.
    #[error(
        "backup {backup} did not come back whole: of the files in its backup_manifest {count} are \
         missing or of another size: {}", .files.join(", ")
    )]
    Incomplete {
        /// The backup.
        backup: BackupId,
        /// How many files.
        count: u64,
        /// The first few, each with what is wrong.
        files: Vec<String>,
    },
    /// What was restored is no database.
    #[error("backup {backup} does not make a database: {reason}")]
    NotADatabase {
        /// The backup.
        backup: BackupId,
        /// What is missing or wrong.
        reason: String,
    },
    /// A file or directory here could not be written.
    #[error("cannot {action} {}", .path.display())]
    Local {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The run was interrupted.
    #[error("the restore was interrupted")]
    Cancelled,
    /// A thread of the restore ended abnormally.
    #[error("a thread of the restore failed: {0}")]
    Thread(String),
}

impl RestoreError {
    /// Whether the backup itself is at fault, so that another may do.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Record { .. }
                | Self::ArchiveMissing { .. }
                | Self::ObjectsRecord { .. }
                | Self::NotADatabase { .. }
        )
    }

    /// Whether it is that recovery would not reach its target.
    pub(crate) fn is_gap(&self) -> bool {
        matches!(
            self,
            Self::TargetWalMissing { .. }
                | Self::TargetAfterArchive { .. }
                | Self::Resolve(ResolveError::Unreachable(_))
        )
    }

    /// A failed step on a path, for `map_err`.
    pub(crate) fn local(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Local {
            action,
            path,
            source,
        }
    }
}

impl Fault for RestoreError {
    fn kind(&self) -> Kind {
        match self {
            Self::Repository(source) => source.kind(),
            Self::Choice(source) => source.kind(),
            Self::Resolve(source) => source.kind(),
            Self::Fetch { source, .. } => source.kind(),
            Self::NoOtherBackup { damage, .. } => damage.kind(),
            Self::Unsupported { .. } => Kind::Unsupported,
            Self::WalMissing { .. }
            | Self::TargetWalMissing { .. }
            | Self::TargetAfterArchive { .. }
            | Self::RecordChanged { .. }
            | Self::Target { .. } => Kind::Refused,
            Self::UnknownTablespace { .. } => Kind::Usage,
            Self::Record { .. }
            | Self::ArchiveMissing { .. }
            | Self::ObjectsRecord { .. }
            | Self::Archive { .. }
            | Self::Digest { .. }
            | Self::UnsafeMember { .. }
            | Self::LinkedAway { .. }
            | Self::Incomplete { .. }
            | Self::NotADatabase { .. } => Kind::Corrupt,
            Self::Space { .. } | Self::Local { .. } => Kind::Local,
            Self::Cancelled => Kind::Cancelled,
            Self::Thread(_) => Kind::Internal,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Repository(source) => source.hint(),
            Self::Choice(source) => source.hint(),
            Self::Resolve(source) => source.hint(),
            Self::Fetch { source, .. } => source.hint(),
            Self::LinkedAway { .. } => {
                "Take a new backup with `cellarman backup create`, which follows such links, or choose \
                 another with --backup-id."
                    .to_owned()
            }
            Self::Incomplete { .. } => {
                "An archive of this backup is lost or was changed: choose another backup with --backup-id."
                    .to_owned()
            }
            Self::WalMissing { .. } => {
                "Choose another backup with --backup-id; this one cannot become consistent."
                    .to_owned()
            }
            Self::TargetWalMissing {
                target: Target::Latest,
                ..
            } => {
                "Wait if the server is still to archive it, or restore up to the gap with --accept-gap: \
                 what lies behind is then lost to the new cluster."
                    .to_owned()
            }
            Self::TargetAfterArchive {
                timeline, others, ..
            } if !others.is_empty() => {
                let others: Vec<String> = others.iter().map(ToString::to_string).collect();
                format!(
                    "Follow timeline {} with --target-timeline where the target lies on that, wait if the \
                     server is still to archive the rest, or leave the target out to recover to the end \
                     of timeline {timeline}; --accept-gap restores all the same.",
                    others.join(" or ")
                )
            }
            Self::TargetAfterArchive { .. } => {
                "Leave the target out to recover to the end of the archive or, if the server is still to \
                 archive the rest, wait; --accept-gap restores all the same."
                    .to_owned()
            }
            Self::NoOtherBackup { other, .. } => format!(
                "Put back what is missing, or restore from backup {other} with --accept-gap, as far as \
                 that leads."
            ),
            Self::RecordChanged { .. } => "Run it again.".to_owned(),
            Self::TargetWalMissing { .. } => {
                "Choose a target before the missing WAL or, if the server is still to archive it, wait."
                    .to_owned()
            }
            Self::Target { .. } => {
                "Give --pgdata, and with --tablespace each tablespace, a directory that is absent or empty."
                    .to_owned()
            }
            Self::UnknownTablespace { .. } => {
                "Give --tablespace the tablespace's name or its old location before the =."
                    .to_owned()
            }
            Self::Space { .. } => "Free some space, or restore to another file system.".to_owned(),
            Self::Unsupported { .. } => {
                "Restore it with the tool that made it, or choose another with --backup-id.".to_owned()
            }
            other => other.kind().hint().to_owned(),
        }
    }
}
