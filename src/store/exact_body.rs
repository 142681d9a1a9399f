//! A body that has exactly as many bytes as were asked for, or fails: no engine gives a short read
//! for a whole one.

use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt};

use super::error::{StoreError, StoreErrorKind};
use super::request::Request;

/// The chunks as they arrive. Fewer bytes than `wanted` are a broken connection, more are corrupt.
pub(super) fn exactly(
    wanted: u64,
    request: Request,
    chunks: impl Stream<Item = Result<Bytes, StoreError>> + Send + 'static,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let begin = (chunks.boxed(), wanted, request);
    stream::try_unfold(begin, |(mut chunks, left, request)| async move {
        match chunks.next().await.transpose()? {
            Some(chunk) => {
                let size = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                let left = left.checked_sub(size).ok_or_else(|| {
                    request.explained(StoreErrorKind::Corrupt, "more bytes than announced")
                })?;
                Ok(Some((chunk, (chunks, left, request))))
            }
            None if left == 0 => Ok(None),
            None => Err(request.explained(
                StoreErrorKind::Unreachable,
                format!("the answer broke off {left} bytes before its end"),
            )),
        }
    })
    .boxed()
}
