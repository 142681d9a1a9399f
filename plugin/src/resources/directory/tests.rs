//! The backend on files, by what its users see and by what is in the files afterwards.

use std::fs;

use super::*;
use crate::resources::EventType;

const STORE: &str = "# kept\napiVersion: barmancloud.cnpg.io/v1\nkind: ObjectStore\nmetadata:\n  name: other\n---\n\
    kind: ObjectStore\nmetadata:\n  name: store\n  namespace: db\nspec:\n  later: [1, {x: y}]\nstatus:\n  \
    serverRecoveryWindow:\n    a: {firstRecoverabilityPoint: t1}\n";

fn directory(files: &[(&str, &str)]) -> (tempfile::TempDir, Directory) {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(root.path().join(name), text).unwrap();
    }
    let directory = Directory::new(root.path(), "db");
    (root, directory)
}

fn store() -> ObjectRef {
    ObjectRef::new(ObjectKind::ObjectStore, "store")
}

#[tokio::test]
async fn a_status_is_merged_and_all_else_stays() {
    let (root, directory) = directory(&[("stores.yaml", STORE)]);
    let patch = json!({"serverRecoveryWindow": {"b": {"lastFailedBackupTime": "t2"}}});
    directory.merge_status("store", &patch).await.unwrap();
    let found = directory.get(&store()).await.unwrap();
    assert_eq!(
        found["status"]["serverRecoveryWindow"],
        json!({"a": {"firstRecoverabilityPoint": "t1"}, "b": {"lastFailedBackupTime": "t2"}})
    );
    assert_eq!(found["spec"]["later"], json!([1, {"x": "y"}]));
    let text = fs::read_to_string(root.path().join("stores.yaml")).unwrap();
    assert!(
        text.starts_with(STORE.split_once("---").unwrap().0),
        "{text}"
    );
}

#[tokio::test]
async fn the_time_of_a_condition_changes_with_its_status_alone() {
    let (_root, directory) = directory(&[("stores.yaml", STORE)]);
    let mut condition = Condition {
        condition_type: "Reachable",
        is_true: Some(true),
        reason: "Answered",
        message: "It answered.".to_owned(),
    };
    directory.set_condition("store", &condition).await.unwrap();
    let patch = json!({"conditions": [{"type": "Reachable", "status": "True", "lastTransitionTime": "then"}]});
    directory.merge_status("store", &patch).await.unwrap();
    "Again.".clone_into(&mut condition.message);
    for (is_true, is_then) in [(Some(true), true), (None, false)] {
        condition.is_true = is_true;
        directory.set_condition("store", &condition).await.unwrap();
        let found = directory.get(&store()).await.unwrap();
        let conditions = found["status"]["conditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0]["message"], "Again.");
        assert_eq!(conditions[0]["lastTransitionTime"] == "then", is_then);
    }
}

#[tokio::test]
async fn objects_of_another_namespace_are_not_there() {
    let other = "kind: ObjectStore\nmetadata: {name: store, namespace: else}\n";
    let (_root, directory) = directory(&[("s.yaml", other)]);
    let error = directory.get(&store()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "ObjectStore store is not in namespace db"
    );
}

#[tokio::test]
async fn a_file_that_makes_no_sense_is_named_before_not_found() {
    let (_root, directory) = directory(&[("a.yaml", "kind: [\n"), ("b.txt", "{")]);
    let error = directory.get(&store()).await.unwrap_err();
    assert!(error.to_string().contains("a.yaml"), "{error}");
    assert!(!error.is_not_found());
    assert!(directory.backups().await.is_err());
}

#[tokio::test]
async fn a_backup_goes_only_with_its_uid() {
    let backups = "kind: Backup\nmetadata: {name: one, uid: u1}\n---\nkind: Backup\nmetadata: {name: two, uid: u2}\n";
    let (root, directory) = directory(&[("b.yaml", backups)]);
    for (name, uid, left) in [
        ("one", "u9", 2),
        ("gone", "u1", 2),
        ("one", "u1", 1),
        ("one", "u1", 1),
        ("two", "u2", 0),
    ] {
        directory.delete_backup(name, uid).await.unwrap();
        assert_eq!(
            directory.backups().await.unwrap().len(),
            left,
            "{name} {uid}"
        );
    }
    assert!(!root.path().join("b.yaml").exists());
}

#[tokio::test]
async fn secrets_are_decoded_and_never_named_with_their_values() {
    let secret = "kind: Secret\nmetadata: {name: s}\ndata: {k: aGlkZGVu}\nstringData: {t: plain}\n---\n\
        kind: Secret\nmetadata: {name: bad}\ndata: {k: '*hidden*'}\n";
    let (_root, directory) = directory(&[("s.yaml", secret)]);
    let data = directory.secret("s").await.unwrap();
    assert_eq!(data.0["k"], b"hidden");
    assert_eq!(data.0["t"], b"plain");
    assert!(!format!("{data:?}").contains("plain"));
    let error = directory.secret("bad").await.unwrap_err().to_string();
    assert_eq!(error, "Secret bad cannot be read: its key k is no base64");
}

#[tokio::test]
async fn the_same_news_is_counted_and_the_last_are_kept() {
    let (root, directory) = directory(&[]);
    let event = |message: String| Event {
        about: store(),
        event_type: EventType::Warning,
        reason: "BackupFailed",
        message,
    };
    for number in 0..502 {
        let news = event(format!("news {number}"));
        directory.emit(&news).await.unwrap();
    }
    directory.emit(&event("news 9".to_owned())).await.unwrap();
    let text = fs::read_to_string(root.path().join("events.jsonl")).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 500);
    assert_eq!(lines[0]["message"], "news 2");
    assert_eq!(lines[499]["message"], "news 9");
    assert_eq!(lines[499]["count"], 2);
}

#[tokio::test]
async fn changes_at_once_are_all_kept() {
    let (root, first) = directory(&[("stores.yaml", STORE)]);
    let second = Directory::new(root.path(), "db");
    let changes = (0..40).map(|number| {
        let directory = if number % 2 == 0 { &first } else { &second };
        let server = format!("server-{number}");
        async move {
            let patch = json!({"serverRecoveryWindow": {server: {"backups": number}}});
            directory.merge_status("store", &patch).await.unwrap();
        }
    });
    futures::future::join_all(changes).await;
    let found = first.get(&store()).await.unwrap();
    let windows = found["status"]["serverRecoveryWindow"].as_object().unwrap();
    assert_eq!(windows.len(), 41);
}
