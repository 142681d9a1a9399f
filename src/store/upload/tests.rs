//! Uploads into a store in memory: what is put, and what is left when one fails.

use std::io::Write;
use std::sync::Mutex;

use super::*;
use crate::store::error::StoreErrorKind;
use crate::store::faulty::{Call, Fault as Script, FaultyStore, Trouble};
use crate::store::memory::MemoryStore;

const PART: usize = 1000;

/// Remembers what it is told.
#[derive(Default)]
struct Notebook(Mutex<Vec<&'static str>>);

#[async_trait]
impl UploadObserver for Notebook {
    async fn beginning(&self, _key: &ObjectKey) -> Result<(), StoreError> {
        self.0.lock().unwrap().push("beginning");
        Ok(())
    }

    async fn begun(&self, _key: &ObjectKey, _upload: &UploadId) -> Result<(), StoreError> {
        self.0.lock().unwrap().push("begun");
        Ok(())
    }

    async fn ended(&self, _key: &ObjectKey) {
        self.0.lock().unwrap().push("ended");
    }
}

struct Bench {
    store: Arc<FaultyStore>,
    notebook: Arc<Notebook>,
    cancel: CancellationToken,
}

impl Bench {
    fn new() -> Self {
        Self {
            store: Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()))),
            notebook: Arc::default(),
            cancel: CancellationToken::new(),
        }
    }

    fn start(&self) -> (ArchiveUpload, PartWriter) {
        let options = UploadOptions {
            pool: PartPool::new(PART, 3),
            parts_in_flight: 2,
            put: PutOptions::default(),
            limiter: None,
        };
        let store: Arc<dyn ObjectStore> = Arc::<FaultyStore>::clone(&self.store);
        let observer: Arc<dyn UploadObserver> = Arc::<Notebook>::clone(&self.notebook);
        ArchiveUpload::start(store, ObjectKey::new("a"), options, observer, &self.cancel)
    }

    /// Uploads `bytes` in uneven writes; the writer's error is the upload's to tell.
    async fn upload(&self, bytes: Vec<u8>) -> Result<Uploaded, UploadError> {
        let (upload, mut writer) = self.start();
        let thread = tokio::task::spawn_blocking(move || {
            for piece in bytes.chunks(377) {
                writer.write_all(piece)?;
            }
            writer.finish()
        });
        let written = thread.await.unwrap();
        let uploaded = upload.finish().await;
        assert!(written.is_ok() || uploaded.is_err());
        uploaded
    }

    async fn stored(&self) -> Option<Vec<u8>> {
        let mut body = self.store.get(&ObjectKey::new("a"), None).await.ok()?;
        let mut bytes = Vec::new();
        while let Some(chunk) = body.chunks.next().await {
            bytes.extend_from_slice(&chunk.unwrap());
        }
        Some(bytes)
    }

    async fn assert_nothing_is_left(&self) {
        assert_eq!(self.stored().await, None);
        assert_eq!(self.store.list_uploads("a").await.unwrap(), []);
    }

    fn notes(&self) -> Vec<&'static str> {
        self.notebook.0.lock().unwrap().clone()
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| u8::try_from(index % 251).unwrap())
        .collect()
}

#[tokio::test]
async fn an_archive_is_stored_as_it_was_written_in_as_few_parts_as_fit() {
    for (length, parts) in [
        (0, 0),
        (1, 0),
        (PART - 1, 0),
        (PART, 1),
        (PART + 1, 2),
        (2 * PART, 2),
        (10 * PART + 7, 11),
    ] {
        let bench = Bench::new();
        let bytes = bytes(length);
        let uploaded = bench.upload(bytes.clone()).await.unwrap();
        assert_eq!(uploaded.parts, parts, "{length}");
        assert_eq!(uploaded.size, u64::try_from(length).unwrap());
        assert_eq!(uploaded.blake3, blake3::hash(&bytes).to_hex().to_string());
        assert_eq!(bench.stored().await, Some(bytes));
        let told: &[&str] = if parts > 0 {
            &["beginning", "begun", "ended"]
        } else {
            &[]
        };
        assert_eq!(bench.notes(), told, "{length}");
    }
}

#[tokio::test]
async fn a_failed_request_ends_the_upload_and_leaves_nothing() {
    for call in [
        Call::Put,
        Call::BeginUpload,
        Call::PutPart,
        Call::CompleteUpload,
    ] {
        let bench = Bench::new();
        let trouble = Trouble::Fails(StoreErrorKind::Denied);
        bench.store.add(Script::next(call, trouble));
        let length = if call == Call::Put { 10 } else { 20 * PART };
        let error = bench.upload(bytes(length)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{call:?}");
        bench.assert_nothing_is_left().await;
    }
}

#[tokio::test]
async fn a_completion_that_went_unheard_is_judged_by_what_is_there() {
    for (length, is_ours) in [(5 * PART, true), (5 * PART - 1, false)] {
        let bench = Bench::new();
        let put = bench
            .store
            .put(
                &ObjectKey::new("a"),
                bytes(length).into(),
                &PutOptions::default(),
            )
            .await;
        put.unwrap();
        let trouble = Trouble::Fails(StoreErrorKind::Exists);
        bench.store.add(Script::next(Call::CompleteUpload, trouble));
        let uploaded = bench.upload(bytes(5 * PART)).await;
        assert_eq!(uploaded.is_ok(), is_ours, "{uploaded:?}");
        assert_eq!(bench.stored().await, Some(bytes(length)));
    }
}

#[tokio::test]
async fn an_upload_whose_id_was_lost_is_found_and_aborted() {
    let bench = Bench::new();
    bench
        .store
        .add(Script::next(Call::BeginUpload, Trouble::ReplyLost));
    bench.upload(bytes(5 * PART)).await.unwrap_err();
    bench.assert_nothing_is_left().await;
    assert_eq!(bench.notes(), ["beginning", "ended"]);
}

#[tokio::test]
async fn a_writer_that_is_dropped_gives_the_upload_up() {
    let bench = Bench::new();
    let (upload, mut writer) = bench.start();
    tokio::task::spawn_blocking(move || writer.write_all(&bytes(5 * PART)))
        .await
        .unwrap()
        .unwrap();
    let error = upload.finish().await.unwrap_err();
    assert!(matches!(error, UploadError::Abandoned { .. }), "{error}");
    bench.assert_nothing_is_left().await;
}

#[tokio::test]
async fn a_cancelled_upload_leaves_nothing_and_frees_its_writer() {
    let bench = Bench::new();
    let (upload, mut writer) = bench.start();
    let cancel = bench.cancel.clone();
    let written = tokio::task::spawn_blocking(move || {
        writer.write_all(&bytes(3 * PART)).unwrap();
        cancel.cancel();
        // Whatever is under way, the writer is told within a few parts.
        (0..1000).find_map(|_| writer.write_all(&bytes(PART)).err())
    });
    let error = written.await.unwrap().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    let error = upload.finish().await.unwrap_err();
    assert!(matches!(error, UploadError::Cancelled { .. }), "{error}");
    bench.assert_nothing_is_left().await;
}

#[tokio::test]
async fn an_aborted_upload_leaves_nothing() {
    let bench = Bench::new();
    let (upload, mut writer) = bench.start();
    let writer = tokio::task::spawn_blocking(move || {
        writer.write_all(&bytes(3 * PART)).unwrap();
        writer
    })
    .await
    .unwrap();
    upload.abort().await;
    bench.assert_nothing_is_left().await;
    drop(writer);
}
