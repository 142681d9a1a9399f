//! The archives of a backup being written: tar into compressor into upload, piece by piece.
//!
//! All of it runs on plain threads. Not here: what goes into them.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::barman::layout::{ArchiveName, Layout};
use crate::barman::stored_objects::StoredObject;
use crate::codec::Compression;
use crate::codec::compress::Compressor;
use crate::codec::tar::{TarError, TarWriter};
use crate::domain::backup::BackupId;
use crate::fault::{Fault, Kind};
use crate::store::ObjectStore;
use crate::store::parts::PartWriter;
use crate::store::upload::{ArchiveUpload, UploadError, UploadObserver, UploadOptions, Uploaded};

/// How an archive fails.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It could not be stored.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// An entry could not be appended.
    #[error(transparent)]
    Append(#[from] TarError),
    /// The compressor failed.
    #[error("cannot compress {name}")]
    Compress {
        /// The archive.
        name: ArchiveName,
        /// What it said.
        source: io::Error,
    },
}

impl Fault for ArchiveError {
    fn kind(&self) -> Kind {
        match self {
            Self::Upload(error) => error.kind(),
            Self::Append(error) => error.kind(),
            Self::Compress { .. } => Kind::Internal,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Upload(error) => error.hint(),
            other => other.kind().hint().to_owned(),
        }
    }
}

/// Makes the archives of one backup.
pub(super) struct ArchiveMaker {
    /// Where they go.
    pub store: Arc<dyn ObjectStore>,
    /// Their keys.
    pub layout: Layout,
    /// The backup.
    pub id: BackupId,
    /// How they are compressed.
    pub compression: Compression,
    /// How they are uploaded.
    pub options: UploadOptions,
    /// Who keeps the record of uploads.
    pub observer: Arc<dyn UploadObserver>,
    /// Where uploads run.
    pub runtime: Handle,
    /// Ends all uploads.
    pub cancel: CancellationToken,
    /// The next piece of each tablespace.
    pub pieces: Mutex<BTreeMap<Option<u32>, u32>>,
}

impl ArchiveMaker {
    /// Opens the next piece of a tablespace, or of the data directory.
    pub(super) fn open(&self, tablespace: Option<u32>) -> Result<OpenArchive, ArchiveError> {
        let piece = {
            let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
            let next = pieces.entry(tablespace).or_insert(0);
            let piece = *next;
            *next += 1;
            piece
        };
        let name = ArchiveName { tablespace, piece };
        let key = self.layout.archive(&self.id, &name, self.compression.codec);
        let _inside = self.runtime.enter();
        let (upload, writer) = ArchiveUpload::start(
            Arc::clone(&self.store),
            key,
            self.options.clone(),
            Arc::clone(&self.observer),
            &self.cancel,
        );
        let stored = writer.stored();
        let compressor = Compressor::new(writer, self.compression)
            .map_err(|source| ArchiveError::Compress { name, source })?;
        Ok(OpenArchive {
            name,
            tar: TarWriter::new(compressor),
            upload,
            stored,
            runtime: self.runtime.clone(),
        })
    }
}

/// An archive that takes entries.
pub(super) struct OpenArchive {
    /// Which one it is.
    pub name: ArchiveName,
    tar: TarWriter<Compressor<PartWriter>>,
    upload: ArchiveUpload,
    stored: Arc<AtomicU64>,
    runtime: Handle,
}

impl OpenArchive {
    /// Where entries are appended. After an error, [`fail`](Self::fail) tells its cause.
    pub(super) fn tar(&mut self) -> &mut TarWriter<Compressor<PartWriter>> {
        &mut self.tar
    }

    /// The bytes stored so far, but for what the compressor still holds.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Writes the end; the rest is uploaded while the caller goes on.
    pub(super) fn finish(self) -> Result<FinishedArchive, ArchiveError> {
        let Self {
            name,
            tar,
            upload,
            runtime,
            ..
        } = self;
        // Two blocks end a tar, and it is a whole number of records.
        let tar_bytes = (tar.size() + 1024).next_multiple_of(10_240);
        let written = tar.finish().and_then(|compressor| {
            compressor
                .finish()
                .and_then(PartWriter::finish)
                .map_err(TarError::Write)
        });
        let finished = FinishedArchive {
            name,
            upload,
            tar_bytes,
            runtime,
        };
        match written {
            Ok(()) => Ok(finished),
            Err(error) => Err(cause(finished.upload, &finished.runtime, error)),
        }
    }

    /// Gives the archive up after `error` and tells what caused it. Returns when it is undone.
    pub(super) fn fail(self, error: TarError) -> ArchiveError {
        drop(self.tar);
        cause(self.upload, &self.runtime, error)
    }

    /// Whether its upload has ended early; what is written to it is lost.
    pub(super) fn has_failed(&self) -> bool {
        self.upload.has_ended()
    }

    /// Gives the archive up, and tells why its upload had ended, if it had. Returns when it is undone.
    pub(super) fn give_up(self) -> Option<ArchiveError> {
        drop(self.tar);
        match self.runtime.block_on(self.upload.finish()) {
            Ok(_) | Err(UploadError::Abandoned { .. } | UploadError::Cancelled { .. }) => None,
            Err(cause) => Some(cause.into()),
        }
    }

    /// Gives the archive up. Returns when it is undone.
    pub(super) fn abort(self) {
        drop(self.tar);
        self.runtime.block_on(self.upload.abort());
    }
}

/// An archive that has its end and may still be on its way.
pub(super) struct FinishedArchive {
    name: ArchiveName,
    upload: ArchiveUpload,
    tar_bytes: u64,
    runtime: Handle,
}

impl FinishedArchive {
    /// Waits until it is durable.
    pub(super) fn wait(self) -> Result<StoredObject, ArchiveError> {
        let Uploaded {
            key, size, blake3, ..
        } = self.runtime.block_on(self.upload.finish())?;
        tracing::debug!(archive = %self.name, size, "stored");
        Ok(StoredObject {
            name: key.base_name().to_owned(),
            size,
            blake3,
            tar_bytes: Some(self.tar_bytes),
        })
    }

    /// Gives it up. Returns when it is undone.
    pub(super) fn abort(self) {
        self.runtime.block_on(self.upload.abort());
    }
}

/// A writer fails because its upload has failed, unless it failed by itself.
fn cause(upload: ArchiveUpload, runtime: &Handle, error: TarError) -> ArchiveError {
    match runtime.block_on(upload.finish()) {
        Ok(_) | Err(UploadError::Abandoned { .. }) => error.into(),
        Err(cause) => cause.into(),
    }
}
