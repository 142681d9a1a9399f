//! The files of the log in the archive, page by page: for what looks at all of them.
//!
//! Memory is one page, whatever the archive holds. Not here: what is needed of them.

use chrono::{DateTime, Utc};
use futures::{Stream, TryStreamExt, stream};

use crate::barman::layout::Layout;
use crate::barman::repository::{Repository, RepositoryError};
use crate::codec::Codec;
use crate::domain::segment::SegmentName;
use crate::domain::timeline::TimelineId;
use crate::domain::wal_file::WalFileName;
use crate::store::{ListPage, ListRequest, ObjectKey, ObjectMeta};

/// A file of the log, as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWal {
    /// Its key.
    pub key: ObjectKey,
    /// The file it holds.
    pub name: WalFileName,
    /// How it is compressed. The same file may be there in several compressions.
    pub codec: Codec,
    /// Its size as stored.
    pub size: u64,
    /// When it was put, by the store's clock.
    pub modified: DateTime<Utc>,
}

/// One page of the log's files, at most 1,000, in byte order of their keys.
#[derive(Debug, Default)]
pub struct WalPage {
    /// Those that are files of the log, each in the place where the layout has it.
    pub files: Vec<StoredWal>,
    /// All else: objects of other names, and files of the log in places where no reader looks.
    pub foreign: Vec<ObjectMeta>,
}

/// Which files of the log to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WalScope {
    /// All: the histories too, which come between the folders of their timelines.
    #[default]
    All,
    /// Those of one timeline, its own history among them.
    Timeline(TimelineId),
    /// Those in the folder of this segment: what shares its first sixteen digits.
    Folder(SegmentName),
}

impl WalScope {
    fn prefix(self, layout: &Layout) -> String {
        match self {
            Self::All => layout.wals_prefix(),
            Self::Timeline(timeline) => {
                format!("{}{:08X}", layout.wals_prefix(), timeline.to_u32())
            }
            Self::Folder(segment) => layout.wal_folder(segment),
        }
    }
}

impl Repository {
    /// The files of the log, one request per page; the next page is asked for when it is polled for.
    ///
    /// `after` leaves out all keys up to and with that one. Objects that come or go meanwhile may
    /// be in it or not; those that stay are in it, once. The stream may be dropped at any time.
    pub fn wal_objects(
        &self,
        scope: WalScope,
        after: Option<&ObjectKey>,
    ) -> impl Stream<Item = Result<WalPage, RepositoryError>> + Send + '_ {
        let request = ListRequest {
            prefix: scope.prefix(&self.layout),
            start_after: after.map(|key| key.as_str().to_owned()),
            ..ListRequest::default()
        };
        self.pages(request)
            .map_ok(|page| sorted_out(&self.layout, page.objects))
    }

    /// The pages of a listing.
    pub(super) fn pages(
        &self,
        request: ListRequest,
    ) -> impl Stream<Item = Result<ListPage, RepositoryError>> + Send + '_ {
        stream::try_unfold(Some(request), async move |request| {
            let Some(mut request) = request else {
                return Ok::<_, RepositoryError>(None);
            };
            let mut page = self.store.list(&request).await?;
            let next = page.next.take().map(|token| {
                request.token = Some(token);
                request
            });
            Ok(Some((page, next)))
        })
    }
}

fn sorted_out(layout: &Layout, objects: Vec<ObjectMeta>) -> WalPage {
    let mut page = WalPage::default();
    for object in objects {
        match Layout::parse_wal(object.key.base_name()) {
            Some((name, codec)) if layout.wal(&name, codec) == object.key => {
                page.files.push(StoredWal {
                    key: object.key,
                    name,
                    codec,
                    size: object.size,
                    modified: object.modified,
                });
            }
            _ => page.foreign.push(object),
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{ObjectStore, PutOptions};

    async fn listed(scope: WalScope, after: Option<&str>) -> (Vec<String>, Vec<String>) {
        let store = MemoryStore::new();
        for name in [
            "0000000100000000/000000010000000000000001.gz",
            "0000000100000000/000000010000000000000002.partial",
            "0000000100000001/000000010000000100000000",
            "0000000100000001/000000010000000000000003",
            "0000000100000001/notes.txt",
            "00000002.history",
            "0000000200000001/000000020000000100000000.00000028.backup.zst",
            "000000020000000100000001",
        ] {
            let key = ObjectKey::new(format!("p/srv/wals/{name}"));
            let body = Bytes::from_static(b"x");
            store.put(&key, body, &PutOptions::default()).await.unwrap();
        }
        let layout = Layout::new("p", &"srv".parse().unwrap());
        let repository = Repository::new(Arc::new(store), layout);
        let after = after.map(|name| ObjectKey::new(format!("p/srv/wals/{name}")));
        let pages = repository.wal_objects(scope, after.as_ref());
        let pages: Vec<WalPage> = pages.try_collect().await.unwrap();
        let files = pages.iter().flat_map(|page| &page.files);
        let foreign = pages.iter().flat_map(|page| &page.foreign);
        (
            files.map(|file| file.name.to_string()).collect(),
            foreign
                .map(|object| object.key.base_name().to_owned())
                .collect(),
        )
    }

    #[tokio::test]
    async fn the_files_of_the_log_are_told_from_what_lies_among_them() {
        let (files, foreign) = listed(WalScope::All, None).await;
        let expected = [
            "000000010000000000000001",
            "000000010000000000000002.partial",
            "000000010000000100000000",
            "00000002.history",
            "000000020000000100000000.00000028.backup",
        ];
        assert_eq!(files, expected);
        let misplaced = [
            "000000010000000000000003",
            "notes.txt",
            "000000020000000100000001",
        ];
        assert_eq!(foreign, misplaced);
    }

    #[tokio::test]
    async fn a_timeline_a_folder_and_what_follows_a_key_are_listed_alone() {
        let timeline: TimelineId = "2".parse().unwrap();
        let segment: SegmentName = "0000000100000001000000FF".parse().unwrap();
        let first = "0000000100000000/000000010000000000000001.gz";
        for (scope, after, count) in [
            (WalScope::Timeline(timeline), None, 2),
            (WalScope::Folder(segment), None, 1),
            (WalScope::All, Some(first), 4),
        ] {
            assert_eq!(listed(scope, after).await.0.len(), count, "{scope:?}");
        }
    }
}
