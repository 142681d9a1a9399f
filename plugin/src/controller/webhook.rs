//! The authority in the configuration of the admission webhook: the plugin's own certificate, where
//! it makes that itself.
//!
//! The configuration itself is the manifests'; where there is none, nothing is made. Not here: the
//! webhook (`serving`), and certificates of others, whose makers bring them there.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Installed;
use crate::grpc::tls::Credentials;
use crate::resources::api::{ApiError, Body};

/// Where the configurations of webhooks are.
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

/// How often it is looked at: somebody may apply it anew.
const LOOK: Duration = Duration::from_secs(15);

/// Keeps the authority in step with the certificate that is held, until `cancel`.
pub async fn keep(
    installed: &Installed,
    mut held: watch::Receiver<Option<Credentials>>,
    cancel: CancellationToken,
) {
    let mut last_words = String::new();
    loop {
        let credentials = held.borrow_and_update().clone();
        if let Some(credentials) = credentials
            && let Err(error) = bring_in_step(installed, &credentials).await
        {
            let words = error.to_string();
            if words != last_words {
                tracing::warn!(%error, "cannot see to the configuration of the webhook");
                last_words = words;
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
            // Who makes them may be gone before this ends.
            Ok(()) = held.changed() => {}
        }
    }
}

/// Puts the certificate into the configuration, unless it is there.
pub async fn bring_in_step(
    installed: &Installed,
    credentials: &Credentials,
) -> Result<(), ApiError> {
    let path = format!("{CONFIGURATIONS}/{}-recovery-target", installed.service);
    let configuration = match installed.api.get(&path).await {
        Ok(configuration) => configuration,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    };
    let certificate = &credentials.server_certificate.text;
    let Some(change) = change_of(&configuration, certificate) else {
        return Ok(());
    };
    match installed
        .api
        .call(Method::PATCH, &path, Body::Merge(&change))
        .await
    {
        Ok(_) => tracing::info!("the webhook's configuration has the certificate"),
        // Changed in between, or gone: the next look sees to it.
        Err(error) if error.is_conflict() || error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// What is to be merged into the configuration; nothing where it has the certificate.
fn change_of(configuration: &Value, certificate: &[u8]) -> Option<Value> {
    let mut webhooks = configuration["webhooks"].as_array()?.clone();
    let authority = json!(STANDARD.encode(certificate));
    let mut is_new = false;
    for client in webhooks
        .iter_mut()
        .filter_map(|webhook| webhook.get_mut("clientConfig")?.as_object_mut())
    {
        let before = client.insert("caBundle".to_owned(), authority.clone());
        is_new |= before.as_ref() != Some(&authority);
    }
    let version = &configuration["metadata"]["resourceVersion"];
    is_new.then(|| json!({"metadata": {"resourceVersion": version}, "webhooks": webhooks}))
}
