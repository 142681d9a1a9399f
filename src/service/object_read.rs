//! One object's bytes as a plain `Read` on a blocking thread, while a task fetches them.
//!
//! Not here: ranged requests at once (`store::download`), and what the bytes are.

use std::cell::Cell;
use std::io::{self, Read};

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task;

use crate::store::ObjectBody;
use crate::store::error::StoreError;

/// How many chunks of a body wait to be read.
const CHUNKS_AHEAD: usize = 4;

/// How reading an object fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The store failed while the body was on its way.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The work on the bytes failed.
    #[error(transparent)]
    Work(#[from] io::Error),
}

enum Piece {
    Chunk(Bytes),
    End,
}

/// Gives the body of an object to `work` on a blocking thread, and what comes of it back.
///
/// `work` may stop before the end. When the future is dropped, the next read of `work` fails,
/// so that it never takes a cut body for a short one.
pub(crate) async fn read<T: Send + 'static>(
    mut body: ObjectBody,
    work: impl FnOnce(&mut BodyReader) -> io::Result<T> + Send + 'static,
) -> Result<T, ReadError> {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let worker = task::spawn_blocking(move || {
        let mut reader = BodyReader {
            receiver,
            chunk: Bytes::new(),
            is_at_end: false,
        };
        work(&mut reader)
    });
    let failure = loop {
        let piece = match body.chunks.next().await {
            Some(Ok(chunk)) => Piece::Chunk(chunk),
            Some(Err(error)) => break Some(error),
            None => Piece::End,
        };
        let is_end = matches!(piece, Piece::End);
        if sender.send(piece).await.is_err() || is_end {
            break None;
        }
    };
    drop(sender);
    let outcome = worker.await.map_err(io::Error::other)?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(outcome?),
    }
}

/// The body of an object. Reading it blocks.
pub(crate) struct BodyReader {
    receiver: mpsc::Receiver<Piece>,
    chunk: Bytes,
    is_at_end: bool,
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !self.is_at_end {
            match self.receiver.blocking_recv() {
                Some(Piece::Chunk(chunk)) => self.chunk = chunk,
                Some(Piece::End) => self.is_at_end = true,
                None => return Err(io::Error::other("the object broke off")),
            }
        }
        let count = self.chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

/// A reader that remembers whether its end was met.
pub(crate) struct Watched<R> {
    /// Where the bytes come from.
    pub(crate) inner: R,
    /// Whether nothing more is to come.
    pub(crate) is_at_end: Cell<bool>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.is_at_end.set(true);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::store::error::StoreErrorKind;
    use crate::store::{ObjectKey, ObjectMeta};

    fn body(chunks: Vec<Result<Bytes, StoreError>>) -> ObjectBody {
        ObjectBody {
            meta: ObjectMeta {
                key: ObjectKey::new("k"),
                size: 6,
                etag: None,
                modified: clock::now(),
            },
            chunks: futures::stream::iter(chunks).boxed(),
        }
    }

    fn broken() -> StoreError {
        StoreError {
            operation: "get",
            subject: "k".to_owned(),
            kind: StoreErrorKind::Unreachable,
            source: None,
        }
    }

    async fn text(chunks: Vec<Result<Bytes, StoreError>>) -> Result<String, ReadError> {
        read(body(chunks), |reader| {
            let mut text = String::new();
            reader.read_to_string(&mut text)?;
            Ok(text)
        })
        .await
    }

    #[tokio::test]
    async fn a_body_is_read_to_its_end() {
        let chunks = vec![
            Ok(Bytes::from("abc")),
            Ok(Bytes::new()),
            Ok(Bytes::from("def")),
        ];
        assert_eq!(text(chunks).await.unwrap(), "abcdef");
        assert_eq!(text(Vec::new()).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_failure_on_the_way_is_the_stores_and_never_a_short_body() {
        let outcome = text(vec![Ok(Bytes::from("abc")), Err(broken())]).await;
        assert!(matches!(outcome, Err(ReadError::Store(_))));
    }

    #[tokio::test]
    async fn work_may_stop_early() {
        let chunks = (0..100).map(|_| Ok(Bytes::from("abc"))).collect();
        let first = read(body(chunks), |reader| {
            let mut first = [0; 2];
            reader.read_exact(&mut first)?;
            Ok(first)
        })
        .await;
        assert_eq!(first.unwrap(), *b"ab");
    }
}
