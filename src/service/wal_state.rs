//! What a server remembers about its WAL archive, in `<pg_wal>/.cellarman/`.
//!
//! Everything here but the marker can be lost at any time: it saves requests and never decides
//! what is true. The folder lies on the file system of `pg_wal`, so that files move from it by
//! rename; backups leave it out and `pg_verifybackup` does not look at it. A WAL file in a folder
//! that is no `pg_wal` (no `archive_status` in it) has no such memory.
//!
//! Not here: the files restored ahead (`wal_restore::spool`).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{self, Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::barman::layout::Layout;
use crate::codec::{Codec, Compression};
use crate::domain::backup::SystemId;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::domain::timeline::{TimelineHistory, TimelineId};
use crate::domain::wal_file::WalFileName;
use crate::pgfile::control::ControlFile;
use crate::pgfile::history;
use crate::service::durable_file;
use crate::store::Learnt;
use crate::store::config::StoreConfig;

/// The name of the folder, below `pg_wal`.
pub const FOLDER: &str = ".cellarman";

/// The name of the file there that demands an empty archive of a cluster just recovered.
pub const CHECK_EMPTY_MARKER: &str = "check-empty-archive";

/// CloudNativePG's file with the same meaning, in the data directory.
const FOREIGN_CHECK_EMPTY_MARKER: &str = ".check-empty-wal-archive";

/// Which archive something is remembered of: one store and one place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of the archive with this layout in this store.
    pub fn of(store: &StoreConfig, layout: &Layout) -> Self {
        let (place, endpoint) = match store {
            StoreConfig::Local(local) => (local.root.display().to_string(), None),
            StoreConfig::S3(s3) => (s3.bucket.clone(), s3.endpoint_url.as_ref()),
            StoreConfig::Azure(azure) => (azure.container.clone(), Some(&azure.endpoint_url)),
            StoreConfig::Gcs(gcs) => (format!("gs://{}", gcs.bucket), gcs.endpoint_url.as_ref()),
            StoreConfig::Memory => (String::new(), None),
        };
        let endpoint = endpoint.map(ToString::to_string).unwrap_or_default();
        let whole = [place, endpoint, layout.wals_prefix()].join("\n");
        Self(blake3::hash(whole.as_bytes()).to_hex()[..16].to_owned())
    }

    /// 16 hexadecimal digits, fit for a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The codec that an archive is written in, and from where on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The codec.
    pub codec: Codec,
    /// No segment after this one, on its timeline, was in the archive when the codec was chosen.
    pub after: SegmentName,
}

/// An archive that this server was found to own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownArchive {
    /// The cluster that owned it, as far as known: a directory can become that of another one.
    pub system_id: Option<SystemId>,
    /// Whether the store puts only where nothing is, when it is asked to.
    pub is_put_conditional: bool,
    /// From where on nothing else can be there under another suffix.
    pub settled: Option<Settled>,
    /// The marker for which the archive was found empty, until that marker is removed.
    pub empty_for: Option<MarkerId>,
    /// What the store has learnt of its service.
    pub learnt: Learnt,
}

/// One marker, told from a later one in the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkerId(String);

#[cfg(test)]
impl MarkerId {
    /// Any id.
    pub(crate) fn for_test(id: &str) -> Self {
        Self(id.to_owned())
    }
}

/// A marker that demands an empty archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Which one.
    pub id: MarkerId,
    /// Where it lies.
    pub path: PathBuf,
}

/// A WAL file archived ahead of PostgreSQL's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Its size in bytes.
    pub size: u64,
    /// The digest of its bytes.
    pub blake3: String,
    /// When it was archived.
    pub archived_at: DateTime<Utc>,
}

/// What the last restore learnt of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRestored {
    /// The codec of the last segment found.
    pub codec: Codec,
    /// The size of the segments.
    pub segment_size: SegmentSize,
}

#[derive(Serialize, Deserialize)]
struct KnownArchiveFile {
    destination: String,
    system_id: Option<String>,
    conditional_put: bool,
    codec: Option<String>,
    settled_after: Option<String>,
    empty_for: Option<String>,
    #[serde(default)]
    wants_md5: bool,
}

#[derive(Serialize, Deserialize)]
struct MarkFile {
    destination: String,
    size: u64,
    blake3: String,
    archived_at_seconds: i64,
}

#[derive(Serialize, Deserialize)]
struct LastRestoredFile {
    destination: String,
    codec: String,
    segment_size: u64,
}

/// A `pg_wal` folder of a data directory.
#[derive(Debug, Clone)]
pub struct PgWal {
    folder: PathBuf,
}

impl PgWal {
    /// The `pg_wal` that `file` lies in; `None` when its folder is no `pg_wal`.
    ///
    /// Symbolic links are not followed: the data directory is the parent of the path as given.
    pub fn holding(file: &Path) -> io::Result<Option<Self>> {
        let folder = path::absolute(file)?.parent().map(Path::to_path_buf);
        Ok(folder.and_then(|folder| Self::at(&folder)))
    }

    /// The `pg_wal` at `folder`; `None` when that is none.
    pub fn at(folder: &Path) -> Option<Self> {
        let is_pg_wal = folder.join("archive_status").is_dir();
        is_pg_wal.then(|| Self {
            folder: folder.to_path_buf(),
        })
    }

    /// The folder itself, as an absolute path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The data directory.
    pub fn pgdata(&self) -> PathBuf {
        self.folder
            .parent()
            .map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
    }

    /// Our own folder. It need not be there yet.
    pub fn state_folder(&self) -> PathBuf {
        self.folder.join(FOLDER)
    }

    /// Our own folder, made if it is missing.
    pub fn make_state_folder(&self) -> io::Result<PathBuf> {
        let folder = self.state_folder();
        durable_file::create_folder(&folder)?;
        Ok(folder)
    }

    /// The control file of the data directory; `None`, with a warning when it is there, if it
    /// cannot be read.
    pub fn control_file(&self) -> Option<ControlFile> {
        let path = self.pgdata().join("global/pg_control");
        let bytes = match durable_file::read_if_present(&path) {
            Ok(bytes) => bytes?,
            Err(error) => {
                warn!(path = %path.display(), %error, "cannot read the control file");
                return None;
            }
        };
        ControlFile::parse(&bytes)
            .inspect_err(
                |error| warn!(path = %path.display(), %error, "cannot use the control file"),
            )
            .ok()
    }

    /// The history of `timeline` from its file here; `None` when there is no readable one. The
    /// first timeline has no file and no ancestors.
    pub fn history(&self, timeline: TimelineId) -> Option<TimelineHistory> {
        if timeline == TimelineId::FIRST {
            return Some(TimelineHistory::root(timeline));
        }
        let path = self
            .folder
            .join(WalFileName::TimelineHistory(timeline).to_string());
        let text = fs::read_to_string(&path).ok()?;
        history::parse(timeline, &text)
            .inspect_err(|error| warn!(path = %path.display(), %error, "cannot use the history"))
            .ok()
    }

    /// Whether PostgreSQL still waits for this file to be archived.
    pub fn is_ready(&self, name: &str) -> bool {
        self.folder
            .join("archive_status")
            .join(format!("{name}.ready"))
            .exists()
    }

    /// All files that PostgreSQL still waits for to be archived.
    pub fn ready_files(&self) -> io::Result<impl Iterator<Item = io::Result<WalFileName>> + use<>> {
        let entries = fs::read_dir(self.folder.join("archive_status"))?;
        let file = |entry: fs::DirEntry| {
            let name = entry.file_name();
            name.to_str()?.strip_suffix(".ready")?.parse().ok()
        };
        Ok(entries.filter_map(move |entry| entry.map(file).transpose()))
    }

    /// The markers that demand an empty archive, ours first.
    pub fn markers(&self) -> Vec<Marker> {
        [
            self.state_folder().join(CHECK_EMPTY_MARKER),
            self.pgdata().join(FOREIGN_CHECK_EMPTY_MARKER),
        ]
        .into_iter()
        .filter_map(|path| {
            let meta = fs::metadata(&path).ok()?;
            let id = format!("{}.{}.{}", meta.ino(), meta.mtime(), meta.mtime_nsec());
            Some(Marker {
                id: MarkerId(id),
                path,
            })
        })
        .collect()
    }

    /// What is remembered of the archive, or nothing.
    pub fn known_archive(&self, destination: &Fingerprint) -> Option<KnownArchive> {
        let file: KnownArchiveFile = self.read_json("archive.json")?;
        if file.destination != destination.0 {
            return None;
        }
        let settled = file
            .codec
            .zip(file.settled_after)
            .and_then(|(codec, after)| {
                Some(Settled {
                    codec: codec_of(&codec)?,
                    after: after.parse().ok()?,
                })
            });
        Some(KnownArchive {
            system_id: file.system_id.and_then(|id| id.parse().ok()).map(SystemId),
            is_put_conditional: file.conditional_put,
            settled,
            empty_for: file.empty_for.map(MarkerId),
            learnt: Learnt {
                wants_md5: file.wants_md5,
            },
        })
    }

    /// Remembers the archive, durably.
    pub fn remember_archive(
        &self,
        destination: &Fingerprint,
        known: &KnownArchive,
    ) -> io::Result<()> {
        let file = KnownArchiveFile {
            destination: destination.0.clone(),
            system_id: known.system_id.map(|id| id.to_string()),
            conditional_put: known.is_put_conditional,
            codec: known.settled.map(|settled| settled.codec.to_string()),
            settled_after: known.settled.map(|settled| settled.after.to_string()),
            empty_for: known.empty_for.clone().map(|id| id.0),
            wants_md5: known.learnt.wants_md5,
        };
        self.write_state("archive.json", &file)
    }

    /// The mark that the file `name` was archived ahead to `destination`.
    pub fn mark(&self, destination: &Fingerprint, name: &str) -> Option<Mark> {
        let file: MarkFile = self.read_json(&format!("archived/{name}"))?;
        let archived_at = DateTime::from_timestamp(file.archived_at_seconds, 0)?;
        (file.destination == destination.0).then_some(Mark {
            size: file.size,
            blake3: file.blake3,
            archived_at,
        })
    }

    /// Leaves a durable mark that the file `name` is in the archive with these bytes.
    pub fn leave_mark(&self, destination: &Fingerprint, name: &str, mark: &Mark) -> io::Result<()> {
        let file = MarkFile {
            destination: destination.0.clone(),
            size: mark.size,
            blake3: mark.blake3.clone(),
            archived_at_seconds: mark.archived_at.timestamp(),
        };
        write_json(&self.state_folder().join("archived").join(name), &file)
    }

    /// Removes the mark of the file `name`.
    pub fn remove_mark(&self, name: &str) -> io::Result<()> {
        durable_file::remove(&self.state_folder().join("archived").join(name))
    }

    /// Removes the marks of files that PostgreSQL no longer waits for.
    pub fn clean_marks(&self) -> io::Result<()> {
        let entries = match fs::read_dir(self.state_folder().join("archived")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let is_kept = |name: &str| self.is_ready(name) || durable_file::is_being_written(name);
            if !name.to_str().is_some_and(is_kept) {
                durable_file::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// What the last restore learnt, or nothing.
    pub fn last_restored(&self, destination: &Fingerprint) -> Option<LastRestored> {
        let file: LastRestoredFile = self.read_json("restore.json")?;
        let last = LastRestored {
            codec: codec_of(&file.codec)?,
            segment_size: SegmentSize::new(file.segment_size).ok()?,
        };
        (file.destination == destination.0).then_some(last)
    }

    /// Remembers what a restore learnt.
    pub fn remember_restored(
        &self,
        destination: &Fingerprint,
        last: LastRestored,
    ) -> io::Result<()> {
        let file = LastRestoredFile {
            destination: destination.0.clone(),
            codec: last.codec.to_string(),
            segment_size: last.segment_size.bytes(),
        };
        self.write_state("restore.json", &file)
    }

    fn write_state<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let path = self.state_folder().join(name);
        write_json(&path, value)?;
        durable_file::remove_leftovers(&path)
    }

    /// A file of ours as a value; one that is absent or makes no sense is nothing.
    fn read_json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Option<T> {
        let path = self.state_folder().join(name);
        let bytes = durable_file::read_if_present(&path)
            .inspect_err(|error| warn!(path = %path.display(), %error, "cannot read local state"))
            .ok()??;
        serde_json::from_slice(&bytes)
            .inspect_err(|error| warn!(path = %path.display(), %error, "passing over local state"))
            .ok()
    }
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        durable_file::create_folder(folder)?;
    }
    durable_file::write(path, &serde_json::to_vec(value)?)
}

fn codec_of(word: &str) -> Option<Codec> {
    word.parse::<Compression>().ok().map(|c| c.codec)
}
