//! What the index tells of WAL that goes.
//!
//! Not here: which WAL goes (`domain::retention`).

use std::collections::BTreeSet;

use futures::TryStreamExt;

use crate::barman::repository::wal_listing::WalScope;
use crate::barman::repository::{Repository, RepositoryError};
use crate::domain::log::outline::Outline;
use crate::domain::retention::WalRange;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::store::ObjectKey;

/// The first and the last segment of an index object.
fn ends(outline: &Outline, size: SegmentSize) -> Option<(SegmentName, SegmentName)> {
    let numbers = outline.numbers(size)?;
    let last = SegmentName::new(outline.first.timeline(), *numbers.end(), size)?;
    Some((outline.first, last))
}

/// The index objects without a segment in WAL that stays.
pub(super) fn expired(outlines: Vec<Outline>, wal: &[WalRange], size: SegmentSize) -> Vec<Outline> {
    let is_expired = |outline: &Outline| {
        let Some((first, last)) = ends(outline, size) else {
            return false;
        };
        let mut kept = wal.iter().filter(|range| !range.verdict.is_delete());
        !kept.any(|range| range.files.first <= last && first <= range.files.last)
    };
    let outlines = outlines.into_iter();
    outlines.filter(is_expired).collect()
}

/// Those of them, which are in the order of the log, of which the archive has no segment now. One
/// request for each timeline, and for each 1,000 files that are left.
pub(super) async fn without_wal<'a>(
    repository: &Repository,
    outlines: &'a [Outline],
    size: SegmentSize,
) -> Result<Vec<&'a Outline>, RepositoryError> {
    let timeline = |outline: &Outline| outline.first.timeline();
    let mut without = Vec::new();
    for outlines in outlines.chunk_by(|one, other| timeline(one) == timeline(other)) {
        let left = segments_among(repository, outlines, size).await?;
        without.extend(outlines.iter().filter(|outline| {
            let ends = ends(outline, size);
            ends.is_some_and(|(first, last)| left.range(first..=last).next().is_none())
        }));
    }
    Ok(without)
}

/// The segments in the archive from the first to the last that these objects hold, which are of
/// one timeline.
async fn segments_among(
    repository: &Repository,
    outlines: &[Outline],
    size: SegmentSize,
) -> Result<BTreeSet<SegmentName>, RepositoryError> {
    let mut left = BTreeSet::new();
    let Some(first) = outlines.first().map(|outline| outline.first) else {
        return Ok(left);
    };
    let last = outlines.iter().filter_map(|outline| ends(outline, size));
    let last = last.map(|(_, last)| last).max().unwrap_or(first);
    // The folder's own name sorts before all that is in it.
    let after = ObjectKey::new(repository.layout.wal_folder(first));
    let scope = WalScope::Timeline(first.timeline());
    let mut pages = std::pin::pin!(repository.wal_objects(scope, Some(&after)));
    while let Some(page) = pages.try_next().await? {
        for segment in page.files.iter().filter_map(|file| file.name.segment()) {
            if segment > last {
                return Ok(left);
            }
            left.insert(segment);
        }
    }
    Ok(left)
}
