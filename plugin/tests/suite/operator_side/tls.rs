//! Real handshakes: who is let in, and what is read anew.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cellarman_plugin::grpc::tls::{Connection, Files, Source, accept, server_config};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(super) struct Pair {
    certificate: String,
    key: String,
}

fn params(until: i32, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::new(["barman-cloud".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

fn self_signed(params: &CertificateParams) -> Pair {
    let key = KeyPair::generate().unwrap();
    Pair {
        certificate: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

fn good() -> Pair {
    self_signed(&params(2090, false))
}

/// An authority, and a client's certificate signed by it that is valid until then.
fn signed(until: i32) -> (Pair, Pair) {
    let authority = params(2090, true);
    let key = KeyPair::generate().unwrap();
    let root = Pair {
        certificate: authority.self_signed(&key).unwrap().pem(),
        key: String::new(),
    };
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let leaf = Pair {
        certificate: params(until, false).signed_by(&key, &issuer).unwrap().pem(),
        key: key.serialize_pem(),
    };
    (root, leaf)
}

struct Server {
    folder: tempfile::TempDir,
    address: SocketAddr,
    connections: mpsc::Receiver<io::Result<Connection>>,
    cancel: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Server {
    async fn start(server: &Pair, client: &Pair) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Files {
            server_certificate: path(folder.path(), "server.crt"),
            server_key: path(folder.path(), "server.key"),
            client_certificate: path(folder.path(), "client.crt"),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, connections) = mpsc::channel(4);
        let cancel = CancellationToken::new();
        let source = Source {
            held: watch::channel(None).1,
            files: Some(files),
        };
        tokio::spawn(accept(
            listener,
            source,
            server_config,
            sender,
            cancel.clone(),
        ));
        let started = Self {
            folder,
            address,
            connections,
            cancel,
        };
        started.install(server, client);
        started
    }

    fn install(&self, server: &Pair, client: &Pair) {
        let folder = self.folder.path();
        fs::write(path(folder, "server.crt"), &server.certificate).unwrap();
        fs::write(path(folder, "server.key"), &server.key).unwrap();
        fs::write(path(folder, "client.crt"), &client.certificate).unwrap();
    }

    /// Whether a client with this certificate is let in, and the server's it was shown.
    async fn connect(
        &mut self,
        client: Option<&Pair>,
        version: &'static SupportedProtocolVersion,
    ) -> Result<CertificateDer<'static>, String> {
        let config = client_config(client, version);
        let name = ServerName::try_from("barman-cloud").unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let talk = async {
            let mut stream = connector.connect(name, stream).await?;
            let (_, session) = stream.get_ref();
            let shown = session.peer_certificates().unwrap()[0].clone().into_owned();
            // The server's verdict on the client comes after the client's own part is done.
            stream.write_all(b"hello").await?;
            stream.flush().await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
            Ok::<_, io::Error>(shown)
        };
        let connections = &mut self.connections;
        let echo = async {
            let mut connection = connections.recv().await.unwrap().unwrap();
            let mut bytes = [0; 5];
            connection.read_exact(&mut bytes).await.unwrap();
            connection.write_all(&bytes).await.unwrap();
            connection.flush().await.unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            shown = talk => shown.map_err(|error| error.to_string()),
            () = echo => Err("the server has ended".to_owned()),
        }
    }
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(name)
}

pub(super) fn client_config(
    client: Option<&Pair>,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    match client {
        None => config.with_no_client_auth(),
        Some(pair) => {
            let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            config
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
    }
}

/// The client's side is not what is tested.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::ring::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[tokio::test]
async fn the_known_client_is_let_in_whatever_its_certificate_says_of_itself() {
    for client in [good(), self_signed(&params(2090, true))] {
        let mut server = Server::start(&good(), &client).await;
        server.connect(Some(&client), &TLS13).await.unwrap();
    }
}

#[tokio::test]
async fn others_are_refused() {
    let (server, client) = (good(), good());
    let expired = self_signed(&params(2021, false));
    for (case, known, shown, word) in [
        ("another one", &client, Some(&good()), "UnknownCA"),
        ("none", &client, None, "CertificateRequired"),
        (
            "an expired one",
            &expired,
            Some(&expired),
            "CertificateExpired",
        ),
    ] {
        let mut server = Server::start(&server, known).await;
        let refused = server.connect(shown, &TLS13).await.unwrap_err();
        assert!(refused.contains(word), "{case}: {refused}");
    }
}

#[tokio::test]
async fn the_key_has_to_be_the_certificates_own() {
    let client = good();
    let thief = Pair {
        certificate: client.certificate.clone(),
        key: good().key,
    };
    // The client's own library may notice first.
    let config = std::panic::catch_unwind(|| client_config(Some(&thief), &TLS13));
    assert!(config.is_err(), "a certificate with another's key");
}

#[tokio::test]
async fn an_older_tls_is_refused() {
    let client = good();
    let mut server = Server::start(&good(), &client).await;
    let refused = server.connect(Some(&client), &TLS12).await.unwrap_err();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
}

#[tokio::test]
async fn a_client_signed_by_the_known_certificate_is_let_in_while_valid() {
    let (root, leaf) = signed(2090);
    let mut server = Server::start(&good(), &root).await;
    server.connect(Some(&leaf), &TLS13).await.unwrap();
    let (root, expired) = signed(2021);
    let mut server = Server::start(&good(), &root).await;
    let refused = server.connect(Some(&expired), &TLS13).await.unwrap_err();
    assert!(refused.contains("CertificateExpired"), "{refused}");
}

#[tokio::test]
async fn renewed_files_are_used_at_once_and_broken_ones_only_hinder_meanwhile() {
    let (first, client) = (good(), good());
    let mut server = Server::start(&first, &client).await;
    let der = |pair: &Pair| CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
    let shown = server.connect(Some(&client), &TLS13).await.unwrap();
    assert_eq!(shown, der(&first));
    let (second, renewed) = (good(), good());
    server.install(&second, &renewed);
    let shown = server.connect(Some(&renewed), &TLS13).await.unwrap();
    assert_eq!(shown, der(&second));
    server.connect(Some(&client), &TLS13).await.unwrap_err();
    let broken = Pair {
        certificate: "-----BEGIN".to_owned(),
        key: String::new(),
    };
    server.install(&broken, &renewed);
    server.connect(Some(&renewed), &TLS13).await.unwrap_err();
    server.install(&second, &renewed);
    server.connect(Some(&renewed), &TLS13).await.unwrap();
}
