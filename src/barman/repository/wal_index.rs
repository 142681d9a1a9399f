//! The index of the log in the archive: which objects there are, and what is in one.
//!
//! Not here: making them (`service::wal_index`), and searching in them (`service::targets`).

use futures::TryStreamExt;

use crate::barman::index_object::{self, IndexObject, IndexObjectError};
use crate::barman::repository::{Repository, RepositoryError};
use crate::domain::log::outline::Outline;
use crate::domain::timeline::TimelineId;
use crate::store::error::StoreError;
use crate::store::{ListRequest, ObjectKey, PutOptions};

/// An index object that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The store did not give it.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// What it holds makes no sense.
    #[error("cannot use {key}")]
    Object {
        /// Its key.
        key: ObjectKey,
        /// Why not.
        source: IndexObjectError,
    },
    /// It holds other segments than its name says.
    #[error("{key} does not hold what its name says")]
    Name {
        /// Its key.
        key: ObjectKey,
    },
}

impl IndexError {
    /// Whether the object is there and of no use: it can be made again from the log.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Object { .. } | Self::Name { .. })
    }
}

impl Repository {
    /// What the names of all index objects of a timeline, or of all timelines, tell, in the order
    /// of the log. Objects of an earlier cluster, whose WAL went, may be among them.
    ///
    /// One request for each 1,000. Memory is about 100 bytes for each.
    pub async fn index_outlines(
        &self,
        timeline: Option<TimelineId>,
    ) -> Result<Vec<Outline>, RepositoryError> {
        let all = index_object::prefix(&self.layout);
        let folder = timeline.map(|timeline| format!("{:08X}", timeline.to_u32()));
        let request = ListRequest {
            prefix: format!("{all}{}", folder.unwrap_or_default()),
            ..ListRequest::default()
        };
        let mut outlines = Vec::new();
        let mut pages = std::pin::pin!(self.pages(request));
        while let Some(page) = pages.try_next().await? {
            // What is none of ours is passed over.
            let keys = page.objects.iter().map(|object| &object.key);
            outlines.extend(keys.filter_map(|key| index_object::outline(key).ok()));
        }
        Ok(outlines)
    }

    /// What an index object holds.
    pub async fn index_object(&self, outline: &Outline) -> Result<IndexObject, IndexError> {
        let key = index_object::key(&self.layout, outline);
        let bytes = self.get_small(&key).await?;
        let object = IndexObject::parse(&bytes).map_err(|source| IndexError::Object {
            key: key.clone(),
            source,
        })?;
        if object.outline().as_ref() != Some(outline) {
            return Err(IndexError::Name { key });
        }
        Ok(object)
    }

    /// Puts an index object: over the same one, where that is there.
    pub async fn put_index_object(
        &self,
        outline: &Outline,
        bytes: Vec<u8>,
    ) -> Result<(), StoreError> {
        let key = index_object::key(&self.layout, outline);
        let options = PutOptions::default();
        self.store.put(&key, bytes.into(), &options).await
    }
}
