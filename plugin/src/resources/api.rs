//! One call to the Kubernetes API: raw JSON there and back, within a time limit.
//!
//! Nothing is contacted before the first call, so that a sidecar starts while the API is away.
//! Not here: what is called (`kubernetes`, `operator`, `controller`), and watches.

use std::fmt;
use std::time::Duration;

use http::Method;
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use serde_json::Value;

use super::ResourceError;

/// A call that got no answer by then has failed. The API server itself gives up after 60 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How a call fails.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The API answered with an error.
    #[error("{reason}")]
    Answer {
        /// The HTTP status.
        code: u16,
        /// Its words.
        reason: String,
    },
    /// There was no answer, or not in time.
    #[error("{reason}")]
    NoAnswer {
        /// Why.
        reason: String,
    },
    /// The answer is no JSON.
    #[error("the answer is no JSON: {reason}")]
    Unreadable {
        /// Why.
        reason: String,
    },
}

impl ApiError {
    /// Whether the API said that there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Answer { code: 404, .. })
    }

    /// Whether the object is there already, or has changed since it was read.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Answer { code: 409, .. })
    }

    /// This failure as that of a request for `object`, unless it says that it is not there.
    pub fn concerning(self, object: &str, namespace: &str) -> ResourceError {
        let object = object.to_owned();
        match self {
            Self::Answer {
                code: 401 | 403,
                reason,
            } => ResourceError::Denied {
                object,
                namespace: namespace.to_owned(),
                reason,
            },
            Self::Answer {
                code: 408 | 429 | 500..,
                reason,
            }
            | Self::NoAnswer { reason } => ResourceError::Unreachable { object, reason },
            Self::Answer { reason, .. } => ResourceError::Rejected { object, reason },
            Self::Unreadable { .. } => ResourceError::Unreadable {
                object,
                reason: self.to_string(),
            },
        }
    }
}

/// What a call carries.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// Nothing.
    Empty,
    /// A whole object, or the options of a deletion.
    Json(&'a Value),
    /// Values to be merged, RFC 7386.
    Merge(&'a Value),
    /// The fields that this manager wants (server-side apply); others' claims on them end.
    Apply {
        /// The fields, with apiVersion, kind and name.
        object: &'a Value,
        /// Who wants them.
        manager: &'a str,
    },
}

/// The API server.
#[derive(Clone)]
pub struct ApiServer {
    client: Client,
    timeout: Duration,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ApiServer").finish_non_exhaustive()
    }
}

impl ApiServer {
    /// The one of the Pod that this runs in, else that of the user's kubeconfig.
    pub async fn find() -> Result<Self, ApiError> {
        let no_answer = |reason: String| ApiError::NoAnswer { reason };
        let config = match Config::incluster() {
            Ok(config) => config,
            Err(in_cluster) => Config::from_kubeconfig(&KubeConfigOptions::default())
                .await
                .map_err(|file| {
                    no_answer(format!("{in_cluster}; and no kubeconfig serves: {file}"))
                })?,
        };
        let client = Client::try_from(config).map_err(|error| no_answer(reason_of(&error)))?;
        Ok(Self::new(client))
    }

    /// This client's.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            timeout: CALL_TIMEOUT,
        }
    }

    /// The client, for watches.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Reads the object at `path`.
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, path, Body::Empty).await
    }

    /// Makes a call.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Body<'_>,
    ) -> Result<Value, ApiError> {
        let request = request(method, path, body)?;
        let call = self.client.request_text(request);
        let answer = tokio::time::timeout(self.timeout, call).await;
        let answer = answer.map_err(|_elapsed| ApiError::NoAnswer {
            reason: format!("no answer within {} s", self.timeout.as_secs()),
        })?;
        let text = answer.map_err(failure)?;
        // The text may be a Secret: the parser's words name a line and a column, and no contents.
        serde_json::from_str(&text).map_err(|error| ApiError::Unreadable {
            reason: error.to_string(),
        })
    }
}

fn request(method: Method, path: &str, body: Body<'_>) -> Result<http::Request<Vec<u8>>, ApiError> {
    let (content_type, value, uri) = match body {
        Body::Empty => (None, None, path.to_owned()),
        Body::Json(value) => (Some("application/json"), Some(value), path.to_owned()),
        Body::Merge(value) => {
            let uri = format!("{path}?fieldManager=cellarman");
            (Some("application/merge-patch+json"), Some(value), uri)
        }
        Body::Apply { object, manager } => {
            let uri = format!("{path}?fieldManager={manager}&force=true");
            (Some("application/apply-patch+yaml"), Some(object), uri)
        }
    };
    let mut request = http::Request::builder()
        .method(method)
        .uri(uri)
        .header(http::header::ACCEPT, "application/json");
    if let Some(content_type) = content_type {
        request = request.header(http::header::CONTENT_TYPE, content_type);
    }
    let body = value.map(Value::to_string).unwrap_or_default();
    request
        .body(body.into_bytes())
        .map_err(|error| ApiError::NoAnswer {
            reason: error.to_string(),
        })
}

fn failure(error: kube::Error) -> ApiError {
    match error {
        kube::Error::Api(status) => ApiError::Answer {
            code: status.code,
            reason: if status.message.is_empty() {
                format!("HTTP status {}", status.code)
            } else {
                status.message.clone()
            },
        },
        other => ApiError::NoAnswer {
            reason: reason_of(&other),
        },
    }
}

/// The innermost cause: the outer layers say only that a service or a connection failed.
fn reason_of(error: &kube::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
