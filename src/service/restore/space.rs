//! Whether the file systems are large enough for what is certain to be written.
//!
//! A compressed archive of another tool does not tell its size, so the certain part may be small.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::domain::backup::Backup;
use crate::service::restore::archives::PlannedArchive;
use crate::service::restore::directories::DirectoryState;
use crate::service::restore::error::RestoreError;
use crate::service::restore::places::Places;

/// A file system that is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceCheck {
    /// A directory to be filled on it.
    pub path: PathBuf,
    /// Bytes free for this user.
    pub available: u64,
    /// Bytes that will be written at least.
    pub needed: u64,
}

/// Looks at each file system that is written to.
///
/// # Errors
/// Refuses where the certain part does not fit. What a dead restore left counts as free.
pub(crate) fn check(
    places: &Places,
    archives: &[PlannedArchive],
    backup: &Backup,
    warnings: &mut Vec<String>,
) -> Result<Vec<SpaceCheck>, RestoreError> {
    let mut by_device: BTreeMap<u64, SpaceCheck> = BTreeMap::new();
    for archive in archives {
        let tablespace = archive.stored.name.tablespace;
        let place = tablespace
            .and_then(|oid| places.tablespaces.iter().find(|planned| planned.oid == oid))
            .map_or(&places.pgdata, |planned| &planned.new);
        let (device, available) = look(place)?;
        let check = by_device.entry(device).or_insert_with(|| SpaceCheck {
            path: place.clone(),
            available,
            needed: 0,
        });
        check.needed = check.needed.saturating_add(archive.bytes_min);
    }
    let is_cleared_first = std::iter::once(places.pgdata_state)
        .chain(places.tablespaces.iter().map(|planned| planned.state))
        .any(|state| state == DirectoryState::Unfinished);
    let checks: Vec<SpaceCheck> = by_device.into_values().collect();
    if is_cleared_first {
        return Ok(checks);
    }
    if let Some(full) = checks.iter().find(|check| check.needed > check.available) {
        return Err(RestoreError::Space {
            path: full.path.clone(),
            available: full.available,
            needed: full.needed,
        });
    }
    let available = checks
        .iter()
        .fold(0_u64, |sum, check| sum.saturating_add(check.available));
    if let Some(size) = backup.cluster_size.filter(|size| *size > available) {
        warnings.push(format!(
            "The databases had {size} bytes when they were backed up, and {available} bytes are free: \
             the restore may not fit."
        ));
    }
    Ok(checks)
}

/// The device and the free bytes of the file system that a path is or will be on.
fn look(path: &Path) -> Result<(u64, u64), RestoreError> {
    let there = path
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"));
    let device = fs::metadata(there)
        .map_err(RestoreError::local("look at", there))?
        .dev();
    let space = rustix::fs::statvfs(there)
        .map_err(|error| RestoreError::local("look at", there)(error.into()))?;
    Ok((device, space.f_bavail.saturating_mul(space.f_frsize)))
}
