//! The index of what is archived: a segment's part waits beside the log, and complete groups are put.
//!
//! Nothing of it makes archiving fail. In a resident process groups are put beside the answer; one
//! that ends with the call waits for them as it does for files ahead. Not here: what a part is, and
//! which groups are complete (`wal_index`).

use std::io;

use tokio::task;
use tracing::debug;

use crate::domain::segment::SegmentName;
use crate::domain::wal_file::WalFileName;
use crate::service::wal_archive::{Archiver, Run};
use crate::service::wal_index::gather::Gatherer;
use crate::service::wal_index::group::Group;
use crate::service::wal_index::pending::Pending;
use crate::service::wal_index::put::put_group;
use crate::service::wal_state::{Fingerprint, PgWal};

impl Archiver {
    /// Waits until all that is complete has been put.
    #[cfg(test)]
    pub(crate) async fn end_of_indexing(&self) {
        self.under_way.end_of_all().await;
        self.indexing.end_of_all().await;
    }

    /// Keeps what was gathered of a file that is in the archive, and begins to put what is
    /// complete with it.
    pub(super) async fn index(&self, run: &Run, name: WalFileName, index: Option<Gatherer>) {
        let (Some(pg_wal), WalFileName::Segment(segment), Some(index)) =
            (run.pg_wal().cloned(), name, index)
        else {
            return;
        };
        let destination = self.destination.clone();
        let kept = task::spawn_blocking(move || keep(&pg_wal, &destination, segment, index)).await;
        let (pending, due) = match kept.map_err(io::Error::other).flatten() {
            Ok(kept) => kept,
            Err(error) => {
                debug!(%name, %error, "cannot index a WAL file");
                return;
            }
        };
        for group in due {
            let Some(first) = group.first(pending.segment_size()) else {
                continue;
            };
            let (repository, pending) = (self.repository.clone(), pending.clone());
            self.indexing
                .begin(WalFileName::Segment(first), async move {
                    put_group(&repository, &pending, group).await;
                });
        }
    }
}

/// Keeps a segment; what is complete with it.
fn keep(
    pg_wal: &PgWal,
    destination: &Fingerprint,
    name: SegmentName,
    index: Gatherer,
) -> io::Result<(Pending, Vec<Group>)> {
    let piece = index.finish(name).map_err(io::Error::other)?;
    let cluster = (piece.system_id, piece.segment_size);
    let pending = Pending::open(pg_wal, destination, cluster)?;
    pending.add(&piece)?;
    let due = pending.due(name)?;
    Ok((pending, due))
}
