//! What an answer means: Google's statuses and reason words, and failures before it could answer.

use serde::Deserialize;

use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::request::{PROXY_ADVICE, Refusal, Request};

/// The most of a text that is no JSON to be repeated in an error.
const TEXT_MAX: usize = 200;

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Google's word for it: only answers of the service itself have one.
    reason: Option<String>,
    message: String,
}

/// `{"error": {"message": ..., "errors": [{"reason": ...}]}}`
#[derive(Deserialize)]
struct ErrorDocument {
    error: ErrorResource,
}

#[derive(Deserialize)]
struct ErrorResource {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<ErrorDetail>,
    status: Option<String>,
}

#[derive(Deserialize)]
struct ErrorDetail {
    reason: Option<String>,
}

impl Answer {
    /// What an answer with this status and body says.
    pub(super) fn new(status: u16, body: &[u8]) -> Self {
        if let Ok(document) = serde_json::from_slice::<ErrorDocument>(body) {
            let error = document.error;
            let mut reasons = error.errors.into_iter();
            return Self {
                status,
                reason: reasons.find_map(|one| one.reason).or(error.status),
                message: error.message,
            };
        }
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        // Bytes of an object are asked for by this service's other face, which answers in text.
        let is_own = text.starts_with("No such object: ");
        let line: String = text.chars().take_while(|one| *one != '\n').collect();
        Self {
            status,
            reason: is_own.then(|| "notFound".to_owned()),
            message: line.chars().take(TEXT_MAX).collect(),
        }
    }

    fn text(&self) -> String {
        let refusal = Refusal {
            status: self.status,
            code: self.reason.as_deref(),
            message: Some(&self.message),
            advice: self.advice(),
            request_id: None,
        };
        refusal.to_string()
    }

    /// What the word means to a person, where the service is terse.
    fn advice(&self) -> Option<&'static str> {
        let advice = match (self.reason.as_deref().unwrap_or_default(), self.status) {
            (_, 407) => PROXY_ADVICE,
            ("authError", _) | (_, 401) => "the token is not valid, or no longer",
            ("userProjectMissing", _) => "the bucket's requester pays, which is not supported",
            ("retentionPolicyNotMet" | "objectUnderActiveHold", _) => {
                "the bucket keeps its objects for a time"
            }
            ("accountDisabled" | "billingNotEnabled", _) => "the project has no billing account",
            ("vpcServiceControls" | "SECURITY_POLICY_VIOLATED", _) => {
                "a perimeter of the organisation forbids it"
            }
            _ => return None,
        };
        Some(advice)
    }

    /// Whether the service itself says that the bucket is not there.
    pub(super) fn is_no_bucket(&self) -> bool {
        self.status == 404
            && self
                .message
                .to_ascii_lowercase()
                .contains("bucket does not exist")
    }

    /// Whether the service itself says that it is the object that is not there.
    pub(super) fn is_no_object(&self) -> bool {
        self.is_absent() && self.message.starts_with("No such object")
    }

    /// Whether the service itself says that something is not there, whatever it is.
    pub(super) fn is_absent(&self) -> bool {
        self.status == 404 && self.reason.as_deref() == Some("notFound")
    }

    /// What it means that this operation was answered so. Absence is not told apart here: of a
    /// bucket it is for all that need no object, of an object where the answer says so.
    pub(super) fn kind_of(&self, operation: &str) -> StoreErrorKind {
        if self.is_no_bucket() {
            return StoreErrorKind::NoContainer;
        }
        if self.is_no_object() {
            return StoreErrorKind::NotFound;
        }
        match operation {
            "put" | "list" | "check" | "begin upload of" if self.is_absent() => {
                StoreErrorKind::NoContainer
            }
            _ => self.kind(),
        }
    }

    /// The error of a request that was answered so.
    pub(super) fn of(self, request: &Request) -> StoreError {
        request.caused(self.kind_of(request.operation), self)
    }

    fn kind(&self) -> StoreErrorKind {
        let reason = self.reason.as_deref().unwrap_or_default();
        match (reason, self.status) {
            (
                "rateLimitExceeded"
                | "userRateLimitExceeded"
                | "quotaExceeded"
                | "dailyLimitExceeded"
                | "RESOURCE_EXHAUSTED",
                _,
            )
            // By 409 another change of the same object was under way: asked again, it says who won.
            | (_, 409 | 429 | 503) => StoreErrorKind::Throttled,
            (_, 401 | 403) => StoreErrorKind::Denied,
            (_, 408) => StoreErrorKind::Timeout,
            (_, 412) => StoreErrorKind::Exists,
            (_, 416) => StoreErrorKind::Range,
            (_, 405 | 501) => StoreErrorKind::Unsupported,
            // Damaged on its way.
            (_, 400) if self.is_of_checksum() => StoreErrorKind::Unreachable,
            (_, 301..=307 | 407) => StoreErrorKind::Config,
            // A 404 without Google's own word comes from something in between: nothing is known
            // of the object. A failure under a status of success is one of the service inside.
            (_, 200..=299 | 404 | 500..) => StoreErrorKind::Unreachable,
            _ => StoreErrorKind::Other,
        }
    }

    fn is_of_checksum(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        message.contains("crc32c") && message.contains("match")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(status: u16, reason: &str, message: &str) -> Answer {
        let body = format!(
            r#"{{"error":{{"code":{status},"message":"{message}","errors":[{{"domain":"global",
            "reason":"{reason}","message":"{message}"}}]}}}}"#
        );
        Answer::new(status, body.as_bytes())
    }

    #[test]
    fn statuses_and_reasons_are_told_apart() {
        use StoreErrorKind as Kind;
        let bucket = "The specified bucket does not exist.";
        let checksum = "Provided CRC32C doesn't match calculated CRC32C";
        for (status, reason, message, operation, kind) in [
            (401, "authError", "Invalid Credentials", "get", Kind::Denied),
            (403, "forbidden", "no access", "put", Kind::Denied),
            (403, "rateLimitExceeded", "", "put", Kind::Throttled),
            (404, "notFound", bucket, "get", Kind::NoContainer),
            (
                404,
                "notFound",
                "No such object: b/k",
                "get",
                Kind::NotFound,
            ),
            (404, "notFound", "Not Found", "put", Kind::NoContainer),
            (404, "notFound", "Not Found", "list", Kind::NoContainer),
            (404, "notFound", "Not Found", "get", Kind::Unreachable),
            (409, "conflict", "", "put", Kind::Throttled),
            (412, "conditionNotMet", "", "put", Kind::Exists),
            (416, "requestedRangeNotSatisfiable", "", "get", Kind::Range),
            (429, "rateLimitExceeded", "", "list", Kind::Throttled),
            (400, "invalid", checksum, "put", Kind::Unreachable),
            (400, "invalid", "no", "put", Kind::Other),
            (500, "internalError", "", "put", Kind::Unreachable),
            (503, "backendError", "", "put", Kind::Throttled),
            (200, "backendError", "", "put", Kind::Unreachable),
            (501, "notImplemented", "", "put", Kind::Unsupported),
            (407, "", "", "put", Kind::Config),
        ] {
            let answer = json(status, reason, message);
            assert_eq!(answer.kind_of(operation), kind, "{answer} of {operation}");
        }
    }

    #[test]
    fn a_404_of_something_in_between_says_nothing_of_the_object() {
        for body in ["", "<html>\n<h1>not here</h1>", "Not Found", "{}"] {
            let answer = Answer::new(404, body.as_bytes());
            assert_eq!(answer.kind_of("get"), StoreErrorKind::Unreachable);
            assert_eq!(answer.kind_of("list"), StoreErrorKind::Unreachable);
        }
        let own = Answer::new(404, b"No such object: bucket/key");
        assert_eq!(own.kind_of("get"), StoreErrorKind::NotFound);
    }

    #[test]
    fn a_refusal_says_which_one_it_is() {
        for (status, reason, words) in [
            (401, "authError", "no longer"),
            (403, "retentionPolicyNotMet", "keeps its objects"),
            (400, "userProjectMissing", "requester pays"),
        ] {
            let text = json(status, reason, "As said.").to_string();
            assert!(text.contains(words) && text.contains("As said"), "{text}");
        }
    }
}
