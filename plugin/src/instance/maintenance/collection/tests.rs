//! Which Backups go, by what the listing says and by what is doubtful.

use std::sync::Arc;

use cellarman::barman::backup_info::BackupInfo;
use cellarman::barman::layout::Layout;
use cellarman::barman::repository::{Repository, Stored, Unreadable};
use cellarman::store::memory::MemoryStore;
use serde_json::json;

use super::*;

const PLUGIN: &str = "barman-cloud.cloudnative-pg.io";

async fn catalog(backups: &[(&str, BackupStatus)]) -> Catalog {
    let layout = Layout::new("p", &"pg".parse().unwrap());
    let repository = Repository::new(Arc::new(MemoryStore::new()), layout);
    for (id, status) in backups {
        let info = BackupInfo {
            status: *status,
            ..BackupInfo::default()
        };
        let id = id.parse().unwrap();
        repository.put_backup_info(&id, &info).await.unwrap();
    }
    repository.list_backups().await.unwrap()
}

fn archive(store: &str, server: &str) -> ArchiveRef {
    ArchiveRef {
        object_store: store.to_owned(),
        server: server.to_owned(),
    }
}

fn backup(archive: Option<ArchiveRef>, destination: Option<&str>) -> Completed {
    Completed {
        name: "b".to_owned(),
        uid: "u".to_owned(),
        id: "20260101T000000".to_owned(),
        archive,
        destination: destination.map(str::to_owned),
    }
}

#[tokio::test]
async fn a_backup_goes_on_a_listing_of_its_own_archive_alone() {
    let own = archive("a", "pg");
    let done = BackupStatus::Done;
    let later = &[("20260202T000000", done)][..];
    let same = &[("20260101T000000", BackupStatus::Failed)][..];
    let said = |store: &str, url| backup(Some(archive(store, "pg")), url);
    for (what, there, backup, is_own, is_gone) in [
        (
            "others are there",
            later,
            said("a", Some("s3://x/")),
            true,
            true,
        ),
        ("it is there", same, said("a", Some("s3://x")), true, false),
        (
            "in another store",
            later,
            said("b", Some("s3://x")),
            true,
            false,
        ),
        (
            "it led elsewhere",
            later,
            said("a", Some("s3://y")),
            true,
            false,
        ),
        ("all are gone", &[], said("a", Some("s3://x")), true, true),
        (
            "an empty one may be another",
            &[],
            said("a", None),
            true,
            false,
        ),
        ("unsaid, in its own", later, backup(None, None), true, true),
        ("unsaid, and empty", &[], backup(None, None), true, false),
        ("unsaid, elsewhere", later, backup(None, None), false, false),
    ] {
        let catalog = catalog(there).await;
        let seen = Seen {
            archive: &own,
            destination: "s3://x",
            catalog: &catalog,
            is_own,
        };
        assert_eq!(!gone(&[backup], seen).is_empty(), is_gone, "{what}");
    }
}

#[test]
fn only_completed_backups_of_this_very_cluster_count() {
    let good = json!({
        "metadata": {"name": "b", "uid": "u"},
        "spec": {"cluster": {"name": "pg"}, "method": "plugin"},
        "status": {"phase": "completed", "backupId": "1", "pluginMetadata": {
            "clusterUID": "c", "pluginName": PLUGIN, "objectStore": "a", "serverName": "s"}},
    });
    let cluster = |uid: &str| {
        let text = json!({"metadata": {"name": "pg", "uid": uid}}).to_string();
        Cluster::parse(text.as_bytes()).unwrap()
    };
    let found = completed(std::slice::from_ref(&good), &cluster("c"), PLUGIN);
    assert_eq!(found[0].archive, Some(archive("a", "s")));
    for (pointer, value) in [
        ("/spec/cluster/name", "other"),
        ("/spec/method", "barmanObjectStore"),
        ("/status/phase", "failed"),
        ("/status/phase", "running"),
        ("/status/backupId", ""),
        ("/status/pluginMetadata/clusterUID", "d"),
        ("/status/pluginMetadata/pluginName", "other"),
    ] {
        let mut other = good.clone();
        *other.pointer_mut(pointer).unwrap() = json!(value);
        assert_eq!(completed(&[other], &cluster("c"), PLUGIN), [], "{pointer}");
    }
    let mut elsewhere = good.clone();
    elsewhere["status"]["pluginMetadata"] = json!({
        "clusterUID": "c", "pluginNameElsewhere": PLUGIN, "objectStore": "b", "serverName": "s"});
    let found = completed(&[elsewhere], &cluster("c"), PLUGIN);
    assert_eq!(found[0].archive, Some(archive("b", "s")));
    // A Cluster that has no uid could be any.
    let mut nobody = good;
    nobody["status"]["pluginMetadata"]["clusterUID"] = json!("");
    assert_eq!(completed(&[nobody], &cluster(""), PLUGIN), []);
}

#[tokio::test]
async fn an_archive_is_ours_when_every_completed_backup_is_and_all_are_of_our_system() {
    let there = archive("b", "copy");
    let of = |id: &str, destination: &str| Completed {
        id: id.to_owned(),
        ..backup(Some(there.clone()), Some(destination))
    };
    let known = [
        of("20260101T000000", "s3://x"),
        of("20260202T000000", "s3://y"),
    ];
    let (first, second) = ("20260101T000000", "20260202T000000");
    let (done, failed) = (BackupStatus::Done, BackupStatus::Failed);
    for (what, backups, expected) in [
        ("ours", &[(first, done, Some(7))][..], true),
        (
            "with a failed one",
            &[(first, done, Some(7)), (second, failed, Some(7))],
            true,
        ),
        (
            "with one begun",
            &[(first, done, Some(7)), (second, failed, None)],
            true,
        ),
        (
            "of another place",
            &[(first, done, Some(7)), (second, done, Some(7))],
            false,
        ),
        ("of another system", &[(first, done, Some(8))], false),
        (
            "a failed one of another",
            &[(first, done, Some(7)), (second, failed, Some(8))],
            false,
        ),
        ("of no system", &[(first, done, None)], false),
    ] {
        let layout = Layout::new("p", &"copy".parse().unwrap());
        let repository = Repository::new(Arc::new(MemoryStore::new()), layout);
        for (id, status, system) in backups {
            let info = BackupInfo {
                status: *status,
                systemid: system.map(SystemId),
                ..BackupInfo::default()
            };
            let id = id.parse().unwrap();
            repository.put_backup_info(&id, &info).await.unwrap();
        }
        let mut catalog = repository.list_backups().await.unwrap();
        let is_ours = |catalog: &Catalog| {
            let seen = Seen {
                archive: &there,
                destination: "s3://x/",
                catalog,
                is_own: false,
            };
            is_ours(&known, seen, SystemId(7))
        };
        assert_eq!(is_ours(&catalog), expected, "{what}");
        catalog.unreadable.push(Unreadable {
            id: second.parse().unwrap(),
            reason: "damaged".to_owned(),
            keep: None,
            stored: Stored::default(),
        });
        assert!(!is_ours(&catalog), "{what}, and an unreadable one");
    }
}
