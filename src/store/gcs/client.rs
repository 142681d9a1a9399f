//! The client: where the service answers, who asks, one request and its answer.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;

use super::fault::Answer;
use super::token::{TokenError, TokenSource};
use crate::store::config::GcsConfig;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::http::{Chunks, HttpClient, ResponseBody, Trust};
use crate::store::request::Request;

/// Google's own service.
const ROOT: &str = "https://storage.googleapis.com";

/// The longest answer that is no object: a page of a thousand names of a kilobyte, and more.
pub(super) const ANSWER_BYTES_MAX: usize = 16 << 20;

/// One request to be made.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    /// What follows the root, with its query.
    pub(super) target: String,
    pub(super) headers: Vec<(header::HeaderName, String)>,
    pub(super) body: Chunks,
}

impl Call {
    pub(super) fn new(method: Method, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            headers: Vec::new(),
            body: Chunks::default(),
        }
    }

    pub(super) fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, content_type: &str, body: impl Into<Chunks>) -> Self {
        self.body = body.into();
        self.header(header::CONTENT_TYPE, content_type)
    }
}

/// The service, and who asks it.
pub(super) struct Client {
    http: HttpClient,
    root: String,
    tokens: TokenSource,
}

impl Client {
    pub(super) fn new(config: &GcsConfig) -> Self {
        let given = config.endpoint_url.as_ref().map(url::Url::as_str);
        let bundle = config.ca_bundle.as_deref();
        Self {
            http: HttpClient::new(Trust::of_store(bundle)),
            root: given.unwrap_or(ROOT).trim_end_matches('/').to_owned(),
            tokens: TokenSource::new(
                HttpClient::for_credentials(bundle),
                config.credentials.clone(),
            ),
        }
    }

    /// Makes the request, whatever is answered. A token that is refused is asked for again once:
    /// it may have expired while the machine slept.
    pub(super) async fn send(
        &self,
        request: &Request,
        call: Call,
    ) -> Result<Response<ResponseBody>, StoreError> {
        let no_token = |error: TokenError| request.explained(error.kind, error.text);
        let token = self.tokens.token().await.map_err(no_token)?;
        let Some(token) = token else {
            return self.send_as(request, call, None).await;
        };
        let header = Some(token.header.expose_secret());
        let answer = self.send_as(request, call.clone(), header).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        self.tokens.refused(&token);
        let token = self.tokens.token().await.map_err(no_token)?;
        let header = token.as_ref().map(|token| token.header.expose_secret());
        self.send_as(request, call, header).await
    }

    async fn send_as(
        &self,
        request: &Request,
        call: Call,
        authorization: Option<&str>,
    ) -> Result<Response<ResponseBody>, StoreError> {
        let malformed = |error: http::Error| {
            request.explained(StoreErrorKind::Config, format!("cannot be asked: {error}"))
        };
        let uri = format!("{}{}", self.root, call.target);
        let mut wire = http::Request::builder()
            .method(call.method)
            .uri(uri)
            .body(call.body)
            .map_err(malformed)?;
        let headers = wire.headers_mut();
        for (name, value) in call.headers {
            let value = HeaderValue::try_from(value).map_err(|error| malformed(error.into()))?;
            headers.insert(name, value);
        }
        if let Some(authorization) = authorization {
            let mut value =
                HeaderValue::try_from(authorization).map_err(|error| malformed(error.into()))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        self.http
            .send(wire)
            .await
            .map_err(|error| request.unanswered(error))
    }

    /// Makes the request and reads the answer; one that is no success is what it says.
    pub(super) async fn answer(
        &self,
        request: &Request,
        call: Call,
    ) -> Result<Result<(HeaderMap, bytes::Bytes), Answer>, StoreError> {
        let (head, body) = self.send(request, call).await?.into_parts();
        let body = body
            .collect(ANSWER_BYTES_MAX)
            .await
            .map_err(|error| request.unanswered(error))?;
        if head.status.is_success() {
            return Ok(Ok((head.headers, body)));
        }
        Ok(Err(Answer::new(head.status.as_u16(), &body)))
    }

    /// Makes the request and reads the answer as JSON; one that is no success is an error.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        request: &Request,
        call: Call,
    ) -> Result<T, StoreError> {
        match self.answer(request, call).await? {
            Ok((_, body)) => parsed(request, &body),
            Err(answer) => Err(answer.of(request)),
        }
    }

    /// What an answer that is no success says.
    pub(super) async fn refusal(
        &self,
        request: &Request,
        answer: Response<ResponseBody>,
    ) -> Result<Answer, StoreError> {
        let (head, body) = answer.into_parts();
        let body = body
            .collect(ANSWER_BYTES_MAX)
            .await
            .map_err(|error| request.unanswered(error))?;
        Ok(Answer::new(head.status.as_u16(), &body))
    }
}

/// A body that is JSON.
pub(super) fn parsed<T: DeserializeOwned>(request: &Request, body: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(body).map_err(|error| {
        request.explained(
            StoreErrorKind::Corrupt,
            format!("the answer is not as it should be: {error}"),
        )
    })
}
