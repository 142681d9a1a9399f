//! Expiring on a store in memory: what goes, what stays, and death at every change.

use std::sync::Arc;

use bytes::Bytes;
use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::barman::backup_info::BackupInfo;
use crate::barman::layout::Layout;
use crate::clock;
use crate::domain::backup::{Keep, SystemId};
use crate::fault::{Fault, Kind};
use crate::service::expire::run::{Done, run};
use crate::service::running;
use crate::store::guarded::GuardedStore;
use crate::store::memory::MemoryStore;
use crate::store::{ObjectKey, PutOptions};

/// The store's clock cannot be set: the archive is looked at two days later.
fn later() -> DateTime<Utc> {
    clock::now() + TimeDelta::days(2)
}

fn id(text: &str) -> BackupId {
    text.parse().unwrap()
}

fn rules() -> Rules {
    Rules {
        policy: "REDUNDANCY 1".parse().unwrap(),
        minimum_redundancy: 0,
    }
}

struct Scene {
    repository: Repository,
}

impl Scene {
    fn new() -> Self {
        let layout = Layout::new("p", &"srv".parse().unwrap());
        Self {
            repository: Repository::new(Arc::new(MemoryStore::new()), layout),
        }
    }

    async fn put(&self, key: &str, text: &str) {
        let key = ObjectKey::new(format!("p/srv/{key}"));
        let body = Bytes::copy_from_slice(text.as_bytes());
        let options = PutOptions::default();
        self.repository
            .store
            .put(&key, body, &options)
            .await
            .unwrap();
    }

    async fn keys(&self) -> Vec<String> {
        let request = ListRequest::default();
        let page = self.repository.store.list(&request).await.unwrap();
        assert!(page.next.is_none());
        page.objects
            .iter()
            .map(|object| object.key.to_string())
            .filter_map(|key| Some(key.strip_prefix("p/srv/")?.to_owned()))
            // Derived, and there or not.
            .filter(|key| !key.starts_with("cellarman/catalog"))
            .collect()
    }

    /// A backup with its objects, from segment `begin` of timeline 1 to the one after it.
    async fn backup(&self, name: &str, status: BackupStatus, begin: u32) {
        let is_done = status == BackupStatus::Done;
        let segment = |number| format!("0000000100000000{number:08X}").parse().ok();
        let hours = TimeDelta::hours(i64::from(begin) - 500);
        let begin_time = (clock::now() + hours).fixed_offset();
        let info = BackupInfo {
            status,
            begin_time: Some(begin_time),
            begin_wal: segment(begin),
            end_time: is_done.then_some(begin_time),
            end_wal: segment(begin + 1).filter(|_| is_done),
            systemid: Some(SystemId(7)),
            timeline: Some(TimelineId::FIRST),
            error: (status == BackupStatus::Failed).then(|| "odd".to_owned()),
            ..BackupInfo::default()
        };
        self.put(&format!("base/{name}/backup.info"), &info.to_text())
            .await;
        self.put(&format!("base/{name}/data.tar"), "x").await;
        self.put(&format!("base/{name}/data_0001.tar"), "x").await;
        let private = format!("cellarman/backups/{name}/objects.json");
        self.put(&private, "{}").await;
    }

    /// The same archive with some keys locked.
    fn locked(&self, locked: &'static str) -> Repository {
        let engine = Arc::clone(&self.repository.store);
        let layout = self.repository.layout.clone();
        Repository::new(Arc::new(GuardedStore::locked(locked, engine)), layout)
    }

    async fn plan(&self) -> ExpirePlan {
        plan(&self.repository, rules(), later()).await.unwrap()
    }

    async fn run(&self, plan: &ExpirePlan) -> Done {
        let cancel = CancellationToken::new();
        run(&self.repository, plan, &cancel).await.unwrap()
    }
}

const OLD: &str = "20261101T000000";
const FAILED: &str = "20261105T000000";
const NEW: &str = "20261110T000000";

/// An obsolete backup, what a failed one left, one that stays, and WAL of all kinds.
async fn scene() -> Scene {
    let scene = Scene::new();
    scene.backup(OLD, BackupStatus::Done, 3).await;
    scene.backup(FAILED, BackupStatus::Failed, 5).await;
    scene.backup(NEW, BackupStatus::Done, 9).await;
    for number in 1..=12 {
        let key = format!("wals/0000000100000000/0000000100000000{number:08X}.gz");
        scene.put(&key, "wal").await;
    }
    for name in [
        "0000000100000000/000000010000000000000004",
        "0000000100000000/000000010000000000000004.partial",
        "0000000100000000/000000010000000000000003.00000028.backup",
        "0000000100000000/notes.txt",
        "00000002.history",
    ] {
        let text = "1\t0/C000000\tno reason\n";
        scene.put(&format!("wals/{name}"), text).await;
    }
    for name in [
        INDEX_OF_EXPIRED,
        INDEX_OF_KEPT,
        INDEX_OF_BOTH,
        INDEX_OF_NONE,
    ] {
        scene.put(name, "index").await;
    }
    scene
}

const INDEX_OF_EXPIRED: &str = "cellarman/index/000000010000000000000001-n8.jsonl.zst";
const INDEX_OF_BOTH: &str = "cellarman/index/000000010000000000000008-n2.jsonl.zst";
const INDEX_OF_KEPT: &str = "cellarman/index/000000010000000000000009-n4.jsonl.zst";
/// As an expiry leaves it that is killed when the WAL is gone.
const INDEX_OF_NONE: &str = "cellarman/index/000000010000000000000000-n1.jsonl.zst";

/// What is left of the scene.
fn left() -> Vec<String> {
    let mut keys: Vec<String> = ["backup.info", "data.tar", "data_0001.tar"]
        .map(|name| format!("base/{NEW}/{name}"))
        .into();
    keys.push(format!("cellarman/backups/{NEW}/objects.json"));
    keys.extend([INDEX_OF_BOTH, INDEX_OF_KEPT].map(str::to_owned));
    for number in 9..=12 {
        let folder = "wals/0000000100000000/0000000100000000";
        keys.push(format!("{folder}{number:08X}.gz"));
    }
    keys.push("wals/0000000100000000/notes.txt".to_owned());
    keys.push("wals/00000002.history".to_owned());
    keys.sort();
    keys
}

#[tokio::test]
async fn what_is_not_wanted_goes_and_nothing_else() {
    let scene = scene().await;
    let before = scene.keys().await;
    let plan = scene.plan().await;
    assert_eq!(scene.keys().await, before, "a plan changes nothing");
    assert_eq!(plan.plan.order, [id(OLD), id(FAILED)]);
    assert_eq!(plan.foreign_objects, 1);
    let done = scene.run(&plan).await;
    assert_eq!(scene.keys().await, left());
    assert_eq!(done.backups, [id(OLD), id(FAILED)]);
    assert_eq!((done.wal_files, done.spared.len()), (11, 0));
    assert_eq!((plan.index.len(), done.index_objects), (2, 2));
    assert!(scene.plan().await.is_empty());
}

#[tokio::test]
async fn death_at_any_change_orphans_nothing_and_the_next_run_goes_on() {
    for changes in 0.. {
        let whole = scene().await;
        let plan = whole.plan().await;
        let engine = Arc::clone(&whole.repository.store);
        let dying = GuardedStore::dying_after(changes, engine);
        let dying = Repository::new(Arc::new(dying), whole.repository.layout.clone());
        let outcome = run(&dying, &plan, &CancellationToken::new()).await;
        let keys = whole.keys().await;
        let has = |key: &str| keys.iter().any(|one| one == key);
        for name in [OLD, FAILED, NEW] {
            let tar = has(&format!("base/{name}/data.tar"));
            match whole.repository.backup_info(&id(name)).await {
                Ok(info) if info.status == BackupStatus::Done => {
                    let begin = info.begin_wal.unwrap();
                    let wal = has(&format!("wals/0000000100000000/{begin}.gz"));
                    assert!(tar && wal, "{changes}: {name} only looks whole");
                }
                Ok(info) => assert_eq!(info.end_time, None),
                Err(_) => assert!(!tar, "{changes}: tars of {name} without a record"),
            }
        }
        let old_wal = "wals/0000000100000000/000000010000000000000001.gz";
        let is_index_orphaned = has(old_wal) && !has(INDEX_OF_EXPIRED);
        assert!(
            !is_index_orphaned,
            "{changes}: the index went before its WAL"
        );
        if outcome.is_ok() {
            assert!(changes > 15, "{changes}");
            assert_eq!(keys, left());
            return;
        }
        let stopped = outcome.unwrap_err();
        assert_eq!(stopped.kind(), Kind::Unreachable);
        assert!(stopped.to_string().contains("stopped after deleting"));
        let again = whole.plan().await;
        assert!(!again.is_empty(), "{changes}");
        whole.run(&again).await;
        assert_eq!(whole.keys().await, left(), "{changes}");
        assert!(whole.plan().await.is_empty(), "{changes}");
    }
}

#[tokio::test]
async fn a_backup_marked_or_finished_after_the_plan_is_spared_with_its_wal() {
    let scene = scene().await;
    let plan = scene.plan().await;
    let repository = &scene.repository;
    repository.set_keep(&id(OLD), Keep::Full).await.unwrap();
    scene.backup(FAILED, BackupStatus::Done, 5).await;
    let done = scene.run(&plan).await;
    let spared: Vec<&BackupId> = done.spared.iter().map(|(id, _)| id).collect();
    assert_eq!(spared, [&id(OLD), &id(FAILED)], "{done:?}");
    assert!(done.backups.is_empty());
    // Only what lies before the older of the two.
    assert_eq!(done.wal_files, 2);
    let first = "wals/0000000100000000/000000010000000000000003.gz".to_owned();
    assert!(scene.keys().await.contains(&first));
}

#[tokio::test]
async fn killed_backups_are_marked_first_and_living_ones_left_alone() {
    let scene = scene().await;
    let started = "20261112T000000";
    scene.backup(started, BackupStatus::Started, 11).await;
    let sign = running::key(&scene.repository.layout, &id(started));
    let sign = sign.as_str().strip_prefix("p/srv/").unwrap();
    scene.put(sign, "{}").await;
    let living = plan(&scene.repository, rules(), clock::now());
    assert!(living.await.unwrap().killed.is_empty());
    let plan = scene.plan().await;
    let done = scene.run(&plan).await;
    assert_eq!(done.marked_failed, [id(started)]);
    let info = scene.repository.backup_info(&id(started)).await.unwrap();
    assert_eq!(info.status, BackupStatus::Failed);
}

#[tokio::test]
async fn an_unreadable_record_or_history_is_told_and_does_not_stop_the_rest() {
    let scene = scene().await;
    scene
        .put("base/20261120T000000/backup.info", "rubbish")
        .await;
    scene.put("wals/00000003.history", "rubbish").await;
    let plan = scene.plan().await;
    assert_eq!(plan.unreadable[0].id, id("20261120T000000"));
    assert_eq!(plan.unreadable_histories.len(), 1);
    let done = scene.run(&plan).await;
    assert_eq!(done.backups, [id(OLD), id(FAILED)]);
    let keys = scene.keys().await;
    assert!(keys.contains(&"base/20261120T000000/backup.info".to_owned()));
}

#[tokio::test]
async fn a_record_without_its_archives_takes_nobodys_place() {
    for gone in ["data.tar", "data_0001.tar"] {
        let scene = scene().await;
        let key = ObjectKey::new(format!("p/srv/base/{NEW}/{gone}"));
        scene.repository.store.delete(&[key]).await.unwrap();
        let stays = gone == "data.tar";
        let plan = scene.plan().await;
        assert_eq!(!plan.plan.order.contains(&id(OLD)), stays, "{gone}");
        scene.run(&plan).await;
        let keys = scene.keys().await;
        let wal = "wals/0000000100000000/000000010000000000000003.gz".to_owned();
        assert_eq!(keys.contains(&wal), stays, "{gone}");
        assert!(keys.contains(&format!("base/{NEW}/backup.info")));
    }
}

#[tokio::test]
async fn a_marked_backup_whose_deletion_was_killed_is_made_whole_again() {
    let scene = scene().await;
    let objects = r#"{"objects":[{"name":"data.tar","size":1,"blake3":"ab"}]}"#;
    let private = format!("cellarman/backups/{OLD}/objects.json");
    scene.put(&private, objects).await;
    let plan = scene.plan().await;
    let before = scene.repository.backup_info(&id(OLD)).await.unwrap();
    let (old, keep) = (id(OLD), Keep::Full);
    let deletion = scene.repository.plan_deletion(&old).await.unwrap();
    scene.repository.set_keep(&old, keep).await.unwrap();
    let dying = GuardedStore::dying_after(1, Arc::clone(&scene.repository.store));
    let dying = Repository::new(Arc::new(dying), scene.repository.layout.clone());
    dying.run_deletion(&deletion).await.unwrap_err();
    // The deletion may still be under way.
    let early = plan_at(&scene, clock::now()).await;
    assert!(early.taken_back.is_empty() && plan.taken_back.is_empty());
    let plan = scene.plan().await;
    assert_eq!(plan.taken_back, std::slice::from_ref(&old));
    let done = scene.run(&plan).await;
    assert_eq!(done.taken_back, std::slice::from_ref(&old));
    assert_eq!(scene.repository.backup_info(&old).await.unwrap(), before);
    let first = "wals/0000000100000000/000000010000000000000003.gz".to_owned();
    assert!(scene.keys().await.contains(&first));
    assert!(scene.plan().await.is_empty());
}

async fn plan_at(scene: &Scene, now: DateTime<Utc>) -> ExpirePlan {
    plan(&scene.repository, rules(), now).await.unwrap()
}

#[tokio::test]
async fn a_server_of_which_there_is_nothing_is_told_and_those_there_are_named() {
    let scene = scene().await;
    check_server(&scene.repository).await.unwrap();
    let of = |server: &str| {
        let layout = Layout::new("p", &server.parse().unwrap());
        Repository::new(Arc::clone(&scene.repository.store), layout)
    };
    let key = ObjectKey::new("p/sv/cellarman/clock");
    let options = PutOptions::default();
    let store = &scene.repository.store;
    store.put(&key, Bytes::new(), &options).await.unwrap();
    let error = check_server(&of("sv")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let words = "no backup and no WAL of server sv: there is srv";
    assert!(error.to_string().ends_with(words), "{error}");
    let empty = Scene::new();
    let error = check_server(&empty.repository).await.unwrap_err();
    assert!(error.to_string().ends_with("of server srv"), "{error}");
    empty.put("wals/00000002.history", "odd").await;
    check_server(&empty.repository).await.unwrap();
}

#[tokio::test]
async fn what_a_killed_deletion_left_of_ours_goes() {
    let scene = Scene::new();
    scene
        .put("cellarman/backups/20261101T000000/objects.json", "{}")
        .await;
    let plan = scene.plan().await;
    assert_eq!(plan.orphans, [id(OLD)]);
    scene.run(&plan).await;
    assert!(scene.keys().await.is_empty());
}

#[tokio::test]
async fn an_interrupted_run_tells_what_it_did() {
    let scene = scene().await;
    let plan = scene.plan().await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = run(&scene.repository, &plan, &cancel).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
}

#[tokio::test]
async fn what_a_spared_backup_is_built_on_is_spared() {
    let scene = scene().await;
    let child = id("20261102T000000");
    scene.backup(child.as_str(), BackupStatus::Done, 4).await;
    let repository = &scene.repository;
    let mut info = repository.backup_info(&child).await.unwrap();
    info.parent_backup_id = Some(OLD.to_owned());
    repository.put_backup_info(&child, &info).await.unwrap();
    let plan = scene.plan().await;
    assert_eq!(plan.plan.order, [child.clone(), id(OLD), id(FAILED)]);
    repository.set_keep(&child, Keep::Full).await.unwrap();
    let done = scene.run(&plan).await;
    let spared: Vec<&BackupId> = done.spared.iter().map(|(id, _)| id).collect();
    assert_eq!(spared, [&child, &id(OLD)], "{done:?}");
    assert_eq!(done.backups, [id(FAILED)]);
}

#[tokio::test]
async fn what_cannot_be_deleted_does_not_hold_up_the_rest() {
    for (locked, what) in [
        ("20261101T000000/data_0001", "backup 20261101T000000"),
        (
            "000000010000000000000007.gz",
            "p/srv/wals/0000000100000000/000000010000000000000007.gz",
        ),
    ] {
        let scene = scene().await;
        let plan = scene.plan().await;
        let repository = scene.locked(locked);
        // Again and again, for good.
        for plan in [plan, scene.plan().await] {
            run(&repository, &plan, &CancellationToken::new())
                .await
                .unwrap();
        }
        let plan = scene.plan().await;
        let done = run(&repository, &plan, &CancellationToken::new())
            .await
            .unwrap();
        let failed: Vec<_> = done.failed.iter().map(|one| one.what.as_str()).collect();
        assert_eq!(failed, [what]);
        assert_eq!(done.failed[0].kind, Kind::Denied);
        let expected = left();
        let mut keys = scene.keys().await;
        keys.retain(|key| !expected.contains(key));
        // Of a backup, all that is not locked may stay with what is; of WAL, what the index tells.
        assert!(keys.iter().any(|key| key.contains(locked)), "{keys:?}");
        let is_of_it =
            |key: &String| key.contains(OLD) || key.contains(locked) || key == INDEX_OF_EXPIRED;
        assert!(keys.iter().all(is_of_it), "{keys:?}");
        let is_index_left = keys.iter().any(|key| key == INDEX_OF_EXPIRED);
        assert_eq!(is_index_left, !what.contains(OLD));
        if what.contains(OLD) {
            let info = repository.backup_info(&id(OLD)).await.unwrap();
            assert_eq!(info.status, BackupStatus::Failed);
        }
    }
}

#[tokio::test]
async fn where_all_is_refused_few_backups_are_given_up() {
    let scene = Scene::new();
    for number in 1..=20 {
        let name = format!("202611{number:02}T000000");
        scene.backup(&name, BackupStatus::Done, number).await;
    }
    let plan = scene.plan().await;
    let refusing = scene.locked("/data.tar");
    let error = run(&refusing, &plan, &CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    let catalog = scene.repository.list_backups().await.unwrap();
    let statuses = catalog.backups.iter().map(|entry| entry.backup.status);
    let given_up = statuses.filter(|status| *status == BackupStatus::Failed);
    assert_eq!(given_up.count(), 5);
    // Once some can be deleted, those that cannot hold up no others.
    let plan = scene.plan().await;
    let repository = scene.locked("/data.tar");
    run(&repository, &plan, &CancellationToken::new())
        .await
        .unwrap_err();
    let plan = scene.plan().await;
    let repository = scene.locked("2026110");
    let done = run(&repository, &plan, &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!((done.failed.len(), done.backups.len()), (9, 10));
}

#[tokio::test]
async fn a_backup_that_could_not_be_given_up_keeps_its_wal() {
    let scene = scene().await;
    let plan = scene.plan().await;
    let repository = scene.locked("20261101T000000/backup.info");
    let done = run(&repository, &plan, &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!((done.failed.len(), done.backups), (1, vec![id(FAILED)]));
    let info = repository.backup_info(&id(OLD)).await.unwrap();
    assert_eq!(info.status, BackupStatus::Done);
    // Only what lies before it.
    assert_eq!(done.wal_files, 2);
}
