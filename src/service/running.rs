//! The sign of life of a backup under way: `<server>/cellarman/backups/<id>/running.json`.
//!
//! It is put anew every few seconds, and names each multipart upload before the upload begins.
//! So another run can tell a killed backup from one at work, and abort what it left. Not here:
//! what is done about a killed one (`service::maintenance`).

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::barman::layout::Layout;
use crate::barman::repository::Repository;
use crate::clock;
use crate::domain::backup::BackupId;
use crate::fault::chain;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::upload::UploadObserver;
use crate::store::{ObjectKey, PutOptions, UploadId};

/// How often the sign of life is renewed.
pub const INTERVAL: Duration = Duration::from_secs(15);

/// The text of the object. Readers take fields that they do not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The host that works.
    pub host: String,
    /// The process there.
    pub pid: u32,
    /// When it was put, by that host's clock, for people: the store's own time decides.
    pub time: String,
    /// The uploads under way.
    #[serde(default)]
    pub uploads: Vec<RunningUpload>,
}

/// An upload under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningUpload {
    /// The object it will be.
    pub key: String,
    /// Its id; absent while the store is asked for it.
    pub upload_id: Option<String>,
}

/// Where the sign of life of a backup lies.
pub fn key(layout: &Layout, id: &BackupId) -> ObjectKey {
    layout.private(&format!("backups/{id}/running.json"))
}

enum Note {
    Beginning(ObjectKey, oneshot::Sender<Result<(), StoreError>>),
    Begun(ObjectKey, UploadId, oneshot::Sender<Result<(), StoreError>>),
    Ended(ObjectKey),
    Stop,
}

/// A sign of life being kept up. [`stop`](Self::stop) takes it away.
#[derive(Debug)]
pub struct Heartbeat {
    notes: mpsc::Sender<Note>,
    task: JoinHandle<()>,
}

/// Writes uploads into the sign of life.
#[derive(Debug, Clone)]
pub struct UploadRecord {
    notes: mpsc::Sender<Note>,
}

impl Heartbeat {
    /// Puts the first sign of life, and goes on.
    ///
    /// # Errors
    /// [`StoreErrorKind::Exists`] when there is one for this id already.
    pub async fn start(repository: &Repository, id: &BackupId) -> Result<Self, StoreError> {
        let keeper = Keeper {
            repository: repository.clone(),
            key: key(&repository.layout, id),
            host: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            uploads: BTreeMap::new(),
        };
        // Two runs that chose the same id must not share a sign of life.
        match repository.store.head(&keeper.key).await {
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
            Ok(_) => {
                return Err(StoreError {
                    operation: "put",
                    subject: keeper.key.to_string(),
                    kind: StoreErrorKind::Exists,
                    source: None,
                });
            }
        }
        keeper.put(true).await?;
        let (notes, receiver) = mpsc::channel(16);
        let task = tokio::spawn(keeper.run(receiver));
        Ok(Self { notes, task })
    }

    /// What tells of uploads.
    pub fn record(&self) -> UploadRecord {
        UploadRecord {
            notes: self.notes.clone(),
        }
    }

    /// Ends it and takes the object away.
    pub async fn stop(self) {
        // A task that has ended already has nothing to be told.
        self.notes.send(Note::Stop).await.ok();
        self.task.await.ok();
    }
}

impl UploadRecord {
    async fn tell(
        &self,
        note: impl FnOnce(oneshot::Sender<Result<(), StoreError>>) -> Note,
    ) -> Result<(), StoreError> {
        let (sender, answer) = oneshot::channel();
        let gone = || StoreError {
            operation: "record",
            subject: "an upload".to_owned(),
            kind: StoreErrorKind::Other,
            source: None,
        };
        self.notes.send(note(sender)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

#[async_trait]
impl UploadObserver for UploadRecord {
    async fn beginning(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.tell(|answer| Note::Beginning(key.clone(), answer))
            .await
    }

    async fn begun(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        self.tell(|answer| Note::Begun(key.clone(), upload.clone(), answer))
            .await
    }

    async fn ended(&self, key: &ObjectKey) {
        // Nothing waits for it: the next sign of life leaves it out.
        self.notes.send(Note::Ended(key.clone())).await.ok();
    }
}

/// Owns the object: one writer, so that no older text overtakes a newer one.
struct Keeper {
    repository: Repository,
    key: ObjectKey,
    host: String,
    uploads: BTreeMap<String, Option<UploadId>>,
}

impl Keeper {
    async fn run(mut self, mut notes: mpsc::Receiver<Note>) {
        let mut beat = tokio::time::interval(INTERVAL);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.reset();
        loop {
            let note = tokio::select! {
                _ = beat.tick() => {
                    if let Err(error) = self.put(false).await {
                        warn!(error = chain(&error), "cannot renew the backup's sign of life");
                    }
                    continue;
                }
                note = notes.recv() => note,
            };
            match note {
                Some(Note::Beginning(key, answer)) => {
                    self.uploads.insert(key.as_str().to_owned(), None);
                    // Who asked may have gone.
                    answer.send(self.put(false).await).ok();
                }
                Some(Note::Begun(key, upload, answer)) => {
                    self.uploads.insert(key.as_str().to_owned(), Some(upload));
                    answer.send(self.put(false).await).ok();
                }
                Some(Note::Ended(key)) => {
                    self.uploads.remove(key.as_str());
                }
                Some(Note::Stop) => break,
                // Dropped without a stop: the object stays, as that of a killed run.
                None => return,
            }
        }
        if let Err(error) = self.repository.store.delete(&[self.key.clone()]).await {
            warn!(
                error = chain(&error),
                "cannot take the backup's sign of life away"
            );
        }
    }

    async fn put(&self, if_absent: bool) -> Result<(), StoreError> {
        let running = Running {
            host: self.host.clone(),
            pid: std::process::id(),
            time: clock::now().to_rfc3339(),
            uploads: self
                .uploads
                .iter()
                .map(|(key, upload)| RunningUpload {
                    key: key.clone(),
                    upload_id: upload.as_ref().map(|upload| upload.0.clone()),
                })
                .collect(),
        };
        let text = serde_json::to_vec(&running).map_err(|error| StoreError {
            operation: "put",
            subject: self.key.to_string(),
            kind: StoreErrorKind::Other,
            source: Some(error.into()),
        })?;
        let options = PutOptions {
            if_absent,
            ..PutOptions::default()
        };
        self.repository
            .store
            .put(&self.key, text.into(), &options)
            .await
    }
}
