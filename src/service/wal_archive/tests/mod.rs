//! Archiving against a store in memory that fails as told, with segments of a true header.

mod admission;
mod ahead;
mod files;
mod strangers;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;
use crate::barman::layout::Layout;
use crate::codec::Codec;
use crate::codec::decompress::decompressor;
use crate::domain::segment::SegmentName;
use crate::fault::{Fault as _, Kind};
use crate::service::wal_fixture::{SegmentBuilder, segment_name};
use crate::service::wal_state::{CHECK_EMPTY_MARKER, FOLDER, Settled};
use crate::store::error::StoreErrorKind;
use crate::store::faulty::{Call, Fault, FaultyStore, Trouble};
use crate::store::memory::MemoryStore;
use crate::store::{ListRequest, ObjectStore, PutOptions};

const SYSTEM_ID: u64 = 7;

/// A data directory, an archive, and the wish for how to archive.
struct Bed {
    folder: tempfile::TempDir,
    store: Arc<FaultyStore>,
    /// The archive without faults, to look at.
    archive: Repository,
    repository: Repository,
    options: ArchiveOptions,
}

impl Bed {
    fn new() -> Self {
        Self::with(Arc::new(MemoryStore::new()))
    }

    /// Another data directory for the same archive.
    fn beside(&self) -> Self {
        Self::with(Arc::clone(&self.archive.store))
    }

    fn with(engine: Arc<dyn ObjectStore>) -> Self {
        let store = Arc::new(FaultyStore::new(Arc::clone(&engine)));
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("pg_wal/archive_status")).unwrap();
        let layout = Layout::new("p", &"main".parse().unwrap());
        let repository = Repository::new(Arc::<FaultyStore>::clone(&store), layout.clone());
        Self {
            folder,
            store,
            archive: Repository::new(engine, layout),
            repository,
            options: ArchiveOptions {
                compression: "zstd:1".parse().unwrap(),
                jobs: 1,
                is_resident: false,
                allows_own_archive: false,
                tags: vec![("a".to_owned(), "b".to_owned())],
                history_tags: Vec::new(),
                encryption: None,
            },
        }
    }

    fn archiver(&self) -> Archiver {
        let options = self.options.clone();
        Archiver::new(self.repository.clone(), &StoreConfig::Memory, options)
    }

    fn pg_wal(&self) -> PathBuf {
        self.folder.path().join("pg_wal")
    }

    fn path(&self, name: SegmentName) -> PathBuf {
        self.pg_wal().join(name.to_string())
    }

    /// Writes a segment that waits to be archived.
    fn write(&self, name: SegmentName, seed: u64) -> PathBuf {
        let bytes = SegmentBuilder::new(name, SYSTEM_ID).seed(seed).bytes();
        fs::write(self.path(name), bytes).unwrap();
        fs::write(self.ready(name), "").unwrap();
        self.path(name)
    }

    fn ready(&self, name: SegmentName) -> PathBuf {
        self.pg_wal().join(format!("archive_status/{name}.ready"))
    }

    fn marker(&self) -> PathBuf {
        self.pg_wal().join(FOLDER).join(CHECK_EMPTY_MARKER)
    }

    fn leave_marker(&self) {
        fs::create_dir_all(self.pg_wal().join(FOLDER)).unwrap();
        fs::write(self.marker(), "").unwrap();
    }

    async fn try_archive(&self, name: SegmentName) -> Result<Archived, ArchiveError> {
        let archiver = self.archiver();
        archiver.archive(&self.path(name)).await
    }

    /// Archives as PostgreSQL does: what succeeded does not wait any more.
    async fn archive(&self, name: SegmentName) -> Archived {
        let archived = self.try_archive(name).await.unwrap();
        let _ = fs::remove_file(self.ready(name));
        archived
    }

    async fn kind(&self, name: SegmentName) -> Kind {
        self.try_archive(name).await.unwrap_err().kind()
    }

    async fn requests<T>(&self, work: impl Future<Output = T>) -> (Vec<Call>, T) {
        let before = self.store.calls().len();
        let outcome = work.await;
        let calls = self.store.calls().split_off(before);
        (calls.into_iter().map(|(call, _)| call).collect(), outcome)
    }

    async fn keys(&self) -> Vec<String> {
        let request = ListRequest {
            prefix: self.repository.layout.wals_prefix(),
            ..ListRequest::default()
        };
        let page = self.archive.store.list(&request).await.unwrap();
        page.objects
            .iter()
            .map(|meta| meta.key.base_name().to_owned())
            .collect()
    }

    async fn content(&self, name: SegmentName, codec: Codec) -> Option<Vec<u8>> {
        let key = self
            .repository
            .layout
            .wal(&WalFileName::Segment(name), codec);
        let stored = self.archive.get_small(&key).await.ok()?;
        let mut content = Vec::new();
        let mut reader = decompressor(stored.as_ref(), codec).unwrap();
        io::Read::read_to_end(&mut reader, &mut content).unwrap();
        Some(content)
    }

    /// What an acknowledged file must be: in the store, whole, under its name.
    async fn assert_stored(&self, name: SegmentName) {
        let content = self.content(name, self.options.compression.codec).await;
        assert!(
            content == Some(fs::read(self.path(name)).unwrap()),
            "{name}"
        );
    }

    async fn put(&self, base_name: &str, body: Vec<u8>) {
        let (name, codec) = Layout::parse_wal(base_name).unwrap();
        let key = self.repository.layout.wal(&name, codec);
        let options = PutOptions::default();
        self.archive
            .store
            .put(&key, body.into(), &options)
            .await
            .unwrap();
    }
}

impl Bed {
    fn write_other(&self, name: SegmentName) {
        let bytes = SegmentBuilder::new(name, SYSTEM_ID).seed(99).bytes();
        fs::write(self.path(name), bytes).unwrap();
    }
}
