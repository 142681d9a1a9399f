//! All backups at once, for as few requests as there are pages and changes.
//!
//! One flat listing of `base/` tells of each backup what is stored of it, whether a mark keeps it,
//! and the version of its record. The records themselves come from the derived cache in the bucket
//! where it holds that very version ([`crate::barman::repository::catalog_cache`]); only the others
//! are fetched. Marks are small objects like records, and are treated alike.
//!
//! # Who writes the cache
//!
//! Any reader that had to fetch more than [`HANDFUL`] objects, or found more that is gone than is
//! there, puts a new one when it has its answer. It does so without a condition and without ado:
//! whoever may only read goes on without a cache, and a failed put is a line in the debug log. Of
//! two readers that write at once the last wins, and as each entry is true by itself (bound to the
//! version that it was read from), the worst that can be lost is the saving. A reader that sees no
//! more than a handful of records does not ask for the cache at all.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::{task, time};
use tracing::debug;

use crate::barman::backup_info::BackupInfo;
use crate::barman::layout::Layout;
use crate::barman::repository::catalog_cache::{self, CacheReader, CacheWriter, CachedObject};
use crate::barman::repository::folders::{Folders, Known, Record, Small, Stamp};
use crate::barman::repository::keep::keep_of;
use crate::barman::repository::{
    Catalog, CatalogEntry, REQUESTS_IN_FLIGHT, Repository, RepositoryError, Unreadable,
};
use crate::clock;
use crate::domain::backup::{BackupId, Keep};
use crate::fault;
use crate::store::{ListRequest, PutOptions};

/// So many small objects are fetched without a thought of the cache.
const HANDFUL: usize = 8;

/// How long the put of a new cache may take before it is given up.
const PUT_TIMEOUT: Duration = Duration::from_secs(20);

/// An object is cached once it has been there so long.
///
/// Versions of a local file are told apart by its inode, size and time. Within one tick of the file
/// system's clock two versions might share all three, and a cached one would hide the other.
const SETTLED_AFTER: TimeDelta = TimeDelta::seconds(2);

/// A small object as it was found.
struct Fetched {
    id: BackupId,
    small: Small,
    /// The version listed; `None` where another one was fetched, or one not to be told apart.
    version: Option<Stamp>,
    contents: Contents,
}

/// What a small object holds.
enum Contents {
    Text(String),
    /// It cannot be read, and why.
    Unreadable(String),
    /// It went after it was listed.
    Gone,
}

impl Repository {
    /// All backups, of each record the version in the listing or a later one.
    ///
    /// A record that makes no sense does not stop the rest; a store that fails does.
    pub async fn list_backups(&self) -> Result<Catalog, RepositoryError> {
        // Before the listing, that no version in it is taken for older than it is.
        let began = clock::now();
        self.list_backups_in(self.folders().await?, began).await
    }

    /// The same for who does not ask which backups are kept: the other place of those marks is not
    /// looked at, which saves a request.
    pub async fn list_backups_to_restore(&self) -> Result<Catalog, RepositoryError> {
        let began = clock::now();
        self.list_backups_in(self.plain_folders().await?, began)
            .await
    }

    async fn list_backups_in(
        &self,
        mut folders: Folders,
        began: DateTime<Utc>,
    ) -> Result<Catalog, RepositoryError> {
        let mut cache = None;
        if folders.missing().nth(HANDFUL).is_some()
            && let Some(bytes) = self.load_cache().await
        {
            (folders, cache) = self.taken_from(bytes, folders).await;
        }
        let missing: Vec<_> = folders.missing().collect();
        let fetched_count = missing.len();
        let mut fetched = stream::iter(missing)
            .map(|(id, small, stamp)| self.fetch(id, small, stamp, began))
            .buffer_unordered(REQUESTS_IN_FLIGHT);
        let mut writer = None;
        while let Some(one) = fetched.try_next().await? {
            if fetched_count > HANDFUL {
                remember(&mut writer, &one);
            }
            settle(&self.layout, &mut folders, one);
        }
        drop(fetched);
        let dead = cache.as_ref().map_or(0, |cache: &Cache| cache.dead);
        if fetched_count > HANDFUL || dead > folders.len() + HANDFUL {
            folders = self.store_cache(writer, cache, folders).await;
        }
        Ok(catalog(folders))
    }

    async fn fetch(
        &self,
        id: BackupId,
        small: Small,
        listed: Stamp,
        began: DateTime<Utc>,
    ) -> Result<Fetched, RepositoryError> {
        let key = small.key(&self.layout, &id);
        let (version, contents) = match self.get_small_object(&key).await {
            Ok((meta, bytes)) => {
                let is_settled = listed.modified + SETTLED_AFTER < began;
                let is_listed = is_settled && listed.is_of(&meta);
                let contents = match String::from_utf8(bytes.into()) {
                    Ok(text) => Contents::Text(text),
                    Err(_) => Contents::Unreadable(fault::chain(&RepositoryError::NotText { key })),
                };
                (is_listed.then_some(listed), contents)
            }
            Err(RepositoryError::Store(error)) if error.is_not_found() => (None, Contents::Gone),
            Err(error @ RepositoryError::Store(_)) => return Err(error),
            Err(error) => (None, Contents::Unreadable(fault::chain(&error))),
        };
        Ok(Fetched {
            id,
            small,
            version,
            contents,
        })
    }

    /// The cache as stored, if there is one to be had.
    async fn load_cache(&self) -> Option<Bytes> {
        match self.get_small(&catalog_cache::key(&self.layout)).await {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                debug!(error = fault::chain(&error), "reading without a cache");
                None
            }
        }
    }

    /// What the cache says of the versions listed. All of it, or nothing if it is broken anywhere.
    async fn taken_from(&self, bytes: Bytes, mut folders: Folders) -> (Folders, Option<Cache>) {
        let layout = self.layout.clone();
        let worker = task::spawn_blocking(move || match live_values(&layout, &bytes, &folders) {
            Ok((values, dead)) => {
                for (id, small, value) in values {
                    put_value(&mut folders, &id, small, value);
                }
                (folders, Some(Cache { bytes, dead }))
            }
            Err(error) => {
                debug!(%error, "the cache of the catalog cannot be read");
                (folders, None)
            }
        });
        worker.await.expect("reading the cache does not panic")
    }

    /// Puts a new cache: what was fetched, and what is still true of the old one.
    async fn store_cache(
        &self,
        writer: Option<CacheWriter>,
        old: Option<Cache>,
        folders: Folders,
    ) -> Folders {
        let worker = task::spawn_blocking(move || {
            let written = written(writer, old, &folders);
            (written, folders)
        });
        let (written, folders) = worker.await.expect("writing the cache does not panic");
        let Some(bytes) = written else {
            return folders;
        };
        let key = catalog_cache::key(&self.layout);
        let options = PutOptions::default();
        let put = self.store.put(&key, bytes, &options);
        match time::timeout(PUT_TIMEOUT, put).await {
            Ok(Ok(())) => debug!(%key, "wrote the cache of the catalog"),
            Ok(Err(error)) => debug!(error = fault::chain(&error), "cannot write the cache"),
            Err(_) => debug!("gave up writing the cache"),
        }
        folders
    }

    /// The folders below `base/`, whether or not a record lies in them, in order.
    pub async fn backup_ids(&self) -> Result<Vec<BackupId>, RepositoryError> {
        let base = self.layout.base_prefix();
        let mut request = ListRequest {
            prefix: base.clone(),
            is_delimited: true,
            ..ListRequest::default()
        };
        let mut ids = Vec::new();
        loop {
            let page = self.store.list(&request).await?;
            let names = page.prefixes.iter().filter_map(|prefix| {
                let name = prefix.strip_prefix(&base)?.strip_suffix('/')?;
                name.parse::<BackupId>().ok()
            });
            ids.extend(names);
            request.token = page.next;
            if request.token.is_none() {
                ids.sort();
                return Ok(ids);
            }
        }
    }

    /// The backup that a user means: by its id, else by its name.
    ///
    /// An id is taken as it is where it has the shape of one; it need not exist.
    pub async fn resolve(&self, wanted: &str) -> Result<BackupId, RepositoryError> {
        if BackupId::is_shape_of_id(wanted) {
            return wanted.parse().map_err(|_| self.unknown(wanted));
        }
        let catalog = self.list_backups().await?;
        let is_wanted = |id: &BackupId| id.as_str() == wanted;
        let readable = catalog.backups.iter().map(|entry| &entry.backup.id);
        let unreadable = catalog.unreadable.iter().map(|entry| &entry.id);
        if let Some(id) = readable.chain(unreadable).find(|id| is_wanted(id)) {
            return Ok(id.clone());
        }
        let named = |entry: CatalogEntry| {
            (entry.backup.name.as_deref() == Some(wanted)).then_some(entry.backup.id)
        };
        let mut ids: Vec<BackupId> = catalog.backups.into_iter().filter_map(named).collect();
        let unreadable = catalog.unreadable.into_iter().map(|entry| entry.id);
        match ids.len() {
            0 if unreadable.len() > 0 => Err(RepositoryError::NameNotCertain {
                name: wanted.to_owned(),
                ids: unreadable.collect(),
            }),
            0 => Err(self.unknown(wanted)),
            1 => Ok(ids.remove(0)),
            _ => Err(RepositoryError::AmbiguousName {
                name: wanted.to_owned(),
                ids,
            }),
        }
    }
}

/// A cache that was read, and how many of its entries nothing in the listing bears out.
struct Cache {
    bytes: Bytes,
    dead: usize,
}

/// What a small object says.
enum Value {
    Record(Record),
    Keep(Keep),
}

impl Value {
    fn of(layout: &Layout, id: &BackupId, small: Small, text: &str) -> Self {
        match small {
            Small::Record => Self::Record(match BackupInfo::parse(text) {
                Ok(info) => Ok(Box::new(info.to_backup(id))),
                Err(source) => {
                    let key = layout.backup_info(id);
                    let error = RepositoryError::Record { key, source };
                    Err(fault::chain(&error).into())
                }
            }),
            Small::Keep | Small::DoubledKeep => Self::Keep(keep_of(text.as_bytes())),
        }
    }
}

type Values = Vec<(BackupId, Small, Value)>;

fn live_values(layout: &Layout, bytes: &Bytes, folders: &Folders) -> io::Result<(Values, usize)> {
    let mut reader = CacheReader::new(bytes.clone())?;
    let (mut values, mut dead) = (Vec::new(), 0);
    while let Some(object) = reader.next()? {
        if is_live(&object, folders) {
            let value = Value::of(layout, &object.id, object.small, &object.text);
            values.push((object.id, object.small, value));
        } else {
            dead += 1;
        }
    }
    Ok((values, dead))
}

/// Whether the listing has this very version of it.
fn is_live(object: &CachedObject, folders: &Folders) -> bool {
    let folder = folders.0.get(&object.id);
    let listed = folder.and_then(|folder| folder.small(object.small));
    listed.is_some_and(|(stamp, _)| *stamp == object.stamp)
}

fn put_value(folders: &mut Folders, id: &BackupId, small: Small, value: Value) {
    let Some(folder) = folders.0.get_mut(id) else {
        return;
    };
    match (small, value) {
        (Small::Record, Value::Record(record)) => set(&mut folder.record, record),
        (Small::Keep, Value::Keep(keep)) => set(&mut folder.keep, keep),
        (Small::DoubledKeep, Value::Keep(keep)) => set(&mut folder.doubled_keep, keep),
        (_, Value::Record(_) | Value::Keep(_)) => {}
    }
}

fn set<T>(known: &mut Option<Known<T>>, value: T) {
    if let Some(known) = known {
        known.value = Some(value);
    }
}

/// Takes what was fetched into the folders.
fn settle(layout: &Layout, folders: &mut Folders, fetched: Fetched) {
    let Fetched {
        id,
        small,
        contents,
        ..
    } = fetched;
    let value = match (contents, small) {
        (Contents::Text(text), _) => Value::of(layout, &id, small, &text),
        (Contents::Unreadable(reason), Small::Record) => Value::Record(Err(reason.into())),
        // What is not understood must not be deleted.
        (Contents::Unreadable(_), _) => Value::Keep(Keep::Full),
        (Contents::Gone, _) => {
            if let Some(folder) = folders.0.get_mut(&id) {
                match small {
                    Small::Record => folder.record = None,
                    Small::Keep => folder.keep = None,
                    Small::DoubledKeep => folder.doubled_keep = None,
                }
            }
            return;
        }
    };
    put_value(folders, &id, small, value);
}

/// Enters what was fetched into a new cache. One that cannot be written is given up.
fn remember(writer: &mut Option<CacheWriter>, fetched: &Fetched) {
    let (Some(version), Contents::Text(text)) = (&fetched.version, &fetched.contents) else {
        return;
    };
    let mut taken = match writer.take() {
        Some(writer) => Ok(writer),
        None => CacheWriter::new(),
    };
    let add = |writer: &mut CacheWriter| writer.add(&fetched.id, fetched.small, version, text);
    if taken.as_mut().is_ok_and(|writer| add(writer).is_ok()) {
        *writer = taken.ok();
    }
}

/// The new cache: what was fetched, and the live of the old.
fn written(writer: Option<CacheWriter>, old: Option<Cache>, folders: &Folders) -> Option<Bytes> {
    let write = || -> io::Result<Bytes> {
        let mut writer = writer.map_or_else(CacheWriter::new, Ok)?;
        if let Some(old) = old {
            let mut reader = CacheReader::new(old.bytes)?;
            while let Some(object) = reader.next()? {
                if is_live(&object, folders) {
                    writer.add(&object.id, object.small, &object.stamp, &object.text)?;
                }
            }
        }
        writer.finish()
    };
    write()
        .inspect_err(|error| debug!(%error, "cannot make a cache of the catalog"))
        .ok()
}

fn catalog(folders: Folders) -> Catalog {
    let mut catalog = Catalog::default();
    for (id, mut folder) in folders.0 {
        let keep = folder.kept();
        match folder.record.take().and_then(|record| record.value) {
            Some(Ok(backup)) => catalog.backups.push(CatalogEntry {
                stored: folder.stored_of(&backup),
                backup: *backup,
                keep,
            }),
            Some(Err(reason)) => catalog.unreadable.push(Unreadable {
                id,
                reason: reason.into(),
                keep,
                stored: folder.stored,
            }),
            // No record: no backup, as Barman sees it too.
            None => {}
        }
    }
    catalog
}
