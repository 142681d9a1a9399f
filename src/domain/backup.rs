//! One base backup: its identity, its state and where in the log it begins and ends.
//!
//! Not here: the text of `backup.info` (`barman::backup_info`).

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, FixedOffset, NaiveDateTime, Utc};

use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::domain::timeline::TimelineId;

/// The number that initdb gives a cluster and all its copies share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The identity of a backup within its server: the name of its folder below `base/`.
///
/// Ours and Barman's are `YYYYMMDDThhmmss`, and order by time as text. Folders of other names
/// are listed too, so any text without a slash is an id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(String);

/// Text that is no backup id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no backup id: expected text such as 20261121T054347, without a slash")]
pub struct BackupIdError {
    text: String,
}

impl BackupId {
    const FORMAT: &'static str = "%Y%m%dT%H%M%S";

    /// The id of a backup that begins at `now`, to the second, in UTC.
    pub fn at(now: DateTime<Utc>) -> Self {
        Self(now.format(Self::FORMAT).to_string())
    }

    /// Whether `text` has the shape of an id that this tool or Barman makes, and so cannot be a name.
    pub fn is_shape_of_id(text: &str) -> bool {
        text.len() == 15 && NaiveDateTime::parse_from_str(text, Self::FORMAT).is_ok()
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BackupId {
    type Err = BackupIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_id = !text.is_empty() && !text.contains(['/', '\n']) && text != "." && text != "..";
        if is_id {
            Ok(Self(text.to_owned()))
        } else {
            Err(BackupIdError {
                text: text.to_owned(),
            })
        }
    }
}

/// The state of a backup, in Barman's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupStatus {
    /// A record that says nothing yet.
    Empty,
    /// Running, or killed while it ran.
    Started,
    /// Given up: never to be restored.
    Failed,
    /// Copied, while WAL is still awaited (a Barman server writes this).
    WaitingForWals,
    /// Whole: the only state that is restored.
    Done,
    /// A copy of another Barman's backup, under way.
    Syncing,
}

impl BackupStatus {
    const WORDS: [(Self, &'static str); 6] = [
        (Self::Empty, "EMPTY"),
        (Self::Started, "STARTED"),
        (Self::Failed, "FAILED"),
        (Self::WaitingForWals, "WAITING_FOR_WALS"),
        (Self::Done, "DONE"),
        (Self::Syncing, "SYNCING"),
    ];

    /// Barman's word for it.
    pub fn as_str(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(status, _)| *status == self)
            .map_or("EMPTY", |(_, word)| word)
    }

    /// The state Barman means by `word`; `None` for a word it does not use.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS
            .iter()
            .find(|(_, known)| *known == word)
            .map(|(status, _)| *status)
    }
}

impl fmt::Display for BackupStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a backup is held back from retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Kept with all WAL after it.
    Full,
    /// Kept with only the WAL that makes it consistent.
    Standalone,
}

impl Keep {
    /// Barman's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Standalone => "standalone",
        }
    }
}

/// What a backup consists of: whether it can be restored on its own by this tool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum BackupKind {
    /// Tars of all files.
    #[default]
    Full,
    /// Tars of the changes to another backup, made by a Barman server.
    Incremental {
        /// The backup it needs.
        parent: String,
    },
    /// Snapshots of volumes, which lie with the cloud provider.
    Snapshot,
}

/// A tablespace outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its name in SQL.
    pub name: String,
    /// Its object id, the name of its link in `pg_tblspc` and of its tars.
    pub oid: u32,
    /// The folder it lived in when it was backed up.
    pub location: String,
}

/// A backup as decisions need it.
///
/// Fields are absent while a backup runs, when it failed, or when another tool left them out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its folder below `base/`.
    pub id: BackupId,
    /// The name a user gave it.
    pub name: Option<String>,
    /// Its state.
    pub status: BackupStatus,
    /// What it consists of.
    pub kind: BackupKind,
    /// When the copy began.
    pub begin_time: Option<DateTime<FixedOffset>>,
    /// When the copy was consistent: no earlier moment can be recovered from it.
    pub end_time: Option<DateTime<FixedOffset>>,
    /// The redo point: replay starts here.
    pub begin_lsn: Option<Lsn>,
    /// Replay must pass this before the copy is consistent.
    pub end_lsn: Option<Lsn>,
    /// The segment that holds `begin_lsn`.
    pub begin_wal: Option<SegmentName>,
    /// The segment that holds `end_lsn` by plain division: at a boundary, the one after the last needed.
    pub end_wal: Option<SegmentName>,
    /// The timeline it was taken on.
    pub timeline: Option<TimelineId>,
    /// The cluster it is a copy of.
    pub system_id: Option<SystemId>,
    /// `server_version_num`, such as 150020.
    pub version: Option<u32>,
    /// The size of the cluster's WAL segments.
    pub segment_size: SegmentSize,
    /// Its tablespaces, one set of tars each.
    pub tablespaces: Vec<Tablespace>,
    /// The size of the databases in bytes, when the role could see it.
    pub cluster_size: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
}
