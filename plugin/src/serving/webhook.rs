//! The admission webhook over HTTPS, for the Kubernetes API server.
//!
//! One request for each connection: reviews are rare, and what is not open cannot be held open.
//! Nobody is asked who he is, for API servers are not usually set up to say it; who else gets to the
//! port is for network policies to tell. Not here: the answers (`admission`).

use std::convert::Infallible;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::grpc::tls::{self, Connection, Source};
use crate::logging;

/// Where reviews are posted.
pub const PATH: &str = "/mutate-recovery-target";

/// Kubernetes itself takes no object over 3 MiB.
const BODY_BYTES_MAX: usize = 3 << 20;

/// A request whose head, or whose body, has not come by then is left.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What the API server waits for an answer where it does not say; its longest is 30 s.
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_MAX: Duration = Duration::from_secs(30);

/// So many connections at once; the next one waits.
const CONNECTIONS_MAX: usize = 32;

/// Answers reviews until `cancel`.
pub async fn serve(
    listener: TcpListener,
    source: Source,
    admission: Arc<Admission>,
    cancel: CancellationToken,
) {
    let (sender, mut incoming) = mpsc::channel::<io::Result<Connection>>(1);
    let configure = tls::config_for_anybody;
    let accepting = tls::accept(listener, source, configure, sender, cancel.clone());
    let mut accepting = std::pin::pin!(accepting);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut accepting => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            Some(connection) = incoming.recv(), if connections.len() < CONNECTIONS_MAX => {
                if let Ok(connection) = connection {
                    connections.spawn(answer_one(connection, Arc::clone(&admission)));
                }
            }
        }
    }
    connections.shutdown().await;
}

async fn answer_one(connection: Connection, admission: Arc<Admission>) {
    let service = service_fn(move |request| {
        let admission = Arc::clone(&admission);
        async move { Ok::<_, Infallible>(guarded(request, &admission).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(connection), service);
    // Reading, the answer, and a peer that takes it slowly.
    let limit = READ_TIMEOUT * 3 + PATIENCE_MAX;
    match tokio::time::timeout(limit, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the webhook broke off"),
        Err(_elapsed) => tracing::debug!("a connection to the webhook took too long"),
    }
}

/// A panic becomes an answer.
async fn guarded(request: Request<Incoming>, admission: &Admission) -> Response<Full<Bytes>> {
    // What a review leaves half-done is its own: nothing of it is used by a later one.
    let answering = AssertUnwindSafe(respond(request, admission)).catch_unwind();
    answering.await.unwrap_or_else(|payload| {
        let words = logging::words_of(&*payload);
        let text = format!("The review failed in a way that should not happen ({words}).");
        sentence(StatusCode::INTERNAL_SERVER_ERROR, text)
    })
}

async fn respond(request: Request<Incoming>, admission: &Admission) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        let text = format!("Reviews are answered at {PATH}.");
        return sentence(StatusCode::NOT_FOUND, text);
    }
    if request.method() != Method::POST {
        let text = "Reviews are posted.".to_owned();
        return sentence(StatusCode::METHOD_NOT_ALLOWED, text);
    }
    let patience = patience(request.uri().query().unwrap_or_default());
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let body = match tokio::time::timeout(READ_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let text = format!("A review has at most {BODY_BYTES_MAX} bytes.");
            return sentence(StatusCode::PAYLOAD_TOO_LARGE, text);
        }
        Ok(Err(error)) => {
            let text = format!("The body cannot be read: {error}.");
            return sentence(StatusCode::BAD_REQUEST, text);
        }
        Err(_elapsed) => {
            let text = "The body did not come in time.".to_owned();
            return sentence(StatusCode::REQUEST_TIMEOUT, text);
        }
    };
    match admission.answer(&body, patience).await {
        Ok(answer) => {
            let mut response = Response::new(Full::from(answer.to_string()));
            let json = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(error) => {
            let text = cellarman::fault::chain(&error);
            sentence(StatusCode::BAD_REQUEST, format!("{text}."))
        }
    }
}

/// How long the archive may take: what the API server waits, less a part for the way there and
/// back. It says so in whole seconds, `timeout=10s`.
fn patience(query: &str) -> Duration {
    let given = query.split('&').find_map(|part| {
        let seconds = part.strip_prefix("timeout=")?.strip_suffix('s')?;
        seconds.parse().ok().map(Duration::from_secs)
    });
    given.unwrap_or(PATIENCE).min(PATIENCE_MAX) * 4 / 5
}

fn sentence(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_time_is_left_for_the_way_back() {
        for (query, seconds) in [
            ("", 8),
            ("timeout=10s", 8),
            ("a=b&timeout=5s", 4),
            ("timeout=1m0s", 8),
            ("timeout=x", 8),
            ("timeout=86400s", 24),
        ] {
            assert_eq!(patience(query), Duration::from_secs(seconds), "{query}");
        }
    }
}
