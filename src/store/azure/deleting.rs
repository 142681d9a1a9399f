//! Deleting blobs: one request each, several at a time.
//!
//! Not by Azure's batches: a signature for one container may not send them, and they count as
//! as many requests as they hold.

use futures::{StreamExt, TryStreamExt, stream};
use http::Method;

use super::AzureStore;
use super::wire::Call;
use crate::store::ObjectKey;
use crate::store::error::StoreError;

/// How many requests are under way at once.
const REQUESTS_MAX: usize = 16;

impl AzureStore {
    pub(super) async fn delete_keys(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        stream::iter(0..keys.len())
            .map(|at| self.delete_one(&keys[at]))
            .buffer_unordered(REQUESTS_MAX)
            .try_collect()
            .await
    }

    /// A blob with snapshots is not deleted: somebody made them to keep it.
    async fn delete_one(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let request = self.request("delete", key.as_str());
        let call = Call::on_blob(Method::DELETE, key);
        match self.wire.send(&request, call).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
