//! One file into the store: put where nothing is, compared where something is.
//!
//! Not here: whether the archive may be written to at all (`admission`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{info, warn};

use crate::codec::Codec;
use crate::codec::decompress::decompressor;
use crate::codec::digest::DigestWriter;
use crate::domain::wal_file::WalFileName;
use crate::fault::chain;
use crate::service::object_read::{self, ReadError};
use crate::service::wal_archive::body::{self, Body, on_thread};
use crate::service::wal_archive::decision::Absence;
use crate::service::wal_archive::error::ArchiveError;
use crate::service::wal_archive::file::{self, WalFile};
use crate::service::wal_archive::turn::Turn;
use crate::service::wal_archive::{Archived, Archiver, contents};
use crate::service::wal_index::gather::Gatherer;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::upload::UploadError;
use crate::store::{ObjectKey, PutOptions};

/// How often a file is put when what was in its way has gone again.
const ATTEMPTS_MAX: u32 = 3;

/// A file in the store.
pub(super) struct Stored {
    pub(super) archived: Archived,
    /// The digest of the file, where it became known or was asked for.
    pub(super) digest: Option<String>,
    /// What the index needs of the file, where it was read and that was asked for.
    pub(super) index: Option<Gatherer>,
}

/// How a file is to be put.
#[derive(Debug, Clone, Copy)]
pub(super) struct PutWay {
    /// How a file of the same name and suffix is noticed.
    pub(super) absence: Absence,
    /// Whether the store honours the condition of a put.
    pub(super) is_conditional: bool,
    /// Whether the digest of the file is wanted.
    pub(super) wants_digest: bool,
    /// Whether no other file is archived at the same time, so that all threads are its own.
    pub(super) is_alone: bool,
}

impl Archiver {
    /// Puts the file, or finds the same bytes there. `same_name` is what a listing has shown of
    /// the name.
    pub(super) async fn store_file(
        &self,
        file: &WalFile,
        same_name: &[contents::Archived],
        way: PutWay,
        turn: &Turn,
    ) -> Result<Stored, ArchiveError> {
        for there in same_name {
            if let Some(stored) = self.compare(file, &there.key, there.codec).await? {
                return Ok(stored);
            }
        }
        let codec = self.options.compression.codec;
        let key = self.repository.layout.wal(&file.name, codec);
        let mut way = way;
        // Kept from one attempt to the next: nobody waits for memory that waits for us.
        let mut body: Option<Body> = None;
        for _ in 0..ATTEMPTS_MAX {
            let is_listed = way.absence == Absence::ListFirst;
            let is_put_whole = way.is_conditional && !body::streams(file);
            let is_there = !is_put_whole && !is_listed && self.is_there(&key).await?;
            if !is_there {
                let put = if body::streams(file) {
                    turn.to_put().await;
                    self.put_streamed(file, &key, way).await
                } else {
                    self.put_whole(file, &key, way, (turn, &mut body)).await
                };
                match put {
                    Ok((digest, index)) => {
                        return Ok(Stored {
                            archived: Archived::Put(key),
                            digest,
                            index,
                        });
                    }
                    Err(error) => match store_kind(&error) {
                        Some(StoreErrorKind::Exists) => {}
                        Some(StoreErrorKind::Unsupported) if way.is_conditional => {
                            warn!(%key, "the store does not take conditional puts");
                            way.is_conditional = false;
                            continue;
                        }
                        _ => return Err(error),
                    },
                }
            }
            if let Some(stored) = self.compare(file, &key, codec).await? {
                let index = body.and_then(|body| body.index);
                return Ok(Stored { index, ..stored });
            }
            // What was listed has changed.
            way.absence = Absence::HeadFirst;
        }
        Err(ArchiveError::Unsteady { key })
    }

    /// The digest of the file on this host.
    pub(super) async fn digest(&self, file: &WalFile) -> Result<String, ArchiveError> {
        let (path, size) = (file.path.clone(), file.size);
        on_thread(move |stop| file::digest(&path, size, stop))
            .await
            .map_err(|source| ArchiveError::Read {
                path: file.path.clone(),
                source,
            })
    }

    /// How objects of ours are put, with these tags.
    pub(super) fn put_options(&self, tags: Vec<(String, String)>) -> PutOptions {
        PutOptions {
            if_absent: false,
            tags,
            encryption: self.options.encryption.clone(),
            sha256: None,
        }
    }

    /// Puts a file that streams; its digest is not made.
    async fn put_streamed(
        &self,
        file: &WalFile,
        key: &ObjectKey,
        way: PutWay,
    ) -> Result<(Option<String>, Option<Gatherer>), ArchiveError> {
        self.abort_leftovers(key).await;
        let options = self.put_options_of(file, way);
        let target = (Arc::clone(&self.repository.store), key.clone(), options);
        let compression = self.options.compression;
        let (stored_bytes, index) = self.bodies.stream(file, compression, target).await?;
        self.count_stored(stored_bytes);
        Ok((None, index))
    }

    /// Puts a file that does not stream, in its turn; its digest and what the index needs, where
    /// those are wanted.
    async fn put_whole(
        &self,
        file: &WalFile,
        key: &ObjectKey,
        way: PutWay,
        (turn, kept): (&Turn, &mut Option<Body>),
    ) -> Result<(Option<String>, Option<Gatherer>), ArchiveError> {
        if kept.is_none() {
            let compression = self.options.compression;
            let body = self.bodies.whole(file, compression, way, turn).await?;
            *kept = Some(body);
        }
        let Some(body) = kept else {
            return Ok((None, None));
        };
        turn.to_put().await;
        let options = PutOptions {
            sha256: body.sha256.clone(),
            ..self.put_options_of(file, way)
        };
        let store = &self.repository.store;
        store.put(key, body.bytes.clone(), &options).await?;
        self.count_stored(body.bytes.len().try_into().unwrap_or(u64::MAX));
        Ok((body.digest.clone(), body.index.take()))
    }

    fn count_stored(&self, bytes: u64) {
        self.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn put_options_of(&self, file: &WalFile, way: PutWay) -> PutOptions {
        PutOptions {
            if_absent: way.is_conditional,
            ..self.put_options(self.tags_of(file.name))
        }
    }

    /// Drops what a killed upload of the same file has left: nothing else would.
    async fn abort_leftovers(&self, key: &ObjectKey) {
        let store = &self.repository.store;
        let uploads = match store.list_uploads(key.as_str()).await {
            Ok(uploads) => uploads,
            Err(error) => {
                info!(%key, error = chain(&error), "cannot list unfinished uploads");
                return;
            }
        };
        for (_, upload) in uploads.iter().filter(|(found, _)| found == key) {
            if let Err(error) = store.abort_upload(key, upload).await {
                warn!(%key, error = chain(&error), "cannot abort an unfinished upload");
            }
        }
    }

    async fn is_there(&self, key: &ObjectKey) -> Result<bool, ArchiveError> {
        match self.repository.store.head(key).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Compares the file with what is there under `key`; `None` when nothing is there any more.
    async fn compare(
        &self,
        file: &WalFile,
        key: &ObjectKey,
        codec: Codec,
    ) -> Result<Option<Stored>, ArchiveError> {
        let body = match self.repository.store.get(key, None).await {
            Ok(body) => body,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let there = object_read::read(body, move |reader| {
            let mut sink = DigestWriter::new(io::sink());
            io::copy(&mut decompressor(reader, codec)?, &mut sink)?;
            Ok((sink.size(), sink.blake3()))
        });
        let (there, here) = tokio::join!(there, self.digest(file));
        let here = here?;
        match there {
            Ok((size, digest)) if size == file.size && digest == here => Ok(Some(Stored {
                archived: Archived::AlreadyThere(key.clone()),
                digest: Some(here),
                index: None,
            })),
            Ok(_) => Err(ArchiveError::Conflict {
                name: file.name,
                key: key.clone(),
            }),
            Err(ReadError::Store(error)) if error.is_not_found() => Ok(None),
            Err(ReadError::Store(error)) => Err(error.into()),
            Err(ReadError::Work(source)) => Err(ArchiveError::Unreadable {
                name: file.name,
                key: key.clone(),
                source,
            }),
        }
    }

    fn tags_of(&self, name: WalFileName) -> Vec<(String, String)> {
        let history_tags = &self.options.history_tags;
        let is_history = matches!(name, WalFileName::TimelineHistory(_));
        if is_history && !history_tags.is_empty() {
            history_tags.clone()
        } else {
            self.options.tags.clone()
        }
    }
}

/// What the store said, when it was the store.
fn store_kind(error: &ArchiveError) -> Option<StoreErrorKind> {
    let from_store = |error: &StoreError| error.kind;
    match error {
        ArchiveError::Store(error) | ArchiveError::Upload(UploadError::Store(error)) => {
            Some(from_store(error))
        }
        _ => None,
    }
}
