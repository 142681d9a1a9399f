//! What a failed request means: the service's codes, and failures before it could answer.

use std::error::Error;
use std::sync::Arc;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::http::{explained_trust, innermost, is_trust_failure};
use crate::store::request::{self, PROXY_ADVICE, Refusal};

/// MinIO's word for a key that it cannot have, so that nothing can stand under it.
const NAME_REFUSED: &str = "XMinioInvalidObjectName";

/// One request, and who was asked with whose credentials.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// The request.
    pub(super) plain: request::Request,
    /// Where the host's credentials are looked for, when they are the host's to give.
    pub(super) chain: Option<Arc<str>>,
    /// Who was asked, where that is not the provider's own address.
    pub(super) endpoint: Option<String>,
}

/// What the service said.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
struct Answer {
    status: u16,
    code: Option<String>,
    message: Option<String>,
    request_id: Option<String>,
    region: Option<String>,
}

impl Answer {
    fn text(&self) -> String {
        let advice = self.advice();
        let refusal = Refusal {
            status: self.status,
            code: self.code.as_deref(),
            message: self.message.as_deref(),
            advice: advice.as_deref(),
            request_id: self.request_id.as_deref(),
        };
        refusal.to_string()
    }

    /// What the code means to a person, where the service is terse.
    fn advice(&self) -> Option<String> {
        if self.status == 407 {
            return Some(PROXY_ADVICE.to_owned());
        }
        let advice = match self.code.as_deref()? {
            "InvalidAccessKeyId" => "the access key id is not known to the service",
            "SignatureDoesNotMatch" => "the secret access key does not fit the access key id",
            "ExpiredToken" | "ExpiredTokenException" => "the session token has expired",
            "InvalidToken" | "TokenRefreshRequired" => "the session token is not valid",
            "RequestTimeTooSkewed" => "the request was signed at another time than the service has",
            "AccessDenied" => "the credentials are known but may not do this",
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "TemporaryRedirect"
            | "IllegalLocationConstraintException" => {
                return Some(match &self.region {
                    Some(region) => format!("the bucket is in the region {region}"),
                    None => "the bucket is in another region".to_owned(),
                });
            }
            "NoSuchUpload" => "it was aborted meanwhile, or completed by another process",
            "InvalidObjectState" => "the object is in an archive class and must be thawed first",
            NAME_REFUSED => "this service has no such keys: not with doubled slashes, for one",
            _ => return None,
        };
        Some(advice.to_owned())
    }

    /// What it means that this operation was answered so.
    fn kind_of(&self, operation: &str) -> StoreErrorKind {
        let is_name_refused = self.code.as_deref() == Some(NAME_REFUSED);
        match operation {
            "get" | "head" | "delete" | "list" if is_name_refused => StoreErrorKind::NotFound,
            // Where nothing is, a listing is empty: services that say this have lost their index.
            "list" if self.kind() == StoreErrorKind::NotFound => StoreErrorKind::Unreachable,
            _ => self.kind(),
        }
    }

    fn kind(&self) -> StoreErrorKind {
        let code = self.code.as_deref().unwrap_or_default();
        match (code, self.status) {
            ("NoSuchKey", _) => StoreErrorKind::NotFound,
            ("NoSuchUpload", _) => StoreErrorKind::NoUpload,
            ("XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "QuotaExceeded", _)
            | (_, 507) => StoreErrorKind::Full,
            ("NoSuchBucket", _) => StoreErrorKind::NoContainer,
            // Another request for the key was under way: asked again, it says who won.
            ("ConditionalRequestConflict" | "OperationAborted", _) => StoreErrorKind::Throttled,
            ("PreconditionFailed", _) | (_, 412) => StoreErrorKind::Exists,
            ("InvalidRange", _) | (_, 416) => StoreErrorKind::Range,
            ("SlowDown" | "TooManyRequests" | "ThrottlingException" | "Throttling", _)
            | (_, 429 | 503) => StoreErrorKind::Throttled,
            (
                "RequestTimeout" | "BadDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody",
                _,
            ) => StoreErrorKind::Unreachable,
            (
                "PermanentRedirect"
                | "TemporaryRedirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException"
                | "InvalidBucketName"
                | "InvalidStorageClass",
                _,
            )
            | (_, 301 | 307 | 407) => StoreErrorKind::Config,
            (
                "InvalidObjectState" | "NotImplemented" | "XNotImplemented" | "MethodNotAllowed"
                | NAME_REFUSED,
                _,
            )
            | (_, 405 | 501) => StoreErrorKind::Unsupported,
            (_, 408) => StoreErrorKind::Timeout,
            ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired", _) => {
                StoreErrorKind::Expired
            }
            ("RequestTimeTooSkewed" | "RequestExpired", _) => StoreErrorKind::ClockSkewed,
            ("InvalidToken", _) | (_, 401 | 403) => StoreErrorKind::Denied,
            ("InvalidTag", _) => StoreErrorKind::Config,
            (code, 400..=499) if code.starts_with("KMS.") => StoreErrorKind::Config,
            // A 404 without S3's own reason comes from something in between: nothing is known of
            // the key. A failure under a status of success is one of the service inside.
            (_, 200..=299 | 404 | 500..) => StoreErrorKind::Unreachable,
            _ => StoreErrorKind::Other,
        }
    }
}

impl Request {
    /// See [`request::Request::failed`].
    pub(super) fn failed(&self, kind: StoreErrorKind) -> StoreError {
        self.plain.failed(kind)
    }

    /// See [`request::Request::explained`].
    pub(super) fn explained(&self, kind: StoreErrorKind, text: impl Into<String>) -> StoreError {
        self.plain.explained(kind, text)
    }

    fn answered(&self, answer: Answer) -> StoreError {
        let kind = answer.kind_of(self.plain.operation);
        self.plain.caused(kind, answer)
    }

    /// What the SDK's error means.
    pub(super) fn meaning<E>(&self, error: SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        match error {
            SdkError::ServiceError(service) => {
                self.answered(answer_of(service.err(), service.raw()))
            }
            SdkError::TimeoutError(_) => match &self.endpoint {
                Some(endpoint) => self.explained(StoreErrorKind::Timeout, endpoint),
                None => self.failed(StoreErrorKind::Timeout),
            },
            SdkError::ResponseError(_) => self.explained(
                StoreErrorKind::Unreachable,
                format!("the answer cannot be read: {}", innermost(&error)),
            ),
            SdkError::DispatchFailure(failure) => {
                let connector = failure.as_connector_error();
                let text = connector.map_or_else(String::new, |error| innermost(error));
                let text = explained_trust(text);
                let kind = if failure.is_timeout() {
                    StoreErrorKind::Timeout
                } else if is_trust_failure(&text) {
                    StoreErrorKind::Config
                } else if failure.is_io() || failure.as_other().is_some() {
                    // The second is a connection that ended before the answer: a kept one that
                    // the service closes at the moment it is used again ends so.
                    StoreErrorKind::Unreachable
                } else {
                    self.kind_before_sending(failure.is_other())
                };
                let text = match (&self.chain, &self.endpoint) {
                    (Some(chain), _) if kind == StoreErrorKind::Denied => {
                        format!("no credentials from {chain}: {text}")
                    }
                    (_, Some(endpoint)) => format!("{endpoint}: {text}"),
                    (_, None) => text,
                };
                self.explained(kind, text)
            }
            other => self.explained(StoreErrorKind::Config, innermost(&other)),
        }
    }

    /// Before anything was sent: no credentials found, or an endpoint that makes no sense.
    fn kind_before_sending(&self, is_other: bool) -> StoreErrorKind {
        match (self.chain.is_some(), is_other) {
            (true, true) => StoreErrorKind::Denied,
            (false, true) => StoreErrorKind::Config,
            (_, false) => StoreErrorKind::Unreachable,
        }
    }
}

fn answer_of<E: ProvideErrorMetadata>(error: &E, raw: &HttpResponse) -> Answer {
    Answer {
        status: raw.status().as_u16(),
        code: error.code().map(str::to_owned),
        message: error.message().map(str::to_owned),
        request_id: error.meta().request_id().map(str::to_owned),
        region: raw.headers().get("x-amz-bucket-region").map(str::to_owned),
    }
}

/// Whether the service refused a body for want of a Content-MD5: where objects are locked as they
/// come, Amazon's takes none without.
pub(super) fn is_md5_wanted<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let SdkError::ServiceError(service) = error else {
        return false;
    };
    let said = service.err();
    let message = said.message().unwrap_or_default().to_ascii_lowercase();
    matches!(said.code(), Some("InvalidRequest" | "MissingContentMD5"))
        && message.contains("content-md5")
}

/// Whether the service answered with that status.
pub(super) fn is_status<E>(error: &SdkError<E, HttpResponse>, status: u16) -> bool {
    error
        .raw_response()
        .is_some_and(|raw| raw.status().as_u16() == status)
}

/// What a code inside an answer (of a bulk delete) means.
pub(super) fn meaning_of_code(
    request: &Request,
    code: Option<&str>,
    message: Option<&str>,
) -> StoreError {
    request.answered(Answer {
        status: if code == Some("AccessDenied") {
            403
        } else {
            500
        },
        code: code.map(str::to_owned),
        message: message.map(str::to_owned),
        request_id: None,
        region: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str) -> Answer {
        Answer {
            status,
            code: (!code.is_empty()).then(|| code.to_owned()),
            message: Some("Words.".to_owned()),
            request_id: Some("17".to_owned()),
            region: None,
        }
    }

    #[test]
    fn each_answer_has_its_kind() {
        for (status, code, kind) in [
            (404, "NoSuchKey", StoreErrorKind::NotFound),
            (404, "NoSuchBucket", StoreErrorKind::NoContainer),
            (404, "NoSuchUpload", StoreErrorKind::NoUpload),
            (507, "XMinioStorageFull", StoreErrorKind::Full),
            (507, "", StoreErrorKind::Full),
            (400, "XMinioAdminBucketQuotaExceeded", StoreErrorKind::Full),
            (403, "QuotaExceeded", StoreErrorKind::Full),
            (404, "", StoreErrorKind::Unreachable),
            (404, "NotFound", StoreErrorKind::Unreachable),
            (412, "", StoreErrorKind::Exists),
            (409, "ConditionalRequestConflict", StoreErrorKind::Throttled),
            (416, "InvalidRange", StoreErrorKind::Range),
            (503, "SlowDown", StoreErrorKind::Throttled),
            (503, "", StoreErrorKind::Throttled),
            (429, "", StoreErrorKind::Throttled),
            (500, "InternalError", StoreErrorKind::Unreachable),
            (502, "", StoreErrorKind::Unreachable),
            (400, "RequestTimeout", StoreErrorKind::Unreachable),
            (400, "ExpiredToken", StoreErrorKind::Expired),
            (408, "", StoreErrorKind::Timeout),
            (403, "RequestTimeTooSkewed", StoreErrorKind::ClockSkewed),
            (403, "", StoreErrorKind::Denied),
            (401, "", StoreErrorKind::Denied),
            (301, "PermanentRedirect", StoreErrorKind::Config),
            (400, "AuthorizationHeaderMalformed", StoreErrorKind::Config),
            (407, "", StoreErrorKind::Config),
            (501, "NotImplemented", StoreErrorKind::Unsupported),
            (405, "", StoreErrorKind::Unsupported),
            (200, "InternalError", StoreErrorKind::Unreachable),
            (200, "SlowDown", StoreErrorKind::Throttled),
            (400, "KMS.NotFoundException", StoreErrorKind::Config),
            (400, "InvalidTag", StoreErrorKind::Config),
            (400, "EntityTooLarge", StoreErrorKind::Other),
        ] {
            assert_eq!(answer(status, code).kind(), kind, "{status} {code}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_is_absent_to_readers_and_refused_to_writers() {
        let refusal = answer(400, NAME_REFUSED);
        assert_eq!(refusal.kind_of("get"), StoreErrorKind::NotFound);
        assert_eq!(refusal.kind_of("put"), StoreErrorKind::Unsupported);
    }

    #[test]
    fn a_listing_that_fails_is_never_an_empty_one() {
        for (code, operation, kind) in [
            ("NoSuchKey", "list", StoreErrorKind::Unreachable),
            ("NoSuchKey", "get", StoreErrorKind::NotFound),
            (NAME_REFUSED, "list", StoreErrorKind::NotFound),
        ] {
            assert_eq!(answer(404, code).kind_of(operation), kind, "{code}");
        }
    }

    #[test]
    fn a_proxy_that_wants_a_password_says_so() {
        let text = answer(407, "").to_string();
        assert!(text.contains("the proxy wants"), "{text}");
    }

    #[test]
    fn a_refusal_says_which_one_it_is() {
        for (code, words) in [
            ("InvalidAccessKeyId", "not known"),
            ("SignatureDoesNotMatch", "secret access key"),
            ("ExpiredToken", "expired"),
            ("RequestTimeTooSkewed", "another time"),
            ("AccessDenied", "may not do this"),
            ("PermanentRedirect", "another region"),
        ] {
            let text = answer(403, code).to_string();
            assert!(
                text.contains(words) && text.ends_with("request 17"),
                "{text}"
            );
        }
    }
}
