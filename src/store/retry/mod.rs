//! The one place where a request is made again: timeouts, backoff with jitter, a limit.
//!
//! Engines make one attempt per call. What a repeat could get wrong is settled here: a put whose
//! answer was lost, an upload that was completed unheard, a body that breaks off.

mod body;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use tracing::{debug, warn};

use self::body::Body;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{
    Learnt, ListPage, ListRequest, ObjectBody, ObjectKey, ObjectMeta, ObjectStore, PartTag,
    PutOptions, UploadId,
};

/// How long to wait for an answer, and how often to ask again.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// How often a request is made at most, the first time included.
    pub attempts_max: u32,
    /// The wait before the second attempt; it doubles from there.
    pub backoff_first: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// How long a request may take that moves next to no bytes, or a body may pause.
    pub timeout: Duration,
    /// A request that moves bytes may take as much longer as they need at this rate.
    pub bytes_per_second_min: u32,
}

impl RetryPolicy {
    /// For stores across a network: a pause of some 20 seconds is ridden out.
    pub const NETWORK: Self = Self {
        attempts_max: 9,
        backoff_first: Duration::from_millis(100),
        backoff_max: Duration::from_secs(10),
        timeout: Duration::from_mins(1),
        bytes_per_second_min: 64 * 1024,
    };

    /// For a file system: it says at once what it will say later too, but may be slow.
    pub const FILE_SYSTEM: Self = Self {
        timeout: Duration::from_mins(10),
        ..Self::NETWORK
    };

    /// For somebody who waits for the answer: one more attempt, soon.
    pub const IMPATIENT: Self = Self {
        attempts_max: 2,
        backoff_first: Duration::from_millis(300),
        timeout: Duration::from_secs(15),
        ..Self::NETWORK
    };

    /// No second attempt: for those who want to know what happens now.
    pub const ONCE: Self = Self {
        attempts_max: 1,
        timeout: Duration::from_secs(20),
        ..Self::NETWORK
    };

    /// How long a request may take that moves that many bytes.
    fn timeout_of(&self, bytes: usize) -> Duration {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.timeout + Duration::from_secs((bytes / self.bytes_per_second_min).into())
    }

    /// How long to wait after so many attempts: at least half of the doubled time, the rest by chance.
    fn backoff(&self, attempts: u32, kind: StoreErrorKind) -> Duration {
        let doubled = self
            .backoff_first
            .saturating_mul(1 << attempts.saturating_sub(1).min(16));
        // A store that asks for patience gets more of it.
        let patient = if kind == StoreErrorKind::Throttled {
            doubled.saturating_mul(4)
        } else {
            doubled
        };
        patient
            .min(self.backoff_max)
            .mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// An engine whose requests are made again while that can help.
pub struct Retrying {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<dyn ObjectStore>,
    policy: RetryPolicy,
}

impl fmt::Debug for Retrying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Retrying").field(&self.inner.engine).finish()
    }
}

/// What is asked, for the log and for the error of a timeout.
struct Asked<'a> {
    operation: &'static str,
    name: &'a str,
    bytes: usize,
}

/// How a request ended that was answered at last.
struct Answered<T> {
    value: Result<T, StoreError>,
    /// An earlier attempt may have been carried out though no answer came.
    is_repeated: bool,
}

impl Retrying {
    /// Wraps an engine.
    pub fn new(engine: Arc<dyn ObjectStore>, policy: RetryPolicy) -> Self {
        Self {
            inner: Arc::new(Inner { engine, policy }),
        }
    }

    /// Whether what stands under `key` is `body`.
    async fn holds(&self, key: &ObjectKey, body: &Bytes) -> Result<bool, StoreError> {
        let found = match self.get(key, None).await {
            Err(error) if error.is_not_found() => return Ok(false),
            other => other?,
        };
        if u64::try_from(body.len()).ok() != Some(found.meta.size) {
            return Ok(false);
        }
        let bytes: BytesMut = found.chunks.try_collect().await?;
        Ok(bytes == *body)
    }
}

impl Inner {
    /// Asks until there is an answer that a repeat would not change, or the limit is reached.
    async fn ask<T, F>(
        &self,
        asked: Asked<'_>,
        mut attempt: impl FnMut() -> F + Send,
    ) -> Answered<T>
    where
        T: Send,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let timeout = self.policy.timeout_of(asked.bytes);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let value = match tokio::time::timeout(timeout, attempt()).await {
                Ok(value) => value,
                Err(_) => Err(self.timed_out(&asked)),
            };
            let is_repeated = attempts > 1;
            let error = match value {
                Err(error) if error.is_retryable() && attempts < self.policy.attempts_max => error,
                value => return Answered { value, is_repeated },
            };
            self.pause(attempts, &error).await;
        }
    }

    async fn pause(&self, attempts: u32, error: &StoreError) {
        let wait = self.policy.backoff(attempts, error.kind);
        let reason = crate::fault::chain(error);
        // The first repeat is everyday life on a network.
        if attempts == 1 {
            debug!(attempts, wait_ms = wait.as_millis(), %reason, "asking the store again");
        } else {
            warn!(attempts, wait_ms = wait.as_millis(), %reason, "asking the store again");
        }
        tokio::time::sleep(wait).await;
    }

    fn timed_out(&self, asked: &Asked<'_>) -> StoreError {
        StoreError {
            operation: asked.operation,
            subject: format!("{}/{}", self.engine.location(), asked.name),
            kind: StoreErrorKind::Timeout,
            source: None,
        }
    }

    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<ObjectBody, StoreError> {
        let asked = Asked {
            operation: "get",
            name: key.as_str(),
            bytes: 0,
        };
        self.ask(asked, || self.engine.get(key, range.clone()))
            .await
            .value
    }
}

#[async_trait]
impl ObjectStore for Retrying {
    fn location(&self) -> &str {
        self.inner.engine.location()
    }

    fn learnt(&self) -> Learnt {
        self.inner.engine.learnt()
    }

    fn recall(&self, learnt: Learnt) {
        self.inner.engine.recall(learnt);
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        options: &PutOptions,
    ) -> Result<(), StoreError> {
        let asked = Asked {
            operation: "put",
            name: key.as_str(),
            bytes: body.len(),
        };
        let engine = &self.inner.engine;
        let answered = self
            .inner
            .ask(asked, || engine.put(key, body.clone(), options))
            .await;
        match answered.value {
            // What is there may be our own, put by an attempt whose answer was lost.
            Err(error)
                if error.kind == StoreErrorKind::Exists
                    && answered.is_repeated
                    && self.holds(key, &body).await? =>
            {
                Ok(())
            }
            value => value,
        }
    }

    async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<ObjectBody, StoreError> {
        let begun = self.inner.get(key, range.clone()).await?;
        let meta = begun.meta.clone();
        let body = Body::new(Arc::clone(&self.inner), begun, range);
        Ok(ObjectBody {
            meta,
            chunks: stream::try_unfold(body, Body::next).boxed(),
        })
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let asked = Asked {
            operation: "head",
            name: key.as_str(),
            bytes: 0,
        };
        let engine = &self.inner.engine;
        self.inner.ask(asked, || engine.head(key)).await.value
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        let asked = Asked {
            operation: "delete",
            name: keys.first().map_or("", ObjectKey::as_str),
            // A second for each thousand keys, and more where they go one by one.
            bytes: keys.len().saturating_mul(4096),
        };
        let engine = &self.inner.engine;
        self.inner.ask(asked, || engine.delete(keys)).await.value
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        let asked = Asked {
            operation: "list",
            name: &request.prefix,
            bytes: 0,
        };
        let engine = &self.inner.engine;
        self.inner.ask(asked, || engine.list(request)).await.value
    }

    /// An attempt whose answer was lost leaves an upload that [`list_uploads`](Self::list_uploads) shows.
    async fn begin_upload(
        &self,
        key: &ObjectKey,
        options: &PutOptions,
    ) -> Result<UploadId, StoreError> {
        let asked = Asked {
            operation: "begin upload of",
            name: key.as_str(),
            bytes: 0,
        };
        let engine = &self.inner.engine;
        self.inner
            .ask(asked, || engine.begin_upload(key, options))
            .await
            .value
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        body: Bytes,
    ) -> Result<PartTag, StoreError> {
        let asked = Asked {
            operation: "put part of",
            name: key.as_str(),
            bytes: body.len(),
        };
        let engine = &self.inner.engine;
        self.inner
            .ask(asked, || engine.put_part(key, upload, number, body.clone()))
            .await
            .value
    }

    async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartTag],
        options: &PutOptions,
    ) -> Result<(), StoreError> {
        let asked = Asked {
            operation: "complete upload of",
            name: key.as_str(),
            // Stores put the parts together before they answer.
            bytes: parts.len().saturating_mul(64 * 1024),
        };
        let engine = &self.inner.engine;
        let answered = self
            .inner
            .ask(asked, || {
                engine.complete_upload(key, upload, parts, options)
            })
            .await;
        match answered.value {
            // An upload that is gone after an unheard answer was completed by it, or aborted by
            // somebody: whether what is there is its object, only the caller can tell.
            Err(error) if error.is_no_upload() && answered.is_repeated => {
                match self.head(key).await {
                    Ok(_) => Err(StoreError {
                        kind: StoreErrorKind::Exists,
                        ..error
                    }),
                    Err(absent) if absent.is_not_found() => Err(error),
                    Err(other) => Err(other),
                }
            }
            value => value,
        }
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        let asked = Asked {
            operation: "abort upload of",
            name: key.as_str(),
            bytes: 0,
        };
        let engine = &self.inner.engine;
        self.inner
            .ask(asked, || engine.abort_upload(key, upload))
            .await
            .value
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId)>, StoreError> {
        let asked = Asked {
            operation: "list uploads of",
            name: prefix,
            bytes: 0,
        };
        let engine = &self.inner.engine;
        self.inner
            .ask(asked, || engine.list_uploads(prefix))
            .await
            .value
    }

    async fn check_container(&self) -> Result<(), StoreError> {
        let asked = Asked {
            operation: "check",
            name: "",
            bytes: 0,
        };
        let engine = &self.inner.engine;
        self.inner
            .ask(asked, || engine.check_container())
            .await
            .value
    }

    async fn create_container(&self) -> Result<(), StoreError> {
        let asked = Asked {
            operation: "create",
            name: "",
            bytes: 0,
        };
        let engine = &self.inner.engine;
        self.inner
            .ask(asked, || engine.create_container())
            .await
            .value
    }
}

#[cfg(test)]
mod tests;
