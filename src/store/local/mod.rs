//! A store in a directory of this host: one file per object.
//!
//! The directory itself is the container: a missing one (an unmounted disk) is never made by a
//! put, and one with nothing in it at all (the same) is none before it was made one. Two keys of which one is a directory of the other (`a` and `a/b`) cannot both be there.

mod files;
mod listing;
mod names;
mod uploads;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use self::files::{HiddenFile, Place};
use self::listing::Walk;
use crate::store::config::LocalConfig;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::page::PageBuilder;
use crate::store::request::Request;
use crate::store::{
    ListPage, ListRequest, ObjectBody, ObjectKey, ObjectMeta, ObjectStore, PartTag, PutOptions,
    UploadId,
};

/// How many bytes of a body come at once.
const CHUNK_BYTES: u64 = 1024 * 1024;

/// A store in a directory of this host.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: Arc<Path>,
    location: Arc<str>,
}

impl LocalStore {
    /// The store in that directory, which need not be there yet.
    pub fn new(config: LocalConfig) -> Self {
        let location = format!("file://{}", config.root.display());
        Self {
            root: config.root.into(),
            location: location.into(),
        }
    }

    fn request(&self, operation: &'static str, name: &str) -> Request {
        Request::new(operation, &self.location, name)
    }

    fn path_of(&self, key: &ObjectKey) -> PathBuf {
        names::path_of(&self.root, key.as_str())
    }

    /// Runs file work on a thread that may block, and says what its error means.
    async fn run<T: Send + 'static>(
        &self,
        request: Request,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let root = Arc::clone(&self.root);
        let done = tokio::task::spawn_blocking(move || {
            work(&root).map_err(|error| match files::check_root(&root) {
                Err(reason) if files::is_absent(&reason) => (true, reason),
                _ => (false, error),
            })
        })
        .await;
        match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err((true, error))) => Err(request.caused(StoreErrorKind::NoContainer, error)),
            Ok(Err((false, error))) => Err(request.caused(kind_of(&error), error)),
            Err(error) => Err(request.caused(StoreErrorKind::Other, error)),
        }
    }
}

fn kind_of(error: &io::Error) -> StoreErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => StoreErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => StoreErrorKind::Exists,
        io::ErrorKind::InvalidInput => StoreErrorKind::Other,
        _ => StoreErrorKind::FileSystem,
    }
}

/// Where a key leads through a file or to a directory there is no object.
fn absent(error: io::Error) -> io::Error {
    if files::is_absent(&error) {
        io::ErrorKind::NotFound.into()
    } else {
        error
    }
}

/// What is missing where a part is put or an upload completed is the upload.
fn of_upload(error: StoreError) -> StoreError {
    match error.kind {
        StoreErrorKind::NotFound => StoreError {
            kind: StoreErrorKind::NoUpload,
            ..error
        },
        _ => error,
    }
}

fn not_a_file() -> io::Error {
    io::ErrorKind::NotFound.into()
}

#[async_trait]
impl ObjectStore for LocalStore {
    fn location(&self) -> &str {
        &self.location
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        options: &PutOptions,
    ) -> Result<(), StoreError> {
        let target = self.path_of(key);
        let place = Place::of(options);
        self.run(self.request("put", key.as_str()), move |root| {
            let mut hidden = HiddenFile::create(root)?;
            hidden.file().write_all(&body)?;
            hidden.place(root, &target, place)
        })
        .await
    }

    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<ObjectBody, StoreError> {
        let path = self.path_of(key);
        let request = self.request("get", key.as_str());
        let name = key.as_str().to_owned();
        let start = range.as_ref().map_or(0, |range| range.start);
        let (file, meta) = self
            .run(request.clone(), move |root| {
                let mut file = File::open(&path).map_err(absent)?;
                let metadata = file.metadata()?;
                if !metadata.is_file() {
                    return Err(not_a_file());
                }
                files::settle(root, &path)?;
                file.seek(SeekFrom::Start(start))?;
                Ok((file, listing::meta_of(name, &metadata)))
            })
            .await?;
        let range = range.unwrap_or(0..meta.size);
        if (range.start >= meta.size || range.is_empty()) && !(meta.size == 0 && range == (0..0)) {
            return Err(request.failed(StoreErrorKind::Range));
        }
        let left = range.end.min(meta.size) - range.start;
        Ok(ObjectBody {
            meta,
            chunks: chunks_of(file, left, request),
        })
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let path = self.path_of(key);
        let name = key.as_str().to_owned();
        self.run(self.request("head", key.as_str()), move |_| {
            let metadata = fs::metadata(&path).map_err(absent)?;
            if !metadata.is_file() {
                return Err(not_a_file());
            }
            Ok(listing::meta_of(name, &metadata))
        })
        .await
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        let Some(first) = keys.first() else {
            return Ok(());
        };
        let paths: Vec<PathBuf> = keys.iter().map(|key| self.path_of(key)).collect();
        self.run(self.request("delete", first.as_str()), move |root| {
            files::check_root(root)?;
            paths.iter().try_for_each(|path| files::remove(root, path))
        })
        .await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        let page = PageBuilder::new(request, &self.location)?;
        let asked = request.clone();
        self.run(self.request("list", &request.prefix), move |root| {
            let walk = Walk {
                request: &asked,
                page,
            };
            let page = walk.run(root)?;
            if page.objects.is_empty() && page.prefixes.is_empty() {
                files::check_root(root)?;
            }
            Ok(page)
        })
        .await
    }

    async fn begin_upload(
        &self,
        key: &ObjectKey,
        _options: &PutOptions,
    ) -> Result<UploadId, StoreError> {
        let request = self.request("begin upload of", key.as_str());
        let key = key.clone();
        self.run(request, move |root| uploads::begin(root, &key))
            .await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        let upload = upload.clone();
        self.run(self.request("put part of", key.as_str()), move |root| {
            uploads::put_part(root, &upload, number, &body)
        })
        .await
        .map_err(of_upload)
    }

    async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartTag],
        options: &PutOptions,
    ) -> Result<(), StoreError> {
        let target = self.path_of(key);
        let upload = upload.clone();
        let parts = parts.to_vec();
        let place = Place::of(options);
        let request = self.request("complete upload of", key.as_str());
        self.run(request, move |root| {
            uploads::complete(root, (&target, place), &upload, &parts)
        })
        .await
        .map_err(of_upload)
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        let upload = upload.clone();
        self.run(self.request("abort upload of", key.as_str()), move |root| {
            uploads::abort(root, &upload)
        })
        .await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId)>, StoreError> {
        let asked = prefix.to_owned();
        self.run(self.request("list uploads of", prefix), move |root| {
            uploads::list(root, &asked)
        })
        .await
    }

    async fn check_container(&self) -> Result<(), StoreError> {
        self.run(self.request("check", ""), files::check_root).await
    }

    async fn create_container(&self) -> Result<(), StoreError> {
        self.run(self.request("create", ""), files::create_root)
            .await
    }
}

/// The next `left` bytes of a file. Fails where the file ends before.
fn chunks_of(
    file: File,
    left: u64,
    request: Request,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let chunks = stream::try_unfold((file, left), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let read = tokio::task::spawn_blocking(move || {
            let wanted = left.min(CHUNK_BYTES);
            let mut chunk = Vec::with_capacity(usize::try_from(wanted).unwrap_or(0));
            let read = Read::by_ref(&mut file)
                .take(wanted)
                .read_to_end(&mut chunk)?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            Ok((Bytes::from(chunk), file))
        });
        let (chunk, file) = read.await.map_err(io::Error::from)??;
        let left = left - u64::try_from(chunk.len()).unwrap_or(left);
        Ok::<_, io::Error>(Some((chunk, (file, left))))
    });
    chunks
        .map_err(move |error| request.caused(kind_of(&error), error))
        .boxed()
}

#[cfg(test)]
mod tests;
