//! What the archive says of the log: timeline histories and the names of segments.

use std::collections::BTreeSet;
use std::io::Read;

use bytes::Bytes;
use futures::{StreamExt, stream};

use crate::barman::layout::Layout;
use crate::barman::repository::{REQUESTS_IN_FLIGHT, Repository, RepositoryError, SMALL_BYTES_MAX};
use crate::codec::Codec;
use crate::codec::decompress::decompressor;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::domain::timeline::{TimelineHistory, TimelineId};
use crate::domain::wal_file::WalFileName;
use crate::fault::{Fault, Kind};
use crate::pgfile::history;
use crate::store::{ListRequest, ObjectKey};

/// All timeline histories of an archive.
#[derive(Debug, Default)]
pub struct Histories {
    /// Those that could be read, by rising timeline.
    pub read: Vec<TimelineHistory>,
    /// Those that are there and make no sense, by rising timeline.
    pub unreadable: Vec<UnreadableHistory>,
}

/// A history that makes no sense.
#[derive(Debug)]
pub struct UnreadableHistory {
    /// The timeline it should tell of.
    pub timeline: TimelineId,
    /// Its key.
    pub key: ObjectKey,
    /// Why.
    pub error: RepositoryError,
}

impl Repository {
    /// The histories of all timelines that have one in the archive, by rising timeline.
    ///
    /// The first timeline of a cluster has none. One that makes no sense is an error; see
    /// [`Repository::read_histories`] for who can do without.
    pub async fn histories(&self) -> Result<Vec<TimelineHistory>, RepositoryError> {
        let histories = self.read_histories().await?;
        match histories.unreadable.into_iter().next() {
            Some(unreadable) => Err(unreadable.error),
            None => Ok(histories.read),
        }
    }

    /// As [`Repository::histories`], with those that make no sense told apart. A store that does not
    /// answer is an error all the same.
    pub async fn read_histories(&self) -> Result<Histories, RepositoryError> {
        let files = self.history_files().await?;
        let mut outcomes = stream::iter(files)
            .map(|(timeline, key, codec)| async move {
                let read = self.read_history(timeline, key.clone(), codec).await;
                (timeline, key, read)
            })
            .buffered(REQUESTS_IN_FLIGHT);
        let mut histories = Histories::default();
        while let Some((timeline, key, read)) = outcomes.next().await {
            match read {
                Ok(history) => histories.read.push(history),
                Err(error) if error.kind() == Kind::Corrupt => {
                    let unreadable = UnreadableHistory {
                        timeline,
                        key,
                        error,
                    };
                    histories.unreadable.push(unreadable);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(histories)
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
