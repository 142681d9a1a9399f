//! A call that panics ends as INTERNAL, and the process lives.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::logging;

/// Wraps services so that their panics become answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct CatchPanics;

impl<S> Layer<S> for CatchPanics {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner }
    }
}

/// A service whose panics become answers.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    inner: S,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().to_owned();
        // What a call leaves half-done is its own: nothing of it is used by a later one.
        let call = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(async move {
            call.await.unwrap_or_else(|payload| {
                let words = logging::words_of(&*payload);
                let text = format!(
                    "{method} failed in a way that should not happen ({words}). Please report it \
                     with the sidecar's log."
                );
                Ok(Status::new(Code::Internal, text).into_http())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;
    use tower::service_fn;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let service = service_fn(|_: http::Request<Body>| async {
            let nothing: Option<http::Response<Body>> = Vec::new().pop();
            Ok(nothing.expect("something is there"))
        });
        let request = http::Request::new(Body::default());
        let answer = CatchPanics.layer(service).oneshot(request).await.unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().contains("something is there"), "{status}");
    }
}
