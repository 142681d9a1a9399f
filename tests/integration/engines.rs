//! What the tests of each engine ask of it on its real server.

use cellarman::store::error::{StoreError, StoreErrorKind};
use cellarman::store::{ListRequest, ObjectKey, ObjectStore, PutOptions};
use tokio::runtime::Runtime;

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// The kinds of failure of every request on a store, each with its name.
pub(crate) async fn failures(
    store: &dyn ObjectStore,
) -> Vec<(&'static str, Option<StoreErrorKind>)> {
    let key = ObjectKey::new("a");
    let put = PutOptions::default();
    let one_page = ListRequest::default();
    let kind = |error: StoreError| error.kind;
    vec![
        ("head", store.head(&key).await.err().map(kind)),
        ("get", store.get(&key, None).await.err().map(kind)),
        (
            "put",
            store.put(&key, "x".into(), &put).await.err().map(kind),
        ),
        ("list", store.list(&one_page).await.err().map(kind)),
        (
            "begin",
            store.begin_upload(&key, &put).await.err().map(kind),
        ),
        ("delete", store.delete(&[key]).await.err().map(kind)),
        ("check", store.check_container().await.err().map(kind)),
    ]
}

#[track_caller]
pub(crate) fn check_all(failures: &[(&str, Option<StoreErrorKind>)], expected: StoreErrorKind) {
    for (request, kind) in failures {
        assert_eq!(*kind, Some(expected), "{request}");
    }
}

/// Makes the bucket of a store that has none yet.
pub(crate) async fn check_it_can_be_made(store: &dyn ObjectStore) {
    store.create_container().await.expect("it is made");
    store.create_container().await.expect("it is ours already");
    store.check_container().await.expect("it is there");
    let head = store.head(&ObjectKey::new("a")).await;
    assert_eq!(
        head.err().map(|error| error.kind),
        Some(StoreErrorKind::NotFound)
    );
}
