//! The members of one tar to files below one directory.
//!
//! Takes any dialect of tar. Trusts nothing that it says: a member lands inside the directory,
//! behind no link, or the extraction fails. Not here: fetching, decoding, fsync.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, FileTimes, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use tar::{EntryType, Header};
use tokio_util::sync::CancellationToken;

use crate::service::object_read::Watched;
use crate::service::restore::disk_file::{DiskBuffer, DiskFile};
use crate::service::restore::error::RestoreError;
use crate::service::restore::marker::Marker;
use crate::service::restore::members::{self, Place};
use crate::service::restore::owners::Owners;

/// How an extraction fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExtractError {
    /// The archive does not read, or ends too early.
    #[error("the archive does not read")]
    Read(#[source] io::Error),
    /// The member would leave the directory, or write through a link.
    #[error("member {0:?} is not safe to write")]
    Unsafe(String),
    /// The member is a link in the place of files without which there is no database.
    #[error("member {member:?} is a link to {target:?}")]
    LinkedAway { member: String, target: String },
    /// The file system refused.
    #[error("cannot {action} {}", .path.display())]
    Write {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// What is about to appear could not be noted.
    #[error(transparent)]
    Note(Box<RestoreError>),
    /// The token was cancelled.
    #[error("cancelled")]
    Cancelled,
}

fn cannot(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ExtractError {
    let path = path.to_owned();
    move |source| ExtractError::Write {
        action,
        path,
        source,
    }
}

/// Where the members of an archive go.
pub(crate) struct Landing<'a> {
    /// The directory, already there.
    pub(crate) root: &'a Path,
    /// Whether it is the data directory, whose members have special cases.
    pub(crate) is_pgdata: bool,
    /// Paths below it that another archive fills.
    pub(crate) left_out: &'a [PathBuf],
    /// The number of the archive among its pieces: of a file at the root that several pieces
    /// have, that of the last piece stays.
    pub(crate) piece: u32,
    /// Which piece each file at the root came from; shared by all pieces.
    pub(crate) root_files: &'a Mutex<HashMap<PathBuf, u32>>,
    /// How much is written at a time.
    pub(crate) write_bytes: usize,
    /// Present when files are given to their owners.
    pub(crate) owners: Option<&'a Owners>,
    /// Where is noted what appears in the data directory.
    pub(crate) marker: &'a Marker,
    /// Ends the extraction between two writes.
    pub(crate) cancel: &'a CancellationToken,
}

/// What an archive held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extracted {
    /// Regular files written.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Members of kinds that no data directory needs, such as sockets, and so not made.
    pub(crate) passed_over: u64,
}

/// Writes the members of an archive, then reads the stream to its end.
pub(crate) fn extract(
    archive: impl Read,
    landing: &Landing<'_>,
) -> Result<Extracted, ExtractError> {
    let mut watched = Watched {
        inner: archive,
        is_at_end: Cell::new(false),
    };
    let mut writer = MemberWriter {
        landing,
        verified: PathBuf::new(),
        buffer: DiskBuffer::new(landing.write_bytes),
        extracted: Extracted::default(),
    };
    {
        let mut tar = tar::Archive::new(&mut watched);
        for entry in tar.entries().map_err(ExtractError::Read)? {
            writer.write(&mut entry.map_err(ExtractError::Read)?)?;
        }
    }
    if watched.is_at_end.get() {
        // The end of a tar is a block of zeros. The reader takes the end of the stream for it
        // too, and then a tar cut between two members would look whole.
        let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the tar has no end marker");
        return Err(ExtractError::Read(error));
    }
    loop {
        if landing.cancel.is_cancelled() {
            return Err(ExtractError::Cancelled);
        }
        if watched
            .read(writer.buffer.space())
            .map_err(ExtractError::Read)?
            == 0
        {
            return Ok(writer.extracted);
        }
    }
}

struct MemberWriter<'a> {
    landing: &'a Landing<'a>,
    /// The directory last seen to be one, with all above it, links excluded.
    verified: PathBuf,
    buffer: DiskBuffer,
    extracted: Extracted,
}

impl MemberWriter<'_> {
    fn write<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), ExtractError> {
        if self.landing.cancel.is_cancelled() {
            return Err(ExtractError::Cancelled);
        }
        let kind = entry.header().entry_type();
        let relative = inside(&entry.path_bytes())?;
        let place = if self
            .landing
            .left_out
            .iter()
            .any(|path| relative.starts_with(path))
        {
            Place::LeftOut
        } else if self.landing.is_pgdata {
            members::place(&relative, kind == EntryType::Symlink)
        } else {
            members::place_in_tablespace(&relative)
        };
        let relative = match place {
            Place::At(relative) => relative,
            Place::LeftOut => return Ok(()),
            Place::LinkedAway => {
                return Err(ExtractError::LinkedAway {
                    member: relative.display().to_string(),
                    target: String::from_utf8_lossy(&link_name(entry)?).into_owned(),
                });
            }
        };
        if self.landing.is_pgdata {
            let noted = self.landing.marker.note_name(&relative);
            noted.map_err(|error| ExtractError::Note(Box::new(error)))?;
        }
        if self.landing.is_pgdata
            && kind != EntryType::Directory
            && relative.components().count() == 1
        {
            let root_files = self.landing.root_files;
            // Held while the file is written: another piece may have the same one.
            let mut pieces = root_files
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let piece = pieces.entry(relative.clone()).or_insert(0);
            if *piece > self.landing.piece {
                return Ok(());
            }
            *piece = self.landing.piece;
            return self.write_as(kind, &relative, entry);
        }
        self.write_as(kind, &relative, entry)
    }

    fn write_as<R: Read>(
        &mut self,
        kind: EntryType,
        relative: &Path,
        entry: &mut tar::Entry<'_, R>,
    ) -> Result<(), ExtractError> {
        match kind {
            EntryType::Directory => self.directory(relative, entry.header()),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(relative, entry)
            }
            EntryType::Symlink => self.symlink(relative, entry),
            EntryType::Link => self.hard_link(relative, entry),
            EntryType::XGlobalHeader => Ok(()),
            _ => {
                tracing::warn!(member = %relative.display(), ?kind, "passed over a special file");
                self.extracted.passed_over += 1;
                Ok(())
            }
        }
    }

    fn directory(&mut self, relative: &Path, header: &Header) -> Result<(), ExtractError> {
        self.ensure_directory(relative, header)?;
        let path = self.landing.root.join(relative);
        let mode = header.mode().map_err(ExtractError::Read)? & 0o777;
        // The rights of the owner are needed to write what is inside. Of a root directory the
        // server takes only two modes, and it begins as the stricter one.
        let mode = if relative.as_os_str().is_empty() {
            if mode == 0o750 { 0o750 } else { 0o700 }
        } else {
            mode | 0o700
        };
        fs::set_permissions(&path, Permissions::from_mode(mode))
            .map_err(cannot("set the mode of", &path))?;
        self.set_owner(&path, header)
    }

    fn file<R: Read>(
        &mut self,
        relative: &Path,
        entry: &mut tar::Entry<'_, R>,
    ) -> Result<(), ExtractError> {
        let path = self.make_way(relative, entry.header())?;
        let size = entry.size();
        let mut file = DiskFile::create(&path, size).map_err(cannot("create", &path))?;
        let mut copied = 0;
        loop {
            let count = self.buffer.fill(&mut *entry).map_err(ExtractError::Read)?;
            if count == 0 {
                break;
            }
            file.write(&mut self.buffer, count)
                .map_err(cannot("write", &path))?;
            copied += u64::try_from(count)
                .map_err(|error| ExtractError::Read(io::Error::other(error)))?;
            if self.landing.cancel.is_cancelled() {
                return Err(ExtractError::Cancelled);
            }
        }
        if copied != size {
            let text = format!("{} has {copied} of its {size} bytes", relative.display());
            return Err(ExtractError::Read(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                text,
            )));
        }
        self.extracted.files += 1;
        self.extracted.bytes += copied;
        let modified = modified(entry)?;
        let mode = entry.header().mode().map_err(ExtractError::Read)? & 0o777;
        let file = file.file();
        file.set_permissions(Permissions::from_mode(mode))
            .and_then(|()| file.set_times(FileTimes::new().set_modified(modified)))
            .map_err(cannot("set the attributes of", &path))?;
        self.set_owner(&path, entry.header())
    }

    fn symlink<R: Read>(
        &mut self,
        relative: &Path,
        entry: &tar::Entry<'_, R>,
    ) -> Result<(), ExtractError> {
        let path = self.make_way(relative, entry.header())?;
        let target = link_name(entry)?;
        std::os::unix::fs::symlink(OsStr::from_bytes(&target), &path)
            .map_err(cannot("link", &path))?;
        self.set_owner(&path, entry.header())
    }

    fn hard_link<R: Read>(
        &mut self,
        relative: &Path,
        entry: &tar::Entry<'_, R>,
    ) -> Result<(), ExtractError> {
        let target = inside(&link_name(entry)?)?;
        let parent = target.parent().unwrap_or(Path::new("")).to_owned();
        self.ensure_directory(&parent, entry.header())?;
        let target = self.landing.root.join(target);
        let path = self.make_way(relative, entry.header())?;
        // Does not follow a link at the target: a link to a link is one.
        fs::hard_link(&target, &path).map_err(cannot("link", &path))
    }

    /// Makes the directories above a member, and takes away a file that stands in its place.
    fn make_way(&mut self, relative: &Path, header: &Header) -> Result<PathBuf, ExtractError> {
        let Some(parent) = relative.parent() else {
            return Err(ExtractError::Unsafe(relative.display().to_string()));
        };
        let parent = parent.to_owned();
        self.ensure_directory(&parent, header)?;
        let path = self.landing.root.join(relative);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {
                Err(ExtractError::Unsafe(relative.display().to_string()))
            }
            Ok(_) => fs::remove_file(&path)
                .map(|()| path.clone())
                .map_err(cannot("replace", &path)),
            Err(_) => Ok(path),
        }
    }

    /// Makes a directory and those above it, below the root; a link in their place is refused.
    /// What is made belongs to the member's owner: not every tar has entries for directories.
    fn ensure_directory(&mut self, relative: &Path, header: &Header) -> Result<(), ExtractError> {
        if self.verified.as_path() == relative {
            return Ok(());
        }
        let mut path = self.landing.root.to_owned();
        for component in relative.components() {
            path.push(component);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let found = fs::symlink_metadata(&path).map_err(cannot("look at", &path))?;
                    if !found.is_dir() {
                        return Err(ExtractError::Unsafe(relative.display().to_string()));
                    }
                }
                Err(error) => return Err(cannot("make", &path)(error)),
                Ok(()) => self.set_owner(&path, header)?,
            }
        }
        relative.clone_into(&mut self.verified);
        Ok(())
    }

    fn set_owner(&self, path: &Path, header: &Header) -> Result<(), ExtractError> {
        let Some((user, group)) = self.landing.owners.and_then(|owners| owners.of(header)) else {
            return Ok(());
        };
        std::os::unix::fs::lchown(path, Some(user), Some(group))
            .map_err(cannot("set the owner of", path))
    }
}

fn link_name<R: Read>(entry: &tar::Entry<'_, R>) -> Result<Vec<u8>, ExtractError> {
    entry
        .link_name_bytes()
        .map(std::borrow::Cow::into_owned)
        .ok_or_else(|| ExtractError::Read(io::Error::other("a link without a target")))
}

/// A member's name as a path below the root.
fn inside(name: &[u8]) -> Result<PathBuf, ExtractError> {
    let refused = || ExtractError::Unsafe(String::from_utf8_lossy(name).into_owned());
    if name.starts_with(b"/") || name.contains(&0) {
        return Err(refused());
    }
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(refused()),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

/// When the file was last changed: the pax record, which has fractions, else the header.
fn modified<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<SystemTime, ExtractError> {
    let whole = entry.header().mtime().map_err(ExtractError::Read)?;
    let mut time = Duration::from_secs(whole);
    if let Some(extensions) = entry.pax_extensions().map_err(ExtractError::Read)? {
        let record = extensions
            .filter_map(Result::ok)
            .find(|extension| extension.key_bytes() == b"mtime");
        let seconds = record.and_then(|record| record.value().ok()?.parse::<f64>().ok());
        if let Some(seconds) = seconds {
            time = Duration::try_from_secs_f64(seconds).unwrap_or(time);
        }
    }
    SystemTime::UNIX_EPOCH
        .checked_add(time)
        .ok_or_else(|| ExtractError::Read(io::Error::other("a time that cannot be")))
}
