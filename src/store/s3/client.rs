//! The client of the SDK: who asks, where, over what. Builds no more than a first request needs.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::identity::IdentityCache;
use aws_config::meta::region::ProvideRegion;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    Builder, Config, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Connector, ConnectorBuilder};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
    http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use secrecy::ExposeSecret;

use crate::store::config::{Addressing, S3Config, S3Credentials};
use crate::store::http::is_nearby;

/// How long a connection may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where requests are signed for when nobody says: what S3-compatible services expect.
const REGION_DEFAULT: &str = "us-east-1";

/// Names the file that holds the token of a web identity.
const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";

/// The client for that configuration. Reads the host's credential sources only when asked to.
pub(super) async fn client(config: &S3Config) -> Client {
    let builder = match &config.credentials {
        S3Credentials::Static {
            access_key_id,
            secret_access_key,
            session_token,
        } => Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .identity_cache(IdentityCache::no_cache())
            .credentials_provider(Credentials::new(
                access_key_id,
                secret_access_key.expose_secret(),
                session_token
                    .as_ref()
                    .map(|token| token.expose_secret().to_owned()),
                None,
                "cellarman",
            )),
        S3Credentials::Chain { profile } => from_chain(config, profile.as_deref()).await,
    };
    Client::from_conf(complete(builder, config))
}

/// Where the credentials of the host are looked for, for whoever must be told that none are there.
pub(super) fn chain(credentials: &S3Credentials) -> Option<String> {
    let S3Credentials::Chain { profile } = credentials else {
        return None;
    };
    let profile = profile.as_deref().unwrap_or("default");
    let mut places = vec![format!("the profile {profile}")];
    for name in [TOKEN_FILE, "AWS_CONTAINER_CREDENTIALS_FULL_URI"] {
        match std::env::var(name) {
            Ok(path) if name == TOKEN_FILE => places.push(format!("{name} ({path})")),
            Ok(_) => places.push(name.to_owned()),
            Err(_) => {}
        }
    }
    Some(places.join(", ") + " or the instance")
}

/// What the host's own configuration says: credentials, and the region if nobody else knows it.
async fn from_chain(config: &S3Config, profile: Option<&str>) -> Builder {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(credentials_client(config))
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(profile) = profile {
        loader = loader.profile_name(profile);
    }
    // Naming the region here spares a question to the instance's metadata service.
    if let Some(region) = region_of_chain(config, profile).await {
        loader = loader.region(region);
    }
    Builder::from(&loader.load().await)
}

/// The region of the profile where an endpoint is given; no instance's: such a service is elsewhere.
async fn region_of_chain(config: &S3Config, profile: Option<&str>) -> Option<Region> {
    if let Some(region) = &config.region {
        return Some(Region::new(region.clone()));
    }
    config.endpoint_url.as_ref()?;
    let mut provider = ProfileFileRegionProvider::builder();
    if let Some(profile) = profile {
        provider = provider.profile_name(profile);
    }
    let found = provider.build().region().await;
    Some(found.unwrap_or(Region::new(REGION_DEFAULT)))
}

fn complete(mut builder: Builder, config: &S3Config) -> Config {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .build();
    builder = builder
        .http_client(http_client(config))
        .timeout_config(timeouts)
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .disable_s3_express_session_auth(config.endpoint_url.is_some())
        .force_path_style(is_path_style(config));
    if let Some(region) = &config.region {
        builder = builder.region(Region::new(region.clone()));
    }
    if let Some(endpoint_url) = &config.endpoint_url {
        builder = builder.endpoint_url(endpoint_url.as_str().trim_end_matches('/'));
    }
    let built = builder.build();
    if built.region().is_some() {
        return built;
    }
    built
        .to_builder()
        .region(Region::new(REGION_DEFAULT))
        .build()
}

fn is_path_style(config: &S3Config) -> bool {
    match config.addressing {
        Addressing::Auto => config.endpoint_url.is_some(),
        Addressing::Path => true,
        Addressing::Virtual => false,
    }
}

/// Plain HTTP where the endpoint is: then no certificates are read at all.
fn http_client(config: &S3Config) -> SharedHttpClient {
    if config.is_plain_http() {
        plain_client(ProxyConfig::from_env())
    } else {
        https_client(config, false)
    }
}

fn plain_client(proxy: ProxyConfig) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, _| {
        connector_builder(settings.cloned(), proxy.clone()).build_http()
    })
}

/// For the endpoints that give credentials. Metadata services are asked without a proxy.
fn credentials_client(config: &S3Config) -> SharedHttpClient {
    let direct = plain_client(ProxyConfig::disabled());
    let by_proxy = https_client(config, true);
    http_client_fn(move |settings, components| {
        SharedHttpConnector::new(ByPlace {
            direct: direct.clone(),
            by_proxy: by_proxy.clone(),
            settings: settings.clone(),
            components: components.clone(),
        })
    })
}

/// Chooses a client by where a request goes. The clients keep their connections.
#[derive(Debug)]
struct ByPlace {
    direct: SharedHttpClient,
    by_proxy: SharedHttpClient,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for ByPlace {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let uri = request.uri();
        let is_direct =
            uri.starts_with("http://") && uri.parse::<http::Uri>().is_ok_and(|uri| is_nearby(&uri));
        let client = if is_direct {
            &self.direct
        } else {
            &self.by_proxy
        };
        let connector = client.http_connector(&self.settings, &self.components);
        connector.call(request)
    }
}

/// HTTPS that trusts the bundle, or the host's certificates where there is none or `and_native`.
fn https_client(config: &S3Config, and_native: bool) -> SharedHttpClient {
    let trust_store = match &config.ca_bundle {
        Some(pem) => TrustStore::empty()
            .with_native_roots(and_native)
            .with_pem_certificate(pem.clone()),
        None => TrustStore::default(),
    };
    let context = TlsContext::builder()
        .with_trust_store(trust_store)
        .build()
        .expect("a context of this provider always builds");
    aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, _| {
        connector_builder(settings.cloned(), ProxyConfig::from_env())
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(context.clone())
            .build()
    })
}

fn connector_builder(
    settings: Option<HttpConnectorSettings>,
    proxy: ProxyConfig,
) -> ConnectorBuilder {
    let mut builder = Connector::builder().proxy_config(proxy);
    builder.set_connector_settings(settings);
    builder
}
