//! From a configuration to a store, with the one wrapper that makes requests again.

use std::sync::Arc;

use crate::store::ObjectStore;
use crate::store::config::StoreConfig;
use crate::store::error::StoreError;
use crate::store::local::LocalStore;
use crate::store::memory::MemoryStore;
use crate::store::s3::S3Store;

/// Opens the store: no request is made yet, so a missing container shows at the first one.
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn ObjectStore>, StoreError> {
    match config {
        StoreConfig::Local(local) => Ok(Arc::new(LocalStore::new(local.clone()))),
        StoreConfig::Memory => Ok(Arc::new(MemoryStore::new())),
        StoreConfig::S3(s3) => Ok(Arc::new(S3Store::new(s3).await)),
    }
}
