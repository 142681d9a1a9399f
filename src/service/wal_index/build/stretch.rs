//! What the segments of one group need: nothing, what objects tell already, or to be read.
//!
//! Not here: reading one (`read`).

use std::collections::BTreeMap;

use tokio::task;
use tracing::warn;

use crate::barman::index_object::{self, IndexObject};
use crate::barman::repository::wal_index::IndexError;
use crate::domain::log::outline::Outline;
use crate::domain::log::summary::SegmentSummary;
use crate::domain::segment::SegmentName;
use crate::fault::{Fault, chain};
use crate::pgfile::wal::reader::Carry;
use crate::service::wal_index::build::read::Outcome;
use crate::service::wal_index::build::segments::Stretch;
use crate::service::wal_index::build::{BuildError, Builder, Built};
use crate::service::wal_index::group::{self, Group};

/// What is there of a stretch.
#[derive(Default)]
struct Present {
    /// The objects that may touch it, in the order of the log.
    outlines: Vec<Outline>,
    /// Those of them that can be used.
    objects: Vec<(Outline, IndexObject)>,
}

impl Present {
    /// All that is known without anything unread.
    fn known(&self) -> BTreeMap<SegmentName, &SegmentSummary> {
        let segments = self.objects.iter().flat_map(|(_, object)| &object.segments);
        let known = segments.filter(|segment| segment.unread_records == 0 && segment.is_whole);
        known.map(|segment| (segment.name, segment)).collect()
    }

    /// An object that alone tells all of these.
    fn covering(&self, names: &[SegmentName]) -> Option<&Outline> {
        let covers = |object: &IndexObject| {
            names.iter().all(|name| {
                let mut segments = object.segments.iter();
                let found = segments.find(|segment| segment.name == *name);
                found.is_some_and(|segment| segment.unread_records == 0 && segment.is_whole)
            })
        };
        let mut objects = self.objects.iter();
        objects
            .find(|(_, object)| covers(object))
            .map(|(outline, _)| outline)
    }
}

impl Builder<'_> {
    /// Sees that a stretch is in the index.
    pub(super) async fn stretch(&self, stretch: Stretch) -> Result<Built, BuildError> {
        let mut built = Built {
            segments: stretch.count,
            ..Built::default()
        };
        let names: Vec<SegmentName> = stretch.names(self.size).collect();
        let present = self.present(stretch).await?;
        if !self.is_rebuild
            && let Some(covering) = present.covering(&names)
        {
            self.remove_superseded(&present, covering, &mut built)
                .await?;
            return Ok(built);
        }
        let known = if self.is_rebuild {
            BTreeMap::new()
        } else {
            present.known()
        };
        let segments = self.summaries(&names, &known, &mut built).await?;
        let mut segments = segments.into_iter();
        let told: Vec<SegmentName> = names
            .into_iter()
            .filter(|name| built.not_indexed.iter().all(|one| one.name != *name))
            .collect();
        for run in group::runs(told, self.size) {
            let object = IndexObject {
                system_id: self.system_id,
                segment_size: self.size,
                segments: segments.by_ref().take(run.len()).collect(),
            };
            self.put(object, &present, &mut built).await?;
        }
        Ok(built)
    }

    /// The summaries of these segments but of those that cannot be indexed, which are noted.
    async fn summaries(
        &self,
        names: &[SegmentName],
        known: &BTreeMap<SegmentName, &SegmentSummary>,
        built: &mut Built,
    ) -> Result<Vec<SegmentSummary>, BuildError> {
        let mut segments = Vec::new();
        let mut carry: Option<Carry> = None;
        for name in names {
            if let Some(summary) = known.get(name) {
                segments.push((*summary).clone());
                carry = None;
                continue;
            }
            built.read += 1;
            let read: Outcome = match carry.take() {
                Some(carry) => self.read(*name, Some(carry)).await?,
                None => self.read_behind(*name).await?,
            };
            match read {
                Ok(read) => {
                    carry = read.carry;
                    segments.push(read.summary);
                }
                Err(not_indexed) => built.not_indexed.push(not_indexed),
            }
        }
        Ok(segments)
    }

    /// What is there of a stretch. Objects that are damaged, or of another cluster, are told.
    async fn present(&self, stretch: Stretch) -> Result<Present, BuildError> {
        let mut present = Present::default();
        for outline in self.touching(stretch) {
            match self.repository.index_object(outline).await {
                Ok(object)
                    if (object.system_id, object.segment_size) == (self.system_id, self.size) =>
                {
                    present.objects.push((outline.clone(), object));
                }
                Ok(_) => warn!(%outline, "passing over an index object of another cluster"),
                Err(IndexError::Repository(error)) if error.kind().is_retryable() => {
                    return Err(error.into());
                }
                Err(error) => warn!(error = chain(&error), "passing over an index object"),
            }
            present.outlines.push(outline.clone());
        }
        Ok(present)
    }

    /// The objects of which some may hold a segment of a stretch. All begin in its group.
    fn touching(&self, stretch: Stretch) -> &[Outline] {
        let group = Group::of(stretch.first, self.size);
        let first = group.and_then(|group| group.first(self.size));
        let (Some(first), Some(last)) = (first, stretch.names(self.size).last()) else {
            return &[];
        };
        let begin = self
            .outlines
            .partition_point(|outline| outline.first < first);
        let end = self
            .outlines
            .partition_point(|outline| outline.first <= last);
        &self.outlines[begin..end]
    }

    /// Puts an object, unless it is there, and removes what it supersedes.
    async fn put(
        &self,
        object: IndexObject,
        present: &Present,
        built: &mut Built,
    ) -> Result<(), BuildError> {
        let Some(outline) = object.outline() else {
            return Ok(());
        };
        built.unread_records += outline.unread_records;
        let is_there = present.objects.iter().any(|(_, there)| *there == object);
        if !is_there {
            let made = task::spawn_blocking(move || object.to_bytes()).await;
            let bytes = made.map_err(std::io::Error::other).flatten();
            let bytes = bytes.map_err(|source| BuildError::Encode { source })?;
            self.repository.put_index_object(&outline, bytes).await?;
            built.objects_put += 1;
        }
        self.remove_superseded(present, &outline, built).await
    }

    /// Removes the objects that hold no segment which `better` does not hold.
    async fn remove_superseded(
        &self,
        present: &Present,
        better: &Outline,
        built: &mut Built,
    ) -> Result<(), BuildError> {
        let Some(all) = better.numbers(self.size) else {
            return Ok(());
        };
        let is_within = |outline: &&Outline| {
            let theirs = outline.numbers(self.size);
            *outline != better
                && theirs.is_some_and(|t| all.contains(t.start()) && all.contains(t.end()))
        };
        let layout = &self.repository.layout;
        let superseded = present.outlines.iter().filter(is_within);
        let keys: Vec<_> = superseded.map(|o| index_object::key(layout, o)).collect();
        if !keys.is_empty() {
            self.repository.store.delete(&keys).await?;
            built.objects_removed += u64::try_from(keys.len()).unwrap_or(u64::MAX);
        }
        Ok(())
    }
}
