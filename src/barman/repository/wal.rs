//! What the archive says of the log: timeline histories and the names of segments.

use std::collections::BTreeSet;
use std::io::Read;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::barman::layout::Layout;
use crate::barman::repository::{REQUESTS_IN_FLIGHT, Repository, RepositoryError, SMALL_BYTES_MAX};
use crate::codec::Codec;
use crate::codec::decompress::decompressor;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::domain::timeline::{TimelineHistory, TimelineId};
use crate::domain::wal_file::WalFileName;
use crate::pgfile::history;
use crate::store::{ListRequest, ObjectKey};

impl Repository {
    /// The histories of all timelines that have one in the archive, by rising timeline.
    ///
    /// The first timeline of a cluster has none.
    pub async fn histories(&self) -> Result<Vec<TimelineHistory>, RepositoryError> {
        let files = self.history_files().await?;
        stream::iter(files)
            .map(|(timeline, key, codec)| self.read_history(timeline, key, codec))
            .buffered(REQUESTS_IN_FLIGHT)
            .try_collect()
            .await
    }

    async fn history_files(&self) -> Result<Vec<(TimelineId, ObjectKey, Codec)>, RepositoryError> {
        let mut request = ListRequest {
            prefix: self.layout.wals_prefix(),
            is_delimited: true,
            ..ListRequest::default()
        };
        let mut files = Vec::new();
        loop {
            let page = self.store.list(&request).await?;
            for object in page.objects {
                let parsed = Layout::parse_wal(object.key.base_name());
                if let Some((WalFileName::TimelineHistory(timeline), codec)) = parsed {
                    files.push((timeline, object.key, codec));
                }
            }
            request.token = page.next;
            if request.token.is_none() {
                break;
            }
        }
        // The same history may be stored in several compressions: any of them will do.
        files.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        files.dedup_by_key(|file| file.0);
        Ok(files)
    }

    async fn read_history(
        &self,
        timeline: TimelineId,
        key: ObjectKey,
        codec: Codec,
    ) -> Result<TimelineHistory, RepositoryError> {
        let stored = self.get_small(&key).await?;
        let text = decompress(stored, codec).map_err(|source| RepositoryError::Decompress {
            key: key.clone(),
            source,
        })?;
        let text =
            String::from_utf8(text).map_err(|_| RepositoryError::NotText { key: key.clone() })?;
        history::parse(timeline, &text).map_err(|source| RepositoryError::History { key, source })
    }

    /// Which of the whole segments from `begin` to `end`, both included, are in the archive.
    ///
    /// Both lie on one timeline. One listing per folder of 4 GiB of log, not one request per segment.
    pub async fn archived_segments(
        &self,
        begin: SegmentName,
        end: SegmentName,
        size: SegmentSize,
    ) -> Result<BTreeSet<SegmentName>, RepositoryError> {
        let mut segments = BTreeSet::new();
        let mut next = Some(begin);
        while let Some(segment) = next.filter(|segment| *segment <= end) {
            let folder = self.layout.wal_folder(segment);
            for object in self.list_all(folder).await? {
                let parsed = Layout::parse_wal(object.key.base_name());
                if let Some((WalFileName::Segment(found), _)) = parsed
                    && (begin..=end).contains(&found)
                {
                    segments.insert(found);
                }
            }
            next = first_of_next_folder(segment, size);
        }
        Ok(segments)
    }
}

fn first_of_next_folder(segment: SegmentName, size: SegmentSize) -> Option<SegmentName> {
    let folder = segment.folder();
    std::iter::successors(Some(segment), |segment| segment.next(size))
        .find(|segment| segment.folder() != folder)
}

fn decompress(stored: Bytes, codec: Codec) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let reader = decompressor(std::io::Cursor::new(stored), codec)?;
    reader.take(SMALL_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}
