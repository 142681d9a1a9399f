//! A body that goes on where it broke off.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::{Asked, Inner};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::{ObjectBody, ObjectMeta};

/// A body that goes on where it broke off, as long as the object is the same.
pub(super) struct Body {
    inner: Arc<Inner>,
    meta: ObjectMeta,
    chunks: BoxStream<'static, Result<Bytes, StoreError>>,
    /// The next byte wanted, and the end.
    next: u64,
    end: u64,
    /// How often it broke off since the last byte came.
    breaks: u32,
}

impl Body {
    /// The body that `begun` begins, of the bytes in `range`.
    pub(super) fn new(inner: Arc<Inner>, begun: ObjectBody, range: Option<Range<u64>>) -> Self {
        let end = range.as_ref().map_or(u64::MAX, |range| range.end);
        Self {
            inner,
            end: end.min(begun.meta.size),
            meta: begun.meta,
            chunks: begun.chunks,
            next: range.map_or(0, |range| range.start),
            breaks: 0,
        }
    }

    pub(super) async fn next(mut self) -> Result<Option<(Bytes, Self)>, StoreError> {
        loop {
            let asked = Asked {
                operation: "get",
                name: self.meta.key.as_str(),
                bytes: 0,
            };
            let timeout = self.inner.policy.timeout;
            let error = match tokio::time::timeout(timeout, self.chunks.next()).await {
                Ok(Some(Ok(chunk))) if chunk.is_empty() => continue,
                Ok(Some(Ok(chunk))) => {
                    self.next += u64::try_from(chunk.len()).unwrap_or(0);
                    self.breaks = 0;
                    return Ok(Some((chunk, self)));
                }
                // Nothing more is wanted, however the connection ends.
                _ if self.next >= self.end => return Ok(None),
                Ok(None) => StoreError {
                    kind: StoreErrorKind::Unreachable,
                    ..self.inner.timed_out(&asked)
                },
                Ok(Some(Err(error))) => error,
                Err(_) => self.inner.timed_out(&asked),
            };
            self.breaks += 1;
            if !error.is_retryable() || self.breaks >= self.inner.policy.attempts_max {
                return Err(error);
            }
            self.inner.pause(self.breaks, &error).await;
            self.go_on().await?;
        }
    }

    /// Asks for the rest of the same object.
    async fn go_on(&mut self) -> Result<(), StoreError> {
        let rest = Some(self.next..self.end);
        let found = match self.inner.get(&self.meta.key, rest).await {
            // Gone or shorter than it was.
            Err(error)
                if matches!(error.kind, StoreErrorKind::NotFound | StoreErrorKind::Range) =>
            {
                return Err(StoreError {
                    kind: StoreErrorKind::Changed,
                    ..error
                });
            }
            other => other?,
        };
        if (found.meta.size, &found.meta.etag) != (self.meta.size, &self.meta.etag) {
            return Err(StoreError {
                operation: "get",
                subject: format!("{}/{}", self.inner.engine.location(), self.meta.key),
                kind: StoreErrorKind::Changed,
                source: None,
            });
        }
        self.chunks = found.chunks;
        Ok(())
    }
}
