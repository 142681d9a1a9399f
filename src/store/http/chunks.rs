//! The body of a request in several pieces, sent without putting them together.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Pieces in their order. Their length is known, so that they go out with a `Content-Length`.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Chunks(VecDeque<Bytes>);

impl From<Vec<Bytes>> for Chunks {
    fn from(chunks: Vec<Bytes>) -> Self {
        let is_something = |chunk: &Bytes| !chunk.is_empty();
        Self(chunks.into_iter().filter(is_something).collect())
    }
}

impl From<Bytes> for Chunks {
    fn from(bytes: Bytes) -> Self {
        Self::from(vec![bytes])
    }
}

impl From<String> for Chunks {
    fn from(text: String) -> Self {
        Self::from(Bytes::from(text))
    }
}

impl From<Chunks> for SdkBody {
    fn from(mut chunks: Chunks) -> Self {
        match (chunks.0.pop_front(), chunks.0.is_empty()) {
            (None, _) => SdkBody::empty(),
            (Some(one), true) => SdkBody::from(one),
            (Some(first), false) => {
                chunks.0.push_front(first);
                SdkBody::from_body_1_x(chunks)
            }
        }
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let size: usize = self.0.iter().map(Bytes::len).sum();
        SizeHint::with_exact(u64::try_from(size).unwrap_or(u64::MAX))
    }
}
