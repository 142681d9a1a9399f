//! What is restored, on this host: a file that appears whole or not at all.
//!
//! Everything here blocks. Not here: where the bytes come from (`fetch`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::codec::digest::DigestWriter;
use crate::pgfile::wal::page::SEGMENT_HEADER_BYTES;
use crate::service::durable_file;
use crate::service::wal_state::PgWal;

const COPY_BYTES: usize = 256 << 10;

/// The largest content taken, so that a damaged object cannot fill the disk: the largest segment.
const CONTENT_BYTES_MAX: u64 = 1 << 30;

/// A file under a temporary name. It is removed when it is dropped before it was moved.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    is_moved: bool,
}

/// What was written.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) size: u64,
    pub(super) blake3: String,
    pub(super) head: Vec<u8>,
}

/// Whose fault it is that content could not be written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The content cannot be read to its end.
    Content(io::Error),
    /// The file cannot be written.
    File(io::Error),
}

impl Temporary {
    /// A name for what is to become `destination`: among our own files where there is a `pg_wal`,
    /// else beside it. Leftovers of processes that are gone are removed.
    pub(super) fn new(destination: &Path, pg_wal: Option<&PgWal>) -> Self {
        let own = pg_wal.and_then(|pg_wal| own_folder(pg_wal).ok());
        let path = match own {
            Some(folder) => {
                let name = destination.file_name().unwrap_or_default();
                folder.join(format!(
                    "{}.{}",
                    durable_file::own_id(),
                    name.to_string_lossy()
                ))
            }
            None => durable_file::temporary_beside(destination),
        };
        Self::at(path)
    }

    /// This name.
    pub(super) fn at(path: PathBuf) -> Self {
        Self {
            path,
            is_moved: false,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to its final name, durably.
    pub(super) fn move_to(mut self, destination: &Path) -> io::Result<()> {
        durable_file::rename(&self.path, destination)?;
        self.is_moved = true;
        Ok(())
    }

    /// Leaves the file to whoever has moved it.
    pub(super) fn moved(mut self) {
        self.is_moved = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_moved {
            // It may never have been made.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes `content` to `path`, to its end and durably.
pub(super) fn write(path: &Path, content: &mut dyn Read) -> Result<Written, WriteError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(WriteError::File)?;
    let mut sink = DigestWriter::new(file);
    let mut head = Vec::with_capacity(SEGMENT_HEADER_BYTES);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(WriteError::Content(error)),
        };
        let chunk = &buffer[..count];
        let missing = SEGMENT_HEADER_BYTES.saturating_sub(head.len()).min(count);
        head.extend_from_slice(&chunk[..missing]);
        sink.write_all(chunk).map_err(WriteError::File)?;
        if sink.size() > CONTENT_BYTES_MAX {
            let error = io::Error::other("it holds more than the largest WAL segment");
            return Err(WriteError::Content(error));
        }
    }
    let (size, blake3) = (sink.size(), sink.blake3());
    sink.into_inner().sync_all().map_err(WriteError::File)?;
    Ok(Written { size, blake3, head })
}

/// The size and the blake3 digest of a file.
pub(super) fn digest_of(path: &Path) -> io::Result<(u64, String)> {
    let mut sink = DigestWriter::new(io::sink());
    let mut buffer = vec![0; COPY_BYTES];
    let mut file = File::open(path)?;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((sink.size(), sink.blake3())),
            count => sink.write_all(&buffer[..count])?,
        }
    }
}

/// Our folder for temporary files, without those of processes that are gone.
fn own_folder(pg_wal: &PgWal) -> io::Result<PathBuf> {
    let folder = temporary_folder(pg_wal);
    durable_file::create_folder(&folder)?;
    remove_leftovers(pg_wal)?;
    Ok(folder)
}

/// Removes the temporary files of processes that are gone.
pub(super) fn remove_leftovers(pg_wal: &PgWal) -> io::Result<()> {
    let entries = match fs::read_dir(temporary_folder(pg_wal)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if durable_file::is_gone(name.split('.').next().unwrap_or_default()) {
            // Another call may be doing the same.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn temporary_folder(pg_wal: &PgWal) -> PathBuf {
    pg_wal.state_folder().join("tmp")
}
