//! From a configuration to a store, with the one wrapper that makes requests again.

use std::sync::Arc;
use std::time::Duration;

use crate::store::ObjectStore;
use crate::store::azure::AzureStore;
use crate::store::config::StoreConfig;
use crate::store::error::StoreError;
use crate::store::gcs::GcsStore;
use crate::store::local::LocalStore;
use crate::store::memory::MemoryStore;
use crate::store::retry::{RetryPolicy, Retrying};
use crate::store::s3::S3Store;

/// Opens the store: no request is made yet, so a missing container shows at the first one.
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let policy = match config {
        StoreConfig::Local(_) | StoreConfig::Memory => RetryPolicy::FILE_SYSTEM,
        StoreConfig::S3(s3) => over_network(s3.read_timeout),
        StoreConfig::Azure(azure) => over_network(azure.read_timeout),
        StoreConfig::Gcs(gcs) => over_network(gcs.read_timeout),
    };
    open_with(config, policy).await
}

fn over_network(read_timeout: Option<Duration>) -> RetryPolicy {
    RetryPolicy {
        timeout: read_timeout.unwrap_or(RetryPolicy::NETWORK.timeout),
        ..RetryPolicy::NETWORK
    }
}

/// Opens the store with another patience than the usual one.
pub async fn open_with(
    config: &StoreConfig,
    policy: RetryPolicy,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let engine: Arc<dyn ObjectStore> = match config {
        StoreConfig::Local(local) => Arc::new(LocalStore::new(local.clone())),
        StoreConfig::Memory => Arc::new(MemoryStore::new()),
        StoreConfig::S3(s3) => Arc::new(S3Store::new(s3).await),
        StoreConfig::Azure(azure) => Arc::new(AzureStore::new(azure)?),
        StoreConfig::Gcs(gcs) => Arc::new(GcsStore::new(gcs)),
    };
    Ok(Arc::new(Retrying::new(engine, policy)))
}
