//! A group of segments that waited, joined at their edges and put as one object.
//!
//! Nobody depends on it: what fails is told and given up, and `index build` makes it. Not here:
//! which group, and when (`wal_archive`).

use std::io;

use tokio::task;
use tracing::{debug, info};

use crate::barman::index_object::IndexObject;
use crate::barman::repository::Repository;
use crate::domain::log::summary::SegmentSummary;
use crate::domain::segment::SegmentName;
use crate::fault::chain;
use crate::pgfile::wal::reader::Carry;
use crate::pgfile::wal::seam;
use crate::service::wal_index::gather::Piece;
use crate::service::wal_index::group::{self, Group};
use crate::service::wal_index::pending::Pending;
use crate::service::wal_index::set_bytes_max;

/// Puts what waits of a group: one object, or several where a segment is missing between two.
///
/// The future may be dropped: the group then waits on.
pub(crate) async fn put_group(repository: &Repository, pending: &Pending, group: Group) {
    let theirs = pending.clone();
    let objects = task::spawn_blocking(move || objects(&theirs, group)).await;
    let objects = match objects.map_err(io::Error::other).flatten() {
        Ok(objects) => objects,
        Err(error) => {
            debug!(%error, "cannot read what waits to be indexed");
            return;
        }
    };
    for object in objects {
        let names: Vec<SegmentName> = object.segments.iter().map(|s| s.name).collect();
        put(repository, object).await;
        let theirs = pending.clone();
        let settled = task::spawn_blocking(move || theirs.settle(&names)).await;
        if let Err(error) = settled.map_err(io::Error::other).flatten() {
            debug!(%error, "cannot remove what has been indexed");
        }
    }
}

/// One request. It is not repeated for each segment to come where a store refuses it.
async fn put(repository: &Repository, object: IndexObject) {
    let Some(outline) = object.outline() else {
        return;
    };
    let made = task::spawn_blocking(move || object.to_bytes()).await;
    let bytes = match made.map_err(io::Error::other).flatten() {
        Ok(bytes) => bytes,
        Err(error) => {
            debug!(%outline, %error, "cannot make an index object");
            return;
        }
    };
    match repository.put_index_object(&outline, bytes).await {
        Ok(()) => debug!(%outline, "indexed WAL"),
        Err(error) => info!(
            %outline,
            error = chain(&error),
            "cannot put an index object, which `cellarman index build` makes"
        ),
    }
}

/// The objects of a group, by what waits of it.
fn objects(pending: &Pending, group: Group) -> io::Result<Vec<IndexObject>> {
    let size = pending.segment_size();
    let mut pieces = Vec::new();
    for name in group::of_group(&pending.names()?, group, size) {
        match pending.piece(name) {
            Some(piece) => pieces.push(piece),
            None => pending.forget(name)?,
        }
    }
    let runs = group::runs(pieces.iter().map(|piece| piece.summary.name), size);
    let mut pieces = pieces.into_iter();
    let objects = runs.into_iter().map(|run| {
        let pieces: Vec<Piece> = pieces.by_ref().take(run.len()).collect();
        object(pending, pieces)
    });
    Ok(objects.collect())
}

/// The object of segments that follow one another.
fn object(pending: &Pending, pieces: Vec<Piece>) -> IndexObject {
    let mut segments: Vec<SegmentSummary> = Vec::new();
    let mut carry: Option<Carry> = None;
    for piece in pieces {
        let mut summary = piece.summary;
        if !piece.head.is_empty() {
            let carries = match carry.take() {
                Some(carry) => vec![carry],
                None if segments.is_empty() => pending.carries_into(summary.name),
                None => Vec::new(),
            };
            let mut joined = carries.into_iter();
            if let Some(joined) = joined.find_map(|c| seam::join(&summary, &piece.head, c)) {
                summary = joined;
            }
        }
        carry = piece.carry;
        segments.push(bounded(summary, pending));
    }
    IndexObject {
        system_id: pending.system_id(),
        segment_size: pending.segment_size(),
        segments,
    }
}

fn bounded(summary: SegmentSummary, pending: &Pending) -> SegmentSummary {
    let bytes_max = set_bytes_max(pending.segment_size());
    SegmentSummary {
        xids: summary.xids.within(bytes_max),
        subtransactions: summary.subtransactions.within(bytes_max),
        ..summary
    }
}
