//! The operator's connections: TLS 1.3, and one client, whose certificate is known beforehand; and
//! those of anybody, to what is not the operator's.
//!
//! Certificates are read anew for each connection, so that renewed ones need no restart. A client
//! is let in whose certificate is one of the given ones, or is signed by one of them. Not here:
//! making certificates (`controller`).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cellarman::clock;
use cellarman::fault::{Fault, Kind};
use chrono::DateTime;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::NoClientAuth;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig};
use rustls::{PeerIncompatible, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::certificate::{certificates, validity};

/// A client that has not introduced itself by then is left.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// So many clients may introduce themselves at once; the next one waits.
const HANDSHAKES_MAX: usize = 32;

/// How the certificates of the server fail.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A text holds no certificate or key, or not one that can be used.
    #[error("{origin} cannot be used: {reason}")]
    Unusable {
        /// The file, or the Secret with its key.
        origin: String,
        /// Why.
        reason: String,
    },
    /// There are no certificates yet.
    #[error("there are no certificates yet")]
    Missing,
}

impl Fault for TlsError {
    fn kind(&self) -> Kind {
        Kind::Config
    }

    fn hint(&self) -> String {
        match self {
            Self::Read { .. } | Self::Unusable { .. } => {
                "Check that both Secrets that the plugin's Service names are there and mounted."
            }
            Self::Missing => "Wait until one replica has made them, and read its log if none does.",
        }
        .to_owned()
    }
}

/// A text in PEM form and where it is from. Its contents are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The file, or the Secret with its key.
    pub origin: String,
    /// The text.
    pub text: Vec<u8>,
}

impl fmt::Debug for Pem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Pem").field(&self.origin).finish()
    }
}

/// What one connection needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The server's certificate, and what it is signed by.
    pub server_certificate: Pem,
    /// Its key.
    pub server_key: Pem,
    /// The certificates by which clients are known.
    pub client_certificate: Pem,
}

/// The three files with the credentials.
#[derive(Debug, Clone)]
pub struct Files {
    /// The server's certificate.
    pub server_certificate: PathBuf,
    /// Its key.
    pub server_key: PathBuf,
    /// The certificates by which clients are known.
    pub client_certificate: PathBuf,
}

/// Where the credentials are.
#[derive(Debug, Clone)]
pub struct Source {
    /// With the one who makes and renews them, if they are made here.
    pub held: watch::Receiver<Option<Credentials>>,
    /// In files, if they are made elsewhere.
    pub files: Option<Files>,
}

impl Source {
    /// The credentials as they are now.
    pub async fn read(&self) -> Result<Credentials, TlsError> {
        let held = self.held.borrow().clone();
        if let Some(held) = held {
            return Ok(held);
        }
        let files = self.files.as_ref().ok_or(TlsError::Missing)?;
        Ok(Credentials {
            server_certificate: read(&files.server_certificate).await?,
            server_key: read(&files.server_key).await?,
            client_certificate: read(&files.client_certificate).await?,
        })
    }
}

async fn read(path: &Path) -> Result<Pem, TlsError> {
    let text = tokio::fs::read(path).await;
    let text = text.map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(Pem {
        origin: path.display().to_string(),
        text,
    })
}

/// From credentials to the settings of a connection.
pub type Configure = fn(&Credentials) -> Result<ServerConfig, TlsError>;

/// The settings of a connection with these credentials: HTTP/2, for a client that is known.
pub fn server_config(credentials: &Credentials) -> Result<ServerConfig, TlsError> {
    let clients = KnownClients {
        certificates: chain_of(&credentials.client_certificate)?,
        algorithms: provider().signature_verification_algorithms,
    };
    let mut config = configure(credentials, Arc::new(clients))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The settings of a connection with these credentials: HTTP/1.1, for anybody.
pub fn config_for_anybody(credentials: &Credentials) -> Result<ServerConfig, TlsError> {
    let mut config = configure(credentials, Arc::new(NoClientAuth))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn configure(
    credentials: &Credentials,
    clients: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, TlsError> {
    let server = &credentials.server_certificate;
    let chain = chain_of(server)?;
    let key = PrivateKeyDer::from_pem_slice(&credentials.server_key.text)
        .map_err(|error| unusable(&credentials.server_key, error.to_string()))?;
    ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(server, error.to_string()))?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(|error| unusable(server, error.to_string()))
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn chain_of(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates(&pem.text).map_err(|reason| unusable(pem, reason))
}

fn unusable(pem: &Pem, reason: String) -> TlsError {
    TlsError::Unusable {
        origin: pem.origin.clone(),
        reason,
    }
}

/// Lets in the clients whose certificates are known, or signed by a known one.
#[derive(Debug)]
struct KnownClients {
    certificates: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl KnownClients {
    /// Whether a known certificate signed it, at this time, for use by a client.
    fn verify_signed(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let anchors: Vec<TrustAnchor<'_>> = self
            .certificates
            .iter()
            .filter_map(|certificate| anchor_from_trusted_cert(certificate).ok())
            .collect();
        EndEntityCert::try_from(leaf)?.verify_for_usage(
            self.algorithms.all,
            &anchors,
            intermediates,
            now,
            KeyUsage::client_auth(),
            None,
            None,
        )?;
        Ok(())
    }
}

impl ClientCertVerifier for KnownClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        // Self-signed certificates, of which some say that they are authorities and some that
        // they are not, pass no rule of a chain: they are known byte for byte.
        if self.certificates.contains(end_entity) {
            let validity = validity(end_entity).ok_or(CertificateError::BadEncoding)?;
            let now = i64::try_from(now.as_secs()).ok();
            let now = now.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
            let now = now.ok_or(CertificateError::BadEncoding)?;
            if now > validity.not_after {
                return Err(CertificateError::Expired.into());
            }
            if now < validity.not_before {
                return Err(CertificateError::NotValidYet.into());
            }
            return Ok(ClientCertVerified::assertion());
        }
        match self.verify_signed(end_entity, intermediates, now) {
            Ok(()) => Ok(ClientCertVerified::assertion()),
            Err(webpki::Error::CertExpired { .. }) => Err(CertificateError::Expired.into()),
            Err(webpki::Error::CertNotValidYet { .. }) => Err(CertificateError::NotValidYet.into()),
            Err(error) => {
                tracing::debug!(%error, "a client's certificate is not signed by a known one");
                Err(CertificateError::UnknownIssuer.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A client that was let in.
#[derive(Debug)]
pub struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Accepts clients and hands on those that are let in, until `cancel`.
pub async fn accept(
    listener: TcpListener,
    source: Source,
    configure: Configure,
    connections: mpsc::Sender<io::Result<Connection>>,
    cancel: CancellationToken,
) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            Some(_) = handshakes.join_next(), if !handshakes.is_empty() => {}
            accepted = listener.accept(), if handshakes.len() < HANDSHAKES_MAX => match accepted {
                Ok((stream, peer)) => {
                    let (source, connections) = (source.clone(), connections.clone());
                    handshakes.spawn(async move {
                        if let Some(connection) = let_in(stream, peer, &source, configure).await {
                            // Nobody takes it once the server ends.
                            let _ = connections.send(Ok(connection)).await;
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of file descriptors, most likely: some are freed in a while.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    handshakes.shutdown().await;
}

async fn let_in(
    stream: TcpStream,
    peer: SocketAddr,
    source: &Source,
    configure: Configure,
) -> Option<Connection> {
    let config = match source.read().await {
        Ok(credentials) => {
            warn_if_expired(&credentials.server_certificate);
            configure(&credentials)
        }
        Err(error) => Err(error),
    };
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            let hint = error.hint();
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, cause, hint, "no connection can be accepted");
            return None;
        }
    };
    let _ = stream.set_nodelay(true);
    let handshake = TlsAcceptor::from(Arc::new(config)).accept(stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => Some(Connection(stream)),
        // Probes of the kubelet connect and say nothing.
        Ok(Err(error)) if is_hang_up(&error) => None,
        Ok(Err(error)) => {
            let reason = refusal(&error);
            tracing::warn!(%peer, reason, "a client was refused");
            None
        }
        Err(_elapsed) => None,
    }
}

fn warn_if_expired(certificate: &Pem) {
    let leaf = certificates(&certificate.text).ok();
    let leaf = leaf.and_then(|chain| validity(chain.first()?));
    if let Some(validity) = leaf
        && validity.not_after < clock::now()
    {
        let not_after = validity.not_after.to_rfc3339();
        let origin = &certificate.origin;
        tracing::error!(
            origin,
            not_after,
            "the server's certificate has expired, and clients will refuse it. Renew it."
        );
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

/// Why a client was not let in, in sentences.
fn refusal(error: &io::Error) -> String {
    let inner = error.get_ref();
    let sentence = match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => {
            "The client's certificate has expired. Renew it in the Secret that the annotation \
               cnpg.io/pluginClientSecret of the plugin's Service names."
        }
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        )) => "The client's certificate is not valid yet. Compare the clocks of both sides.",
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "The client's certificate is neither one that is known here nor signed by one. The \
             Secret that the operator uses and the one that is mounted here have to be the same."
        }
        Some(rustls::Error::NoCertificatesPresented) => {
            "The client has no certificate. Only the operator may connect."
        }
        Some(rustls::Error::PeerIncompatible(_)) => {
            "The client speaks no TLS 1.3, or has no algorithm in common with this server."
        }
        _ => return error.to_string(),
    };
    sentence.to_owned()
}
