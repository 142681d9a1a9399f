//! Requests as Azure takes them: addresses, headers, signatures.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{Method, Request as HttpRequest, Response, StatusCode, Uri};
use object_store::azure::{AzureAuthorizer, AzureCredential, AzureCredentialProvider};
use object_store::client::HttpRequestBody;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::fault;
use super::{credentials, location};
use crate::store::ObjectKey;
use crate::store::config::AzureConfig;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::http::{HttpClient, ResponseBody, Trust};
use crate::store::request::Request;

/// What stands for itself in a query's value.
const VALUE: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
/// What stands for itself in a blob's address.
const PATH: AsciiSet = VALUE.remove(b'/');

/// The version of the REST interface: the first with everything that is asked for here.
const VERSION: &str = "2023-11-03";

/// Sends signed requests to one container.
pub(super) struct Wire {
    http: HttpClient,
    config: AzureConfig,
    /// What gives credentials, and keeps a token until shortly before its end.
    provider: Mutex<AzureCredentialProvider>,
    container_url: String,
}

/// One request, not yet signed.
#[derive(Clone)]
pub(super) struct Call<'a> {
    method: Method,
    key: Option<&'a ObjectKey>,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl<'a> Call<'a> {
    /// On a blob.
    pub(super) fn on_blob(method: Method, key: &'a ObjectKey) -> Self {
        Self {
            method,
            key: Some(key),
            query: Vec::new(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// On the container itself.
    pub(super) fn on_container(method: Method) -> Self {
        Self {
            method,
            key: None,
            query: vec![("restype", "container".to_owned())],
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }

    pub(super) fn only_if_absent(self, if_absent: bool) -> Self {
        if if_absent {
            self.header("if-none-match", "*")
        } else {
            self
        }
    }

    /// Index tags, in the header's own form.
    pub(super) fn tags(self, tags: Option<&str>) -> Self {
        match tags {
            Some(tags) => self.header("x-ms-tags", tags),
            None => self,
        }
    }

    fn path_and_query(&self) -> String {
        let mut text = String::new();
        if let Some(key) = self.key {
            text.push('/');
            text.extend(utf8_percent_encode(key.as_str(), &PATH));
        }
        for (position, (name, value)) in self.query.iter().enumerate() {
            text.push(if position == 0 { '?' } else { '&' });
            text.push_str(name);
            text.push('=');
            text.extend(utf8_percent_encode(value, &VALUE));
        }
        text
    }
}

impl Wire {
    pub(super) fn new(config: &AzureConfig) -> Result<Self, StoreError> {
        Ok(Self {
            http: HttpClient::new(Trust::of_store(config.ca_bundle.as_deref())),
            provider: Mutex::new(credentials::provider(config)?),
            container_url: location(config),
            config: config.clone(),
        })
    }

    /// Sends the call, and gives the answer if it is one of success. A token that is refused is
    /// asked for again once: it may have been withdrawn, or the machine may have slept.
    pub(super) async fn send(
        &self,
        request: &Request,
        call: Call<'_>,
    ) -> Result<Response<ResponseBody>, StoreError> {
        if let Some(key) = call.key.filter(|key| !is_name(key.as_str())) {
            return Err(refused(request, key));
        }
        let provider = Arc::clone(&self.provider());
        let credential = credential_of(&provider, request).await?;
        let mut answer = self.send_as(request, call.clone(), &credential).await?;
        if answer.status() == StatusCode::UNAUTHORIZED
            && matches!(*credential, AzureCredential::BearerToken(_))
        {
            let provider = self.without_token(&provider)?;
            let credential = credential_of(&provider, request).await?;
            answer = self.send_as(request, call, &credential).await?;
        }
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(fault::meaning(request, answer).await)
    }

    fn provider(&self) -> MutexGuard<'_, AzureCredentialProvider> {
        self.provider.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What gives credentials after `refused` gave a bad one: the one that somebody else has put in
    /// its place already, or one that keeps no token yet.
    fn without_token(
        &self,
        refused: &AzureCredentialProvider,
    ) -> Result<AzureCredentialProvider, StoreError> {
        let mut provider = self.provider();
        if Arc::ptr_eq(&provider, refused) {
            *provider = credentials::provider(&self.config)?;
        }
        Ok(Arc::clone(&provider))
    }

    async fn send_as(
        &self,
        request: &Request,
        call: Call<'_>,
        credential: &AzureCredential,
    ) -> Result<Response<ResponseBody>, StoreError> {
        let signed = self.signed(request, call, credential)?;
        let answer = self.http.send(signed).await;
        answer.map_err(|error| request.unanswered(error))
    }

    fn signed(
        &self,
        request: &Request,
        call: Call<'_>,
        credential: &AzureCredential,
    ) -> Result<HttpRequest<Bytes>, StoreError> {
        let malformed = |error: http::Error| {
            request.explained(StoreErrorKind::Config, format!("no such request: {error}"))
        };
        let uri: Uri = format!("{}{}", self.container_url, call.path_and_query())
            .parse()
            .map_err(|error: http::uri::InvalidUri| malformed(error.into()))?;
        let mut building = HttpRequest::builder()
            .method(call.method)
            .uri(uri)
            .header("x-ms-version", VERSION)
            .header(CONTENT_LENGTH, call.body.len());
        for (name, value) in call.headers {
            let name = HeaderName::from_static(name);
            building = building.header(name, visible(&value).map_err(malformed)?);
        }
        // The body takes no part in the signature.
        let mut unsigned = building.body(HttpRequestBody::empty()).map_err(malformed)?;
        AzureAuthorizer::new(credential, &self.config.account)
            .try_authorize(&mut unsigned)
            .map_err(|error| request.explained(StoreErrorKind::Config, error.to_string()))?;
        Ok(unsigned.map(|_| call.body))
    }
}

/// A credential that can be sent.
async fn credential_of(
    provider: &AzureCredentialProvider,
    request: &Request,
) -> Result<Arc<AzureCredential>, StoreError> {
    let credential = provider.get_credential().await;
    let credential = credential.map_err(|error| fault::without_credentials(request, &error))?;
    if let AzureCredential::BearerToken(token) = &*credential {
        visible(token).map_err(|_| {
            request.explained(
                StoreErrorKind::Denied,
                "the token is no token: odd characters",
            )
        })?;
    }
    Ok(credential)
}

/// Whether a blob can have that name: Azure takes backslashes for slashes and walks along dots.
fn is_name(key: &str) -> bool {
    !key.contains('\\') && !key.split('/').any(|part| matches!(part, "." | ".."))
}

/// What no blob is called is absent to readers, and refused to writers.
fn refused(request: &Request, key: &ObjectKey) -> StoreError {
    let kind = match request.operation {
        "get" | "head" | "delete" => StoreErrorKind::NotFound,
        _ => StoreErrorKind::Unsupported,
    };
    request.explained(
        kind,
        format!("no blob can be called {key}: not with backslashes, nor . or .. between slashes"),
    )
}

/// A header's value, of visible characters alone: the signature's code takes no others.
fn visible(text: &str) -> Result<HeaderValue, http::Error> {
    let value = HeaderValue::from_str(text)?;
    match value.to_str() {
        Ok(_) => Ok(value),
        // A value that `from_bytes` refuses, for the sake of its error.
        Err(_) => Ok(HeaderValue::from_bytes(b"\0")?),
    }
}

/// Tags as the header takes them.
pub(super) fn tags(tags: &[(String, String)]) -> Option<String> {
    if tags.is_empty() {
        return None;
    }
    let pairs = tags.iter().map(|(name, value)| {
        let name = utf8_percent_encode(name, &VALUE);
        format!("{name}={}", utf8_percent_encode(value, &VALUE))
    });
    Some(pairs.collect::<Vec<_>>().join("&"))
}
