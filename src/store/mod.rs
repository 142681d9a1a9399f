//! The seam to object stores: what every store does, and nothing of PostgreSQL.
//!
//! A store is one container (an S3 bucket, a local directory) of objects under keys that are
//! plain text. Objects appear whole or not at all. Engines make one attempt per call;
//! [`retry`] wraps every engine with timeouts, backoff and a limit, so that there is one place
//! where a request is made again.

pub mod azure;
pub mod config;
#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
pub mod download;
pub mod error;
mod exact_body;
#[cfg(any(test, feature = "test-util"))]
pub mod faulty;
pub mod gcs;
#[cfg(test)]
pub(crate) mod guarded;
mod http;
pub mod local;
pub mod memory;
pub mod open;
mod page;
pub mod parts;
pub mod rate;
mod request;
pub mod retry;
pub mod s3;
pub mod upload;

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;

use crate::store::config::Encryption;
use crate::store::error::StoreError;

/// The key of an object within its container: any text, slashes doubled or not, never empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The key of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the last slash.
    pub fn base_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// How an object is put.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// Put only where nothing is yet, else fail with [`error::StoreErrorKind::Exists`].
    ///
    /// Some stores ignore the condition without saying so: a caller that relies on it probes first.
    pub if_absent: bool,
    /// Tags to put on the object, where the store has tags.
    pub tags: Vec<(String, String)>,
    /// Encryption at rest other than the store's own setting, where the store has a choice.
    pub encryption: Option<Encryption>,
    /// The SHA-256 of the body, in lower-case hexadecimal, where the caller happens to know it:
    /// the store need not compute it then.
    pub sha256: Option<String>,
}

/// What a store knows of an object without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: ObjectKey,
    /// Its size in bytes, as stored.
    pub size: u64,
    /// The store's opaque mark of this version of the object.
    pub etag: Option<String>,
    /// When it was put, by the store's clock.
    pub modified: DateTime<Utc>,
}

/// The bytes of an object, as they arrive.
pub struct ObjectBody {
    /// The object; `size` is of the whole object, whatever range was asked for.
    pub meta: ObjectMeta,
    /// Its bytes in order. Ends after the last byte asked for; a body cut short is an error.
    pub chunks: BoxStream<'static, Result<Bytes, StoreError>>,
}

/// A listing to be made.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Roll up what lies behind the next slash after the prefix into [`ListPage::prefixes`].
    pub is_delimited: bool,
    /// Only keys after this one, in byte order. Only for the first page of a flat listing.
    pub start_after: Option<String>,
    /// Go on after an earlier page.
    pub token: Option<PageToken>,
    /// At most so many entries in the page; the store's own limit (1,000) when absent.
    pub page_size_max: Option<u16>,
}

/// Where a listing goes on: opaque, for the same request on the same store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken(pub String);

/// One page of a listing, at most 1,000 entries, in byte order of the keys. It may be empty though
/// more follows.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// The objects.
    pub objects: Vec<ObjectMeta>,
    /// The common prefixes, each ending in a slash. Only of delimited listings.
    pub prefixes: Vec<String>,
    /// More follows.
    pub next: Option<PageToken>,
}

/// The store's name for a multipart upload under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadId(pub String);

/// The store's receipt for a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartTag {
    /// The part's number, from 1.
    pub number: u32,
    /// The receipt.
    pub tag: String,
}

/// What a store has learnt of its service by being refused: worth telling the next process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Learnt {
    /// No body is taken without its MD5.
    pub wants_md5: bool,
}

/// One container of objects.
///
/// All futures may be dropped: what was asked may then have happened or not, and nothing
/// half-done is visible but multipart uploads, which [`abort_upload`](Self::abort_upload) ends.
#[async_trait]
pub trait ObjectStore: fmt::Debug + Send + Sync + 'static {
    /// Where it is, for people: no secrets, no query.
    fn location(&self) -> &str;

    /// What was learnt of the service so far.
    fn learnt(&self) -> Learnt {
        Learnt::default()
    }

    /// Takes over what an earlier process has learnt. If it is no longer so, that costs some work.
    fn recall(&self, _learnt: Learnt) {}

    /// Puts a whole object. When it returns, the object is durable.
    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        options: &PutOptions,
    ) -> Result<(), StoreError>;

    /// Gets an object, or the bytes of it in `range`, cut at its end. A range that begins at or
    /// after the end is [`error::StoreErrorKind::Range`].
    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<ObjectBody, StoreError>;

    /// What the store knows of an object.
    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError>;

    /// Deletes objects, any number of them, in as few requests as the store allows. Those that
    /// are not there are no error. On an error some may be gone.
    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), StoreError>;

    /// One page of a listing.
    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError>;

    /// Begins an upload in parts. Nothing is visible until [`complete_upload`](Self::complete_upload).
    async fn begin_upload(
        &self,
        key: &ObjectKey,
        options: &PutOptions,
    ) -> Result<UploadId, StoreError>;

    /// Puts part `number`, from 1 to 10,000. All but the last are at least 5 MiB. Putting a number again replaces it.
    /// No store keeps `body` after it has answered: the buffer may be one of a few.
    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        body: Bytes,
    ) -> Result<PartTag, StoreError>;

    /// Makes the object of its parts, in order of their numbers. When it returns, the object is durable.
    ///
    /// `options` are those that the upload began with; [`PutOptions::if_absent`] is judged here. On
    /// [`error::StoreErrorKind::Exists`] something stands under the key that may be this upload's
    /// own object, made by an attempt whose answer was lost: the caller compares. The upload may
    /// be there still, and is the caller's to abort.
    async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartTag],
        options: &PutOptions,
    ) -> Result<(), StoreError>;

    /// Ends an upload and drops its parts. One that is not there is no error.
    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError>;

    /// The uploads under way for keys that begin with `prefix`. Some stores (MinIO) answer only
    /// for a prefix that is a whole key.
    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId)>, StoreError>;

    /// Fails unless the container is there and the credentials may use it.
    async fn check_container(&self) -> Result<(), StoreError>;

    /// Makes the container. One that is there already, and ours, is no error.
    async fn create_container(&self) -> Result<(), StoreError>;
}
