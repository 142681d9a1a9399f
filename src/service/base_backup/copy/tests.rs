//! Copies of small directories into a store in memory, read back by a tar reader.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use futures::StreamExt;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::barman::layout::Layout;
use crate::codec::decompress::decompressor;
use crate::codec::{Codec, Compression};
use crate::domain::backup::BackupId;
use crate::fault::{Fault, Kind};
use crate::service::base_backup::Stage;
use crate::store::error::StoreErrorKind;
use crate::store::faulty::{Call, Fault as Script, FaultyStore, Trouble};
use crate::store::memory::MemoryStore;
use crate::store::parts::PartPool;
use crate::store::upload::{Unobserved, UploadOptions};
use crate::store::{ListRequest, ObjectKey, ObjectStore, PutOptions};

const FOLDER: &str = "PG_15_202209061";

struct Silent;

impl Watcher for Silent {
    fn enter(&self, _stage: Stage) {}
    fn copied(&self, _bytes: u64) {}
}

struct Bench {
    home: tempfile::TempDir,
    store: Arc<FaultyStore>,
}

impl Bench {
    /// A data directory of 60 files and a tablespace of one.
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for index in 0..60_u8 {
            let bytes = vec![index; 1000 * usize::from(index)];
            write(&home.path().join(format!("data/base/5/{index}")), &bytes);
        }
        write(&home.path().join("data/PG_VERSION"), b"15\n");
        write(
            &home.path().join(format!("space/{FOLDER}/5/77")),
            b"tablespace",
        );
        write(&home.path().join("space/PG_14_202107181/5/77"), b"older");
        write(&home.path().join("etc/pg_hba.conf"), b"outside");
        Self {
            home,
            store: Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()))),
        }
    }

    fn copy(&self, jobs: usize, codec: Codec) -> Arc<Copy> {
        let tablespaces = vec![Tablespace {
            name: "space".to_owned(),
            oid: 16384,
            location: self.home.path().join("space").display().to_string(),
        }];
        let data = DataDirectory::open(&self.home.path().join("data"), &tablespaces).unwrap();
        Arc::new(Copy {
            source: Source {
                data,
                tablespaces,
                outside: vec![self.home.path().join("etc/pg_hba.conf")],
                version: ServerVersion::from_number(150_000).unwrap(),
                checked_page_bytes: None,
                begin_lsn: Lsn::new(1),
                jobs,
                piece_bytes: 200_000,
            },
            archives: ArchiveMaker {
                store: Arc::<FaultyStore>::clone(&self.store),
                layout: Layout::new("", &"srv".parse().unwrap()),
                id: id(),
                compression: Compression { codec, level: None },
                options: UploadOptions {
                    pool: PartPool::new(64 << 10, jobs + 3),
                    parts_in_flight: 2,
                    put: PutOptions::default(),
                    limiter: None,
                },
                observer: Arc::new(Unobserved),
                runtime: Handle::current(),
                cancel: CancellationToken::new(),
                pieces: Mutex::default(),
            },
            watcher: Arc::new(Silent),
            gathered: Mutex::new(Gathered {
                manifest: Some(ManifestBuilder::new(1, 7).unwrap()),
                objects: Vec::new(),
                damaged: Vec::new(),
                damaged_count: 0,
                copied_bytes: 0,
                copied_files: 0,
                first: None,
            }),
        })
    }

    /// Everything in all archives, by archive's stem and name; a file in two archives would show.
    async fn entries(&self) -> BTreeMap<(String, String), Vec<u8>> {
        let request = ListRequest::default();
        let mut entries = BTreeMap::new();
        for object in self.store.list(&request).await.unwrap().objects {
            let mut body = self.store.get(&object.key, None).await.unwrap();
            let mut stored = Vec::new();
            while let Some(chunk) = body.chunks.next().await {
                stored.extend_from_slice(&chunk.unwrap());
            }
            let (stem, codec) = Codec::split_suffix(object.key.base_name());
            let stem = stem.trim_end_matches(".tar").split('_').next().unwrap();
            let tar = decompressor(stored.as_slice(), codec).unwrap();
            for entry in tar::Archive::new(tar).entries().unwrap() {
                let mut entry = entry.unwrap();
                let name = entry.path().unwrap().display().to_string();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                let earlier = entries.insert((stem.to_owned(), name.clone()), bytes);
                assert_eq!(earlier, None, "{name} is there twice");
            }
        }
        entries
    }

    async fn assert_no_upload_is_left(&self) {
        assert_eq!(self.store.list_uploads("").await.unwrap(), []);
    }
}

fn id() -> BackupId {
    "20261121T054347".parse().unwrap()
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

async fn finish(first: OpenArchive) {
    tokio::task::spawn_blocking(|| first.finish().unwrap().wait().unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn every_file_is_in_one_archive_whatever_the_number_of_jobs() {
    for (jobs, codec) in [(1, Codec::None), (2, Codec::Gzip), (9, Codec::Lz4)] {
        let bench = Bench::new();
        let copy = bench.copy(jobs, codec);
        finish(copy.run().await.unwrap()).await;
        let entries = bench.entries().await;
        let get = |stem: &str, name: &str| {
            let key = (stem.to_owned(), name.to_owned());
            entries.get(&key).map(Vec::as_slice)
        };
        for index in 0..60_u8 {
            let name = format!("base/5/{index}");
            let bytes = vec![index; 1000 * usize::from(index)];
            assert_eq!(get("data", &name), Some(bytes.as_slice()), "{jobs} {name}");
        }
        assert_eq!(get("data", "./PG_VERSION"), Some(&b"15\n"[..]));
        assert_eq!(get("data", "./pg_hba.conf"), Some(&b"outside"[..]));
        assert_eq!(get("data", "./"), Some(&b""[..]));
        assert_eq!(get("data", "base/5/"), Some(&b""[..]));
        assert_eq!(
            get("16384", &format!("{FOLDER}/5/77")),
            Some(&b"tablespace"[..])
        );
        assert_eq!(entries.len(), 60 + 2 + 3 + 3, "{:?}", entries.keys());
        let gathered = copy.gathered();
        assert_eq!(gathered.copied_files, 63);
        let is_cut = codec == Codec::None && gathered.objects.len() > 5;
        assert!(is_cut || codec != Codec::None, "{:?}", gathered.objects);
    }
}

#[tokio::test]
async fn a_store_that_fails_ends_the_copy_with_its_own_error() {
    for skip in [0, 1, 5, 20] {
        let bench = Bench::new();
        let trouble = Trouble::Fails(StoreErrorKind::Denied);
        bench
            .store
            .add(Script::next(Call::PutPart, trouble).after(skip));
        let kind = match bench.copy(2, Codec::None).run().await {
            Err(error) => error.kind(),
            // The last part of the first archive fails when all else is done.
            Ok(first) => tokio::task::spawn_blocking(|| first.give_up().unwrap().kind())
                .await
                .unwrap(),
        };
        assert_eq!(kind, Kind::Denied, "after {skip} parts");
        bench.assert_no_upload_is_left().await;
    }
}

#[tokio::test]
async fn a_cancelled_copy_leaves_no_upload() {
    let bench = Bench::new();
    let copy = bench.copy(3, Codec::None);
    copy.archives.cancel.cancel();
    let error = copy.run().await.err().unwrap();
    assert!(error.is_cancelled(), "{error}");
    bench.assert_no_upload_is_left().await;
}

#[tokio::test]
async fn what_vanished_is_passed_over_and_a_dropped_tablespace_has_its_tar() {
    let bench = Bench::new();
    let copy = bench.copy(2, Codec::None);
    fs::remove_file(bench.home.path().join("etc/pg_hba.conf")).unwrap();
    fs::remove_dir_all(bench.home.path().join("space")).unwrap();
    finish(copy.run().await.unwrap()).await;
    assert_eq!(copy.gathered().copied_files, 61);
    let key = copy.archives.layout.backup_prefix(&id()) + "16384.tar";
    let tar = bench.store.head(&ObjectKey::new(key)).await.unwrap();
    assert_eq!(tar.size, 10_240);
}
