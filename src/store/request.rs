//! One request to a service, for the errors it can end with, and the words of a refusal.
//!
//! Not here: what a service's codes mean, which each engine knows.

use std::error::Error;
use std::fmt;

use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::error::{StoreError, StoreErrorKind};
use super::http::{HttpError, ResponseBody};

/// One request, for its error.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// The request, as a verb.
    pub(super) operation: &'static str,
    /// What it is about, with the store's location.
    pub(super) subject: String,
}

/// Something that went wrong without the service saying so.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Failure {
    text: String,
}

impl Request {
    /// A request about `name` in the store at `location`.
    pub(super) fn new(operation: &'static str, location: &str, name: &str) -> Self {
        Self {
            operation,
            subject: format!("{location}/{name}"),
        }
    }

    /// An error of this request.
    pub(super) fn failed(&self, kind: StoreErrorKind) -> StoreError {
        StoreError {
            operation: self.operation,
            subject: self.subject.clone(),
            kind,
            source: None,
        }
    }

    /// An error of this request, with words of our own.
    pub(super) fn explained(&self, kind: StoreErrorKind, text: impl Into<String>) -> StoreError {
        self.caused(kind, Failure { text: text.into() })
    }

    /// The error of a request that has no answer, or not a whole one.
    pub(super) fn unanswered(&self, error: HttpError) -> StoreError {
        self.caused(error.kind, error)
    }

    /// The bytes of an answer's body as they arrive, a failure being one of this request.
    pub(super) fn chunks(
        self,
        body: ResponseBody,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + 'static {
        let named = move |chunk: Result<Bytes, HttpError>| chunk.map_err(|e| self.unanswered(e));
        body.chunks().map(named)
    }

    /// An error of this request that has this cause, such as what the service answered.
    pub(super) fn caused(
        &self,
        kind: StoreErrorKind,
        cause: impl Error + Send + Sync + 'static,
    ) -> StoreError {
        StoreError {
            source: Some(Box::new(cause)),
            ..self.failed(kind)
        }
    }
}

/// What a refusal with the status 407 means to a person: it is the proxy's.
pub(super) const PROXY_ADVICE: &str =
    "the proxy wants a name and a password: say them in its address, http://NAME:PASSWORD@HOST";

/// What a service says as it refuses, in one line: `STATUS CODE: message (advice), request ID`.
#[derive(Debug)]
pub(super) struct Refusal<'a> {
    /// The status of the answer.
    pub(super) status: u16,
    /// The service's word for the reason.
    pub(super) code: Option<&'a str>,
    /// The service's text.
    pub(super) message: Option<&'a str>,
    /// What the code means to a person, where the service is terse.
    pub(super) advice: Option<&'a str>,
    /// What the service's own people find the request by.
    pub(super) request_id: Option<&'a str>,
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.code.unwrap_or("-"))?;
        let message = self.message.unwrap_or_default().trim();
        if !message.is_empty() {
            write!(f, ": {}", message.trim_end_matches('.'))?;
        }
        if let Some(advice) = self.advice {
            write!(f, " ({advice})")?;
        }
        if let Some(request_id) = self.request_id {
            write!(f, ", request {request_id}")?;
        }
        Ok(())
    }
}
