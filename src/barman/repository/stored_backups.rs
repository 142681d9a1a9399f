//! What is stored of every backup, object by object, for one request per thousand objects.
//!
//! Not here: what the records say ([`crate::barman::repository::catalog_cache`] and `catalog`).

use std::collections::BTreeMap;

use futures::TryStreamExt;

use crate::barman::layout::ArchiveName;
use crate::barman::repository::{Repository, RepositoryError, StoredArchive};
use crate::domain::backup::BackupId;
use crate::store::{ListRequest, ObjectMeta};

/// The record beside Barman's ([`crate::barman::stored_objects`]), below a backup's private prefix.
const OBJECTS_RECORD: &str = "objects.json";

/// What is stored of one backup: its tars and what tells of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredBackup {
    /// The tars: the data directory's first, then each tablespace's, pieces in order.
    pub archives: Vec<StoredArchive>,
    /// Objects that are tars by their name, in a kind that is not known here.
    pub unknown: Vec<String>,
    /// Whether our own record of the objects is there.
    pub has_objects_record: bool,
    /// Changes when a tar, its record or ours is put anew or goes; as 64 hexadecimal digits.
    ///
    /// Made of names, sizes, etags and times of what was listed. Marks that keep a backup and other
    /// objects in its folder are left out.
    pub version: String,
}

impl StoredBackup {
    fn note(&mut self, object: &ObjectMeta) {
        let mut hasher = blake3::Hasher::new();
        let etag = object.etag.as_deref().unwrap_or_default();
        let line = format!(
            "{} {} {} {etag} {}",
            self.version,
            object.key.base_name(),
            object.size,
            object.modified.timestamp_micros()
        );
        hasher.update(line.as_bytes());
        self.version = hasher.finalize().to_hex().to_string();
    }

    fn add(&mut self, name: &str, object: ObjectMeta) {
        if name == "backup.info" {
            self.note(&object);
        }
        match ArchiveName::parse(name) {
            Ok(None) => {}
            Ok(Some((archive, codec))) => {
                self.note(&object);
                self.archives.push(StoredArchive {
                    key: object.key,
                    name: archive,
                    codec,
                    size: object.size,
                });
            }
            Err(_) => {
                self.note(&object);
                self.unknown.push(name.to_owned());
            }
        }
    }
}

impl Repository {
    /// What is stored of every backup, whether or not its record is there.
    pub async fn stored_backups(
        &self,
    ) -> Result<BTreeMap<BackupId, StoredBackup>, RepositoryError> {
        let mut backups: BTreeMap<BackupId, StoredBackup> = BTreeMap::new();
        let base = self.layout.base_prefix();
        self.each_below(&base, |id, name, object| {
            if !name.contains('/') {
                backups.entry(id).or_default().add(name, object);
            }
        })
        .await?;
        let private = self.layout.private("backups/").as_str().to_owned();
        self.each_below(&private, |id, name, object| {
            if name == OBJECTS_RECORD
                && let Some(backup) = backups.get_mut(&id)
            {
                backup.has_objects_record = true;
                backup.note(&object);
            }
        })
        .await?;
        for backup in backups.values_mut() {
            let archives = &mut backup.archives;
            archives.sort_by(|a, b| (a.name, &a.key).cmp(&(b.name, &b.key)));
        }
        Ok(backups)
    }

    /// Gives each object `<prefix><id>/<name>` to `take`.
    async fn each_below(
        &self,
        prefix: &str,
        mut take: impl FnMut(BackupId, &str, ObjectMeta),
    ) -> Result<(), RepositoryError> {
        let request = ListRequest {
            prefix: prefix.to_owned(),
            ..ListRequest::default()
        };
        let mut pages = std::pin::pin!(self.pages(request));
        while let Some(page) = pages.try_next().await? {
            for object in page.objects {
                let key = object.key.clone();
                let below = key.as_str().strip_prefix(prefix);
                let Some((id, name)) = below.and_then(|below| below.split_once('/')) else {
                    continue;
                };
                if let Ok(id) = id.parse() {
                    take(id, name, object);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::barman::layout::Layout;
    use crate::store::memory::MemoryStore;
    use crate::store::{ObjectKey, PutOptions};

    async fn put(repository: &Repository, name: &str, body: &'static str) {
        let key = ObjectKey::new(format!("p/srv/{name}"));
        let options = PutOptions::default();
        let body = Bytes::from_static(body.as_bytes());
        repository.store.put(&key, body, &options).await.unwrap();
    }

    #[tokio::test]
    async fn a_version_changes_with_what_can_be_verified_and_with_nothing_else() {
        let layout = Layout::new("p", &"srv".parse().unwrap());
        let repository = Repository::new(Arc::new(MemoryStore::new()), layout);
        let mut versions = vec![String::new()];
        for (name, body, is_change) in [
            ("base/a/backup.info", "status=DONE\n", true),
            ("base/a/data.tar", "one", true),
            ("base/a/data.tar", "two", true),
            ("base/a/data_0001.tar.gz", "one", true),
            ("base/a/annotations/keep", "full", false),
            ("base/a/notes.txt", "full", false),
            ("cellarman/backups/a/running.json", "{}", false),
            ("cellarman/backups/a/objects.json", "{}", true),
            ("base/a/data_0002.tar.enc", "?", true),
        ] {
            put(&repository, name, body).await;
            let stored = repository.stored_backups().await.unwrap();
            let version = stored[&"a".parse().unwrap()].version.clone();
            let is_changed = versions.last() != Some(&version);
            assert_eq!(is_changed, is_change, "{name}");
            versions.push(version);
        }
        let stored = repository.stored_backups().await.unwrap();
        let backup = &stored[&"a".parse().unwrap()];
        assert_eq!(
            (backup.archives.len(), backup.unknown.as_slice()),
            (2, &["data_0002.tar.enc".to_owned()][..])
        );
        assert!(backup.has_objects_record);
    }
}
