//! The archives of a backup, checked to be all there before any of them is fetched.
//!
//! Not here: fetching them (`run`).

use crate::barman::repository::{Repository, RepositoryError, StoredArchive};
use crate::barman::stored_objects::StoredObjects;
use crate::domain::backup::{Backup, BackupId};
use crate::service::restore::error::RestoreError;

/// An archive to restore.
#[derive(Debug, Clone)]
pub struct PlannedArchive {
    /// Where it lies and how it is compressed.
    pub stored: StoredArchive,
    /// The blake3 recorded when it was stored, in hexadecimal. Backups by other tools have none.
    pub blake3: Option<String>,
    /// What it will take on disk at least.
    pub bytes_min: u64,
}

/// Our record of what was stored, if the backup is ours.
pub(crate) async fn stored_objects(
    repository: &Repository,
    id: &BackupId,
    warnings: &mut Vec<String>,
) -> Result<Option<StoredObjects>, RestoreError> {
    let key = StoredObjects::key(&repository.layout, id);
    let bytes = match repository.get_small(&key).await {
        Err(RepositoryError::Store(error)) if error.is_not_found() => {
            return Ok(None);
        }
        read => read?,
    };
    let objects = StoredObjects::parse(&bytes)
        .map_err(|source| RestoreError::ObjectsRecord { key, source })?;
    for file in &objects.damaged {
        warnings.push(format!(
            "{} had damaged pages already when it was backed up: blocks {:?}.",
            file.path, file.blocks
        ));
    }
    Ok(Some(objects))
}

/// The archives, checked to be all there: no tablespace, no piece and no recorded object missing.
pub(crate) fn planned_archives(
    backup: &Backup,
    stored: Vec<StoredArchive>,
    objects: Option<&StoredObjects>,
) -> Result<Vec<PlannedArchive>, RestoreError> {
    let missing = |missing: String| RestoreError::ArchiveMissing {
        backup: backup.id.clone(),
        missing,
    };
    let wanted = std::iter::once(None).chain(
        backup
            .tablespaces
            .iter()
            .map(|tablespace| Some(tablespace.oid)),
    );
    for tablespace in wanted {
        let owner = tablespace.map_or_else(
            || "the data directory".to_owned(),
            |oid| format!("tablespace {oid}"),
        );
        let mut pieces: Vec<u32> = stored
            .iter()
            .filter(|archive| archive.name.tablespace == tablespace)
            .map(|archive| archive.name.piece)
            .collect();
        pieces.sort_unstable();
        if pieces.is_empty() {
            return Err(missing(owner));
        }
        for (expected, piece) in (0..).zip(pieces) {
            match piece.cmp(&expected) {
                std::cmp::Ordering::Less => {
                    return Err(RestoreError::NotADatabase {
                        backup: backup.id.clone(),
                        reason: format!("piece {piece} of {owner} is there twice"),
                    });
                }
                std::cmp::Ordering::Greater => {
                    return Err(missing(format!("piece {expected} of {owner}")));
                }
                std::cmp::Ordering::Equal => {}
            }
        }
    }
    for object in objects.iter().flat_map(|objects| &objects.objects) {
        let found = stored
            .iter()
            .find(|archive| archive.key.base_name() == object.name);
        if found.is_none_or(|archive| archive.size != object.size) {
            return Err(missing(format!(
                "{} with {} bytes",
                object.name, object.size
            )));
        }
    }
    let plan = |archive: StoredArchive| {
        let recorded = objects.and_then(|objects| objects.get(archive.key.base_name()));
        PlannedArchive {
            blake3: recorded.map(|object| object.blake3.clone()),
            bytes_min: recorded
                .and_then(|object| object.tar_bytes)
                .unwrap_or(archive.size),
            stored: archive,
        }
    };
    Ok(stored.into_iter().map(plan).collect())
}
