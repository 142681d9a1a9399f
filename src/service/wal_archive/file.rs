//! The file to archive on this host: its name, its size, its digest, and what it is checked against.
//!
//! Everything here blocks. Not here: compressing it (`body`).

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, fadvise};
use tracing::warn;

use crate::codec::digest::Blake3;
use crate::domain::backup::SystemId;
use crate::domain::segment::SegmentSize;
use crate::domain::timeline::{TimelineHistory, TimelineId};
use crate::domain::wal_file::{WalFileName, WalFileNameError};
use crate::pgfile::control::ControlFile;
use crate::pgfile::wal::page::SEGMENT_HEADER_BYTES;
use crate::service::wal_archive::check::{self, Origin, Segment};
use crate::service::wal_archive::error::ArchiveError;
use crate::service::wal_archive::ownership::Server;
use crate::service::wal_state::PgWal;

/// The largest history or label file taken: far more than PostgreSQL writes.
const SMALL_FILE_BYTES_MAX: u64 = 8 << 20;

/// How much is read at a time.
pub(super) const READ_BYTES: usize = 256 << 10;

/// A WAL file that is what its name says.
#[derive(Debug, Clone)]
pub(super) struct WalFile {
    pub(super) path: PathBuf,
    pub(super) name: WalFileName,
    pub(super) size: u64,
    /// The cluster and the segment size by the file's own header.
    pub(super) header: Option<(SystemId, SegmentSize)>,
    /// Whether it is a whole segment of a server, of a version that is known: one for the index.
    pub(super) is_indexed: bool,
}

/// The place that the files come from.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The `pg_wal`, when it is one.
    pub(super) pg_wal: Option<PgWal>,
    /// Its data directory's control file.
    control: Option<ControlFile>,
}

/// The name that a path ends in.
pub(super) fn name_of(path: &Path) -> Result<WalFileName, WalFileNameError> {
    path.file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default()
        .parse()
}

impl Place {
    /// The place of this file.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let pg_wal = PgWal::holding(path)?;
        let control = pg_wal.as_ref().and_then(PgWal::control_file);
        Ok(Self { pg_wal, control })
    }

    /// Opens and checks the file at `path`.
    pub(super) fn inspect(&self, path: &Path) -> Result<WalFile, ArchiveError> {
        let name = name_of(path)?;
        let read_error = |source| ArchiveError::Read {
            path: path.to_path_buf(),
            source,
        };
        let mut file = File::open(path).map_err(read_error)?;
        let meta = file.metadata().map_err(read_error)?;
        if !meta.is_file() {
            return Err(read_error(io::Error::other("it is no plain file")));
        }
        let size = meta.len();
        let check_error = |source| ArchiveError::Check {
            path: path.to_path_buf(),
            source,
        };
        let segment = match name {
            WalFileName::Segment(segment) | WalFileName::Partial(segment) => segment,
            WalFileName::BackupHistory(..) | WalFileName::TimelineHistory(_) => {
                let mut content = Vec::new();
                file.take(SMALL_FILE_BYTES_MAX)
                    .read_to_end(&mut content)
                    .map_err(read_error)?;
                check::small_file(name, &content).map_err(check_error)?;
                return Ok(WalFile {
                    path: path.to_path_buf(),
                    name,
                    size,
                    header: None,
                    is_indexed: false,
                });
            }
        };
        let mut head = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        file.by_ref()
            .take(SEGMENT_HEADER_BYTES.try_into().unwrap_or(u64::MAX))
            .read_to_end(&mut head)
            .map_err(read_error)?;
        let origin = self.origin(segment.timeline());
        let header = match check::segment(segment, size, &head, &origin).map_err(check_error)? {
            Segment::Checked(header) => Some((SystemId(header.system_id), header.segment_size)),
            Segment::UnknownMagic(magic) => {
                warn!(%name, magic = format!("{magic:04X}"), "archiving WAL of an unknown version unchecked");
                None
            }
        };
        Ok(WalFile {
            path: path.to_path_buf(),
            name,
            size,
            is_indexed: header.is_some()
                && self.pg_wal.is_some()
                && matches!(name, WalFileName::Segment(_)),
            header,
        })
    }

    /// The cluster that the file is of, when its directory or the file tells.
    pub(super) fn system_id(&self, file: &WalFile) -> Option<SystemId> {
        let by_control = self.control.as_ref().map(|c| SystemId(c.system_id));
        by_control.or(file.header.map(|(system_id, _)| system_id))
    }

    /// The server, as far as its directory and the file tell; `None` when nothing tells.
    pub(super) fn server(&self, file: &WalFile) -> Option<Server> {
        let by_control = self
            .control
            .as_ref()
            .map(|control| (SystemId(control.system_id), control.segment_size));
        let (system_id, segment_size) = by_control.or(file.header)?;
        let named = file.name.timeline();
        let (timeline, history) = self.line_of(named);
        Some(Server {
            system_id,
            segment_size,
            timeline,
            history,
            is_line_known: self.pg_wal.is_some(),
        })
    }

    /// The line that the server is on now: that of its control file where the file's timeline
    /// is on it, else the file's own.
    fn line_of(&self, named: TimelineId) -> (TimelineId, Option<TimelineHistory>) {
        let now = self.control.as_ref().map(|control| {
            control
                .min_recovery_timeline
                .map_or(control.timeline, |other| other.max(control.timeline))
        });
        if let Some(now) = now.filter(|now| *now > named)
            && let Some(history) = self.history(now)
            && history.contains(named)
        {
            return (now, Some(history));
        }
        (named, self.history(named))
    }

    fn origin(&self, timeline: TimelineId) -> Origin {
        Origin {
            system_id: self.control.as_ref().map(|c| SystemId(c.system_id)),
            segment_size: self.control.as_ref().map(|c| c.segment_size),
            history: self.history(timeline),
        }
    }

    fn history(&self, timeline: TimelineId) -> Option<TimelineHistory> {
        self.pg_wal.as_ref()?.history(timeline)
    }
}

/// Reads a file of `size` bytes to its end, chunk by chunk, unless `stop` is set meanwhile.
///
/// It must still have its name then: PostgreSQL renames a segment that was archived (by another
/// call) and writes new WAL over it.
pub(super) fn read_chunks(
    path: &Path,
    size: u64,
    stop: &AtomicBool,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut seen = 0_u64;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(given_up());
        }
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        seen += u64::try_from(count).map_err(io::Error::other)?;
        take(&buffer[..count])?;
    }
    if seen != size {
        return Err(changed(size));
    }
    check_named(&file, path)
}

/// Reads a file into `space`, which is as long as the file, and tells of each stretch that is
/// there. As careful as [`read_chunks`].
pub(super) fn read_into<'a>(
    path: &Path,
    space: &'a mut [u8],
    stop: &AtomicBool,
    mut is_there: impl FnMut(&'a [u8]),
) -> io::Result<()> {
    let mut file = File::open(path)?;
    let size = u64::try_from(space.len()).map_err(io::Error::other)?;
    for stretch in space.chunks_mut(READ_BYTES) {
        if stop.load(Ordering::Relaxed) {
            return Err(given_up());
        }
        file.read_exact(stretch)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => changed(size),
                _ => error,
            })?;
        is_there(stretch);
    }
    check_unchanged(&file, path, size)
}

/// Whether an open file still has its size and its name.
pub(super) fn check_unchanged(file: &File, path: &Path, size: u64) -> io::Result<()> {
    if file.metadata()?.len() != size {
        return Err(changed(size));
    }
    check_named(file, path)
}

/// What work ends with that nobody waits for any more.
pub(super) fn given_up() -> io::Error {
    io::Error::other("given up")
}

fn changed(size: u64) -> io::Error {
    io::Error::other(format!(
        "it had {size} bytes and now has not: it changed while it was read"
    ))
}

fn check_named(file: &File, path: &Path) -> io::Result<()> {
    let (read, named) = (file.metadata()?, fs::metadata(path)?);
    if (read.dev(), read.ino()) != (named.dev(), named.ino()) {
        return Err(io::Error::other("another file took its name meanwhile"));
    }
    Ok(())
}

/// The blake3 digest of a file of `size` bytes.
pub(super) fn digest(path: &Path, size: u64, stop: &AtomicBool) -> io::Result<String> {
    let mut hasher = Blake3::new();
    read_chunks(path, size, stop, |chunk| {
        hasher.update(chunk);
        Ok(())
    })?;
    Ok(hasher.to_hex())
}

/// Gives the file's pages back to the kernel: nobody reads an archived segment again soon.
pub(super) fn forget_pages(path: &Path) {
    if let Ok(file) = File::open(path) {
        // Advice alone: a kernel that does not take it changes nothing.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_recycled_while_it_is_read_is_not_taken_for_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("000000010000000000000001");
        let size = 3 * READ_BYTES;
        for becomes in [None, Some("another file")] {
            fs::write(&path, vec![1; size]).unwrap();
            let stop = AtomicBool::new(false);
            let outcome = read_chunks(&path, u64::try_from(size).unwrap(), &stop, |_| {
                if let Some(content) = becomes {
                    fs::write(folder.path().join("next"), content)?;
                    fs::rename(folder.path().join("next"), &path)
                } else if path.exists() {
                    fs::rename(&path, folder.path().join("recycled"))
                } else {
                    Ok(())
                }
            });
            assert!(outcome.is_err());
        }
        fs::write(&path, vec![1; size]).unwrap();
        let stop = AtomicBool::new(false);
        let mut space = vec![0; size];
        let outcome = read_into(&path, &mut space, &stop, |_| {
            fs::rename(&path, folder.path().join("recycled")).ok();
        });
        assert!(outcome.is_err());
    }
}
