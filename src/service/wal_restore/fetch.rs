//! One WAL file out of the store: found, decompressed, checked, written under a temporary name.
//!
//! Not here: where it goes from there.

use std::path::{Path, PathBuf};

use tracing::warn;

use crate::barman::layout::Layout;
use crate::barman::repository::Repository;
use crate::codec::Codec;
use crate::codec::decompress::decompressor;
use crate::domain::wal_file::WalFileName;
use crate::service::object_read::{self, ReadError};
use crate::service::wal_restore::choice::{self, Candidate};
use crate::service::wal_restore::error::RestoreError;
use crate::service::wal_restore::file::{self, WriteError, Written};
use crate::store::{ListRequest, ObjectBody};

/// How often the archive is asked again when what it listed has gone.
const ATTEMPTS_MAX: u32 = 3;

/// What is asked of the archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) name: WalFileName,
    /// The codec to try first, without a listing.
    pub(super) codec_first: Option<Codec>,
    /// Whether an unfinished segment may answer for a whole one.
    pub(super) takes_partial: bool,
}

/// A file that was fetched, whole and durable under a temporary name.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    pub(super) from: Candidate,
    pub(super) written: Written,
}

/// Fetches a file to `path`; `None` when the store said that nothing answers for it.
///
/// When it fails, or its future is dropped, something may be left at `path`.
pub(super) async fn fetch(
    repository: &Repository,
    wanted: Wanted,
    path: &Path,
) -> Result<Option<Fetched>, RestoreError> {
    if let Some(codec) = wanted.codec_first {
        let guess = Candidate {
            key: repository.layout.wal(&wanted.name, codec),
            name: wanted.name,
            codec,
        };
        if let Some(fetched) = get(repository, guess, path).await? {
            return Ok(Some(fetched));
        }
    }
    for _ in 0..ATTEMPTS_MAX {
        let found = candidates(repository, wanted.name).await?;
        let Some(chosen) = choice::choose(wanted.name, &found, wanted.takes_partial) else {
            return Ok(None);
        };
        if let Some(fetched) = get(repository, chosen.clone(), path).await? {
            return Ok(Some(fetched));
        }
    }
    Err(RestoreError::Unsteady { name: wanted.name })
}

/// Everything in the archive whose name begins with `name`, in order of keys.
async fn candidates(
    repository: &Repository,
    name: WalFileName,
) -> Result<Vec<Candidate>, RestoreError> {
    let prefix = repository.layout.wal(&name, Codec::None).to_string();
    let mut request = ListRequest {
        prefix,
        ..ListRequest::default()
    };
    let mut found = Vec::new();
    loop {
        let page = repository.store.list(&request).await?;
        found.extend(page.objects.into_iter().filter_map(|meta| {
            let (name, codec) = Layout::parse_wal(meta.key.base_name())?;
            Some(Candidate {
                key: meta.key,
                name,
                codec,
            })
        }));
        match page.next {
            Some(token) => request.token = Some(token),
            None => return Ok(found),
        }
    }
}

/// Gets one object; `None` when the store said that it is not there.
async fn get(
    repository: &Repository,
    from: Candidate,
    path: &Path,
) -> Result<Option<Fetched>, RestoreError> {
    let body = match repository.store.get(&from.key, None).await {
        Ok(body) => body,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let written = match write(body, from.codec, path.to_path_buf()).await {
        Ok(written) => written,
        Err(ReadError::Store(error)) => return Err(error.into()),
        Err(ReadError::Work(source)) => return Err(write_failed(path, source)),
    };
    let written = written.map_err(|error| match error {
        WriteError::File(source) => write_failed(path, source),
        WriteError::Content(source) => RestoreError::Damaged {
            key: from.key.clone(),
            source,
        },
    })?;
    match choice::check(from.name, written.size, &written.head) {
        Ok(None) => {}
        Ok(Some(magic)) => {
            warn!(key = %from.key, magic = format!("{magic:04X}"), "restoring WAL of an unknown version");
        }
        Err(source) => {
            let key = from.key;
            return Err(RestoreError::Misnamed { key, source });
        }
    }
    Ok(Some(Fetched { from, written }))
}

async fn write(
    body: ObjectBody,
    codec: Codec,
    path: PathBuf,
) -> Result<Result<Written, WriteError>, ReadError> {
    object_read::read(body, move |reader| {
        Ok(match decompressor(reader, codec) {
            Ok(mut content) => file::write(&path, &mut content),
            Err(error) => Err(WriteError::Content(error)),
        })
    })
    .await
}

fn write_failed(path: &Path, source: std::io::Error) -> RestoreError {
    RestoreError::Write {
        path: path.to_path_buf(),
        source,
    }
}
