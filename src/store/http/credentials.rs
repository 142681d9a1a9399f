//! Our client as the one through which `object_store` asks for credentials.
//!
//! Tokens alone travel this way: few bytes, both ways whole in memory.

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient as CredentialClient, HttpConnector, HttpError as CredentialError, HttpErrorKind,
    HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};

use super::{HttpClient, HttpError};
use crate::store::error::StoreErrorKind;

/// More than any token is long.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Hands our client to `object_store`, whose own options for clients are not looked at.
#[derive(Debug, Clone)]
pub(in crate::store) struct CredentialConnector(pub(in crate::store) HttpClient);

impl HttpConnector for CredentialConnector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<CredentialClient> {
        Ok(CredentialClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for CredentialConnector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, CredentialError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let answer = self.0.send(http::Request::from_parts(head, body)).await;
        let (head, body) = answer.map_err(translated)?.into_parts();
        let body = body.collect(ANSWER_BYTES_MAX).await.map_err(translated)?;
        if !head.status.is_success() {
            // Said here, where the kind of failure is known, and found again by its type.
            return Err(translated(HttpError::refused(head.status, &body)));
        }
        let body = Full::<Bytes>::new(body).map_err(|never| match never {});
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}

fn translated(error: HttpError) -> CredentialError {
    let kind = match error.kind {
        StoreErrorKind::Timeout => HttpErrorKind::Timeout,
        StoreErrorKind::Unreachable => HttpErrorKind::Connect,
        StoreErrorKind::Corrupt => HttpErrorKind::Decode,
        _ => HttpErrorKind::Unknown,
    };
    CredentialError::new(kind, error)
}
