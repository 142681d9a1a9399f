//! Segments that wait until their group is complete, in `<pg_wal>/.cellarman/index/`.
//!
//! A folder there belongs to one cluster and one archive, and others go when it is made. A file in
//! it is a segment's part of the index with what joins it to its neighbours; when the group is in
//! the store, the last of it stays as `<segment>.tail` for the next group. Nothing is made durable:
//! what is lost or torn is passed over. Everything here blocks. Not here: putting (`put`).

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::barman::index_object::IndexObject;
use crate::domain::backup::SystemId;
use crate::domain::segment::{SegmentName, SegmentNumber, SegmentSize};
use crate::pgfile::wal::reader::Carry;
use crate::service::durable_file;
use crate::service::wal_index::gather::{EDGE_BYTES_MAX, Piece};
use crate::service::wal_index::group::{self, Group};
use crate::service::wal_state::{Fingerprint, PgWal};

/// How a file ends that is kept for the segment after it.
const TAIL: &str = ".tail";

/// How many numbers a tail may be behind the newest segment.
const TAIL_BEHIND_MAX: u64 = 32;

const DIGEST_BYTES: usize = 32;

/// The segments of one cluster that wait for one archive.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    folder: PathBuf,
    system_id: SystemId,
    size: SegmentSize,
}

impl Pending {
    /// Those of this cluster for this archive. Makes the folder, and removes those of others.
    pub(crate) fn open(
        pg_wal: &PgWal,
        destination: &Fingerprint,
        (system_id, size): (SystemId, SegmentSize),
    ) -> io::Result<Self> {
        let all = pg_wal.state_folder().join("index");
        let name = format!("{}-{system_id}", destination.as_str());
        let folder = all.join(&name);
        if !folder.is_dir() {
            fs::create_dir_all(&folder)?;
        }
        for entry in fs::read_dir(&all)? {
            let entry = entry?;
            if entry.file_name() != name.as_str() {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self {
            folder,
            system_id,
            size,
        })
    }

    /// The size of segments.
    pub(crate) fn segment_size(&self) -> SegmentSize {
        self.size
    }

    /// The cluster.
    pub(crate) fn system_id(&self) -> SystemId {
        self.system_id
    }

    /// Keeps a segment.
    pub(crate) fn add(&self, piece: &Piece) -> io::Result<()> {
        let path = self.path(piece.summary.name);
        let temporary = durable_file::temporary_beside(&path);
        let bytes = to_bytes(piece)?;
        let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, &path));
        written.inspect_err(|_| {
            // A leftover is removed with the next group.
            let _ = fs::remove_file(&temporary);
        })
    }

    /// The groups that are to be put, now that `newest` is kept.
    pub(crate) fn due(&self, newest: SegmentName) -> io::Result<Vec<Group>> {
        Ok(group::due(&self.names()?, newest, self.size))
    }

    /// The segments that wait.
    pub(crate) fn names(&self) -> io::Result<BTreeSet<SegmentName>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let name = name.to_str().and_then(|n| n.parse::<SegmentName>().ok());
            names.extend(name);
        }
        Ok(names)
    }

    /// A segment that waits; `None` when nothing of use is there.
    pub(crate) fn piece(&self, name: SegmentName) -> Option<Piece> {
        let piece = from_bytes(&fs::read(self.path(name)).ok()?)?;
        let is_it = piece.summary.name == name
            && (piece.system_id, piece.segment_size) == (self.system_id, self.size);
        is_it.then_some(piece)
    }

    /// What the segments before this one have left to it, that of its own timeline first.
    pub(crate) fn carries_into(&self, name: SegmentName) -> Vec<Carry> {
        let before = name.number(self.size).and_then(SegmentNumber::previous);
        let Some(before) = before else {
            return Vec::new();
        };
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut names: Vec<(SegmentName, PathBuf)> = entries
            .filter_map(|entry| {
                let file = entry.file_name();
                let file = file.to_str()?;
                let found: SegmentName = file.strip_suffix(TAIL).unwrap_or(file).parse().ok()?;
                let is_before =
                    found.number(self.size) == Some(before) && found.timeline() <= name.timeline();
                is_before.then(|| (found, entry.path()))
            })
            .collect();
        names.sort_unstable_by_key(|(found, _)| std::cmp::Reverse(*found));
        let carries = names.into_iter();
        carries
            .filter_map(|(_, path)| from_bytes(&fs::read(path).ok()?)?.carry)
            .collect()
    }

    /// Removes segments that are in the store now; the last is kept as a tail.
    pub(crate) fn settle(&self, names: &[SegmentName]) -> io::Result<()> {
        let Some((last, others)) = names.split_last() else {
            return Ok(());
        };
        for name in others {
            remove(&self.path(*name))?;
        }
        let path = self.path(*last);
        match fs::rename(&path, self.folder.join(format!("{last}{TAIL}"))) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => self.clean(*last),
        }
    }

    /// Removes what is of no use: a segment that cannot be read.
    pub(crate) fn forget(&self, name: SegmentName) -> io::Result<()> {
        remove(&self.path(name))
    }

    /// Removes tails that nothing follows any more, and what killed processes left.
    fn clean(&self, newest: SegmentName) -> io::Result<()> {
        let newest = newest.number(self.size).map_or(0, SegmentNumber::to_u64);
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let file = entry.file_name();
            let Some(file) = file.to_str() else { continue };
            let tail = file.strip_suffix(TAIL);
            let tail = tail.and_then(|name| name.parse::<SegmentName>().ok()?.number(self.size));
            let is_old =
                tail.is_some_and(|tail| tail.to_u64().saturating_add(TAIL_BEHIND_MAX) < newest);
            if is_old {
                remove(&entry.path())?;
            }
            if let Some((name, _)) = file.strip_prefix('.').and_then(|rest| rest.split_once('.')) {
                durable_file::remove_leftovers(&self.folder.join(name))?;
            }
        }
        Ok(())
    }

    fn path(&self, name: SegmentName) -> PathBuf {
        self.folder.join(name.to_string())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// An index object of the one segment, its first pages and what it leaves, each behind its length,
/// and a digest of all.
fn to_bytes(piece: &Piece) -> io::Result<Vec<u8>> {
    let object = IndexObject {
        system_id: piece.system_id,
        segment_size: piece.segment_size,
        segments: vec![piece.summary.clone()],
    };
    let object = object.to_bytes()?;
    let carry = piece.carry.as_ref();
    let carry = carry.and_then(|carry| carry.to_bytes(EDGE_BYTES_MAX));
    let mut bytes = Vec::new();
    for part in [&object, &piece.head, &carry.unwrap_or_default()] {
        let length = u32::try_from(part.len()).map_err(io::Error::other)?;
        bytes.extend(length.to_le_bytes());
        bytes.extend(part);
    }
    let digest = blake3::hash(&bytes);
    bytes.extend(digest.as_bytes());
    Ok(bytes)
}

fn from_bytes(bytes: &[u8]) -> Option<Piece> {
    let (mut rest, digest) = bytes.split_last_chunk::<DIGEST_BYTES>()?;
    if blake3::hash(rest).as_bytes() != digest {
        return None;
    }
    let mut part = || {
        let (length, behind) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (part, behind) = behind.split_at_checked(length)?;
        rest = behind;
        Some(part)
    };
    let (object, head, carry) = (part()?, part()?, part()?);
    let object = IndexObject::parse(object).ok()?;
    let [summary] = <[_; 1]>::try_from(object.segments).ok()?;
    Some(Piece {
        system_id: object.system_id,
        segment_size: object.segment_size,
        summary,
        head: head.to_vec(),
        carry: Carry::from_bytes(carry),
    })
}
