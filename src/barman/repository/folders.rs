//! What one flat listing of `base/` tells of each backup, before any record is read.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;

use crate::barman::layout::{ArchiveName, Layout};
use crate::barman::repository::keep::is_refused_key;
use crate::barman::repository::{Repository, RepositoryError, Stored};
use crate::domain::backup::{Backup, BackupId, BackupKind, Keep};
use crate::store::{ListRequest, ObjectKey, ObjectMeta};

/// The small objects of a backup that a catalog is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Small {
    /// `backup.info`.
    Record,
    /// The mark in its plain place.
    Keep,
    /// The mark under the doubled slash.
    DoubledKeep,
}

impl Small {
    /// Where it lies.
    pub(super) fn key(self, layout: &Layout, id: &BackupId) -> ObjectKey {
        let [plain, doubled] = layout.keep(id);
        match self {
            Self::Record => layout.backup_info(id),
            Self::Keep => plain,
            Self::DoubledKeep => doubled,
        }
    }
}

/// One version of an object, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Its etag, without the quotes that some requests put around it; `None` where the store has none.
    pub(super) etag: Option<Box<str>>,
    pub(super) size: u64,
    pub(super) modified: DateTime<Utc>,
}

impl Stamp {
    fn listed(meta: &ObjectMeta) -> Self {
        Self {
            etag: bare_etag(meta).map(Into::into),
            size: meta.size,
            modified: meta.modified,
        }
    }

    /// Whether `meta`, of another request, is certainly of this version. Times are left out: some
    /// requests tell them to the second only.
    pub(super) fn is_of(&self, meta: &ObjectMeta) -> bool {
        self.etag.is_some() && self.etag.as_deref() == bare_etag(meta) && self.size == meta.size
    }
}

fn bare_etag(meta: &ObjectMeta) -> Option<&str> {
    let etag = meta.etag.as_deref()?.trim_matches('"');
    (!etag.is_empty()).then_some(etag)
}

/// A small object: its version as listed, and what it says once that is known.
#[derive(Debug)]
pub(super) struct Known<T> {
    pub(super) stamp: Stamp,
    pub(super) value: Option<T>,
}

/// A record: the backup, or why it cannot be read.
pub(super) type Record = Result<Box<Backup>, Box<str>>;

/// One folder below `base/`.
#[derive(Debug, Default)]
pub(super) struct Folder {
    pub(super) record: Option<Known<Record>>,
    pub(super) keep: Option<Known<Keep>>,
    pub(super) doubled_keep: Option<Known<Keep>>,
    pub(super) stored: Stored,
    /// Of which tablespaces, or the data directory, the first archive is there.
    archived: Vec<Option<u32>>,
}

impl Folder {
    /// The version of a small object, and whether it is known what it says.
    pub(super) fn small(&self, small: Small) -> Option<(&Stamp, bool)> {
        fn seen<T>(known: &Known<T>) -> (&Stamp, bool) {
            (&known.stamp, known.value.is_some())
        }
        match small {
            Small::Record => self.record.as_ref().map(seen),
            Small::Keep => self.keep.as_ref().map(seen),
            Small::DoubledKeep => self.doubled_keep.as_ref().map(seen),
        }
    }

    /// What is stored of it, given its record.
    pub(super) fn stored_of(&self, backup: &Backup) -> Stored {
        let tablespaces = backup.tablespaces.iter();
        let mut wanted = tablespaces
            .map(|tablespace| Some(tablespace.oid))
            .chain([None]);
        Stored {
            lacks_archives: backup.kind == BackupKind::Full
                && wanted.any(|owner| !self.archived.contains(&owner)),
            ..self.stored
        }
    }

    /// The mark, wherever it lies: of two, the one that keeps more.
    pub(super) fn kept(&self) -> Option<Keep> {
        let value = |mark: &Option<Known<Keep>>| mark.as_ref().and_then(|known| known.value);
        let marks = [value(&self.keep), value(&self.doubled_keep)];
        if marks.contains(&Some(Keep::Full)) {
            return Some(Keep::Full);
        }
        marks.into_iter().flatten().next()
    }
}

/// The folders below `base/`, by id.
#[derive(Debug, Default)]
pub(super) struct Folders(pub(super) BTreeMap<BackupId, Folder>);

impl Folders {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The small objects of which it is not known what they say. Only of folders with a record:
    /// without one there is no backup, as Barman sees it too.
    pub(super) fn missing(&self) -> impl Iterator<Item = (BackupId, Small, Stamp)> {
        let with_record = self.0.iter().filter(|(_, folder)| folder.record.is_some());
        with_record.flat_map(|(id, folder)| {
            [Small::Record, Small::Keep, Small::DoubledKeep]
                .into_iter()
                .filter_map(|small| {
                    let (stamp, is_known) = folder.small(small)?;
                    (!is_known).then(|| (id.clone(), small, stamp.clone()))
                })
        })
    }

    fn add(&mut self, prefix: &str, object: &ObjectMeta) {
        let Some((id, name)) = below(prefix, &object.key) else {
            return;
        };
        let folder = self.0.entry(id).or_default();
        folder.stored.add(object);
        let stamp = Stamp::listed(object);
        match name {
            "backup.info" => folder.record = Some(Known { stamp, value: None }),
            "annotations/keep" => folder.keep = Some(Known { stamp, value: None }),
            name => {
                if let Ok(Some((archive, _))) = ArchiveName::parse(name)
                    && archive.piece == 0
                {
                    folder.archived.push(archive.tablespace);
                }
            }
        }
    }

    fn add_doubled(&mut self, prefix: &str, object: &ObjectMeta) {
        if let Some((id, "annotations/keep")) = below(prefix, &object.key)
            && let Some(folder) = self.0.get_mut(&id)
        {
            let stamp = Stamp::listed(object);
            folder.doubled_keep = Some(Known { stamp, value: None });
        }
    }
}

/// The backup that an object belongs to, and its name in the backup's folder.
fn below<'a>(prefix: &str, key: &'a ObjectKey) -> Option<(BackupId, &'a str)> {
    let (id, name) = key.as_str().strip_prefix(prefix)?.split_once('/')?;
    Some((id.parse().ok()?, name))
}

impl Repository {
    /// Lists all of `base/`.
    pub(super) async fn plain_folders(&self) -> Result<Folders, RepositoryError> {
        let mut folders = Folders::default();
        let base = self.layout.base_prefix();
        let mut pages = std::pin::pin!(self.pages(ListRequest {
            prefix: base.clone(),
            ..ListRequest::default()
        }));
        while let Some(page) = pages.try_next().await? {
            for object in &page.objects {
                folders.add(&base, object);
            }
        }
        Ok(folders)
    }

    /// Lists all of `base/`, and the place under the doubled slash where there is one.
    pub(super) async fn folders(&self) -> Result<Folders, RepositoryError> {
        let mut folders = self.plain_folders().await?;
        let doubled = self.layout.doubled_base_prefix();
        if doubled == self.layout.base_prefix() {
            return Ok(folders);
        }
        let mut pages = std::pin::pin!(self.pages(ListRequest {
            prefix: doubled.clone(),
            ..ListRequest::default()
        }));
        loop {
            match pages.try_next().await {
                Ok(Some(page)) => {
                    for object in &page.objects {
                        folders.add_doubled(&doubled, object);
                    }
                }
                Ok(None) => return Ok(folders),
                Err(RepositoryError::Store(error)) if is_refused_key(&error) => return Ok(folders),
                Err(error) => return Err(error),
            }
        }
    }
}
