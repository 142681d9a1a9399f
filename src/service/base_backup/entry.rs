//! One entry of a walk, put into an archive: its bytes, its line in the manifest, its damage.
//!
//! Not here: which archive, and when.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tracing::debug;

use crate::barman::stored_objects::DamagedFile;
use crate::codec::tar::{Attributes, TarError};
use crate::postgres::datadir::{self, DataDirectoryError, Entry, EntryKind};
use crate::service::base_backup::Watcher;
use crate::service::base_backup::archive::OpenArchive;
use crate::service::base_backup::copy::Copy;
use crate::service::base_backup::error::BackupError;
use crate::service::base_backup::file::{FileReader, PageCheck};

/// Files whose damaged pages are named.
const DAMAGED_FILES_MAX: usize = 1000;

impl Copy {
    /// Appends what the entry names as it is now; what has vanished is passed over.
    pub(super) fn append(
        &self,
        archive: &mut OpenArchive,
        entry: &Entry,
    ) -> Result<(), BackupError> {
        let EntryKind::File { first_block } = entry.kind else {
            append_directory(archive, entry)?;
            return Ok(());
        };
        let Some((file, meta)) = datadir::open_file(&entry.source)? else {
            debug!(path = %entry.source.display(), "vanished before it was read");
            return Ok(());
        };
        let check = first_block.and_then(|first_block| {
            Some(PageCheck {
                page_bytes: self.source.checked_page_bytes?,
                first_block,
                begin_lsn: self.source.begin_lsn,
            })
        });
        self.append_file(archive, entry, (file, meta), check)
    }

    fn append_file(
        &self,
        archive: &mut OpenArchive,
        entry: &Entry,
        (file, meta): (File, Metadata),
        check: Option<PageCheck>,
    ) -> Result<(), BackupError> {
        let attributes = attributes(&meta);
        let size = meta.len();
        let mut reader = Counting {
            reader: FileReader::new(file, size, check),
            watcher: &*self.watcher,
        };
        let appended = archive
            .tar()
            .append_file(name_in_tar(entry), size, attributes, &mut reader)
            .map_err(|error| named(error, &entry.source))?;
        let path = path_in_cluster(entry);
        let damaged = reader.reader.damaged();
        let mut gathered = self.gathered();
        let manifest = gathered.manifest.as_mut().ok_or(BackupError::Broken)?;
        manifest
            .add_file(
                path.as_os_str().as_bytes(),
                size,
                attributes.mtime,
                appended.crc32c,
            )
            .map_err(BackupError::Manifest)?;
        gathered.copied_bytes += size;
        gathered.copied_files += 1;
        if damaged.count > 0 {
            gathered.damaged_count += damaged.count;
            if gathered.damaged.len() < DAMAGED_FILES_MAX {
                gathered.damaged.push(DamagedFile {
                    path: path.to_string_lossy().into_owned(),
                    blocks: damaged.blocks.clone(),
                });
            }
        }
        Ok(())
    }
}

/// Appends a directory as it is now; `false` when it has vanished.
pub(super) fn append_directory(
    archive: &mut OpenArchive,
    entry: &Entry,
) -> Result<bool, BackupError> {
    let meta = match std::fs::metadata(&entry.source) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => {
            let path = entry.source.clone();
            return Err(DataDirectoryError::Read { path, source }.into());
        }
    };
    archive
        .tar()
        .append_directory(name_in_tar(entry), attributes(&meta))
        .map_err(BackupError::Append)?;
    Ok(true)
}

/// As Barman writes them: `./` before what lies at the top of the data directory, which itself is `./`.
fn name_in_tar(entry: &Entry) -> Vec<u8> {
    let bytes = entry.name.as_os_str().as_bytes();
    if entry.tablespace.is_some() || bytes.contains(&b'/') {
        return bytes.to_vec();
    }
    [b"./", bytes].concat()
}

fn path_in_cluster(entry: &Entry) -> PathBuf {
    match entry.tablespace {
        Some(oid) => Path::new("pg_tblspc")
            .join(oid.to_string())
            .join(&entry.name),
        None => entry.name.clone(),
    }
}

/// What a tar keeps of a file's or directory's attributes.
pub(super) fn attributes(meta: &Metadata) -> Attributes {
    Attributes {
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: meta.mtime(),
    }
}

/// A failed read names the file, as the server knows it.
fn named(error: TarError, path: &Path) -> BackupError {
    match error {
        TarError::Read { source, .. } => DataDirectoryError::Read {
            path: path.to_owned(),
            source,
        }
        .into(),
        TarError::Write(_) => BackupError::Append(error),
    }
}

/// Tells the watcher of what was read.
struct Counting<'a> {
    reader: FileReader<File>,
    watcher: &'a dyn Watcher,
}

impl io::Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.watcher.copied(u64::try_from(count).unwrap_or(0));
        Ok(count)
    }
}
