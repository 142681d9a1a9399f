//! The cache of archives on objects in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cellarman::fault::{Fault, Kind, chain};
use serde_json::{Value, json};

use super::{ArchiveCache, OpenArchive, OpenError};
use crate::cluster::ArchiveRef;
use crate::resources::{Condition, Event, ObjectRef, ResourceError, Resources, SecretData};

const FIELD: &str = "spec.plugins[name=x].parameters.barmanObjectName";

type Change = fn(&mut Held);

/// Objects in memory, as a Kubernetes API would answer for them.
#[derive(Debug, Default)]
struct Memory(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    object_store: Option<Value>,
    secret: Option<SecretData>,
    is_away: bool,
    denies_secrets: bool,
}

impl Memory {
    fn change<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_store(&self, level: u32) {
        let key = |key: &str| json!({"name": "aws", "key": key});
        let object_store = json!({
            "apiVersion": "barmancloud.cnpg.io/v1", "kind": "ObjectStore",
            "metadata": {"name": "store", "namespace": "db", "resourceVersion": level.to_string()},
            "spec": {"configuration": {
                "destinationPath": "s3://bucket/path",
                "s3Credentials": {"accessKeyId": key("id"), "secretAccessKey": key("secret")},
                "wal": {"compression": "gzip", "compressionLevel": level, "maxParallel": 100},
            }},
        });
        self.change(|held| held.object_store = Some(object_store));
    }

    fn put_secret(&self, secret: &str) {
        let values = [("id", "me"), ("secret", secret)];
        let values = values.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()));
        let data = SecretData(BTreeMap::from(values));
        self.change(|held| held.secret = Some(data));
    }

    fn missing(object: String) -> ResourceError {
        ResourceError::Unreadable {
            object,
            reason: "nobody asks for it here".to_owned(),
        }
    }
}

#[async_trait]
impl Resources for Memory {
    fn namespace(&self) -> &'static str {
        "db"
    }

    async fn get(&self, object: &ObjectRef) -> Result<Value, ResourceError> {
        self.change(|held| {
            if held.is_away {
                return Err(ResourceError::Unreachable {
                    object: object.to_string(),
                    reason: "it is away".to_owned(),
                });
            }
            let found = held.object_store.clone();
            found.ok_or_else(|| ResourceError::NotFound {
                object: object.clone(),
                namespace: "db".to_owned(),
            })
        })
    }

    async fn secret(&self, name: &str) -> Result<SecretData, ResourceError> {
        let object = ObjectRef::new(crate::resources::ObjectKind::Secret, name);
        self.change(|held| {
            if held.denies_secrets {
                return Err(ResourceError::Denied {
                    object: object.to_string(),
                    namespace: "db".to_owned(),
                    reason: "no Role says so".to_owned(),
                });
            }
            let found = held.secret.clone();
            found.ok_or_else(|| ResourceError::NotFound {
                object: object.clone(),
                namespace: "db".to_owned(),
            })
        })
    }

    async fn backups(&self) -> Result<Vec<Value>, ResourceError> {
        Err(Self::missing("Backups".to_owned()))
    }

    async fn delete_backup(&self, name: &str, _: &str) -> Result<(), ResourceError> {
        Err(Self::missing(name.to_owned()))
    }

    async fn merge_status(&self, object_store: &str, _: &Value) -> Result<(), ResourceError> {
        Err(Self::missing(object_store.to_owned()))
    }

    async fn set_condition(&self, object_store: &str, _: &Condition) -> Result<(), ResourceError> {
        Err(Self::missing(object_store.to_owned()))
    }

    async fn emit(&self, event: &Event) -> Result<(), ResourceError> {
        Err(Self::missing(event.reason.to_owned()))
    }
}

struct Bed {
    memory: Arc<Memory>,
    cache: ArchiveCache,
}

impl Bed {
    /// A store and its Secret; each use looks at them again.
    fn new() -> Self {
        let memory = Arc::new(Memory::default());
        memory.put_store(1);
        memory.put_secret("one\n");
        let mut cache = ArchiveCache::new(Arc::<Memory>::clone(&memory));
        cache.look_again_after = Duration::ZERO;
        Self { memory, cache }
    }

    async fn open(&self) -> Result<Arc<OpenArchive>, OpenError> {
        let archive = ArchiveRef {
            object_store: "store".to_owned(),
            server: "pg".to_owned(),
        };
        self.cache.open(&archive, FIELD).await
    }
}

#[tokio::test]
async fn an_archive_is_opened_anew_when_what_it_is_made_of_changes_and_not_otherwise() {
    let bed = Bed::new();
    let first = bed.open().await.unwrap();
    assert!(Arc::ptr_eq(&first, &bed.open().await.unwrap()));
    bed.memory.put_secret("two\n");
    let second = bed.open().await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    bed.memory.put_store(2);
    let third = bed.open().await.unwrap();
    assert_eq!(third.settings.wal.compression.level, Some(2));
    assert_eq!(third.settings.wal.jobs, 64);
    assert!(
        third
            .settings
            .warnings
            .iter()
            .any(|text| text.contains("64"))
    );
    bed.memory.change(|held| {
        let object_store = held.object_store.as_mut().unwrap();
        object_store["status"] = json!({"serverRecoveryWindow": {}});
    });
    assert!(Arc::ptr_eq(&third, &bed.open().await.unwrap()));
}

#[tokio::test]
async fn within_ten_seconds_nobody_is_asked() {
    let mut bed = Bed::new();
    bed.cache.look_again_after = super::LOOK_AGAIN_AFTER;
    let first = bed.open().await.unwrap();
    bed.memory.put_store(2);
    assert!(Arc::ptr_eq(&first, &bed.open().await.unwrap()));
}

#[tokio::test]
async fn while_the_api_is_away_what_is_known_goes_on() {
    let bed = Bed::new();
    let known = bed.open().await.unwrap();
    bed.memory.change(|held| held.is_away = true);
    assert!(Arc::ptr_eq(&known, &bed.open().await.unwrap()));
    bed.memory.change(|held| held.is_away = false);
    bed.memory.put_store(3);
    assert!(!Arc::ptr_eq(&known, &bed.open().await.unwrap()));
    bed.memory.change(|held| held.object_store = None);
    assert!(bed.open().await.is_err());
    let unknown = Bed::new();
    unknown.memory.change(|held| held.is_away = true);
    assert_eq!(unknown.open().await.unwrap_err().kind(), Kind::Unreachable);
}

#[tokio::test]
async fn what_is_missing_is_named_with_the_field_that_names_it() {
    let changes: [(Change, &[&str]); 4] = [
        (
            |held| held.object_store = None,
            &["ObjectStore store", "namespace db", FIELD],
        ),
        (
            |held| held.secret = None,
            &[
                "Secret aws",
                "s3Credentials.accessKeyId",
                "ObjectStore store",
            ],
        ),
        (
            |held| held.denies_secrets = true,
            &["Secret aws", "no Role says so", "s3Credentials.accessKeyId"],
        ),
        (
            |held| {
                let secret = held.secret.as_mut().unwrap();
                secret.0.remove("secret");
            },
            &["key secret", "Secret aws", "s3Credentials.secretAccessKey"],
        ),
    ];
    for (change, words) in changes {
        let bed = Bed::new();
        bed.memory.change(change);
        let error = bed.open().await.unwrap_err();
        let text = chain(&error);
        assert_eq!(error.kind(), Kind::Config, "{text}");
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains("one"), "{text}");
    }
}
