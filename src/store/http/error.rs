//! How a request fails before or besides an answer: no connection, no trust, no time.

use std::error::Error;

use aws_smithy_runtime_api::client::result::ConnectorError;
use http::StatusCode;
use serde::Deserialize;

use super::words::{explained_trust, innermost, is_trust_failure};
use crate::store::error::StoreErrorKind;

/// So much of what an identity service says is shown.
const REFUSAL_CHARACTERS_MAX: usize = 300;

/// A request without a whole answer. Its text is one line, without the request's URL.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub(in crate::store) struct HttpError {
    /// What it means for a store.
    pub(in crate::store) kind: StoreErrorKind,
    text: String,
}

/// What identity services say in JSON.
#[derive(Debug, Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: Option<String>,
}

impl Refusal {
    fn text(self) -> String {
        match self.error_description {
            Some(description) => format!("{}: {description}", self.error),
            None => self.error,
        }
    }
}

impl HttpError {
    pub(super) fn of_connector(error: &ConnectorError) -> Self {
        let text = explained_trust(innermost(error));
        let kind = if error.is_timeout() {
            StoreErrorKind::Timeout
        } else if is_trust_failure(&text) || error.is_user() {
            StoreErrorKind::Config
        } else {
            StoreErrorKind::Unreachable
        };
        Self { kind, text }
    }

    pub(super) fn of_body(error: &(dyn Error + Send + Sync + 'static)) -> Self {
        Self {
            kind: StoreErrorKind::Unreachable,
            text: format!("the answer broke off: {}", innermost(error)),
        }
    }

    pub(super) fn too_long(bytes_max: usize) -> Self {
        Self {
            kind: StoreErrorKind::Corrupt,
            text: format!("the answer is longer than {bytes_max} bytes"),
        }
    }

    /// An identity service that gave no token, and what it said.
    pub(super) fn refused(status: StatusCode, body: &[u8]) -> Self {
        let kind = match status.as_u16() {
            408 | 500.. => StoreErrorKind::Unreachable,
            429 => StoreErrorKind::Throttled,
            _ => StoreErrorKind::Denied,
        };
        let said = String::from_utf8_lossy(body);
        let said = serde_json::from_str::<Refusal>(&said)
            .map_or_else(|_| said.into_owned(), Refusal::text);
        let said: String = said
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(REFUSAL_CHARACTERS_MAX)
            .collect();
        Self {
            kind,
            text: format!("the identity service answered {}: {said}", status.as_u16()),
        }
    }

    /// The error of ours that `error` was caused by, if it was.
    pub(in crate::store) fn within<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    pub(super) fn malformed(error: impl Error + 'static) -> Self {
        Self {
            kind: StoreErrorKind::Config,
            text: innermost(&error),
        }
    }
}
