//! Whole restores, from a store in memory to a directory: what they make, and what they leave
//! when they fail or die.

mod leftovers;
mod outcomes;
mod truth;
mod way;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::barman::layout::{ArchiveName, Layout};
use crate::barman::repository::Repository;
use crate::barman::stored_objects::{StoredObject, StoredObjects};
use crate::codec::compress::Compressor;
use crate::codec::tar::{Attributes, TarWriter};
use crate::codec::{Codec, Compression};
use crate::domain::backup::BackupId;
use crate::domain::recovery::{Request, Target, TimelineWish};
use crate::fault::{Fault as _, Kind};
use crate::pgfile::wal::page::SEGMENT_HEADER_BYTES;
use crate::service::restore::directories::Footprint;
use crate::service::restore::error::RestoreError;
use crate::service::restore::members::MARKER;
use crate::service::restore::plan::{RestorePlan, plan};
use crate::service::restore::request::{Configuration, RestoreRequest, TablespaceMapping};
use crate::service::restore::run::{Restored, run};
use crate::service::restore::settings::{RestoreCommand, TargetAction};
use crate::service::wal_fixture::{SegmentBuilder, segment_name};
use crate::store::error::StoreErrorKind;
use crate::store::faulty::{Call, Fault, FaultyStore, Trouble};
use crate::store::memory::MemoryStore;
use crate::store::{ObjectKey, ObjectStore, PutOptions};

const CONTROL: &[u8] = include_bytes!("../../../../tests/fixtures/postgresql/pg_control-15");
const CONTROL_SYSTEM_ID: u64 = 7_710_535_714_366_482_761;
const LABEL: &str = "START WAL LOCATION: 0/3000028\n";
const ID: &str = "20261121T054347";

/// One member of a tar: `path/` is a directory, `path -> target` a link, else a file of 0600.
type Member<'a> = (&'a str, &'a [u8]);

const MEMBERS: &[Member<'_>] = &[
    ("./", b""),
    ("./PG_VERSION", b"15\n"),
    ("./postgresql.conf", b"port = 1\n"),
    ("./pg_hba.conf", b"local all all trust\n"),
    ("./postgresql.auto.conf", b"recovery_target_name = 'old'\n"),
    ("./tablespace_map", b"16384 /live\n"),
    ("./standby.signal", b""),
    ("./postmaster.pid", b"1"),
    ("base/", b""),
    ("base/5/", b""),
    ("base/5/16391", &[7; 300_000]),
    ("global/", b""),
    ("pg_wal/", b""),
    ("server.crt -> /etc/ssl/cert.pem", b""),
    ("global/pg_control", CONTROL),
    ("backup_label", b"stale"),
];

const TABLESPACE_MEMBERS: &[Member<'_>] = &[
    ("PG_15_202209061/", b""),
    ("PG_15_202209061/5/", b""),
    ("PG_15_202209061/5/16400", &[9; 100_000]),
];

fn tar(members: &[Member<'_>]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (name, contents) in members {
        let mode = if name.ends_with('/') { 0o700 } else { 0o600 };
        let attributes = Attributes {
            mode,
            uid: 0,
            gid: 0,
            mtime: 1_700_000_000,
        };
        if let Some((path, target)) = name.split_once(" -> ") {
            tar.append_symlink(path, target, attributes).unwrap();
        } else if name.ends_with('/') {
            tar.append_directory(name, attributes).unwrap();
        } else {
            tar.append_bytes(name, contents, attributes).unwrap();
        }
    }
    tar.finish().unwrap()
}

fn compressed(bytes: &[u8], codec: Codec) -> Vec<u8> {
    let compression = Compression { codec, level: None };
    let mut compressor = Compressor::new(Vec::new(), compression).unwrap();
    std::io::Write::write_all(&mut compressor, bytes).unwrap();
    compressor.finish().unwrap()
}

/// A store with one backup, and directories to restore it to.
struct Bed {
    /// What `store` keeps.
    memory: Arc<MemoryStore>,
    store: Arc<FaultyStore>,
    repository: Repository,
    folder: TempDir,
    codec: Codec,
}

impl Bed {
    async fn new(codec: Codec) -> Self {
        let memory = Arc::new(MemoryStore::new());
        let seam: Arc<dyn ObjectStore> = Arc::<MemoryStore>::clone(&memory);
        let store = Arc::new(FaultyStore::new(seam));
        let layout = Layout::new("path", &"main".parse().unwrap());
        let seam: Arc<dyn ObjectStore> = Arc::<FaultyStore>::clone(&store);
        let repository = Repository::new(seam, layout);
        let folder = TempDir::new().unwrap();
        let bed = Self {
            memory,
            store,
            repository,
            folder,
            codec,
        };
        bed.put_record("").await;
        bed.put_archive(None, 0, &tar(MEMBERS)).await;
        bed.put_archive(Some(16384), 0, &tar(TABLESPACE_MEMBERS))
            .await;
        for segment in ["000000010000000000000003", "000000010000000000000004"] {
            let key = bed
                .repository
                .layout
                .wal(&segment.parse().unwrap(), Codec::None);
            bed.put(&key, &wal()).await;
        }
        bed
    }

    async fn put_record(&self, more: &str) {
        self.put_record_of(&id(), more).await;
    }

    async fn put_record_of(&self, id: &BackupId, more: &str) {
        let old = self.path("old-tablespace");
        let text = format!(
            "backup_label={LABEL:?}\nbegin_time=2026-11-21 05:43:47+00:00\n\
             begin_wal=000000010000000000000003\nbegin_xlog=0/3000028\n\
             end_time=2026-11-21 05:43:49+00:00\nend_wal=000000010000000000000004\n\
             end_xlog=0/4000138\npgdata=/srv/pg\nstatus=DONE\nsystemid={CONTROL_SYSTEM_ID}\n\
             tablespaces=[('tsone', 16384, '{}')]\ntimeline=1\nversion=150020\n{more}",
            old.display()
        );
        let key = self.repository.layout.backup_info(id);
        self.put(&key, text.as_bytes()).await;
    }

    /// Puts files of the log.
    async fn put_wal(&self, names: impl IntoIterator<Item = String>) {
        for name in names {
            let key = self
                .repository
                .layout
                .wal(&name.parse().unwrap(), Codec::None);
            self.put(&key, &wal()).await;
        }
    }

    /// Makes files of the log such as were put at another time.
    fn date_wal(&self, names: impl IntoIterator<Item = String>, put_at: DateTime<Utc>) {
        for name in names {
            let name = name.parse().unwrap();
            let key = self.repository.layout.wal(&name, Codec::None);
            self.memory.set_modified(&key, put_at);
        }
    }

    fn key(&self, tablespace: Option<u32>, piece: u32) -> ObjectKey {
        let name = ArchiveName { tablespace, piece };
        self.repository.layout.archive(&id(), &name, self.codec)
    }

    async fn put_archive(&self, tablespace: Option<u32>, piece: u32, tar: &[u8]) {
        let stored = compressed(tar, self.codec);
        self.put(&self.key(tablespace, piece), &stored).await;
    }

    async fn put(&self, key: &ObjectKey, bytes: &[u8]) {
        self.store
            .put(key, bytes.to_vec().into(), &PutOptions::default())
            .await
            .unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    fn pgdata(&self) -> PathBuf {
        self.path("pgdata")
    }

    fn request(&self) -> RestoreRequest {
        RestoreRequest {
            recovery: Request {
                target: Target::Latest,
                inclusive: true,
                timeline: TimelineWish::Latest,
                backup: None,
                may_end_later: false,
            },
            action: TargetAction::Promote,
            accepts_gap: false,
            pgdata: self.pgdata(),
            tablespaces: vec![TablespaceMapping {
                old: "tsone".to_owned(),
                new: self.path("new/tablespace"),
            }],
            restore_command: RestoreCommand {
                program: "/bin/cellarman".to_owned(),
                options: Vec::new(),
            },
            configuration: Configuration::Written,
            jobs: 2,
        }
    }

    async fn plan(&self) -> Result<RestorePlan, RestoreError> {
        plan(&self.repository, &self.request()).await
    }

    async fn restore(&self) -> Result<Restored, RestoreError> {
        self.restore_until(&CancellationToken::new()).await
    }

    async fn restore_until(&self, cancel: &CancellationToken) -> Result<Restored, RestoreError> {
        let plan = self.plan().await?;
        run(&self.repository, plan, cancel, Arc::new(|_| {})).await
    }

    /// Restores, and looks at every promise that the result makes.
    async fn check_restores(&self) {
        let restored = self.restore().await.unwrap();
        assert_eq!(notes(&restored), Vec::<&str>::new());
        let pgdata = self.pgdata();
        let read = |name: &str| fs::read(pgdata.join(name)).unwrap();
        assert_eq!(read("base/5/16391"), vec![7; 300_000]);
        assert_eq!(read("global/pg_control"), CONTROL);
        assert_eq!(read("backup_label"), LABEL.as_bytes());
        assert_eq!(
            read("pg_tblspc/16384/PG_15_202209061/5/16400"),
            vec![9; 100_000]
        );
        let link = fs::read_link(pgdata.join("pg_tblspc/16384")).unwrap();
        assert_eq!(link, self.path("new/tablespace"));
        for name in [
            "recovery.signal",
            "pg_wal/archive_status",
            "pg_wal/.cellarman/check-empty-archive",
            "pg_notify",
        ] {
            assert!(pgdata.join(name).exists(), "{name}");
        }
        for name in ["tablespace_map", "standby.signal", "postmaster.pid", MARKER] {
            assert!(!pgdata.join(name).exists(), "{name}");
        }
        assert!(!self.path("new/tablespace").join(MARKER).exists());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for (name, expected) in [
            ("", 0o700),
            ("PG_VERSION", 0o600),
            ("pg_wal", 0o700),
            ("backup_label", 0o600),
        ] {
            assert_eq!(mode(&pgdata.join(name)), expected, "{name}");
        }
        assert_eq!(mode(&self.path("new/tablespace")), 0o700);
        assert_eq!(
            fs::metadata(pgdata.join("base/5/16391")).unwrap().mtime(),
            1_700_000_000
        );
        assert_eq!(
            fs::read_link(pgdata.join("server.crt")).unwrap(),
            Path::new("/etc/ssl/cert.pem")
        );
        let settings = String::from_utf8(read("postgresql.auto.conf")).unwrap();
        assert!(settings.contains("# replaced by cellarman restore: recovery_target_name = 'old'"));
        assert!(settings.contains("wal restore %f"));
    }

    /// Restores, expects a failure of that kind, and that nothing is left.
    async fn check_fails(&self, kind: Kind) -> RestoreError {
        let error = self.restore().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{}", crate::fault::chain(&error));
        self.check_nothing_is_left();
        error
    }

    fn check_nothing_is_left(&self) {
        let left: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// What the user is told, but for what only root is told.
fn notes(restored: &Restored) -> Vec<&str> {
    let notes = restored.notes.iter().map(String::as_str);
    notes
        .filter(|note| !note.starts_with("The files belong to root"))
        .collect()
}

fn id() -> BackupId {
    ID.parse().unwrap()
}

/// The beginning of a segment of a server that this release does not know: what it says cannot be
/// read, and plans go by the names of files.
fn wal() -> Vec<u8> {
    let builder = SegmentBuilder::new(segment_name(1, 1), 1);
    builder.magic(0xD2FF).bytes()[..SEGMENT_HEADER_BYTES].to_vec()
}
