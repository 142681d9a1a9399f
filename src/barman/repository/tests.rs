//! The repository on a store in memory.

use super::*;
use crate::barman::repository::counting_store::{CountingStore, Requests};
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::domain::timeline::TimelineId;
use crate::store::PutOptions;
use crate::store::guarded::GuardedStore;
use crate::store::memory::MemoryStore;

const ID: &str = "20261121T054347";
const RECORD: &str = include_str!("../backup_info/barman-3.19.info");

fn id(text: &str) -> BackupId {
    text.parse().unwrap()
}

fn repository_at(path: &str) -> Repository {
    let layout = Layout::new(path, &"srv".parse().unwrap());
    Repository::new(Arc::new(MemoryStore::new()), layout)
}

/// A repository with objects under keys below `<path>/srv/`.
async fn repository(objects: &[(&str, &str)]) -> Repository {
    let repository = repository_at("p");
    for (key, text) in objects {
        put(&repository, &format!("p/srv/{key}"), text).await;
    }
    repository
}

async fn put(repository: &Repository, key: &str, text: &str) {
    let key = ObjectKey::new(key);
    let body = Bytes::copy_from_slice(text.as_bytes());
    let options = PutOptions::default();
    repository.store.put(&key, body, &options).await.unwrap();
}

async fn all_keys(repository: &Repository) -> Vec<String> {
    let objects = repository.list_all(String::new()).await.unwrap();
    objects
        .iter()
        .map(|object| object.key.to_string())
        .collect()
}

fn named(name: &str) -> String {
    RECORD.replace("backup_name=bk one", &format!("backup_name={name}"))
}

#[tokio::test]
async fn folders_without_a_record_are_no_backups_and_odd_records_do_not_stop_the_rest() {
    let repository = repository(&[
        ("base/20261121T054347/backup.info", RECORD),
        ("base/20261121T054347/annotations/keep", "standalone"),
        ("base/20261121T054348/data.tar", "x"),
        ("base/20261121T054349/backup.info", "rubbish"),
        (
            "base/20261121T054350/backup.info",
            "key_of_the_future=1\nstatus=STARTED\n",
        ),
        ("base/odd name/backup.info", RECORD),
    ])
    .await;
    let catalog = repository.list_backups().await.unwrap();
    let found: Vec<_> = catalog
        .backups
        .iter()
        .map(|e| (e.backup.id.as_str(), e.keep))
        .collect();
    assert_eq!(
        found,
        [
            (ID, Some(Keep::Standalone)),
            ("20261121T054350", None),
            ("odd name", None)
        ]
    );
    assert_eq!(catalog.unreadable.len(), 1);
    assert_eq!(catalog.unreadable[0].id.as_str(), "20261121T054349");
    assert!(catalog.unreadable[0].reason.contains("line 1 has no '='"));
}

#[tokio::test]
async fn many_backups_are_listed_in_order() {
    let repository = repository_at("");
    let ids: Vec<String> = (0..1200).map(|n| format!("20261121T{n:06}")).collect();
    for id in &ids {
        put(&repository, &format!("srv/base/{id}/backup.info"), RECORD).await;
    }
    let catalog = repository.list_backups().await.unwrap();
    let found: Vec<_> = catalog
        .backups
        .iter()
        .map(|e| e.backup.id.to_string())
        .collect();
    assert_eq!(found, ids);
}

#[tokio::test]
async fn a_backup_is_found_by_id_or_by_a_name_that_is_its_own() {
    let repository = repository(&[
        ("base/20261121T000001/backup.info", &named("one")),
        ("base/20261121T000002/backup.info", &named("two")),
        ("base/20261121T000003/backup.info", &named("two")),
        ("base/own/backup.info", &named("None")),
    ])
    .await;
    for (wanted, found) in [
        ("one", "20261121T000001"),
        ("20261121T000002", "20261121T000002"),
        ("own", "own"),
    ] {
        assert_eq!(repository.resolve(wanted).await.unwrap(), id(found));
    }
    let ambiguous = repository.resolve("two").await.unwrap_err();
    assert!(matches!(ambiguous, RepositoryError::AmbiguousName { ids, .. } if ids.len() == 2));
    let unknown = repository.resolve("three").await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::NotFound);
    put(&repository, "p/srv/base/broken/backup.info", "x").await;
    let unsure = repository.resolve("three").await.unwrap_err();
    assert!(matches!(unsure, RepositoryError::NameNotCertain { .. }));
    assert_eq!(repository.resolve("broken").await.unwrap(), id("broken"));
}

#[tokio::test]
async fn a_record_is_created_once() {
    let repository = repository(&[]).await;
    let info = BackupInfo::parse(RECORD).unwrap();
    let taken = id(ID);
    repository
        .create_backup_info(&taken, &info, &[])
        .await
        .unwrap();
    let again = repository.create_backup_info(&taken, &info, &[]).await;
    assert!(matches!(again, Err(RepositoryError::Taken { .. })));
    assert_eq!(repository.backup_info(&id(ID)).await.unwrap(), info);
    let absent = repository.backup_info(&id("none")).await.unwrap_err();
    assert!(matches!(absent, RepositoryError::UnknownBackup { .. }));
}

#[tokio::test]
async fn tars_come_in_order_and_foreign_objects_are_left_out() {
    let mut objects: Vec<(String, &str)> = [
        "16384_0001.tar.gz",
        "16384.tar.gz",
        "2000.tar.gz",
        "data_0010.tar.gz",
        "data.tar.gz",
        "data_0002.tar.gz",
        "backup_label",
        "annotations/keep",
        "data/data.tar",
    ]
    .map(|name| (format!("base/{ID}/{name}"), "12345"))
    .into();
    objects.push((format!("base/{ID}/backup.info"), RECORD));
    let objects: Vec<_> = objects
        .iter()
        .map(|(key, text)| (key.as_str(), *text))
        .collect();
    let repository = repository(&objects).await;
    let archives = repository.archives(&id(ID)).await.unwrap();
    let names: Vec<String> = archives.iter().map(|a| a.name.to_string()).collect();
    assert_eq!(
        names,
        [
            "data",
            "data_0002",
            "data_0010",
            "2000",
            "16384",
            "16384_0001"
        ]
    );
    assert!(
        archives
            .iter()
            .all(|a| a.codec == Codec::Gzip && a.size == 5)
    );
    put(
        &repository,
        &format!("p/srv/base/{ID}/data_0011.tar.enc"),
        "x",
    )
    .await;
    let unknown = repository.archives(&id(ID)).await.unwrap_err();
    assert!(matches!(unknown, RepositoryError::Archive { .. }));
}

#[tokio::test]
async fn a_mark_in_either_place_keeps_a_backup() {
    for (path, key) in [
        ("p", "p/srv/base/20261121T054347/annotations/keep"),
        ("p", "p//srv/base/20261121T054347/annotations/keep"),
        ("p/", "p/srv/base/20261121T054347/annotations/keep"),
        ("p/", "p//srv/base/20261121T054347/annotations/keep"),
        ("", "srv/base/20261121T054347/annotations/keep"),
    ] {
        let repository = repository_at(path);
        repository
            .put_backup_info(&id(ID), &BackupInfo::parse(RECORD).unwrap())
            .await
            .unwrap();
        for (word, keep) in [
            ("full", Keep::Full),
            ("standalone", Keep::Standalone),
            ("standalone\nmore", Keep::Standalone),
            ("word of the future", Keep::Full),
        ] {
            put(&repository, key, word).await;
            assert_eq!(
                repository.keep(&id(ID)).await.unwrap(),
                Some(keep),
                "{path} {key}"
            );
            let catalog = repository.list_backups().await.unwrap();
            assert_eq!(catalog.backups[0].keep, Some(keep));
            let refused = repository.delete_backup(&id(ID)).await.unwrap_err();
            assert!(matches!(refused, RepositoryError::Kept { .. }));
        }
        repository.release_keep(&id(ID)).await.unwrap();
        assert_eq!(repository.keep(&id(ID)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_mark_is_put_where_each_spelling_of_the_path_looks() {
    for (path, keys) in [("p", 2), ("p/", 2), ("", 1)] {
        let repository = repository_at(path);
        let info = BackupInfo::parse(RECORD).unwrap();
        repository.put_backup_info(&id(ID), &info).await.unwrap();
        repository
            .set_keep(&id(ID), Keep::Standalone)
            .await
            .unwrap();
        let marks = all_keys(&repository).await;
        let marks = marks.iter().filter(|key| key.ends_with("annotations/keep"));
        assert_eq!(marks.count(), keys, "{path}");
        assert_eq!(
            repository.keep(&id(ID)).await.unwrap(),
            Some(Keep::Standalone)
        );
    }
    let repository = repository(&[("base/x/backup.info", "status=STARTED")]).await;
    let refused = repository.set_keep(&id("x"), Keep::Full).await.unwrap_err();
    assert!(matches!(refused, RepositoryError::NotDone { .. }));
    let unknown = repository.release_keep(&id("y")).await.unwrap_err();
    assert!(matches!(unknown, RepositoryError::UnknownBackup { .. }));
}

const DOOMED: [(&str, &str); 8] = [
    ("base/20261121T054347/backup.info", RECORD),
    ("base/20261121T054347/16384.tar", "x"),
    ("base/20261121T054347/annotations/other", "x"),
    ("base/20261121T054347/data.tar", "x"),
    ("base/20261121T054347/data_0001.tar", "x"),
    ("base/20261121T054347/foreign", "x"),
    ("cellarman/backups/20261121T054347/objects.json", "{}"),
    ("cellarman/backups/20261121T054347/running.json", "{}"),
];

const OTHERS: [(&str, &str); 4] = [
    ("base/20261121T0543471/backup.info", RECORD),
    ("base/20261121T0543471/data.tar", "x"),
    ("cellarman/backups/20261121T0543471/objects.json", "{}"),
    ("wals/0000000100000000/000000010000000000000003", "x"),
];

#[tokio::test]
async fn deleting_takes_all_of_a_backup_and_nothing_else() {
    let repository = repository(&[&DOOMED[..], &OTHERS[..]].concat()).await;
    let plan = repository.plan_deletion(&id(ID)).await.unwrap();
    assert_eq!(
        (plan.files.len(), plan.private.len(), plan.bytes()),
        (5, 2, 9)
    );
    repository.run_deletion(&plan).await.unwrap();
    let left: Vec<String> = OTHERS.map(|(key, _)| format!("p/srv/{key}")).into();
    assert_eq!(all_keys(&repository).await, left);
    let gone = repository.delete_backup(&id(ID)).await.unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_deletion_killed_anywhere_never_leaves_a_backup_that_looks_done_and_resumes() {
    // One change more than there are objects: the record is first rewritten.
    let changes_in_all = DOOMED.len() + 1;
    for changes in 0..=changes_in_all {
        let whole = repository(&[&DOOMED[..], &OTHERS[..]].concat()).await;
        let dying = GuardedStore::dying_after(changes, Arc::clone(&whole.store));
        let dying = Repository::new(Arc::new(dying), whole.layout.clone());
        let plan = whole.plan_deletion(&id(ID)).await.unwrap();
        let outcome = dying.run_deletion(&plan).await;
        assert_eq!(outcome.is_ok(), changes == changes_in_all, "{changes}");
        let keys = all_keys(&whole).await;
        let has_tars = keys
            .iter()
            .any(|key| key.contains("20261121T054347/data.tar"));
        match whole.backup_info(&id(ID)).await {
            Ok(info) if changes == 0 => assert_eq!(info.status, BackupStatus::Done),
            Ok(info) => {
                assert_eq!((info.status, info.end_time), (BackupStatus::Failed, None));
                let error = info.error.unwrap_or_default();
                assert!(
                    error.starts_with("being deleted by cellarman; it ended at 2026-11-21T05:43")
                );
            }
            Err(_) => assert!(!has_tars, "{changes}: tars without a record stay for ever"),
        }
        if changes < changes_in_all {
            whole.delete_backup(&id(ID)).await.unwrap();
        }
        let left: Vec<String> = OTHERS.map(|(key, _)| format!("p/srv/{key}")).into();
        assert_eq!(all_keys(&whole).await, left, "{changes}");
    }
}

#[tokio::test]
async fn a_deletion_killed_before_it_saw_a_mark_is_taken_back_where_all_is_there() {
    let objects = r#"{"objects":[{"name":"data.tar","size":1,"blake3":"ab"}]}"#;
    for (mark, is_there, expected) in [
        (true, true, true),
        (false, true, false),
        (true, false, false),
    ] {
        let whole = repository(&DOOMED).await;
        let private = format!("p/srv/cellarman/backups/{ID}/objects.json");
        put(&whole, &private, objects).await;
        let before = whole.backup_info(&id(ID)).await.unwrap();
        assert!(!whole.take_back_deletion(&id(ID)).await.unwrap());
        let dying = GuardedStore::dying_after(1, Arc::clone(&whole.store));
        let dying = Repository::new(Arc::new(dying), whole.layout.clone());
        let plan = whole.plan_deletion(&id(ID)).await.unwrap();
        if mark {
            whole.set_keep(&id(ID), Keep::Full).await.unwrap();
        }
        dying.run_deletion(&plan).await.unwrap_err();
        if !is_there {
            let tar = ObjectKey::new(format!("p/srv/base/{ID}/data.tar"));
            whole.store.delete(&[tar]).await.unwrap();
        }
        let is_whole = whole.take_back_deletion(&id(ID)).await.unwrap();
        assert_eq!(is_whole, expected, "{mark} {is_there}");
        let after = whole.backup_info(&id(ID)).await.unwrap();
        assert_eq!(after == before, expected, "{mark} {is_there}");
    }
}

#[tokio::test]
async fn an_unreadable_backup_can_be_deleted_by_its_id() {
    let repository =
        repository(&[("base/x/backup.info", "rubbish"), ("base/x/data.tar", "x")]).await;
    repository.delete_backup(&id("x")).await.unwrap();
    assert!(all_keys(&repository).await.is_empty());
}

#[tokio::test]
async fn what_others_depend_on_is_not_deleted() {
    let children = RECORD.replace("children_backup_ids=None", "children_backup_ids=c1,c2");
    let snapshots = format!("{RECORD}snapshots_info={{'provider': 'aws'}}\n");
    let repository = repository(&[
        ("base/parent/backup.info", &children),
        ("base/c2/backup.info", RECORD),
        ("base/snap/backup.info", &snapshots),
    ])
    .await;
    let refused = repository.delete_backup(&id("parent")).await.unwrap_err();
    assert!(matches!(refused, RepositoryError::HasChildren { .. }));
    let refused = repository.delete_backup(&id("snap")).await.unwrap_err();
    assert!(matches!(refused, RepositoryError::Snapshots { .. }));
    repository.delete_backup(&id("c2")).await.unwrap();
    repository.delete_backup(&id("parent")).await.unwrap();
}

#[tokio::test]
async fn histories_are_read_in_any_compression() {
    let text = "1\t0/3000000\tno recovery target specified\n";
    let repository = repository(&[
        ("wals/00000002.history", text),
        (
            "wals/00000002.history.gz",
            "not read: the same in another compression",
        ),
        ("wals/0000000100000000/000000010000000000000003", "x"),
        ("wals/readme", "x"),
    ])
    .await;
    let mut gzip =
        crate::codec::compress::Compressor::new(Vec::new(), "gzip".parse().unwrap()).unwrap();
    std::io::Write::write_all(&mut gzip, text.as_bytes()).unwrap();
    let key = ObjectKey::new("p/srv/wals/00000003.history.gz");
    let body = Bytes::from(gzip.finish().unwrap());
    repository
        .store
        .put(&key, body, &PutOptions::default())
        .await
        .unwrap();
    let histories = repository.histories().await.unwrap();
    let timelines: Vec<u32> = histories.iter().map(|h| h.timeline().to_u32()).collect();
    assert_eq!(timelines, [2, 3]);
    let switched = histories[1].switched_at(TimelineId::FIRST);
    assert_eq!(switched, Some(Lsn::new(0x0300_0000)));
}

#[tokio::test]
async fn archived_segments_are_found_across_folders_in_any_compression() {
    let repository = repository(&[
        ("wals/0000000100000000/0000000100000000000000FD", "x"),
        ("wals/0000000100000000/0000000100000000000000FE.gz", "x"),
        (
            "wals/0000000100000000/0000000100000000000000FF.partial",
            "x",
        ),
        ("wals/0000000100000001/000000010000000100000000.zst", "x"),
        (
            "wals/0000000100000001/000000010000000100000001.00000028.backup",
            "x",
        ),
        ("wals/0000000100000001/000000010000000100000002", "x"),
    ])
    .await;
    let name = |text: &str| text.parse::<SegmentName>().unwrap();
    let found = repository
        .archived_segments(
            name("0000000100000000000000FE"),
            name("000000010000000100000001"),
            SegmentSize::DEFAULT,
        )
        .await
        .unwrap();
    let expected = ["0000000100000000000000FE", "000000010000000100000000"];
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected.map(name));
}

#[tokio::test]
async fn a_backup_marked_after_its_deletion_was_planned_stays_as_it_was() {
    let record = "status=DONE\nend_time=2026-11-21 05:43:49+00:00\n";
    let repository = repository(&[("base/a/backup.info", record), ("base/a/data.tar", "x")]).await;
    let id: BackupId = "a".parse().unwrap();
    let plan = repository.plan_deletion(&id).await.unwrap();
    repository.set_keep(&id, Keep::Standalone).await.unwrap();
    let kept = all_keys(&repository).await;
    let info = repository.backup_info(&id).await.unwrap();
    let refused = repository.run_deletion(&plan).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert_eq!(all_keys(&repository).await, kept);
    assert_eq!(repository.backup_info(&id).await.unwrap(), info);
}

#[tokio::test]
async fn a_deletion_reads_the_record_once_and_looks_for_a_mark_after_its_put() {
    let store = Arc::new(CountingStore::default());
    let layout = Layout::new("", &"srv".parse().unwrap());
    let repository = Repository::new(Arc::<CountingStore>::clone(&store), layout);
    let info = BackupInfo::default();
    repository.put_backup_info(&id(ID), &info).await.unwrap();
    store.take();
    repository.delete_backup(&id(ID)).await.unwrap();
    let expected = Requests {
        lists: 2,
        gets: 2,
        heads: 0,
        puts: 1,
    };
    assert_eq!(store.take(), expected);
}
