//! The spool: whole segments fetched ahead, in a folder beside the WAL, one per archive.
//!
//! An entry appears whole, with its digest beside it, and is verified before it is used. It lies
//! on the file system of `pg_wal`, so that handing it over is a rename.
//! Everything here blocks. Not here: what is fetched (`prefetch`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::domain::segment::SegmentName;
use crate::service::durable_file;
use crate::service::wal_restore::file::digest_of;
use crate::service::wal_state::{Fingerprint, PgWal};

/// What the names of spools begin with.
const PREFIX: &str = "spool-";

/// The spool of one archive.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    folder: PathBuf,
}

/// What is recorded of an entry.
#[derive(Serialize, Deserialize)]
struct Sidecar {
    size: u64,
    blake3: String,
}

impl Spool {
    /// The spool beside this WAL for this archive. It need not be there yet.
    pub(super) fn of(pg_wal: &PgWal, archive: &Fingerprint) -> Self {
        let name = format!("{PREFIX}{}", archive.as_str());
        Self {
            folder: pg_wal.state_folder().join(name),
        }
    }

    /// Makes the folder, and removes the spools of archives used before.
    pub(super) fn create(&self) -> io::Result<()> {
        durable_file::create_folder(&self.folder)?;
        let Some(beside) = self.folder.parent() else {
            return Ok(());
        };
        for path in spools(beside)? {
            if path != self.folder {
                ignore_missing(fs::remove_dir_all(&path))?;
            }
        }
        Ok(())
    }

    /// Moves the segment to `destination`, durably; false when it is not here, or not sound.
    pub(super) fn take(&self, name: SegmentName, destination: &Path) -> io::Result<bool> {
        let entry = self.entry(name);
        if !entry.is_file() {
            return Ok(false);
        }
        if !self.is_sound(name) {
            warn!(%name, "dropping a damaged segment from the spool");
            self.remove(name)?;
            return Ok(false);
        }
        match durable_file::rename(&entry, destination) {
            Ok(()) => {}
            // The one who fills the spool has just cleared it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        // Without its entry it means nothing.
        let _ = fs::remove_file(self.sidecar(name));
        Ok(true)
    }

    /// Where a segment is written before it is whole.
    pub(super) fn part(&self, name: SegmentName) -> PathBuf {
        self.folder.join(format!(".{name}.part"))
    }

    /// How much of a segment has been fetched, while it is being fetched.
    pub(super) fn part_bytes(&self, name: SegmentName) -> Option<u64> {
        Some(fs::metadata(self.part(name)).ok()?.len())
    }

    /// Makes an entry of the part, which is durable and has these properties.
    pub(super) fn commit(&self, name: SegmentName, size: u64, blake3: String) -> io::Result<()> {
        let sidecar = serde_json::to_vec(&Sidecar { size, blake3 })?;
        durable_file::write(&self.sidecar(name), &sidecar)?;
        durable_file::rename(&self.part(name), &self.entry(name))
    }

    /// Whether the segment is here.
    pub(super) fn holds(&self, name: SegmentName) -> bool {
        self.entry(name).is_file()
    }

    /// Removes all entries and leftovers but those of the segments to `keep`.
    pub(super) fn keep_only(&self, keep: &[SegmentName]) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let file_name = path.file_name().and_then(|name| name.to_str());
            let segment = file_name
                .and_then(|name| name.trim_start_matches('.').get(..24))
                .and_then(|name| name.parse().ok());
            if !segment.is_some_and(|segment| keep.contains(&segment)) {
                ignore_missing(fs::remove_file(&path))?;
            }
        }
        Ok(())
    }

    /// Removes the folder with all it holds.
    pub(super) fn clear(&self) -> io::Result<()> {
        ignore_missing(fs::remove_dir_all(&self.folder))
    }

    fn is_sound(&self, name: SegmentName) -> bool {
        let sidecar = fs::read(self.sidecar(name))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Sidecar>(&bytes).ok());
        let Some(sidecar) = sidecar else { return false };
        let found = digest_of(&self.entry(name));
        matches!(found, Ok((size, blake3)) if size == sidecar.size && blake3 == sidecar.blake3)
    }

    fn remove(&self, name: SegmentName) -> io::Result<()> {
        ignore_missing(fs::remove_file(self.entry(name)))?;
        ignore_missing(fs::remove_file(self.sidecar(name)))
    }

    fn entry(&self, name: SegmentName) -> PathBuf {
        self.folder.join(name.to_string())
    }

    fn sidecar(&self, name: SegmentName) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }
}

/// The folders of spools in `folder`, of whatever archive.
pub(super) fn spools(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut spools = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            spools.push(entry.path());
        }
    }
    Ok(spools)
}

fn ignore_missing(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::digest::Blake3;
    use crate::service::wal_fixture::segment_name;

    struct Bed {
        _folder: tempfile::TempDir,
        spool: Spool,
        destination: PathBuf,
    }

    fn bed() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool {
            folder: folder.path().join("spool-a"),
        };
        fs::create_dir(folder.path().join("spool-b")).unwrap();
        spool.create().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        Bed {
            destination: folder.path().join("RECOVERYXLOG"),
            spool,
            _folder: folder,
        }
    }

    fn put(spool: &Spool, name: SegmentName, bytes: &[u8], recorded: &[u8]) {
        fs::write(spool.part(name), bytes).unwrap();
        let size = recorded.len().try_into().unwrap();
        spool.commit(name, size, Blake3::of(recorded)).unwrap();
    }

    #[test]
    fn a_sound_entry_is_handed_over_once() {
        let bed = bed();
        let name = segment_name(1, 5);
        assert!(!bed.spool.take(name, &bed.destination).unwrap());
        put(&bed.spool, name, b"wal", b"wal");
        assert!(bed.spool.take(name, &bed.destination).unwrap());
        assert_eq!(fs::read(&bed.destination).unwrap(), b"wal");
        assert!(!bed.spool.take(name, &bed.destination).unwrap());
        assert_eq!(fs::read_dir(&bed.spool.folder).unwrap().count(), 0);
    }

    #[test]
    fn an_unsound_entry_is_dropped() {
        let bed = bed();
        let name = segment_name(1, 5);
        for (bytes, recorded) in [(&b"wa"[..], &b"wal"[..]), (b"wal", b"waL")] {
            put(&bed.spool, name, bytes, recorded);
            assert!(!bed.spool.take(name, &bed.destination).unwrap());
            assert!(!bed.spool.holds(name));
        }
        fs::write(bed.spool.entry(name), b"wal").unwrap();
        assert!(!bed.spool.take(name, &bed.destination).unwrap());
        assert!(!bed.destination.exists());
    }

    #[test]
    fn what_is_not_to_be_kept_goes_with_all_that_belongs_to_it() {
        let bed = bed();
        for number in 1..4 {
            put(&bed.spool, segment_name(1, number), b"wal", b"wal");
        }
        fs::write(bed.spool.part(segment_name(1, 9)), b"half").unwrap();
        bed.spool.keep_only(&[segment_name(1, 2)]).unwrap();
        assert!(bed.spool.holds(segment_name(1, 2)));
        assert_eq!(fs::read_dir(&bed.spool.folder).unwrap().count(), 2);
        bed.spool.clear().unwrap();
        bed.spool.clear().unwrap();
    }
}
