//! What only a directory can get wrong: missing roots, killed writers, foreign files.

use std::fs::FileTimes;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;

fn bed() -> (TempDir, LocalStore) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_path_buf();
    files::create_root(&root).unwrap();
    (directory, LocalStore::new(LocalConfig { root }))
}

fn kind_of<T>(result: Result<T, StoreError>) -> Option<StoreErrorKind> {
    result.err().map(|error| error.kind)
}

async fn keys(store: &LocalStore) -> Vec<String> {
    let page = store.list(&ListRequest::default()).await.unwrap();
    let keys = page.objects.iter();
    keys.map(|meta| meta.key.as_str().to_owned()).collect()
}

#[tokio::test]
async fn a_missing_directory_is_no_container_to_every_request_and_is_never_made_by_a_put() {
    let (directory, _) = bed();
    let root = directory.path().join("not/mounted");
    is_no_container(&root).await;
    assert!(!root.exists());
    becomes_a_container(&root).await;
}

#[tokio::test]
async fn a_directory_with_nothing_in_it_is_no_container_before_it_was_made_one() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("lost+found")).unwrap();
    is_no_container(directory.path()).await;
    becomes_a_container(directory.path()).await;
    let with_objects = tempfile::tempdir().unwrap();
    fs::write(with_objects.path().join("copied"), "x").unwrap();
    let root = with_objects.path().to_path_buf();
    let store = LocalStore::new(LocalConfig { root });
    let (key, options) = (ObjectKey::new("a/b"), PutOptions::default());
    assert_eq!(
        kind_of(store.head(&key).await),
        Some(StoreErrorKind::NotFound)
    );
    store.put(&key, "x".into(), &options).await.unwrap();
}

async fn is_no_container(root: &Path) {
    let store = LocalStore::new(LocalConfig {
        root: root.to_path_buf(),
    });
    let (key, options) = (ObjectKey::new("a/b"), PutOptions::default());
    let upload = UploadId("00".to_owned());
    for (name, kind) in [
        ("put", kind_of(store.put(&key, "x".into(), &options).await)),
        ("get", kind_of(store.get(&key, None).await)),
        ("head", kind_of(store.head(&key).await)),
        ("list", kind_of(store.list(&ListRequest::default()).await)),
        (
            "delete",
            kind_of(store.delete(std::slice::from_ref(&key)).await),
        ),
        ("begin", kind_of(store.begin_upload(&key, &options).await)),
        (
            "part",
            kind_of(store.put_part(&key, &upload, 1, "x".into()).await),
        ),
        ("check", kind_of(store.check_container().await)),
    ] {
        assert_eq!(kind, Some(StoreErrorKind::NoContainer), "{name}");
    }
}

/// Makes the directory a store, and uses it.
async fn becomes_a_container(root: &Path) {
    let store = LocalStore::new(LocalConfig {
        root: root.to_path_buf(),
    });
    store.create_container().await.unwrap();
    assert_eq!(keys(&store).await, Vec::<String>::new());
    let (key, options) = (ObjectKey::new("a/b"), PutOptions::default());
    store.put(&key, "x".into(), &options).await.unwrap();
    assert_eq!(keys(&store).await, ["a/b"]);
}

#[tokio::test]
async fn what_a_killed_writer_leaves_is_invisible_and_swept_after_a_day() {
    let (directory, store) = bed();
    let mut killed = HiddenFile::create(directory.path()).unwrap();
    killed.file().write_all(b"half").unwrap();
    std::mem::forget(killed);
    let (key, options) = (ObjectKey::new("k"), PutOptions::default());
    store.begin_upload(&key, &options).await.unwrap();
    assert_eq!(keys(&store).await, Vec::<String>::new());
    let writing = directory.path().join(names::PRIVATE).join("writing");
    let left = || fs::read_dir(&writing).unwrap().map(Result::unwrap);
    assert_eq!(left().count(), 1, "a young file may be another writer's");
    for entry in left() {
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let file = File::options().write(true).open(entry.path()).unwrap();
        file.set_times(FileTimes::new().set_modified(old)).unwrap();
    }
    store.begin_upload(&key, &options).await.unwrap();
    assert_eq!(left().count(), 0);
}

#[tokio::test]
async fn foreign_files_do_not_disturb() {
    let (directory, store) = bed();
    let root = directory.path();
    fs::create_dir_all(root.join("empty/inside")).unwrap();
    fs::write(root.join("plain"), "x").unwrap();
    fs::write(root.join("%zz"), "x").unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("dangling")).unwrap();
    std::os::unix::fs::symlink(root, root.join("loop")).unwrap();
    let request = ListRequest {
        is_delimited: true,
        ..ListRequest::default()
    };
    let page = store.list(&request).await.unwrap();
    assert_eq!(page.objects.len(), 1);
    assert!(page.prefixes.is_empty(), "an empty directory is no prefix");
    assert_eq!(keys(&store).await, ["plain"]);
}

#[tokio::test]
async fn a_key_that_is_a_directory_of_another_is_refused_and_harms_nothing() {
    let (_directory, store) = bed();
    let options = PutOptions::default();
    let (inner, outer) = (ObjectKey::new("a/b"), ObjectKey::new("a"));
    store.put(&inner, "x".into(), &options).await.unwrap();
    let put = store.put(&outer, "x".into(), &options).await;
    assert_eq!(kind_of(put), Some(StoreErrorKind::FileSystem));
    store.delete(&[outer]).await.unwrap();
    assert_eq!(keys(&store).await, ["a/b"]);
}
