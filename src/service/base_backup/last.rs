//! The last entries of the first archive: `pg_control`, then the label and the manifest.
//!
//! Runs on a plain thread. Not here: ending the backup on the server, which lies between the two.

use std::fs;
use std::path::Path;

use crate::barman::stored_objects::StoredObject;
use crate::codec::tar::Attributes;
use crate::domain::backup::SystemId;
use crate::pgfile::manifest::{ManifestBuilder, WalRange};
use crate::postgres::datadir::DataDirectoryError;
use crate::service::base_backup::archive::OpenArchive;
use crate::service::base_backup::copy::fail;
use crate::service::base_backup::entry::attributes;
use crate::service::base_backup::error::BackupError;
use crate::service::base_backup::prepare::read_control;

/// The server's files that only their owner may read.
const PRIVATE_MODE: u32 = 0o600;
const CONTROL_NAME: &str = "global/pg_control";

/// Appends the control file as it is now, after everything else was copied.
///
/// On a standby it tells how far replay must go for that everything to be consistent.
pub(super) fn append_control(
    mut archive: OpenArchive,
    manifest: &mut ManifestBuilder,
    root: &Path,
    system_id: SystemId,
) -> Result<OpenArchive, BackupError> {
    match try_append_control(&mut archive, manifest, root, system_id) {
        Ok(()) => Ok(archive),
        Err(error) => Err(fail(archive, error)),
    }
}

fn try_append_control(
    archive: &mut OpenArchive,
    manifest: &mut ManifestBuilder,
    root: &Path,
    system_id: SystemId,
) -> Result<(), BackupError> {
    let path = root.join(CONTROL_NAME);
    let meta = fs::metadata(&path).map_err(|source| DataDirectoryError::new(&path, source))?;
    let (bytes, control) = read_control(root)?;
    let found = SystemId(control.system_id);
    if found != system_id {
        return Err(BackupError::OtherCluster {
            path: root.to_owned(),
            found,
            system_id,
        });
    }
    append(archive, manifest, CONTROL_NAME, (&bytes, attributes(&meta)))
}

/// What the server said at the end, to be put into the archive.
pub(super) struct Ending<'a> {
    /// The text of `backup_label`.
    pub label: &'a str,
    /// The log that the backup needs.
    pub wal_ranges: &'a [WalRange],
    /// The time now, in seconds since 1970.
    pub now: i64,
}

/// Appends label and manifest, owned as the data directory is, and finishes the archive.
/// Returns when it is stored.
pub(super) fn append_ending(
    mut archive: OpenArchive,
    mut manifest: ManifestBuilder,
    root: &Path,
    ending: &Ending<'_>,
) -> Result<StoredObject, BackupError> {
    let appended = fs::metadata(root)
        .map_err(|source| DataDirectoryError::new(root, source).into())
        .and_then(|meta| {
            let attributes = Attributes {
                mode: PRIVATE_MODE,
                mtime: ending.now,
                ..attributes(&meta)
            };
            let label = (ending.label.as_bytes(), attributes);
            append(&mut archive, &mut manifest, "backup_label", label)?;
            let manifest = manifest
                .finish(ending.wal_ranges)
                .map_err(BackupError::Manifest)?;
            let size = manifest.size();
            archive
                .tar()
                .append_file("backup_manifest", size, attributes, manifest)
                .map_err(BackupError::Append)
        });
    if let Err(error) = appended {
        return Err(fail(archive, error));
    }
    Ok(archive.finish()?.wait()?)
}

fn append(
    archive: &mut OpenArchive,
    manifest: &mut ManifestBuilder,
    name: &str,
    (bytes, attributes): (&[u8], Attributes),
) -> Result<(), BackupError> {
    let appended = archive
        .tar()
        .append_bytes(name, bytes, attributes)
        .map_err(BackupError::Append)?;
    let size = u64::try_from(bytes.len()).expect("a usize has at most 64 bits");
    manifest
        .add_file(name, size, attributes.mtime, appended.crc32c)
        .map_err(BackupError::Manifest)
}
