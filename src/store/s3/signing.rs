//! What a request with a body says of it: its digest in the signature, and an MD5 where it is wanted.
//!
//! Over TLS the signature says nothing: nobody can change the body there, and hashing it would be
//! most of the work of sending it. Over plain HTTP it is its SHA-256, unless the caller knows it. A
//! service that locks objects as they come (Object Lock with a default retention) refuses a body
//! without Content-MD5: then it gets one, and so does each further body of this process. Digests
//! are computed on a thread that may block. Not here: the signature itself, which the SDK makes.

use std::sync::atomic::Ordering;

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{S3Store, fault, wire};

/// A smaller body is hashed faster than handed to another thread.
const HASHED_AT_ONCE_MAX: usize = 64 << 10;

/// Tells the SDK what to say of the body of one request.
#[derive(Debug)]
pub(super) struct BodySignature {
    payload: PayloadSigningOverride,
    md5: Option<String>,
}

impl S3Store {
    /// Sends a request with `body`, whose SHA-256 the caller may know; once more with its MD5 where
    /// the service turns out to want that.
    pub(super) async fn send_body<T, E, F>(
        &self,
        body: &Bytes,
        known: Option<&String>,
        send: impl Fn(BodySignature) -> F,
    ) -> Result<T, SdkError<E, HttpResponse>>
    where
        E: ProvideErrorMetadata,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let signature = self.signature(body, known).await;
        let had_md5 = signature.md5.is_some();
        match send(signature).await {
            Err(error) if !had_md5 && fault::is_md5_wanted(&error) => {
                self.wants_md5.store(true, Ordering::Relaxed);
                send(self.signature(body, known).await).await
            }
            outcome => outcome,
        }
    }

    /// For a request with `body`, whose SHA-256 the caller may know.
    pub(super) async fn signature(&self, body: &Bytes, known: Option<&String>) -> BodySignature {
        let payload = match known {
            _ if !self.is_plain_http => PayloadSigningOverride::UnsignedPayload,
            Some(known) => PayloadSigningOverride::Precomputed(known.clone()),
            None => PayloadSigningOverride::Precomputed(digest(body, sha256_of).await),
        };
        let md5 = if self.wants_md5.load(Ordering::Relaxed) {
            Some(digest(body, wire::md5_of).await)
        } else {
            None
        };
        BodySignature { payload, md5 }
    }
}

/// A digest of the body, taken where it holds nobody up.
async fn digest(body: &Bytes, of: fn(&[u8]) -> String) -> String {
    if body.len() > HASHED_AT_ONCE_MAX {
        let theirs = body.clone();
        if let Ok(digest) = tokio::task::spawn_blocking(move || of(&theirs)).await {
            return digest;
        }
    }
    of(body)
}

fn sha256_of(body: &[u8]) -> String {
    format!("{:x}", Sha256::digest(body))
}

impl Intercept for BodySignature {
    fn name(&self) -> &'static str {
        "BodySignature"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        settings.interceptor_state().store_put(self.payload.clone());
        if let Some(md5) = &self.md5 {
            let headers = context.request_mut().headers_mut();
            headers.insert("content-md5", md5.clone());
        }
        Ok(())
    }
}
