//! Bearer tokens: got from where the credentials say, kept until shortly before they expire.
//!
//! One request for a token is under way at a time, whoever waits for it. Not here: reading the
//! files that hold credentials, which `config` does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::fault::Answer;
use super::jwt::{Assertion, PrivateKey};
use crate::clock;
use crate::store::config::GcsCredentials;
use crate::store::error::StoreErrorKind;
use crate::store::http::{HttpClient, HttpError};

/// What tokens are asked for: all of Cloud Storage, with buckets, and nothing else of Google.
pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.full_control";

/// A token is not used any more so long before its end: as Google's own libraries have it, for
/// the metadata service hands out an older token until then.
const MARGIN: Duration = Duration::from_secs(225);

/// How long a token may take, both places of the metadata service included. Whoever waits gives
/// up later than that and asks again, and would wait for the same request for ever.
const TIME_MAX: Duration = Duration::from_secs(14);

/// No answer with a token is longer.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Where machines of Google, and GKE, are asked for a token: by name, and where names fail.
const METADATA_HOSTS: [&str; 2] = ["http://metadata.google.internal", "http://169.254.169.254"];

/// A token, good for a while.
pub(super) struct Token {
    /// The value of the header, `Bearer` included.
    pub(super) header: SecretString,
    expires: Option<Instant>,
}

/// No token, and why.
#[derive(Debug, Clone)]
pub(super) struct TokenError {
    pub(super) kind: StoreErrorKind,
    pub(super) text: String,
}

type Fetch = Shared<BoxFuture<'static, Result<Arc<Token>, TokenError>>>;

/// Where tokens come from.
pub(super) struct TokenSource {
    http: HttpClient,
    credentials: Arc<GcsCredentials>,
    latest: Mutex<Option<Fetch>>,
}

#[derive(Deserialize)]
pub(super) struct TokenDocument {
    access_token: String,
    expires_in: Option<u64>,
}

/// How the endpoints that give tokens refuse (RFC 6749, 5.2).
#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl TokenSource {
    pub(super) fn new(http: HttpClient, credentials: GcsCredentials) -> Self {
        Self {
            http,
            credentials: Arc::new(credentials),
            latest: Mutex::new(None),
        }
    }

    /// A token to send, or none where none is wanted.
    pub(super) async fn token(&self) -> Result<Option<Arc<Token>>, TokenError> {
        if matches!(*self.credentials, GcsCredentials::Anonymous) {
            return Ok(None);
        }
        let fetch = self.fetch();
        fetch.await.map(Some)
    }

    /// Forgets a token that was refused before its time.
    pub(super) fn refused(&self, token: &Arc<Token>) {
        let mut latest = self.lock();
        let is_same = latest
            .as_ref()
            .and_then(Shared::peek)
            .and_then(|outcome| outcome.as_ref().ok())
            .is_some_and(|known| Arc::ptr_eq(known, token));
        if is_same {
            *latest = None;
        }
    }

    /// The request that is under way, or whose token is still good, or a new one.
    fn fetch(&self) -> Fetch {
        let mut latest = self.lock();
        let is_good = |fetch: &Fetch| match fetch.peek() {
            None => true,
            Some(Ok(token)) => token.is_good(),
            Some(Err(_)) => false,
        };
        if let Some(fetch) = latest.as_ref().filter(|fetch| is_good(fetch)) {
            return fetch.clone();
        }
        let ask = Ask {
            http: self.http.clone(),
            credentials: Arc::clone(&self.credentials),
        };
        let fetch = in_time(TIME_MAX, async move { ask.run().await.map(Arc::new) })
            .boxed()
            .shared();
        *latest = Some(fetch.clone());
        fetch
    }

    fn lock(&self) -> MutexGuard<'_, Option<Fetch>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Token {
    /// A token that is good for so long from now on, or until it is refused.
    pub(super) fn new(text: &str, valid: Option<Duration>) -> Self {
        Self {
            header: SecretString::from(format!("Bearer {text}")),
            expires: valid.and_then(|valid| Instant::now().checked_add(valid)),
        }
    }

    fn is_good(&self) -> bool {
        self.expires
            .is_none_or(|expires| expires.saturating_duration_since(Instant::now()) > MARGIN)
    }
}

impl From<TokenDocument> for Token {
    fn from(document: TokenDocument) -> Self {
        let valid = document.expires_in.map(Duration::from_secs);
        Self::new(&document.access_token, valid)
    }
}

/// One request for a token.
pub(super) struct Ask {
    http: HttpClient,
    credentials: Arc<GcsCredentials>,
}

impl Ask {
    async fn run(&self) -> Result<Token, TokenError> {
        match &*self.credentials {
            GcsCredentials::ServiceAccount {
                account,
                key_id,
                private_key,
                token_url,
            } => {
                let key = PrivateKey::from_pem(private_key.expose_secret())
                    .map_err(|problem| unusable(format!("the private key {problem}")))?;
                let assertion = Assertion {
                    account,
                    key_id: key_id.as_deref(),
                    scope: SCOPE,
                    audience: token_url.as_str(),
                };
                let assertion = key
                    .assert(&assertion, clock::now().timestamp())
                    .map_err(unusable)?;
                let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
                let form = [("grant_type", grant), ("assertion", &assertion)];
                self.grant(token_url, &form).await.map(Token::from)
            }
            GcsCredentials::AuthorizedUser {
                client_id,
                client_secret,
                refresh_token,
                token_url,
            } => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("client_id", client_id),
                    ("client_secret", client_secret.expose_secret()),
                    ("refresh_token", refresh_token.expose_secret()),
                ];
                self.grant(token_url, &form).await.map(Token::from)
            }
            GcsCredentials::Federated(federation) => self.federated(federation).await,
            GcsCredentials::Metadata { url } => self.metadata(url.as_ref()).await,
            GcsCredentials::Anonymous => Err(unusable("there are no credentials".to_owned())),
        }
    }

    /// What is granted for this form.
    pub(super) async fn grant(
        &self,
        url: &Url,
        form: &[(&str, &str)],
    ) -> Result<TokenDocument, TokenError> {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let request = http::Request::post(url.as_str())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Bytes::from(body));
        self.ask(url.as_str(), request).await
    }

    async fn metadata(&self, url: Option<&Url>) -> Result<Token, TokenError> {
        let given = url.map(|url| url.as_str().trim_end_matches('/'));
        let mut hosts = given.into_iter().chain(match given {
            Some(_) => [].iter().copied(),
            None => METADATA_HOSTS.iter().copied(),
        });
        let mut outcome = Err(unusable("no metadata service".to_owned()));
        for host in hosts.by_ref() {
            let url = format!("{host}/computeMetadata/v1/instance/service-accounts/default/token");
            let request = http::Request::get(&url)
                .header("metadata-flavor", "Google")
                .body(Bytes::new());
            let asked: Result<TokenDocument, _> = self.ask(&url, request).await;
            outcome = asked.map(Token::from);
            // Where a name does not lead there, the address may.
            if !matches!(&outcome, Err(error) if error.kind == StoreErrorKind::Unreachable) {
                break;
            }
        }
        outcome.map_err(|error| TokenError {
            text: format!(
                "no key file is given (GOOGLE_APPLICATION_CREDENTIALS), and of the machine: {}",
                error.text
            ),
            ..error
        })
    }

    /// Asks for a document with a token in it.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        url: &str,
        request: http::Result<http::Request<Bytes>>,
    ) -> Result<T, TokenError> {
        let place = url.split('?').next().unwrap_or_default();
        let failed = |error: HttpError| TokenError {
            kind: error.kind,
            text: format!("no token from {place}: {error}"),
        };
        let request = request.map_err(|error| unusable(format!("{place}: {error}")))?;
        let (head, body) = self.http.send(request).await.map_err(failed)?.into_parts();
        let body = body.collect(ANSWER_BYTES_MAX).await.map_err(failed)?;
        if !head.status.is_success() {
            return Err(refusal(place, head.status.as_u16(), &body));
        }
        serde_json::from_slice(&body).map_err(|error| TokenError {
            kind: StoreErrorKind::Corrupt,
            // Not the text of the error: it may repeat the answer.
            text: format!(
                "the answer of {place} is no token (line {}, column {})",
                error.line(),
                error.column()
            ),
        })
    }
}

/// What `fetch` gives, unless it takes too long.
async fn in_time<T>(
    time_max: Duration,
    fetch: impl Future<Output = Result<T, TokenError>>,
) -> Result<T, TokenError> {
    let outcome = tokio::time::timeout(time_max, fetch).await;
    outcome.unwrap_or_else(|_| {
        Err(TokenError {
            kind: StoreErrorKind::Timeout,
            text: "no token came in time".to_owned(),
        })
    })
}

pub(super) fn unusable(text: String) -> TokenError {
    TokenError {
        kind: StoreErrorKind::Config,
        text,
    }
}

fn refusal(place: &str, status: u16, body: &[u8]) -> TokenError {
    let mut kind = match status {
        408 => StoreErrorKind::Timeout,
        429 | 503 => StoreErrorKind::Throttled,
        500.. => StoreErrorKind::Unreachable,
        _ => StoreErrorKind::Denied,
    };
    let text = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => {
            let description = refusal.error_description;
            if description.contains("reasonable timeframe") {
                kind = StoreErrorKind::ClockSkewed;
            }
            format!("{status} {}: {description}", refusal.error)
        }
        Err(_) => Answer::new(status, body).to_string(),
    };
    TokenError {
        kind,
        text: format!("no token from {place}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_for_a_token_that_hangs_is_given_up_and_made_again() {
        let http = HttpClient::for_credentials(None);
        let credentials = GcsCredentials::ServiceAccount {
            account: "a".to_owned(),
            key_id: None,
            private_key: SecretString::from("none"),
            token_url: "http://127.0.0.1:1/".parse().unwrap(),
        };
        let source = TokenSource::new(http, credentials);
        let hanging = in_time(Duration::ZERO, futures::future::pending());
        *source.lock() = Some(hanging.boxed().shared());
        let given_up = source.token().await.err().unwrap();
        assert_eq!(given_up.kind, StoreErrorKind::Timeout);
        let again = source.token().await.err().unwrap();
        assert_eq!(again.kind, StoreErrorKind::Config, "it was asked anew");
    }
}
