//! Deleting: in bulk where the service can, one by one where it cannot.

use std::sync::atomic::Ordering;

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use futures::stream;
use futures::{StreamExt, TryStreamExt};

use super::{S3Store, fault, wire};
use crate::store::ObjectKey;
use crate::store::error::{StoreError, StoreErrorKind};

/// The most keys of one bulk delete.
const DELETE_KEYS_MAX: usize = 1000;

/// How many deletes of one key each run at once, where the service has no bulk delete.
const SINGLE_DELETES_AT_ONCE: usize = 8;

impl S3Store {
    pub(super) async fn delete_keys(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        if let [key] = keys {
            return self.delete_one(key).await;
        }
        let (plain, odd): (Vec<ObjectKey>, Vec<ObjectKey>) = keys
            .iter()
            .cloned()
            .partition(|key| is_fit_for_bulk(key.as_str()));
        for chunk in plain.chunks(DELETE_KEYS_MAX) {
            if self.has_bulk_delete.load(Ordering::Relaxed) {
                match self.delete_bulk(chunk).await {
                    Err(error) if error.kind == StoreErrorKind::Unsupported => {
                        self.has_bulk_delete.store(false, Ordering::Relaxed);
                    }
                    Err(error) => return Err(error),
                    Ok(()) => continue,
                }
            }
            self.delete_singly(chunk).await?;
        }
        self.delete_singly(&odd).await
    }

    async fn delete_one(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let request = self.request("delete", key.as_str());
        let deleted = self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(key.as_str())
            .send()
            .await;
        match deleted.map_err(|error| request.meaning(error)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn delete_singly(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        let deletes: Vec<_> = keys.iter().map(|key| self.delete_one(key)).collect();
        stream::iter(deletes)
            .buffer_unordered(SINGLE_DELETES_AT_ONCE)
            .try_collect()
            .await
    }

    /// One bulk delete. Keys that XML cannot say are not for it.
    async fn delete_bulk(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        let first = keys.first().map_or("", ObjectKey::as_str);
        let request = self.request("delete", first);
        let identifiers: Vec<ObjectIdentifier> = keys
            .iter()
            .filter_map(|key| ObjectIdentifier::builder().key(key.as_str()).build().ok())
            .collect();
        assert_eq!(
            identifiers.len(),
            keys.len(),
            "each key makes an identifier"
        );
        let delete = Delete::builder()
            .set_objects(Some(identifiers))
            .quiet(true)
            .build()
            .map_err(|error| request.explained(StoreErrorKind::Other, error.to_string()))?;
        let deleted = self
            .client
            .delete_objects()
            .bucket(&self.bucket)
            .delete(delete)
            .customize()
            .interceptor(wire::ContentMd5)
            .send()
            .await
            .map_err(|error| request.meaning(error))?;
        for error in deleted.errors() {
            let request = self.request("delete", error.key().unwrap_or(first));
            let error = fault::meaning_of_code(&request, error.code(), error.message());
            if !error.is_not_found() {
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Whether a bulk delete can hold the key. One with an empty part goes alone: MinIO takes it for
/// the key without that part, and locks itself out for minutes where a request has both.
fn is_fit_for_bulk(key: &str) -> bool {
    wire::is_xml_text(key) && !key.starts_with('/') && !key.contains("//")
}
