//! `/healthz` and `/readyz` over plain HTTP, for the kubelet.
//!
//! Just so much HTTP as a probe needs. Not here: the health service of gRPC.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A probe that has not asked and read by then is left.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// More bytes before the end of a request line are no probe.
const REQUEST_BYTES_MAX: usize = 2048;

/// So many probes at once; the next one waits.
const PROBES_MAX: usize = 16;

/// Why the process is not ready; `None` when it is.
pub type NotReady = dyn Fn() -> Option<&'static str> + Send + Sync;

/// Answers probes until `cancel`.
pub async fn serve(listener: TcpListener, not_ready: Arc<NotReady>, cancel: CancellationToken) {
    let mut probes = JoinSet::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            Some(_) = probes.join_next(), if !probes.is_empty() => {}
            accepted = listener.accept(), if probes.len() < PROBES_MAX => {
                if let Ok((stream, _)) = accepted {
                    let not_ready = Arc::clone(&not_ready);
                    probes.spawn(async move {
                        let answer = answer(stream, &*not_ready);
                        // A probe that goes away asks again.
                        let _ = tokio::time::timeout(PROBE_TIMEOUT, answer).await;
                    });
                }
            }
        }
    }
    probes.shutdown().await;
}

async fn answer(mut stream: TcpStream, not_ready: &NotReady) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(2).any(|bytes| bytes == b"\r\n") {
        if request.len() > REQUEST_BYTES_MAX || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let request = String::from_utf8_lossy(&request);
    let mut words = request.split([' ', '?']);
    let (status, text) = match (words.next(), words.next()) {
        (Some("GET" | "HEAD"), Some("/healthz")) => ("200 OK", "ok"),
        (Some("GET" | "HEAD"), Some("/readyz")) => match not_ready() {
            None => ("200 OK", "ok"),
            Some(reason) => ("503 Service Unavailable", reason),
        },
        _ => ("404 Not Found", "not found"),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
