//! What is in the bucket, read without the program: the witness of the crash tests.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use cellarman::codec::Codec;
use cellarman::codec::decompress::decompressor;
use cellarman::store::config::{S3Config, S3Credentials, StoreConfig};
use cellarman::store::open::open;
use cellarman::store::{ListRequest, ObjectKey, ObjectStore, PutOptions};
use futures::TryStreamExt;
use secrecy::SecretString;
use testbed::minio::{BUCKET, CREDENTIALS, Minio};
use tokio::runtime::Runtime;

/// The bucket of a test's MinIO.
pub(crate) struct Bucket {
    runtime: Runtime,
    store: Arc<dyn ObjectStore>,
}

impl Bucket {
    /// Opens it.
    pub(crate) fn of(minio: &Minio) -> Self {
        let credentials = S3Credentials::Static {
            access_key_id: CREDENTIALS.0.to_owned(),
            secret_access_key: SecretString::from(CREDENTIALS.1),
            session_token: None,
        };
        let mut config = S3Config::new(BUCKET, credentials);
        config.endpoint_url = Some(minio.endpoint().parse().expect("a URL"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let store = runtime
            .block_on(open(&StoreConfig::S3(Box::new(config))))
            .expect("the bucket opens");
        Self { runtime, store }
    }

    /// The keys that begin with `prefix`, and the sizes of their objects.
    pub(crate) fn list(&self, prefix: &str) -> BTreeMap<String, u64> {
        self.runtime.block_on(async {
            let mut found = BTreeMap::new();
            let mut request = ListRequest {
                prefix: prefix.to_owned(),
                ..ListRequest::default()
            };
            loop {
                let page = self.store.list(&request).await.expect("a listing");
                for object in page.objects {
                    found.insert(object.key.as_str().to_owned(), object.size);
                }
                match page.next {
                    Some(token) => request.token = Some(token),
                    None => return found,
                }
            }
        })
    }

    /// The bytes of an object.
    pub(crate) fn get(&self, key: &str) -> Vec<u8> {
        self.runtime.block_on(async {
            let body = self
                .store
                .get(&ObjectKey::new(key), None)
                .await
                .expect("an object");
            let chunks: Vec<_> = body.chunks.try_collect().await.expect("its bytes");
            chunks.concat()
        })
    }

    /// Puts an object, whatever was there.
    pub(crate) fn put(&self, key: &str, bytes: Vec<u8>) {
        self.runtime
            .block_on(
                self.store
                    .put(&ObjectKey::new(key), bytes.into(), &PutOptions::default()),
            )
            .expect("an object");
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, key: &str) {
        self.runtime
            .block_on(self.store.delete(&[ObjectKey::new(key)]))
            .expect("an object");
    }

    /// The name of the WAL file under `key`.
    pub(crate) fn wal_name(key: &str) -> &str {
        let (path, _) = Codec::split_suffix(key);
        path.rsplit('/').next().unwrap_or(path)
    }

    /// What the WAL file under `key` holds, decompressed.
    pub(crate) fn wal_file(&self, key: &str) -> Vec<u8> {
        let stored = self.get(key);
        let (_, codec) = Codec::split_suffix(key);
        let mut bytes = Vec::new();
        let read = decompressor(stored.as_slice(), codec)
            .and_then(|mut reader| reader.read_to_end(&mut bytes));
        assert!(read.is_ok(), "{key} does not decompress: {read:?}");
        bytes
    }
}
