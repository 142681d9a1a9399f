//! Making the index from the log in an archive, whoever has put it there, and healing its holes.
//!
//! What an index object tells already, whole and with nothing unread, is left as it is. The rest is
//! read, group by group, each with what the segment before it leaves. A better object is put first,
//! and then those go that tell no more. Killed anywhere, a new run goes on. Not here: reading one
//! segment (`read`) and what a group needs (`stretch`).

mod read;
mod segments;
mod stretch;

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::barman::repository::{Repository, RepositoryError};
use crate::domain::backup::SystemId;
use crate::domain::log::outline::Outline;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::fault::{Fault, Kind};
use crate::service::wal_archive::contents;
use crate::service::wal_archive::error::ArchiveError;
use crate::service::wal_index::build::segments::Segments;
use crate::store::error::StoreError;

/// What to make.
#[derive(Debug, Clone, Copy)]
pub struct BuildOptions {
    /// The first segment, on its timeline and all later ones; all where none is given.
    pub from: Option<SegmentName>,
    /// How many groups of segments are read at once; at least 1.
    pub jobs: usize,
    /// Whether what is there already is made again.
    pub is_rebuild: bool,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Built {
    /// How many segments were looked at.
    pub segments: u64,
    /// How many of them were read, those read a second time for a neighbour's sake not counted.
    pub read: u64,
    /// How many index objects were put.
    pub objects_put: u64,
    /// How many were removed that told no more than others.
    pub objects_removed: u64,
    /// The segments that are not in the index, and why, in order.
    pub not_indexed: Vec<NotIndexed>,
    /// How many records that recovery could stop at are not in the index.
    pub unread_records: u64,
}

/// A segment that cannot be indexed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotIndexed {
    /// Which one.
    pub name: SegmentName,
    /// What kind of failure it was.
    pub kind: Kind,
    /// Why.
    pub reason: String,
}

/// Why there is no index, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The archive cannot be looked at.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// It cannot be told whose it is.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No newest segment has a header that can be read.
    #[error("the archive has no WAL segment that can be read")]
    NoWal,
    /// An object cannot be made.
    #[error("cannot make an index object")]
    Encode {
        /// Why.
        source: std::io::Error,
    },
    /// It was told to end.
    #[error("interrupted")]
    Cancelled,
}

impl Fault for BuildError {
    fn kind(&self) -> Kind {
        match self {
            Self::Repository(error) => error.kind(),
            Self::Archive(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::NoWal => Kind::NotFound,
            Self::Encode { .. } => Kind::Internal,
            Self::Cancelled => Kind::Cancelled,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::NoWal => "Check --server and the path.".to_owned(),
            Self::Cancelled => "Run it again to go on where it stopped.".to_owned(),
            _ => self.kind().hint().to_owned(),
        }
    }
}

/// A run.
struct Builder<'a> {
    repository: &'a Repository,
    system_id: SystemId,
    size: SegmentSize,
    segments: Segments,
    /// What is there of this cluster, in the order of the log.
    outlines: Vec<Outline>,
    is_rebuild: bool,
}

/// Makes what is missing, and calls `done` with bytes of WAL that are dealt with, of so many in all.
///
/// Memory grows with the jobs, and not with the archive but for about 100 bytes for each 16
/// segments.
pub async fn build(
    repository: &Repository,
    options: BuildOptions,
    cancel: &CancellationToken,
    done: &(dyn Fn(u64, u64) + Sync),
) -> Result<Built, BuildError> {
    let cluster = contents::cluster(repository).await?;
    let (system_id, size) = cluster.ok_or(BuildError::NoWal)?;
    // Objects are of segments that are there already, and so the second listing has those.
    let mut outlines = repository.index_outlines(None).await?;
    outlines.retain(|outline| outline.system_id == Some(system_id));
    let builder = Builder {
        repository,
        system_id,
        size,
        outlines,
        segments: Segments::list(repository, size).await?,
        is_rebuild: options.is_rebuild,
    };
    let stretches = builder.segments.stretches(options.from);
    let bytes = |count: u64| count.saturating_mul(size.bytes());
    let total = bytes(stretches.iter().map(|stretch| stretch.count).sum());
    let work = stream::iter(stretches.into_iter().map(async |stretch| {
        if cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let built = tokio::select! {
            built = builder.stretch(stretch) => built?,
            () = cancel.cancelled() => return Err(BuildError::Cancelled),
        };
        done(bytes(stretch.count), total);
        Ok(built)
    }));
    let all = work.buffered(options.jobs.max(1));
    all.try_fold(Built::default(), async |all, one| Ok(all.and(one)))
        .await
}

impl Built {
    fn and(mut self, other: Self) -> Self {
        self.segments += other.segments;
        self.read += other.read;
        self.objects_put += other.objects_put;
        self.objects_removed += other.objects_removed;
        self.not_indexed.extend(other.not_indexed);
        self.unread_records += other.unread_records;
        self
    }
}
