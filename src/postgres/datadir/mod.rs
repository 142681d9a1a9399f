//! The data directory and the tablespaces as a stream of entries, walked as it changes.
//!
//! Memory is bounded by the depth of the tree. What vanishes on the way is passed over; what
//! cannot be read is an error that names it. Not here: reading the files (`service::base_backup`).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, ReadDir};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};
use tracing::warn;

use crate::domain::backup::Tablespace;
use crate::domain::version::ServerVersion;
use crate::fault::{Fault, Kind};
use crate::postgres::excluded::{Place, Verdict};
use crate::postgres::relation::RelationFile;

/// Files above this gain from being read ahead of the copy.
const READ_AHEAD_BYTES: u64 = 128 << 10;

/// A part of the data directory that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DataDirectoryError {
    /// The directory that the server names is not on this host.
    #[error("the server's data directory {} is not here", path.display())]
    Missing {
        /// What the server calls it.
        path: PathBuf,
    },
    /// A tablespace of the server that is not on this host.
    #[error("tablespace {name} is not here: there is no {}", path.display())]
    MissingTablespace {
        /// Its name.
        name: String,
        /// Where its files should be.
        path: PathBuf,
    },
    /// A file or folder that the process may not read.
    #[error("may not read {}", path.display())]
    Denied {
        /// The file or folder.
        path: PathBuf,
    },
    /// Any other failure.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataDirectoryError {
    /// The failure of reading `path`.
    pub fn new(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::PermissionDenied {
            Self::Denied { path }
        } else {
            Self::Read { path, source }
        }
    }
}

impl Fault for DataDirectoryError {
    fn kind(&self) -> Kind {
        Kind::Local
    }

    fn hint(&self) -> String {
        match self {
            Self::Missing { .. } | Self::MissingTablespace { .. } => {
                "Run the backup where the server runs, with all its files in the same places."
                    .to_owned()
            }
            Self::Denied { .. } => {
                "Run the backup as the user that the server runs as, who owns these files."
                    .to_owned()
            }
            Self::Read { .. } => Kind::Local.hint().to_owned(),
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder; its contents follow, unless it is one that is kept empty.
    Directory,
    /// A file, or a link to one, whose contents are taken.
    File {
        /// The block its first page is, where the file is a relation's.
        first_block: Option<u32>,
    },
}

/// One thing to be backed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which walk it came from: the tablespace's oid, or the data directory.
    pub tablespace: Option<u32>,
    /// Its path from the root of its archive: empty for the data directory itself.
    pub name: PathBuf,
    /// Where it is.
    pub source: PathBuf,
    /// What it is.
    pub kind: EntryKind,
}

/// A data directory to be walked, with what other walks or copies take care of.
#[derive(Debug, Clone)]
pub struct DataDirectory {
    root: PathBuf,
    /// Device and inode of the tablespaces' folders.
    tablespaces: BTreeSet<(u64, u64)>,
    /// Files at the top that something else takes the place of.
    replaced: BTreeSet<OsString>,
}

impl DataDirectory {
    /// The directory at `path`, itself or behind a link.
    pub fn open(path: &Path, tablespaces: &[Tablespace]) -> Result<Self, DataDirectoryError> {
        let root = fs::canonicalize(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => DataDirectoryError::Missing {
                path: path.to_owned(),
            },
            _ => DataDirectoryError::new(path, source),
        })?;
        let mut data = Self {
            root,
            tablespaces: BTreeSet::new(),
            replaced: BTreeSet::new(),
        };
        data.set_tablespaces(tablespaces);
        Ok(data)
    }

    /// Leaves the folders of these tablespaces to walks of their own, and of no others.
    pub fn set_tablespaces(&mut self, tablespaces: &[Tablespace]) {
        self.tablespaces = tablespaces
            .iter()
            .filter_map(|tablespace| identity(Path::new(&tablespace.location)))
            .collect();
    }

    /// Its path, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Leaves out the file at the top of this name, which is added from elsewhere.
    pub fn replace(&mut self, name: OsString) {
        self.replaced.insert(name);
    }

    /// Walks the data directory: itself first, each folder before its contents.
    pub fn walk(&self) -> Walk<'_> {
        Walk::new(Some(self), None, &self.root, PathBuf::new(), Place::Top)
    }
}

/// Walks the folder of this version in a tablespace: itself first. Others' folders are no part of it.
pub fn walk_tablespace(tablespace: &Tablespace, version: ServerVersion) -> Walk<'static> {
    let name = PathBuf::from(version.tablespace_folder());
    let root = Path::new(&tablespace.location).join(&name);
    Walk::new(None, Some(tablespace.oid), &root, name, Place::Databases)
}

/// Sees whether a tablespace that the server has is on this host: a walk cannot tell one that is
/// not from one that was dropped meanwhile.
pub fn check_tablespace(
    tablespace: &Tablespace,
    version: ServerVersion,
) -> Result<(), DataDirectoryError> {
    let path = Path::new(&tablespace.location).join(version.tablespace_folder());
    match fs::metadata(&path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = tablespace.name.clone();
            Err(DataDirectoryError::MissingTablespace { name, path })
        }
        Err(error) => Err(DataDirectoryError::new(&path, error)),
    }
}

/// A walk under way.
///
/// After an error it goes on with what comes next.
#[derive(Debug)]
pub struct Walk<'a> {
    data: Option<&'a DataDirectory>,
    tablespace: Option<u32>,
    /// The folder that comes next: told of, and then entered.
    entering: Option<Folder>,
    open: Vec<(ReadDir, Folder)>,
    is_of_directories: bool,
}

#[derive(Debug, Clone)]
struct Folder {
    name: PathBuf,
    source: PathBuf,
    place: Place,
    is_emptied: bool,
}

impl<'a> Walk<'a> {
    fn new(
        data: Option<&'a DataDirectory>,
        tablespace: Option<u32>,
        root: &Path,
        name: PathBuf,
        place: Place,
    ) -> Self {
        Self {
            data,
            tablespace,
            entering: Some(Folder {
                name,
                source: root.to_owned(),
                place,
                is_emptied: false,
            }),
            open: Vec::new(),
            is_of_directories: false,
        }
    }

    /// The same walk, without files.
    #[must_use]
    pub fn directories_only(self) -> Self {
        Self {
            is_of_directories: true,
            ..self
        }
    }

    fn entry(&self, name: PathBuf, source: PathBuf, kind: EntryKind) -> Entry {
        Entry {
            tablespace: self.tablespace,
            name,
            source,
            kind,
        }
    }

    /// Opens the folder and tells of it; `None` when it has vanished.
    fn enter(&mut self, folder: Folder) -> Option<Result<Entry, DataDirectoryError>> {
        if !folder.is_emptied {
            match fs::read_dir(&folder.source) {
                Ok(entries) => self.open.push((entries, folder.clone())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
                Err(error) => return Some(Err(DataDirectoryError::new(&folder.source, error))),
            }
        }
        Some(Ok(self.entry(
            folder.name,
            folder.source,
            EntryKind::Directory,
        )))
    }

    /// What a name in the folder becomes; `None` when it is left out or has vanished.
    fn meet(
        &mut self,
        folder: &Folder,
        met: &fs::DirEntry,
    ) -> Option<Result<Entry, DataDirectoryError>> {
        let os_name = met.file_name();
        let text = os_name.to_string_lossy();
        let source = met.path();
        let verdict = folder.place.verdict(&text);
        let is_replaced = folder.place == Place::Top
            && self
                .data
                .is_some_and(|data| data.replaced.contains(&os_name));
        if verdict == Verdict::Leave || is_replaced {
            return None;
        }
        let inside = |is_emptied| Folder {
            name: folder.name.join(&os_name),
            source: source.clone(),
            place: folder.place.inside(&text),
            is_emptied,
        };
        let kind = match met.file_type() {
            Ok(kind) => kind,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some(Err(DataDirectoryError::new(&source, error))),
        };
        if self.is_of_directories && kind.is_file() {
            return None;
        }
        let (is_directory, is_file) = if kind.is_symlink() {
            if folder.place == Place::Tablespaces {
                return None;
            }
            match fs::metadata(&source) {
                Ok(meta) => (meta.is_dir(), meta.is_file()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.tell(&source, "left out a link that leads nowhere");
                    return None;
                }
                Err(error) => return Some(Err(DataDirectoryError::new(&source, error))),
            }
        } else {
            (kind.is_dir(), kind.is_file())
        };
        if verdict == Verdict::TakeEmpty {
            if is_directory {
                self.entering = Some(inside(true));
            }
        } else if is_directory {
            if kind.is_symlink() && !folder.place.follows(&text) {
                self.tell(&source, "left out a link to a folder");
            } else if !self.is_tablespace(&source) {
                self.entering = Some(inside(false));
            }
        } else if is_file && !self.is_of_directories {
            let file = RelationFile::parse(&text).filter(|_| folder.place.has_relations());
            if verdict == Verdict::TakeUnlessUnlogged
                && file.is_some_and(|file| is_unlogged(&folder.source, &file))
            {
                return None;
            }
            let first_block = file.map(|file| file.first_block());
            let name = folder.name.join(&os_name);
            return Some(Ok(self.entry(
                name,
                source,
                EntryKind::File { first_block },
            )));
        }
        // Sockets and the like hold no data.
        None
    }

    /// Warns of something left out; the walk without files comes first and would say it twice.
    fn tell(&self, path: &Path, what: &str) {
        if !self.is_of_directories {
            warn!(path = %path.display(), "{what}");
        }
    }

    fn is_tablespace(&self, path: &Path) -> bool {
        self.data.is_some_and(|data| {
            !data.tablespaces.is_empty()
                && identity(path).is_some_and(|identity| data.tablespaces.contains(&identity))
        })
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Entry, DataDirectoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(folder) = self.entering.take() {
                if let Some(answer) = self.enter(folder) {
                    return Some(answer);
                }
                continue;
            }
            let (entries, folder) = self.open.last_mut()?;
            let folder = folder.clone();
            match entries.next() {
                None => {
                    self.open.pop();
                }
                Some(Err(error)) => {
                    self.open.pop();
                    return Some(Err(DataDirectoryError::new(&folder.source, error)));
                }
                Some(Ok(met)) => {
                    if let Some(answer) = self.meet(&folder, &met) {
                        return Some(answer);
                    }
                }
            }
        }
    }
}

/// Opens a file for copying; `None` when it has vanished or is no file any more.
pub fn open_file(path: &Path) -> Result<Option<(File, fs::Metadata)>, DataDirectoryError> {
    let opened = File::open(path).and_then(|file| {
        let meta = file.metadata()?;
        Ok((file, meta))
    });
    if let Ok((file, meta)) = &opened
        && meta.len() > READ_AHEAD_BYTES
    {
        // Advice: where it is not taken, nothing is lost.
        fadvise(file, 0, None, Advice::Sequential).ok();
    }
    match opened {
        Ok((file, meta)) => Ok(meta.is_file().then_some((file, meta))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DataDirectoryError::new(path, error)),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

fn is_unlogged(folder: &Path, file: &RelationFile<'_>) -> bool {
    fs::symlink_metadata(folder.join(format!("{}_init", file.number))).is_ok()
}

#[cfg(test)]
mod tests;
