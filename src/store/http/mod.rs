//! The HTTP client of the engines that speak REST themselves: Azure's and Google's.
//!
//! One request, one answer: it signs nothing, repeats nothing and knows no service. The wire is
//! the one that the S3 SDK brings with it (hyper, rustls), so there is one stack of TLS in the
//! program. Not here: what an answer means, which each engine knows.

mod body;
mod chunks;
mod credentials;
mod error;
mod nearby;
mod words;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Connector, ConnectorBuilder};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings};
use aws_smithy_types::body::SdkBody;
use http::{Request, Response, Uri};

pub(super) use body::ResponseBody;
pub(super) use chunks::Chunks;
pub(super) use credentials::CredentialConnector;
pub(super) use error::HttpError;
pub(super) use nearby::is_nearby;
pub(super) use words::{explained_trust, innermost, is_trust_failure};

/// How long a connection may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client with its pool of connections. Clones share them.
#[derive(Clone)]
pub(super) struct HttpClient {
    inner: Arc<Inner>,
}

struct Inner {
    trust: Trust,
    is_for_credentials: bool,
    plain: OnceLock<Connector>,
    secure: OnceLock<Connector>,
    /// Goes by no proxy.
    direct: OnceLock<Connector>,
}

/// Whose certificates a client accepts.
#[derive(Debug, Clone)]
pub(super) enum Trust {
    /// Those that the host trusts.
    Host,
    /// Those of this bundle (PEM) alone.
    Bundle(Vec<u8>),
    /// Those of this bundle and those that the host trusts: for endpoints that give credentials,
    /// which may be the store's neighbour or the wide world's.
    BundleAndHost(Vec<u8>),
}

impl Trust {
    /// What a store is trusted by.
    pub(super) fn of_store(ca_bundle: Option<&[u8]>) -> Self {
        ca_bundle.map_or(Self::Host, |pem| Self::Bundle(pem.to_vec()))
    }

    /// What the endpoints that give credentials for a store are trusted by.
    fn of_credentials(ca_bundle: Option<&[u8]>) -> Self {
        ca_bundle.map_or(Self::Host, |pem| Self::BundleAndHost(pem.to_vec()))
    }

    fn context(&self) -> TlsContext {
        let trust_store = match self {
            Self::Host => TrustStore::default(),
            Self::Bundle(pem) => TrustStore::empty().with_pem_certificate(pem.clone()),
            Self::BundleAndHost(pem) => TrustStore::empty()
                .with_native_roots(true)
                .with_pem_certificate(pem.clone()),
        };
        TlsContext::builder()
            .with_trust_store(trust_store)
            .build()
            .expect("a context of this provider always builds")
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

impl HttpClient {
    /// A client. Certificates are read at the first request over TLS, and not at all without one.
    pub(super) fn new(trust: Trust) -> Self {
        Self::with(trust, false)
    }

    /// A client for the endpoints that give credentials for a store with this bundle. Metadata
    /// services are asked without a proxy.
    pub(super) fn for_credentials(ca_bundle: Option<&[u8]>) -> Self {
        Self::with(Trust::of_credentials(ca_bundle), true)
    }

    fn with(trust: Trust, is_for_credentials: bool) -> Self {
        Self {
            inner: Arc::new(Inner {
                trust,
                is_for_credentials,
                plain: OnceLock::new(),
                secure: OnceLock::new(),
                direct: OnceLock::new(),
            }),
        }
    }

    /// Sends the request and waits for the head of the answer, whatever its status.
    ///
    /// The time it may take is the caller's to limit; dropping the future gives the connection up.
    pub(super) async fn send(
        &self,
        request: Request<impl Into<SdkBody>>,
    ) -> Result<Response<ResponseBody>, HttpError> {
        let connector = self.connector(request.uri());
        let request = request.map(Into::into);
        let request = request.try_into().map_err(HttpError::malformed)?;
        let answer = connector.call(request).await;
        let answer = answer.map_err(|error| HttpError::of_connector(&error))?;
        let answer = answer.try_into_http1x().map_err(HttpError::malformed)?;
        Ok(answer.map(ResponseBody::new))
    }

    fn connector(&self, uri: &Uri) -> &Connector {
        let inner = &self.inner;
        let is_plain = uri.scheme_str() == Some("http");
        if is_plain && inner.is_for_credentials && is_nearby(uri) {
            let direct = || builder(ProxyConfig::disabled()).build_http();
            inner.direct.get_or_init(direct)
        } else if is_plain {
            let plain = || builder(ProxyConfig::from_env()).build_http();
            inner.plain.get_or_init(plain)
        } else {
            inner.secure.get_or_init(|| {
                builder(ProxyConfig::from_env())
                    .tls_provider(Provider::Rustls(CryptoMode::Ring))
                    .tls_context(inner.trust.context())
                    .build()
            })
        }
    }
}

fn builder(proxy: ProxyConfig) -> ConnectorBuilder {
    let settings = HttpConnectorSettings::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .build();
    Connector::builder()
        .proxy_config(proxy)
        .connector_settings(settings)
}
