//! The store's and the archive's points over stores that fail as scripted.

use std::sync::Arc;

use super::*;
use crate::barman::layout::Layout;
use crate::store::error::StoreErrorKind;
use crate::store::faulty::{Call, Fault as Scripted, FaultyStore, Trouble};
use crate::store::memory::MemoryStore;
use crate::store::{ObjectKey, ObjectStore, PutOptions};

struct Bed {
    memory: Arc<MemoryStore>,
    faulty: Arc<FaultyStore>,
    check: Check,
}

impl Bed {
    fn new(script: impl IntoIterator<Item = Scripted>) -> Self {
        let memory = Arc::new(MemoryStore::new());
        let faulty = Arc::new(FaultyStore::new(Arc::<MemoryStore>::clone(&memory)));
        for line in script {
            faulty.add(line);
        }
        let layout = Layout::new("path", &"main".parse().unwrap());
        let check = Check {
            repository: Repository::new(Arc::<FaultyStore>::clone(&faulty), layout),
            is_created: false,
            server: ServerToCheck::Nowhere("no server in this test"),
            archive_command: "cellarman wal archive %p".to_owned(),
        };
        Self {
            memory,
            faulty,
            check,
        }
    }

    async fn fill(&self, key: &str, body: &'static str) {
        let (key, options) = (ObjectKey::new(key), PutOptions::default());
        let put = self.memory.put(&key, body.into(), &options);
        put.await.unwrap();
    }
}

fn of<'a>(points: &'a [Point], name: &str) -> &'a Point {
    let found = points.iter().filter(|point| point.name == name);
    let found: Vec<&Point> = found.collect();
    assert_eq!(found.len(), 1, "{name}: {points:?}");
    found[0]
}

#[tokio::test]
async fn a_store_that_works_passes_each_point_and_keeps_nothing() {
    let bed = Bed::new([]);
    let points = bed.check.run().await;
    for name in [
        "store",
        "put",
        "get",
        "list",
        "put-if-absent",
        "upload",
        "delete",
        "archive-owner",
        "last-wal",
    ] {
        assert_eq!(of(&points, name).outcome, Outcome::Ok, "{name}");
    }
    assert_eq!(of(&points, "postgres").outcome, Outcome::NotRun);
    assert_eq!(first_failure(&points), None);
    let left = bed.memory.list(&crate::store::ListRequest::default()).await;
    assert_eq!(left.unwrap().objects, []);
    assert!(bed.memory.list_uploads("").await.unwrap().is_empty());
    assert!(
        !bed.faulty
            .calls()
            .iter()
            .any(|call| call.0 == Call::CreateContainer)
    );
}

#[tokio::test]
async fn each_right_that_is_missing_fails_its_own_point_with_a_hint() {
    for (call, name) in [
        (Call::CheckContainer, "store"),
        (Call::Put, "put"),
        (Call::Get, "get"),
        (Call::List, "list"),
        (Call::BeginUpload, "upload"),
        (Call::PutPart, "upload"),
        (Call::AbortUpload, "upload"),
        (Call::Delete, "delete"),
    ] {
        let fault = Scripted::next(call, Trouble::Fails(StoreErrorKind::Denied));
        let points = Bed::new([fault]).check.run().await;
        let point = of(&points, name);
        assert_eq!(point.outcome, Outcome::Failed(Kind::Denied), "{call:?}");
        assert!(point.hint.as_ref().unwrap().ends_with('.'));
        assert_eq!(first_failure(&points), Some(Kind::Denied));
        let failed = points
            .iter()
            .filter(|point| matches!(point.outcome, Outcome::Failed(_)));
        assert_eq!(failed.count(), 1, "{call:?}: {points:?}");
    }
}

#[tokio::test]
async fn a_missing_container_is_made_where_that_is_asked() {
    let missing = || {
        let trouble = Trouble::Fails(StoreErrorKind::NoContainer);
        Scripted::next(Call::CheckContainer, trouble)
    };
    let points = Bed::new([missing()]).check.run().await;
    assert_eq!(first_failure(&points), Some(Kind::NoContainer));
    assert_eq!(of(&points, "delete").outcome, Outcome::NotRun);
    let mut bed = Bed::new([]);
    bed.check.is_created = true;
    assert_eq!(first_failure(&bed.check.run().await), None);
    assert_eq!(bed.faulty.calls()[0].0, Call::CreateContainer);
}

#[tokio::test]
async fn a_store_without_conditional_puts_is_a_warning() {
    let trouble = Trouble::Fails(StoreErrorKind::Unsupported);
    let bed = Bed::new([Scripted::next(Call::Put, trouble).after(1)]);
    let points = bed.check.run().await;
    assert_eq!(of(&points, "put-if-absent").outcome, Outcome::Warning);
    assert_eq!(first_failure(&points), None);
}

#[tokio::test]
async fn the_owner_and_the_newest_wal_are_shown() {
    let bed = Bed::new([]);
    let id = r#"{"system_id":"7710495969176941014","segment_size":16777216}"#;
    bed.fill("path/main/cellarman/archive.json", id).await;
    for key in [
        "0000000100000000/000000010000000000000009.gz",
        "0000000200000001/00000002000000010000000A.zst",
        "0000000200000001/000000020000000100000003",
        "00000002.history",
    ] {
        bed.fill(&format!("path/main/wals/{key}"), "x").await;
    }
    let points = bed.check.run().await;
    assert!(
        of(&points, "archive-owner")
            .detail
            .contains("7710495969176941014")
    );
    assert!(
        of(&points, "last-wal")
            .detail
            .starts_with("00000002000000010000000A")
    );
    bed.fill("path/main/cellarman/archive.json", "{").await;
    let points = bed.check.run().await;
    assert_eq!(
        of(&points, "archive-owner").outcome,
        Outcome::Failed(Kind::Corrupt)
    );
}
