//! How a base backup fails.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::barman::repository::RepositoryError;
use crate::codec::tar::TarError;
use crate::domain::backup::{BackupId, SystemId};
use crate::domain::lsn::Lsn;
use crate::domain::segment::SegmentName;
use crate::fault::{AnyFault, Fault, Kind, chain};
use crate::pgfile::backup_label::BackupLabelError;
use crate::pgfile::control::{ClusterState, ControlFileError};
use crate::pgfile::history::HistoryError;
use crate::postgres::datadir::DataDirectoryError;
use crate::postgres::query::PostgresError;
use crate::service::base_backup::archive::ArchiveError;
use crate::store::error::StoreError;

/// How many missing segments a message names.
const NAMED_MAX: usize = 5;

/// A base backup that was not taken.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The server refused.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The data directory cannot be read.
    #[error(transparent)]
    DataDirectory(#[from] DataDirectoryError),
    /// The archive's record could not be read or written.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A request to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A tar could not be made or stored.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A tar could not be appended to. Turned into its cause where the archive is given up.
    #[error(transparent)]
    Append(TarError),
    /// The manifest could not be kept.
    #[error("cannot make the backup manifest")]
    Manifest(#[source] io::Error),
    /// `pg_control` makes no sense.
    #[error("cannot use {}", path.display())]
    Control {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        source: ControlFileError,
    },
    /// The server's backup label makes no sense.
    #[error("cannot use the server's backup label")]
    Label(#[from] BackupLabelError),
    /// A timeline history of the server makes no sense.
    #[error("cannot use a timeline history of the server")]
    History(#[from] HistoryError),
    /// The role may not see a setting.
    #[error("the role may not see the server's setting {setting}")]
    Hidden {
        /// The setting.
        setting: &'static str,
    },
    /// The server does not archive.
    #[error("the server does not archive its WAL: {reason}")]
    NotArchiving {
        /// The setting that says so.
        reason: &'static str,
    },
    /// The archive holds another cluster.
    #[error(
        "the archive of {server} belongs to the cluster {archived}, and this server is {system_id}"
    )]
    ForeignArchive {
        /// The archive's name.
        server: String,
        /// Whose it is.
        archived: SystemId,
        /// Who asks.
        system_id: SystemId,
    },
    /// The directory is another cluster's.
    #[error("{} belongs to the cluster {found}, and the server is {system_id}", path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: SystemId,
        /// The server.
        system_id: SystemId,
    },
    /// The directory is not the one that the server works in, but a standby's or a copy.
    #[error(
        "{} is not where the server works: it is {state} with a checkpoint at {redo}, and the \
         server began the backup at {begin}",
        path.display()
    )]
    OtherServer {
        /// The directory.
        path: PathBuf,
        /// What its control file says.
        state: ClusterState,
        /// Where its last checkpoint begins.
        redo: Lsn,
        /// Where the server's begins.
        begin: Lsn,
    },
    /// The answer of the server after the backup contradicts that from before it.
    #[error("the server says that the backup began at {label}, and said {begin} before")]
    OtherBegin {
        /// What the label says.
        label: String,
        /// What the server said.
        begin: String,
    },
    /// The session that the backup lives in is gone.
    #[error("the session with the server was lost, and the backup with it")]
    SessionLost,
    /// Some WAL did not arrive in the archive.
    #[error("{} WAL {} not arrive in the archive within {} s: {}", missing.len(),
        if missing.len() == 1 { "segment did" } else { "segments did" }, waited.as_secs(), names(missing))]
    MissingWal {
        /// The segments.
        missing: Vec<SegmentName>,
        /// How long was waited.
        waited: Duration,
        /// Whether the server is a standby.
        is_standby: bool,
    },
    /// The archive has the WAL, and the server's archiver fails with it: it may be other WAL.
    #[error("{} in the archive, but the server's archiver did not succeed with {} within {} s",
        if segments.len() == 1 { "a WAL segment is" } else { "WAL segments are" },
        names(segments), waited.as_secs())]
    NotAcknowledged {
        /// The segments.
        segments: Vec<SegmentName>,
        /// How long was waited.
        waited: Duration,
    },
    /// Another run declared this one dead.
    #[error("backup {id} was given up by another run while this one was at work")]
    GivenUp {
        /// The backup.
        id: BackupId,
    },
    /// An archive is not in the store as it was put.
    #[error("{name} of backup {id} is not in the store with the {size} bytes that were put")]
    NotStored {
        /// The backup.
        id: BackupId,
        /// The archive.
        name: String,
        /// Its size.
        size: u64,
    },
    /// No free id was found.
    #[error("the ids of the last {tries} seconds are all taken")]
    NoId {
        /// How many were tried.
        tries: u32,
    },
    /// The WAL cannot be put where the backup is.
    #[error("the backup's WAL cannot be put beside it: {}", chain(cause.as_ref()))]
    Supply {
        /// Why.
        cause: AnyFault,
    },
    /// The run was cancelled.
    #[error("the backup was cancelled")]
    Cancelled,
    /// A thread of ours ended without an answer.
    #[error("a part of the backup broke off")]
    Broken,
}

fn names(segments: &[SegmentName]) -> String {
    let mut text: Vec<String> = segments
        .iter()
        .take(NAMED_MAX)
        .map(ToString::to_string)
        .collect();
    if segments.len() > NAMED_MAX {
        text.push("…".to_owned());
    }
    text.join(", ")
}

impl BackupError {
    /// Whether it failed only because it was told to stop.
    pub fn is_cancelled(&self) -> bool {
        self.kind() == Kind::Cancelled
    }
}

impl Fault for BackupError {
    fn kind(&self) -> Kind {
        match self {
            Self::Postgres(error) => error.kind(),
            Self::DataDirectory(error) => error.kind(),
            Self::Repository(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Archive(error) => error.kind(),
            Self::Append(error) => error.kind(),
            Self::Control { source, .. } => source.kind(),
            Self::Label(error) => error.kind(),
            Self::History(error) => error.kind(),
            Self::Hidden { .. }
            | Self::NotArchiving { .. }
            | Self::OtherBegin { .. }
            | Self::SessionLost
            | Self::MissingWal { .. } => Kind::Postgres,
            Self::ForeignArchive { .. }
            | Self::NotAcknowledged { .. }
            | Self::GivenUp { .. }
            | Self::NoId { .. } => Kind::Conflict,
            Self::OtherCluster { .. } | Self::OtherServer { .. } => Kind::Local,
            Self::NotStored { .. } => Kind::Corrupt,
            Self::Supply { cause } => cause.kind(),
            Self::Cancelled => Kind::Cancelled,
            Self::Manifest(_) | Self::Broken => Kind::Internal,
        }
    }

    fn hint(&self) -> String {
        let hint = match self {
            Self::Postgres(error) => return error.hint(),
            Self::DataDirectory(error) => return error.hint(),
            Self::Repository(error) => return error.hint(),
            Self::Store(error) => return error.hint(),
            Self::Archive(error) => return error.hint(),
            Self::Supply { cause } => return cause.hint(),
            Self::Hidden { .. } => {
                "Grant the role pg_monitor, or pg_read_all_settings, or use a superuser."
            }
            Self::NotArchiving { .. } => {
                "Set archive_mode = on (which takes a restart) and archive_command to \
                 `cellarman wal archive %p` with the options of this store, then try again."
            }
            Self::ForeignArchive { .. } => {
                "Give this cluster a --server of its own: two clusters must never share an archive."
            }
            Self::OtherCluster { .. } | Self::OtherServer { .. } => {
                "Run the backup on the host of the server that PGHOST or --dsn names."
            }
            Self::SessionLost => {
                "Check the server's log: it was restarted, or the session was ended by somebody."
            }
            Self::MissingWal {
                is_standby: true, ..
            } => {
                "On the primary, run `SELECT pg_switch_wal()` and check that its archive_command \
                 works and writes to this archive, or raise --archive-timeout; then try again."
            }
            Self::MissingWal { .. } => {
                "Check that archive_command works and writes to this archive (the server's log \
                 and `cellarman check` tell), or raise --archive-timeout; then try again."
            }
            Self::NotAcknowledged { .. } => {
                "See in the server's log why archive_command fails: where the archive holds other \
                 WAL of the same name, as after the server was set back to an older state, give it \
                 a --server of its own."
            }
            Self::GivenUp { .. } => {
                "Run it again, and see that the host is not suspended for minutes meanwhile."
            }
            Self::NoId { .. } => "Run it again in a moment.",
            Self::NotStored { .. } => {
                "Run it again; if it happens again, see who else writes to this bucket."
            }
            _ => self.kind().hint(),
        };
        hint.to_owned()
    }
}
