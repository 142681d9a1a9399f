//! Uploads in parts: a hidden directory each, with the key and one file per part.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::files::{self, HiddenFile, Place, private_directory};
use super::names;
use crate::store::{ObjectKey, PartTag, UploadId};

const UPLOADS: &str = "uploads";
const KEY_FILE: &str = "key";

/// Begins an upload.
pub(super) fn begin(root: &Path, key: &ObjectKey) -> io::Result<UploadId> {
    files::sweep(root)?;
    let id = UploadId(format!("{:032x}", fastrand::u128(..)));
    let directory = private_directory(root, UPLOADS)?.join(&id.0);
    fs::create_dir(&directory)?;
    fs::write(directory.join(KEY_FILE), key.as_str())?;
    Ok(id)
}

/// Writes a part, in place of an earlier one of that number.
pub(super) fn put_part(
    root: &Path,
    upload: &UploadId,
    number: u32,
    body: &[u8],
) -> io::Result<PartTag> {
    let directory = directory_of(root, upload)?;
    let hidden = directory.join(format!("writing-{number}-{:08x}", fastrand::u32(..)));
    fs::write(&hidden, body)?;
    fs::rename(&hidden, directory.join(number.to_string()))?;
    Ok(PartTag {
        number,
        tag: body.len().to_string(),
    })
}

/// Makes the object of its parts and drops them.
pub(super) fn complete(
    root: &Path,
    (target, place): (&Path, Place),
    upload: &UploadId,
    parts: &[PartTag],
) -> io::Result<()> {
    let directory = directory_of(root, upload)?;
    let mut whole = HiddenFile::create(root)?;
    let mut last = 0;
    for part in parts {
        let mut file = File::open(directory.join(part.number.to_string())).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("part {}: {error}", part.number),
            )
        })?;
        let size = file.metadata()?.len();
        if part.number <= last || part.tag != size.to_string() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("part {} is not the one that was put", part.number),
            ));
        }
        last = part.number;
        io::copy(&mut file, whole.file())?;
    }
    whole.place(root, target, place)?;
    fs::remove_dir_all(&directory)
}

/// Drops an upload. One that is not there is no error.
pub(super) fn abort(root: &Path, upload: &UploadId) -> io::Result<()> {
    let Ok(directory) = directory_of(root, upload) else {
        return Ok(());
    };
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The uploads under way for keys that begin with `prefix`.
pub(super) fn list(root: &Path, prefix: &str) -> io::Result<Vec<(ObjectKey, UploadId)>> {
    let mut uploads = Vec::new();
    let entries = match fs::read_dir(root.join(names::PRIVATE).join(UPLOADS)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(uploads),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let key = fs::read_to_string(entry.path().join(KEY_FILE));
        let id = entry.file_name().into_string();
        if let (Ok(key), Ok(id)) = (key, id)
            && key.starts_with(prefix)
        {
            uploads.push((ObjectKey::new(key), UploadId(id)));
        }
    }
    uploads.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(uploads)
}

/// The upload's directory; not found unless the id is one that [`begin`] gave.
fn directory_of(root: &Path, upload: &UploadId) -> io::Result<PathBuf> {
    let directory = root.join(names::PRIVATE).join(UPLOADS).join(&upload.0);
    let is_ours = !upload.0.is_empty() && upload.0.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_ours && directory.is_dir() {
        Ok(directory)
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "no such upload"))
    }
}
