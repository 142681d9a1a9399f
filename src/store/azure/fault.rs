//! What a failed request means: Azure's codes, and failures before it could answer.

use std::error::Error;

use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, Response};

use super::xml;
use crate::clock;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::http::{HttpError, ResponseBody};
use crate::store::request::{PROXY_ADVICE, Refusal, Request};

/// A refusal is shorter; what is longer comes from something in between.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// How far the clocks may be apart: what Azure allows.
const SKEW_MAX: TimeDelta = TimeDelta::minutes(15);

/// What Azure said.
#[derive(Debug, Default, thiserror::Error)]
#[error("{}", self.text())]
struct Answer {
    status: u16,
    code: Option<String>,
    message: Option<String>,
    detail: Option<String>,
    request_id: Option<String>,
    /// How far this host's clock is off, where that is too far.
    skew: Option<TimeDelta>,
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
        let detail = self.detail.as_deref().unwrap_or_default();
        let advice = match self.code.as_deref()? {
            "AuthenticationFailed" => {
                if let Some(skew) = self.skew {
                    let minutes = skew.num_minutes();
                    return Some(format!("the clock of this host is wrong by {minutes} min"));
                }
                if detail.contains("time frame") || detail.contains("expired") {
                    "the shared access signature or token has expired or is not valid yet"
                } else {
                    "the account key, signature or token does not fit the account"
                }
            }
            "AuthorizationFailure" => {
                "the account's firewall or the signature's permissions do not allow this"
            }
            "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions" => {
                "the credentials are known but may not do this: the role Storage Blob Data \
                 Contributor may"
            }
            "KeyBasedAuthenticationNotPermitted" => {
                "the account takes no account keys: use an identity"
            }
            "InvalidAuthenticationInfo" => "the token is not valid, or not for this account",
            "LeaseIdMissing" => "somebody holds a lease on the blob",
            "BlobImmutableDueToPolicy" => "a policy of the container keeps the blob as it is",
            "SnapshotsPresent" => "the blob has snapshots: delete them first",
            "BlobArchived" | "BlobBeingRehydrated" => {
                "the blob is in the archive tier and must be rehydrated first"
            }
            "InvalidBlockList" => {
                "blocks are missing: another upload for this key was completed, or a week has passed"
            }
            "InvalidBlobOrBlock" => {
                "parts of another program's unfinished upload may lie under the key: they go after \
                 a week, or with a blob that is put there"
            }
            _ => return None,
        };
        Some(advice.to_owned())
    }

    /// Whether the service says that the signature or the token was good until some time ago.
    fn has_expired(&self) -> bool {
        let detail = self.detail.as_deref().unwrap_or_default();
        let time = |name| {
            let (text, _) = detail
                .split_once(name)?
                .1
                .split_once('[')?
                .1
                .split_once(']')?;
            DateTime::parse_from_rfc2822(text).ok()
        };
        let is_over =
            matches!((time("Expiry"), time("Current")), (Some(end), Some(now)) if end <= now);
        is_over || detail.contains("token is expired")
    }

    fn kind(&self) -> StoreErrorKind {
        let code = self.code.as_deref().unwrap_or_default();
        match (code, self.status) {
            ("AuthenticationFailed", _) if self.skew.is_some() => StoreErrorKind::ClockSkewed,
            ("AuthenticationFailed" | "InvalidAuthenticationInfo", _) if self.has_expired() => {
                StoreErrorKind::Expired
            }
            ("BlobNotFound", _) => StoreErrorKind::NotFound,
            ("InvalidBlockList", _) => StoreErrorKind::NoUpload,
            ("ContainerNotFound" | "ResourceNotFound" | "ContainerDisabled", _) => {
                StoreErrorKind::NoContainer
            }
            (
                "LeaseIdMissing"
                | "BlobImmutableDueToPolicy"
                | "SnapshotsPresent"
                | "InvalidAuthenticationInfo"
                | "NoAuthenticationInformation",
                _,
            ) => StoreErrorKind::Denied,
            ("BlobAlreadyExists" | "ContainerAlreadyExists" | "ConditionNotMet", _) | (_, 412) => {
                StoreErrorKind::Exists
            }
            ("InvalidRange", _) | (_, 416) => StoreErrorKind::Range,
            ("ServerBusy" | "ContainerBeingDeleted", _) | (_, 429 | 503) => {
                StoreErrorKind::Throttled
            }
            ("OperationTimedOut", _) | (_, 408) => StoreErrorKind::Timeout,
            ("Md5Mismatch" | "IncompleteBody", _) => StoreErrorKind::Unreachable,
            (
                "InvalidUri"
                | "InvalidResourceName"
                | "OutOfRangeInput"
                | "AccountIsDisabled"
                | "InvalidHeaderValue",
                _,
            )
            | (_, 407) => StoreErrorKind::Config,
            (
                "BlobArchived"
                | "BlobBeingRehydrated"
                | "UnsupportedHeader"
                | "FeatureNotYetSupportedForHierarchicalNamespaceAccounts"
                | "InvalidBlobType",
                _,
            )
            | (_, 405 | 501) => StoreErrorKind::Unsupported,
            (_, 401 | 403) => StoreErrorKind::Denied,
            // A 404 without Azure's own reason comes from something in between: nothing is known
            // of the key.
            (_, 404 | 500..) => StoreErrorKind::Unreachable,
            _ if code.contains("EncryptionScope") => StoreErrorKind::Config,
            _ => StoreErrorKind::Other,
        }
    }
}

/// The error of a request for which no credentials were to be had.
pub(super) fn without_credentials(request: &Request, error: &object_store::Error) -> StoreError {
    match HttpError::within(error) {
        Some(http) => request.explained(http.kind, format!("no token: {http}")),
        None => request.explained(StoreErrorKind::Denied, format!("no token: {}", last(error))),
    }
}

/// The innermost text of the chain.
fn last(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// What an answer that is no success means.
pub(super) async fn meaning(request: &Request, answer: Response<ResponseBody>) -> StoreError {
    let (head, body) = answer.into_parts();
    let body = body.collect(REFUSAL_BYTES_MAX).await.unwrap_or_default();
    let said = xml::error(&body);
    let answer = Answer {
        status: head.status.as_u16(),
        // The only one that has a code where there is no body.
        code: text_of(&head.headers, "x-ms-error-code").or(said.code),
        message: said.message.as_deref().map(first_line),
        detail: said.authentication_error_detail,
        request_id: text_of(&head.headers, "x-ms-request-id"),
        skew: skew(&head.headers, clock::now()),
    };
    request.caused(answer.kind(), answer)
}

fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// The service repeats the request's id and the time in the lines that follow.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// How far the service's clock is from `now`, where that is too far.
fn skew(headers: &HeaderMap, now: DateTime<Utc>) -> Option<TimeDelta> {
    let date = text_of(headers, "date")?;
    let theirs = DateTime::parse_from_rfc2822(&date).ok()?.to_utc();
    Some(now - theirs).filter(|skew| skew.abs() > SKEW_MAX)
}

/// An etag without the quotes that headers put around it and listings do not.
pub(super) fn plain_etag(text: &str) -> String {
    text.trim_matches('"').to_owned()
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
            ..Answer::default()
        }
    }

    #[test]
    fn each_answer_has_its_kind() {
        for (status, code, kind) in [
            (404, "BlobNotFound", StoreErrorKind::NotFound),
            (404, "ContainerNotFound", StoreErrorKind::NoContainer),
            (404, "ResourceNotFound", StoreErrorKind::NoContainer),
            (404, "", StoreErrorKind::Unreachable),
            (400, "InvalidBlockList", StoreErrorKind::NoUpload),
            (407, "", StoreErrorKind::Config),
            (409, "BlobAlreadyExists", StoreErrorKind::Exists),
            (412, "ConditionNotMet", StoreErrorKind::Exists),
            (412, "LeaseIdMissing", StoreErrorKind::Denied),
            (409, "ContainerBeingDeleted", StoreErrorKind::Throttled),
            (409, "BlobImmutableDueToPolicy", StoreErrorKind::Denied),
            (409, "BlobArchived", StoreErrorKind::Unsupported),
            (416, "InvalidRange", StoreErrorKind::Range),
            (503, "ServerBusy", StoreErrorKind::Throttled),
            (500, "OperationTimedOut", StoreErrorKind::Timeout),
            (500, "InternalError", StoreErrorKind::Unreachable),
            (403, "AuthenticationFailed", StoreErrorKind::Denied),
            (403, "AuthorizationFailure", StoreErrorKind::Denied),
            (400, "InvalidAuthenticationInfo", StoreErrorKind::Denied),
            (401, "NoAuthenticationInformation", StoreErrorKind::Denied),
            (400, "InvalidResourceName", StoreErrorKind::Config),
            (409, "EncryptionScopeDisabled", StoreErrorKind::Config),
            (501, "", StoreErrorKind::Unsupported),
            (502, "", StoreErrorKind::Unreachable),
            (400, "InvalidInput", StoreErrorKind::Other),
        ] {
            assert_eq!(answer(status, code).kind(), kind, "{status} {code}");
        }
    }

    #[test]
    fn a_refusal_says_which_one_it_is() {
        let late = Answer {
            detail: Some("Signature not valid in the specified time frame".to_owned()),
            ..answer(403, "AuthenticationFailed")
        };
        let skewed = Answer {
            skew: Some(TimeDelta::minutes(-42)),
            ..answer(403, "AuthenticationFailed")
        };
        for (answer, words) in [
            (answer(403, "AuthenticationFailed"), "account key"),
            (late, "expired"),
            (skewed, "clock of this host is wrong by -42 min"),
            (answer(403, "AuthorizationPermissionMismatch"), "role"),
            (answer(409, "SnapshotsPresent"), "snapshots"),
        ] {
            let text = answer.to_string();
            assert!(
                text.contains(words) && text.ends_with("request 17"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_has_expired_and_a_wrong_clock_are_told_from_wrong_credentials() {
        let frame = |expiry: &str| {
            format!(
                "Signature not valid in the specified time frame: Start \
                 [Fri, 20 Nov 2026 10:00:00 GMT] - Expiry [{expiry}] - Current \
                 [Sat, 21 Nov 2026 12:00:00 GMT]"
            )
        };
        for (code, detail, skew, kind) in [
            (
                "AuthenticationFailed",
                frame("Sat, 21 Nov 2026 11:00:00 GMT"),
                None,
                StoreErrorKind::Expired,
            ),
            (
                "AuthenticationFailed",
                frame("Sun, 22 Nov 2026 11:00:00 GMT"),
                None,
                StoreErrorKind::Denied,
            ),
            (
                "AuthenticationFailed",
                String::new(),
                Some(TimeDelta::hours(1)),
                StoreErrorKind::ClockSkewed,
            ),
            (
                "InvalidAuthenticationInfo",
                "IDX10223: Lifetime validation failed. The token is expired.".to_owned(),
                None,
                StoreErrorKind::Expired,
            ),
        ] {
            let answer = Answer {
                detail: Some(detail),
                skew,
                ..answer(403, code)
            };
            assert_eq!(answer.kind(), kind, "{answer:?}");
        }
    }

    #[test]
    fn a_clock_is_judged_by_the_services_own() {
        let mut headers = HeaderMap::new();
        let now = DateTime::parse_from_rfc3339("2026-11-21T12:00:00Z").unwrap();
        for (date, minutes) in [
            ("Sat, 21 Nov 2026 12:01:00 GMT", None),
            ("Sat, 21 Nov 2026 13:00:00 GMT", Some(-60)),
            ("Sat, 21 Nov 2026 11:00:00 GMT", Some(60)),
            ("yesterday", None),
        ] {
            headers.insert("date", date.parse().unwrap());
            let found = skew(&headers, now.to_utc());
            assert_eq!(found.map(|skew| skew.num_minutes()), minutes, "{date}");
        }
    }
}
