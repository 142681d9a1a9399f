//! The first WAL file that somebody outside still needs, noted in the archive.
//!
//! A note alone: WAL goes with the retention policy of the ObjectStore, which knows what backups
//! need. The operator does not ask for it today. Not here: deleting anything.

use bytes::Bytes;
use cellarman::barman::repository::{Repository, RepositoryError};
use cellarman::domain::wal_file::WalFileName;
use cellarman::store::PutOptions;
use cellarman::store::error::StoreError;

/// The object, below the private prefix.
const OBJECT: &str = "first-required-wal";

/// Notes it.
pub(super) async fn write(repository: &Repository, name: WalFileName) -> Result<(), StoreError> {
    let key = repository.layout.private(OBJECT);
    let body = Bytes::from(format!("{name}\n"));
    let options = PutOptions::default();
    repository.store.put(&key, body, &options).await
}

/// What was noted; `None` when nothing was, or nothing that makes sense.
pub(super) async fn read(repository: &Repository) -> Result<Option<WalFileName>, StoreError> {
    let key = repository.layout.private(OBJECT);
    match repository.get_small(&key).await {
        Ok(bytes) => Ok(std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.trim().parse().ok())),
        Err(RepositoryError::Store(error)) if error.is_not_found() => Ok(None),
        Err(RepositoryError::Store(error)) => Err(error),
        Err(_) => Ok(None),
    }
}
