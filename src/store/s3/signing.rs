//! What the signature of a put says of its body.
//!
//! Over TLS nothing: nobody can change the body there, and hashing it would be most of the work
//! of sending it. Over plain HTTP its SHA-256, computed on a thread that may block, unless the
//! caller knows it. Not here: the signature itself, which the SDK makes.

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::S3Store;

/// A smaller body is hashed faster than handed to another thread.
const HASHED_AT_ONCE_MAX: usize = 64 << 10;

/// Tells the SDK what to sign for the body of one request.
#[derive(Debug)]
pub(super) struct BodySignature(PayloadSigningOverride);

impl S3Store {
    /// For a put of `body`, whose digest the caller may know.
    pub(super) async fn signature(&self, body: &Bytes, known: Option<&String>) -> BodySignature {
        let sha256 = match known {
            _ if !self.is_plain_http => {
                return BodySignature(PayloadSigningOverride::UnsignedPayload);
            }
            Some(known) => Some(known.clone()),
            None if body.len() <= HASHED_AT_ONCE_MAX => None,
            None => {
                let body = body.clone();
                tokio::task::spawn_blocking(move || sha256_of(&body))
                    .await
                    .ok()
            }
        };
        let sha256 = sha256.unwrap_or_else(|| sha256_of(body));
        BodySignature(PayloadSigningOverride::Precomputed(sha256))
    }
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
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        settings.interceptor_state().store_put(self.0.clone());
        Ok(())
    }
}
