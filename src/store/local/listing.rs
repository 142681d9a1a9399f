//! Walks the directories below the root in byte order of the keys, and no further than asked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::DateTime;

use super::names;
use crate::store::page::PageBuilder;
use crate::store::{ListPage, ListRequest, ObjectKey, ObjectMeta};

/// How deep directories may nest.
const DEPTH_MAX: usize = 64;

/// A listing on its way down.
pub(super) struct Walk<'a> {
    /// What is asked.
    pub(super) request: &'a ListRequest,
    /// Where the answer goes.
    pub(super) page: PageBuilder,
}

/// One directory and the keys below it.
struct Place {
    path: PathBuf,
    /// What the keys of everything in the directory begin with: empty, or ending in a slash.
    prefix: String,
    depth: usize,
}

impl Walk<'_> {
    /// The page of everything below `root`, which must be there.
    pub(super) fn run(mut self, root: &Path) -> io::Result<ListPage> {
        let top = Place {
            path: root.to_path_buf(),
            prefix: String::new(),
            depth: 0,
        };
        self.directory(&top)?;
        Ok(self.page.finish())
    }

    /// Offers what is in a directory. False when the page is full.
    fn directory(&mut self, place: &Place) -> io::Result<bool> {
        for (part, kind) in sorted_entries(place)? {
            let key = format!("{}{part}", place.prefix);
            let is_wanted = key.starts_with(&self.request.prefix)
                || (kind == EntryKind::Directory && self.request.prefix.starts_with(&key));
            if !is_wanted {
                continue;
            }
            let name = names::escape(part.trim_end_matches('/'), place.depth == 0);
            let path = place.path.join(name);
            let goes_on = match kind {
                EntryKind::File => self.file(&path, key)?,
                EntryKind::Directory if self.page.is_before(&key) => true,
                EntryKind::Directory if place.depth + 1 == DEPTH_MAX => true,
                EntryKind::Directory => {
                    let below = Place {
                        path,
                        prefix: key,
                        depth: place.depth + 1,
                    };
                    self.below(&below)?
                }
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Offers what is below a directory: all of it, or its first object if that stands for all.
    fn below(&mut self, place: &Place) -> io::Result<bool> {
        if self.page.rolled_up(&place.prefix).is_none() {
            return self.directory(place);
        }
        match first_object(place)? {
            Some(meta) => Ok(self.page.offer(meta)),
            None => Ok(true),
        }
    }

    fn file(&mut self, path: &Path, key: String) -> io::Result<bool> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(self.page.offer(meta_of(key, &metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// What an object's file says of it.
pub(super) fn meta_of(key: impl Into<String>, metadata: &fs::Metadata) -> ObjectMeta {
    use std::os::unix::fs::MetadataExt;

    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    ObjectMeta {
        key: ObjectKey::new(key),
        size: metadata.len(),
        etag: Some(format!(
            "{:x}-{:x}-{:x}.{:x}",
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec()
        )),
        modified: DateTime::from(modified),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    File,
    Directory,
}

/// The parts of keys in a directory, in byte order of the keys; those of directories end in a slash.
fn sorted_entries(place: &Place) -> io::Result<Vec<(String, EntryKind)>> {
    let mut entries = Vec::new();
    let directory = match fs::read_dir(&place.path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound && place.depth > 0 => {
            return Ok(entries);
        }
        Err(error) => return Err(error),
    };
    for entry in directory {
        let entry = entry?;
        let name = entry.file_name();
        let part = name
            .to_str()
            .and_then(|name| names::unescape(name, place.depth == 0));
        let Some(mut part) = part else {
            continue;
        };
        let mut file_type = entry.file_type()?;
        if file_type.is_symlink() {
            let Ok(metadata) = fs::metadata(entry.path()) else {
                continue;
            };
            file_type = metadata.file_type();
            if file_type.is_dir() && leads_up(&entry.path(), &place.path) {
                continue;
            }
        }
        if file_type.is_dir() {
            part.push('/');
            entries.push((part, EntryKind::Directory));
        } else if file_type.is_file() {
            entries.push((part, EntryKind::File));
        }
    }
    entries.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    Ok(entries)
}

/// Whether a link in a directory leads to that directory or one above: a way round without end.
fn leads_up(link: &Path, directory: &Path) -> bool {
    match (fs::canonicalize(link), fs::canonicalize(directory)) {
        (Ok(target), Ok(directory)) => directory.starts_with(target),
        _ => true,
    }
}

/// The first object below a directory; `None` if it holds directories alone.
fn first_object(place: &Place) -> io::Result<Option<ObjectMeta>> {
    for (part, kind) in sorted_entries(place)? {
        let path = place
            .path
            .join(names::escape(part.trim_end_matches('/'), place.depth == 0));
        let key = format!("{}{part}", place.prefix);
        let found = match kind {
            EntryKind::File => fs::metadata(&path)
                .ok()
                .map(|metadata| meta_of(key, &metadata)),
            EntryKind::Directory if place.depth + 1 == DEPTH_MAX => None,
            EntryKind::Directory => first_object(&Place {
                path,
                prefix: key,
                depth: place.depth + 1,
            })?,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
