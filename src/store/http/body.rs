//! The body of an answer: streamed for objects, collected for everything else.

use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body_util::BodyExt;

use super::error::HttpError;

/// Bytes still to come.
#[derive(Debug)]
pub(in crate::store) struct ResponseBody(SdkBody);

impl ResponseBody {
    pub(super) fn new(body: SdkBody) -> Self {
        Self(body)
    }

    /// The bytes as they arrive, in order. A body cut short ends in an error.
    pub(in crate::store) fn chunks(self) -> BoxStream<'static, Result<Bytes, HttpError>> {
        let frames = futures::stream::unfold(self.0, |mut body| async {
            let frame = body.frame().await?;
            Some((frame, body))
        });
        frames
            .filter_map(|frame| async {
                match frame {
                    // What is no data are trailers, which say nothing to us.
                    Ok(frame) => frame.into_data().ok().map(Ok),
                    Err(error) => Some(Err(HttpError::of_body(error.as_ref()))),
                }
            })
            .boxed()
    }

    /// The whole body, if it has at most `bytes_max` bytes.
    pub(in crate::store) async fn collect(self, bytes_max: usize) -> Result<Bytes, HttpError> {
        let mut chunks = self.chunks();
        let mut whole = Vec::new();
        while let Some(chunk) = chunks.next().await.transpose()? {
            if whole.len() + chunk.len() > bytes_max {
                return Err(HttpError::too_long(bytes_max));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.into())
    }
}
