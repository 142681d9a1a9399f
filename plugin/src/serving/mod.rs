//! Serves the operator, on every replica alike.
//!
//! | module | what it is |
//! |---|---|
//! | [`services`] | the calls |
//! | [`news`] | telling the readers of Clusters what is wrong |
//! | [`health`] | the kubelet's probes |
//! | [`webhook`] | reviews of new Clusters, if it is asked for |
//!
//! The port opens once a call can be answered, and closes a while after the process is told to
//! end, so that a rolling update is no outage. Not here: what the answers are.

pub mod health;
pub mod news;
pub mod services;
pub mod webhook;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cellarman::cnpgi::identity::plugin_capability::service::Type as ServiceType;
use cellarman::cnpgi::operator::operator_server::OperatorServer;
use cellarman::cnpgi::operator_lifecycle::operator_lifecycle_server::OperatorLifecycleServer;
use cellarman::cnpgi::reconciler::reconciler_hooks_server::ReconcilerHooksServer;
use cellarman::fault::{AnyFault, Fault, Kind};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::admission::Admission;
use crate::arguments::CommonArguments;
use crate::arguments::operator::OperatorArguments;
use crate::cache::Caches;
use crate::controller::{self, certificates};
use crate::grpc::panics::CatchPanics;
use crate::grpc::tls::{self, Files, Source};
use crate::grpc::{identity, socket};
use crate::operator::Settings;
use crate::resources::api::ApiServer;
use crate::serving::news::Teller;
use crate::serving::services::Services;

/// A Cluster and a Pod in one call; Kubernetes itself takes no object over 3 MiB.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// How long the port stays open after the process is told to end: until nobody is sent here.
const DRAIN: Duration = Duration::from_secs(5);

/// Calls in flight that have not ended by then are left; the operator itself waits 30 s.
const CALLS_END_TIMEOUT: Duration = Duration::from_secs(20);

/// How often the log says what is waited for.
const WAIT_REPORT: Duration = Duration::from_secs(10);

/// How serving the operator fails.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// Nobody says which image the sidecars have.
    #[error("there is no image for the sidecars: the variable SIDECAR_IMAGE is not set")]
    NoSidecarImage,
    /// The API cannot be found.
    #[error("the Kubernetes API cannot be found: {reason}")]
    NoApi {
        /// Why.
        reason: String,
    },
    /// An address is none, or is taken.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address as it was given.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The server broke down.
    #[error("serving failed")]
    Serve(#[from] tonic::transport::Error),
}

impl Fault for ServingError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoSidecarImage | Self::NoApi { .. } => Kind::Config,
            Self::Listen { .. } => Kind::Local,
            Self::Serve(_) => Kind::Internal,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::NoSidecarImage => {
                "Set SIDECAR_IMAGE to the image that the Clusters' sidecars are to have."
            }
            Self::NoApi { .. } => {
                "Run it in a Pod with a service account, or give KUBECONFIG a file that serves."
            }
            Self::Listen { .. } => "Give it an address such as :9090 that is free.",
            Self::Serve(_) => self.kind().hint(),
        }
        .to_owned()
    }
}

/// How far the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Serving,
    Ending,
}

/// Serves the operator until `cancel`.
pub async fn serve(
    common: &CommonArguments,
    arguments: &OperatorArguments,
    cancel: CancellationToken,
) -> Result<(), AnyFault> {
    let settings = settings(common, arguments)?;
    let api = ApiServer::find().await;
    let api = api.map_err(|error| ServingError::NoApi {
        reason: error.to_string(),
    })?;
    if arguments.metrics_bind_address != "0" {
        tracing::warn!("the operator's side has no figures of its own: nothing serves them");
    }
    let probes = listen(&arguments.health_probe_bind_address).await?;
    let (phase, phases) = watch::channel(Phase::Starting);
    let not_ready = move || match *phases.borrow() {
        Phase::Starting => Some("starting"),
        Phase::Serving => None,
        Phase::Ending => Some("ending"),
    };
    let ending = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(health::serve(probes, Arc::new(not_ready), ending.clone()));
    let caches = Caches::start(&api, &settings, &mut tasks, &ending);
    let installed = controller::Installed::find(&api, &settings, arguments);
    let (held, source) = source(arguments);
    tasks.spawn(controller::run(
        installed.clone(),
        caches.clone(),
        settings.clone(),
        source.held.clone(),
        ending.clone(),
    ));
    let (teller, telling) = Teller::start(ending.clone());
    tasks.spawn(telling);
    let services = Services::new(api.clone(), caches.clone(), settings.clone(), teller);
    let routes = routes(&settings, services);
    let outcome = if let Some(folder) = &arguments.plugin_path {
        if arguments.webhook_address.is_some() {
            tracing::warn!("beside a socket the admission webhook is not served");
        }
        serve_on_socket(folder, &settings, routes, &phase, cancel).await
    } else {
        tasks.spawn(certificates::keep(installed, held, ending.clone()));
        wait_until_ready(&caches, &source, &cancel).await;
        if let Some(address) = &arguments.webhook_address {
            let listener = listen(address).await?;
            let admission = Admission::new(api, settings);
            let serving = webhook::serve(listener, source.clone(), admission, ending.clone());
            tracing::info!(address, "serving the admission webhook");
            tasks.spawn(serving);
        }
        serve_on_port(arguments, source, routes, &phase, cancel).await
    };
    ending.cancel();
    while tasks.join_next().await.is_some() {}
    outcome
}

fn settings(
    common: &CommonArguments,
    arguments: &OperatorArguments,
) -> Result<Settings, ServingError> {
    if arguments.sidecar_image.is_empty() {
        return Err(ServingError::NoSidecarImage);
    }
    let mut settings = Settings::new(&common.plugin_name, &arguments.sidecar_image);
    for (given, setting) in [
        (
            &arguments.cnpg.custom_cnpg_group,
            &mut settings.cluster_group,
        ),
        (
            &arguments.cnpg.custom_cnpg_version,
            &mut settings.cluster_version,
        ),
    ] {
        if !given.is_empty() {
            setting.clone_from(given);
        }
    }
    Ok(settings)
}

/// Where the certificates are, and where those go that the plugin makes itself.
fn source(arguments: &OperatorArguments) -> (watch::Sender<Option<tls::Credentials>>, Source) {
    let (held, receiver) = watch::channel(None);
    let files = match (
        &arguments.server_cert,
        &arguments.server_key,
        &arguments.client_cert,
    ) {
        (Some(server_certificate), Some(server_key), Some(client_certificate)) => Some(Files {
            server_certificate: server_certificate.clone(),
            server_key: server_key.clone(),
            client_certificate: client_certificate.clone(),
        }),
        _ => None,
    };
    let source = Source {
        held: receiver,
        files,
    };
    (held, source)
}

/// The services of the operator's side.
pub fn routes(settings: &Settings, services: Services) -> Routes {
    let served = [
        ServiceType::ReconcilerHooks,
        ServiceType::LifecycleService,
        ServiceType::InstanceSidecarInjection,
        ServiceType::OperatorService,
    ];
    let lifecycle = OperatorLifecycleServer::new(services.clone());
    let hooks = ReconcilerHooksServer::new(services.clone());
    let operator = OperatorServer::new(services);
    let mut routes = Routes::builder();
    routes
        .add_service(identity::server(&settings.names.plugin, &served))
        .add_service(lifecycle.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(hooks.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(operator.max_decoding_message_size(MESSAGE_BYTES_MAX));
    routes.routes()
}

async fn wait_until_ready(caches: &Caches, source: &Source, cancel: &CancellationToken) {
    let mut since_report = WAIT_REPORT;
    while !cancel.is_cancelled() {
        let credentials = source.read().await;
        let credentials = credentials.and_then(|credentials| tls::server_config(&credentials));
        let awaited = match (&credentials, caches.are_filled()) {
            (Ok(_), true) => return,
            (Ok(_), false) => "the Kubernetes API has not told of all objects yet".to_owned(),
            (Err(error), _) => error.to_string(),
        };
        if since_report >= WAIT_REPORT {
            tracing::info!("not serving yet: {awaited}");
            since_report = Duration::ZERO;
        }
        let pause = Duration::from_millis(200);
        tokio::time::sleep(pause).await;
        since_report += pause;
    }
}

async fn serve_on_port(
    arguments: &OperatorArguments,
    source: Source,
    routes: Routes,
    phase: &watch::Sender<Phase>,
    cancel: CancellationToken,
) -> Result<(), AnyFault> {
    if cancel.is_cancelled() {
        return Ok(());
    }
    let listener = listen(&arguments.server_address).await?;
    tracing::info!(address = arguments.server_address, "serving the operator");
    phase.send_replace(Phase::Serving);
    let closing = CancellationToken::new();
    let (sender, connections) = mpsc::channel(16);
    let accepting = tokio::spawn(tls::accept(
        listener,
        source,
        tls::server_config,
        sender,
        closing.clone(),
    ));
    let serving = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .layer(CatchPanics)
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            ReceiverStream::new(connections),
            closing.clone().cancelled_owned(),
        );
    let end = async {
        cancel.cancelled().await;
        phase.send_replace(Phase::Ending);
        tokio::time::sleep(DRAIN).await;
        closing.cancel();
        tokio::time::sleep(CALLS_END_TIMEOUT).await;
    };
    let outcome = tokio::select! {
        outcome = serving => outcome,
        () = end => Ok(()),
    };
    closing.cancel();
    // It ends with the token, and has nothing to say.
    let _ = accepting.await;
    Ok(outcome.map_err(ServingError::Serve)?)
}

async fn serve_on_socket(
    folder: &Path,
    settings: &Settings,
    routes: Routes,
    phase: &watch::Sender<Phase>,
    cancel: CancellationToken,
) -> Result<(), AnyFault> {
    phase.send_replace(Phase::Serving);
    let path = folder.join(&settings.names.plugin);
    socket::serve(&path, routes, cancel).await?;
    Ok(())
}

/// Listens on an address; one without a host is on all of this host's.
async fn listen(address: &str) -> Result<TcpListener, ServingError> {
    let failure = |source| ServingError::Listen {
        address: address.to_owned(),
        source,
    };
    let Some(port) = address.strip_prefix(':') else {
        return TcpListener::bind(address).await.map_err(failure);
    };
    if let Ok(listener) = TcpListener::bind(format!("[::]:{port}")).await {
        return Ok(listener);
    }
    // Without IPv6 there is the other.
    let port = port.parse().map_err(io::Error::other).map_err(failure)?;
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    TcpListener::bind(address).await.map_err(failure)
}
