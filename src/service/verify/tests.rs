//! A verification over a store in memory that fails as scripted.

use std::io::Write;

use bytes::Bytes;
use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::barman::backup_info::BackupInfo;
use crate::barman::layout::{ArchiveName, Layout};
use crate::barman::repository::Repository;
use crate::barman::stored_objects::{StoredObject, StoredObjects};
use crate::clock;
use crate::codec::Codec;
use crate::domain::backup::BackupStatus;
use crate::fault::Kind;
use crate::service::verify::error::VerifyError;
use crate::service::verify::report::{Outcome, Report, Severity};
use crate::service::verify::results::Summary;
use crate::store::error::StoreErrorKind;
use crate::store::faulty::{Call, Fault, FaultyStore, Trouble};
use crate::store::memory::MemoryStore;
use crate::store::{ObjectKey, ObjectStore, PutOptions};

struct Bed {
    memory: Arc<MemoryStore>,
    faulty: Arc<FaultyStore>,
    repository: Repository,
}

impl Bed {
    fn new() -> Self {
        let memory = Arc::new(MemoryStore::new());
        let faulty = Arc::new(FaultyStore::new(Arc::<MemoryStore>::clone(&memory)));
        let layout = Layout::new("path", &"main".parse().unwrap());
        let repository = Repository::new(Arc::<FaultyStore>::clone(&faulty), layout);
        Self {
            memory,
            faulty,
            repository,
        }
    }

    async fn put(&self, key: &ObjectKey, body: impl Into<Bytes>) {
        let options = PutOptions::default();
        self.memory.put(key, body.into(), &options).await.unwrap();
    }

    /// A backup of one tar that begins and ends in a segment of timeline 1.
    async fn backup(&self, id: &str, segment: u32, is_ours: bool) {
        let layout = &self.repository.layout;
        let wal = |suffix: u32| format!("00000001000000000000{suffix:04X}").parse();
        let begin_wal = wal(segment).unwrap();
        let lsn = format!("0/{segment:X}000100").parse().unwrap();
        let info = BackupInfo {
            status: BackupStatus::Done,
            begin_wal: Some(begin_wal),
            end_wal: Some(begin_wal),
            begin_xlog: Some(lsn),
            end_xlog: Some(lsn),
            end_time: Some((clock::now() - TimeDelta::hours(1)).fixed_offset()),
            version: Some(150_020),
            ..BackupInfo::default()
        };
        let parsed = id.parse().unwrap();
        let body = tar();
        let archive = layout.archive(&parsed, &ArchiveName::DATA, Codec::Gzip);
        if is_ours {
            let objects = StoredObjects {
                objects: vec![StoredObject {
                    name: "data.tar.gz".to_owned(),
                    size: u64::try_from(body.len()).unwrap(),
                    blake3: blake3::hash(&body).to_hex().to_string(),
                    tar_bytes: None,
                }],
                damaged: Vec::new(),
            };
            let key = StoredObjects::key(layout, &parsed);
            self.put(&key, objects.to_json().unwrap()).await;
        }
        self.put(&archive, body).await;
        self.put(&layout.backup_info(&parsed), info.to_text()).await;
        self.segment(segment).await;
    }

    async fn segment(&self, segment: u32) {
        let name = format!("00000001000000000000{segment:04X}");
        let key = ObjectKey::new(format!("path/main/wals/{}/{name}.gz", &name[..16]));
        self.put(&key, "x").await;
    }

    async fn verify(&self, request: &Request) -> Result<Report, VerifyError> {
        let plan = plan(&self.repository, request.clone()).await?;
        plan.run(&CancellationToken::new(), Arc::new(|_| {})).await
    }

    /// The keys that were read since so many calls.
    fn read_since(&self, count: usize) -> Vec<String> {
        let calls = self.faulty.calls().into_iter().skip(count);
        let gets = calls.filter(|(call, _)| *call == Call::Get);
        gets.map(|(_, key)| key).collect()
    }
}

fn object_key(id: &str, name: &str) -> ObjectKey {
    ObjectKey::new(format!("path/main/base/{id}/{name}"))
}

/// A whole tar, compressed.
fn tar() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5000);
    let body: Vec<u8> = (0..5000).map(|_| fastrand::u8(..)).collect();
    tar.append_data(&mut header, "base/1/1", body.as_slice())
        .unwrap();
    let bytes = tar.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).unwrap();
    gzip.finish().unwrap()
}

fn request() -> Request {
    Request {
        backup: None,
        is_all: false,
        jobs: 2,
        deep: None,
    }
}

fn texts(report: &Report, severity: Severity) -> Vec<&str> {
    let findings = report.findings.iter();
    findings
        .filter(|it| it.severity == severity)
        .map(|it| it.text.as_str())
        .collect()
}

#[tokio::test]
async fn what_was_found_sound_is_read_again_only_when_it_changed() {
    let bed = Bed::new();
    bed.backup("20261121T054347", 2, true).await;
    bed.backup("20261121T064347", 3, false).await;
    let report = bed.verify(&request()).await.unwrap();
    assert_eq!(report.kind(), None, "{:?}", report.findings);
    assert!(report.backups.iter().all(|it| it.is_new));

    let before = bed.faulty.calls().len();
    let report = bed.verify(&request()).await.unwrap();
    assert_eq!(report.kind(), None);
    assert!(report.backups.iter().all(|it| !it.is_new));
    let read = bed.read_since(before);
    assert!(!read.iter().any(|key| key.contains(".tar")), "{read:?}");

    // The same bytes put again are another object.
    let key = object_key("20261121T054347", "data.tar.gz");
    bed.put(&key, tar()).await;
    let report = bed.verify(&request()).await.unwrap();
    assert_eq!(report.kind(), Some(Kind::Corrupt));
    let is_new: Vec<bool> = report.backups.iter().map(|it| it.is_new).collect();
    assert_eq!(is_new, [true, false]);
}

#[tokio::test]
async fn results_of_the_record_that_changed_are_not_trusted() {
    let bed = Bed::new();
    bed.backup("20261121T054347", 2, true).await;
    bed.verify(&request()).await.unwrap();
    let id = "20261121T054347".parse().unwrap();
    let key = StoredObjects::key(&bed.repository.layout, &id);
    bed.put(
        &key,
        r#"{"objects":[{"name":"data.tar.gz","size":1,"blake3":""}]}"#,
    )
    .await;
    let report = bed.verify(&request()).await.unwrap();
    assert_eq!(report.kind(), Some(Kind::Corrupt));
    bed.put(&key, "{").await;
    let report = bed.verify(&request()).await.unwrap();
    let told = texts(&report, Severity::Damaged);
    assert!(told[0].contains("makes no sense"), "{told:?}");
}

#[tokio::test]
async fn a_tar_without_a_digest_must_decode_to_its_end() {
    let whole = tar();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    let cut = whole[..3000].to_vec();
    for (what, body) in [("cut", cut), ("changed", changed), ("empty", Vec::new())] {
        let bed = Bed::new();
        bed.backup("20261121T054347", 2, false).await;
        bed.put(&object_key("20261121T054347", "data.tar.gz"), body)
            .await;
        let report = bed.verify(&request()).await.unwrap();
        assert_eq!(report.kind(), Some(Kind::Corrupt), "{what}");
        assert_eq!(report.backups[0].contents, Outcome::Damaged, "{what}");
    }
}

#[tokio::test]
async fn an_uncompressed_tar_cut_between_two_members_is_not_whole() {
    let bed = Bed::new();
    bed.backup("20261121T054347", 2, false).await;
    bed.memory
        .delete(&[object_key("20261121T054347", "data.tar.gz")])
        .await
        .unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(512);
    builder
        .append_data(&mut header, "PG_VERSION", &[b'x'; 512][..])
        .unwrap();
    let mut body = builder.into_inner().unwrap();
    let key = object_key("20261121T054347", "data.tar");
    bed.put(&key, body.clone()).await;
    assert_eq!(bed.verify(&request()).await.unwrap().kind(), None);
    body.truncate(1024);
    bed.put(&key, body).await;
    let report = bed.verify(&request()).await.unwrap();
    let told = texts(&report, Severity::Damaged);
    assert_eq!(told, ["data.tar ends before the end of its tar"]);
}

#[tokio::test]
async fn a_store_that_fails_leaves_it_open_whether_a_backup_is_sound() {
    for trouble in [
        Trouble::Fails(StoreErrorKind::Unreachable),
        Trouble::Fails(StoreErrorKind::Denied),
        Trouble::ShortBody(10),
    ] {
        let bed = Bed::new();
        bed.backup("20261121T054347", 2, true).await;
        bed.faulty
            .add(Fault::next(Call::Get, trouble).on("data.tar"));
        let report = bed.verify(&request()).await.unwrap();
        assert_eq!(report.kind(), Some(Kind::NotVerified), "{trouble:?}");
        assert_eq!(report.backups[0].contents, Outcome::NotVerified);
        // And nothing was kept that would pass for a result.
        let report = bed.verify(&request()).await.unwrap();
        assert_eq!((report.kind(), report.backups[0].is_new), (None, true));
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_listed_or_keeps_no_results_is_told_apart() {
    let bed = Bed::new();
    bed.backup("20261121T054347", 2, true).await;
    let denied = Trouble::Fails(StoreErrorKind::Denied);
    bed.faulty.add(Fault::next(Call::Put, denied).times(9));
    assert_eq!(bed.verify(&request()).await.unwrap().kind(), None);
    let away = Trouble::Fails(StoreErrorKind::Unreachable);
    bed.faulty.add(Fault::next(Call::List, away).on("wals/"));
    let error = bed.verify(&request()).await.unwrap_err();
    assert_eq!(crate::fault::Fault::kind(&error), Kind::Unreachable);
}

#[tokio::test]
async fn a_backup_that_is_deleted_meanwhile_is_no_damage() {
    let bed = Bed::new();
    bed.backup("20261121T054347", 2, true).await;
    bed.backup("20261121T064347", 9, true).await;
    let planned = plan(&bed.repository, request()).await.unwrap();
    let gone = [
        object_key("20261121T054347", "data.tar.gz"),
        object_key("20261121T054347", "backup.info"),
    ];
    bed.memory.delete(&gone).await.unwrap();
    let cancel = CancellationToken::new();
    let report = planned.run(&cancel, Arc::new(|_| {})).await.unwrap();
    assert_eq!(report.kind(), None, "{:?}", report.findings);
    assert_eq!(report.backups.len(), 1);
}

#[tokio::test]
async fn the_log_is_listed_by_pages_and_not_by_segments() {
    let bed = Bed::new();
    bed.backup("20261121T054347", 2, true).await;
    for segment in 3..300 {
        bed.segment(segment).await;
    }
    let before = bed.faulty.calls().len();
    assert_eq!(bed.verify(&request()).await.unwrap().kind(), None);
    let count = bed.faulty.calls().len() - before;
    assert!(count < 20, "{count} requests");
    let lost = "path/main/wals/0000000100000000/000000010000000000000064.gz";
    bed.memory.delete(&[ObjectKey::new(lost)]).await.unwrap();
    bed.backup("20261121T084347", 200, true).await;
    let report = bed.verify(&request()).await.unwrap();
    let told = texts(&report, Severity::Damaged);
    assert_eq!(
        told,
        ["WAL 000000010000000000000064 is missing (1 segment)"]
    );
    let summary = Summary::read(&bed.repository).await.unwrap().unwrap();
    assert_eq!(
        (summary.backups_verified, summary.wal_segments_missing),
        (2, 1)
    );
    assert!(summary.time().is_some());
}

#[tokio::test]
async fn results_go_with_their_backup() {
    let bed = Bed::new();
    bed.backup("20261121T054347", 2, true).await;
    bed.backup("20261121T064347", 3, true).await;
    bed.verify(&request()).await.unwrap();
    let gone = [
        object_key("20261121T054347", "data.tar.gz"),
        object_key("20261121T054347", "backup.info"),
    ];
    bed.memory.delete(&gone).await.unwrap();
    bed.verify(&request()).await.unwrap();
    let prefix = "path/main/cellarman/verify/backups/".to_owned();
    let list = crate::store::ListRequest {
        prefix,
        ..crate::store::ListRequest::default()
    };
    let left = bed.memory.list(&list).await.unwrap().objects;
    let names: Vec<&str> = left.iter().map(|it| it.key.base_name()).collect();
    assert_eq!(names, ["20261121T064347.json"]);
}

#[tokio::test]
async fn an_interrupted_run_keeps_what_it_has_and_says_so() {
    let bed = Bed::new();
    bed.backup("20261121T054347", 2, true).await;
    let planned = plan(&bed.repository, request()).await.unwrap();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = planned.run(&cancel, Arc::new(|_| {})).await.unwrap_err();
    assert!(matches!(error, VerifyError::Cancelled), "{error}");
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_damage_and_one_that_is_not_done_is_passed_over() {
    let bed = Bed::new();
    bed.backup("20261121T054347", 2, true).await;
    bed.put(&object_key("20261121T064347", "backup.info"), "nonsense")
        .await;
    bed.put(
        &object_key("20261121T074347", "backup.info"),
        "status=FAILED\n",
    )
    .await;
    let report = bed.verify(&request()).await.unwrap();
    let told = texts(&report, Severity::Damaged);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("its record cannot be read"));
    assert_eq!(report.backups.len(), 1);
    let failed = Request {
        backup: Some("20261121T074347".parse().unwrap()),
        ..request()
    };
    let error = bed.verify(&failed).await.unwrap_err();
    assert!(matches!(error, VerifyError::NotDone { .. }), "{error}");
}
