//! What one replica does for all: it looks after ObjectStores, their conditions and Roles.
//!
//! | module | what it is |
//! |---|---|
//! | [`lease`] | which replica it is |
//! | [`object_stores`] | the work |
//! | [`access`] | writing Roles and RoleBindings, for the calls as well |
//! | [`certificates`] | the plugin's own certificates; every replica sees to them |
//! | [`webhook`] | the certificate in the configuration of the admission webhook |
//!
//! Not here: the calls of the operator, which every replica answers.

pub mod access;
pub mod certificates;
pub mod lease;
pub mod object_stores;
pub mod webhook;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::arguments::operator::OperatorArguments;
use crate::cache::Caches;
use crate::grpc::tls::Credentials;
use crate::operator::Settings;
use crate::resources::api::ApiServer;

/// What was installed, and which Pod of it this is.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The API.
    pub api: ApiServer,
    /// The plugin's namespace.
    pub namespace: String,
    /// The plugin's Service.
    pub service: String,
    /// The Lease by which replicas agree.
    pub lease: String,
    /// This replica among them.
    pub replica: String,
    /// Whether there may be several replicas.
    pub is_elected: bool,
    /// Whether the admission webhook is served.
    pub has_webhook: bool,
}

impl Installed {
    /// As the manifests have it: beside plugin-barman-cloud, names begin with `cellarman-`.
    pub fn find(api: &ApiServer, settings: &Settings, arguments: &OperatorArguments) -> Self {
        let (service, lease) = if settings.names.are_usual() {
            ("barman-cloud", "822e3f5c.cnpg.io")
        } else {
            ("cellarman-barman-cloud", "cellarman.822e3f5c.cnpg.io")
        };
        let host = std::env::var("HOSTNAME").unwrap_or_default();
        let start = cellarman::clock::now().timestamp_micros();
        Self {
            api: api.clone(),
            namespace: api.client().default_namespace().to_owned(),
            service: arguments
                .service_name
                .clone()
                .unwrap_or_else(|| service.to_owned()),
            lease: lease.to_owned(),
            // A Pod's container that starts again is another replica.
            replica: format!("{host}_{start}"),
            is_elected: arguments.leader_elect,
            has_webhook: arguments.webhook_address.is_some(),
        }
    }
}

/// Does the work whenever it is this replica's turn, until `cancel`. `held` are the certificates that
/// the plugin makes itself.
pub async fn run(
    installed: Installed,
    caches: Caches,
    settings: Settings,
    held: watch::Receiver<Option<Credentials>>,
    cancel: CancellationToken,
) {
    let work = |cancel: CancellationToken| {
        let held = held.clone();
        let (installed, caches, settings) = (&installed, &caches, &settings);
        async move {
            let stores = object_stores::run(&installed.api, caches, settings, cancel.clone());
            if installed.has_webhook {
                tokio::join!(stores, webhook::keep(installed, held, cancel));
            } else {
                stores.await;
            }
        }
    };
    if installed.is_elected {
        lease::whenever_held(&installed, &cancel, work).await;
    } else {
        work(cancel).await;
    }
}
