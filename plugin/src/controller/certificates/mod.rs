//! The plugin's own certificates, where nobody else makes them: two Secrets, renewed in time.
//!
//! | module | what it is |
//! |---|---|
//! | [`make`] | pure: what is to be done about a Secret, and a new certificate |
//!
//! Every replica sees to them: whoever creates first wins, and the others read. Secrets that
//! somebody else made, such as cert-manager's, are never touched, and the files are served then.
//! Not here: the connections (`grpc::tls`).

pub mod make;

use std::time::Duration;

use cellarman::clock;
use http::Method;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Installed;
use crate::controller::certificates::make::{Standing, Use, standing};
use crate::grpc::tls::{Credentials, Pem};
use crate::resources::api::{ApiError, Body};

/// How often the Secrets are looked at: they may be deleted to have them made anew.
const LOOK: Duration = Duration::from_secs(15);

/// So often a look begins again after another replica was faster.
const ATTEMPTS_MAX: u32 = 3;

/// Sees to the certificates until `cancel`, and holds them ready in `held` where they are its own.
pub async fn keep(
    installed: Installed,
    held: watch::Sender<Option<Credentials>>,
    cancel: CancellationToken,
) {
    let mut last_words = String::new();
    loop {
        let words = match see_to(&installed).await {
            Ok(Some(credentials)) => {
                held.send_if_modified(|held| {
                    let is_new = held.as_ref() != Some(&credentials);
                    *held = Some(credentials);
                    is_new
                });
                "the plugin makes its own certificates".to_owned()
            }
            Ok(None) => {
                held.send_replace(None);
                "somebody else makes the certificates: those in the files are served".to_owned()
            }
            // What is held goes on: the API may be away.
            Err(error) => format!("cannot see to the certificates: {error}"),
        };
        if words != last_words {
            tracing::info!("{words}");
            last_words = words;
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Makes or renews what has to be. The credentials, if both Secrets are the plugin's own.
pub async fn see_to(installed: &Installed) -> Result<Option<Credentials>, ApiError> {
    for _ in 1..ATTEMPTS_MAX {
        match attempt(installed).await {
            Err(error) if error.is_conflict() => {}
            // Without the right to write Secrets, somebody else makes them.
            Err(ApiError::Answer { code: 403, .. }) => return Ok(None),
            outcome => return outcome,
        }
    }
    attempt(installed).await
}

async fn attempt(installed: &Installed) -> Result<Option<Credentials>, ApiError> {
    let now = clock::now();
    let uses = [Use::Server, Use::Client];
    let mut secrets = Vec::new();
    for purpose in uses {
        secrets.push(read(installed, purpose).await?);
    }
    let standings = secrets.iter().map(|secret| standing(secret.as_ref(), now));
    if standings
        .clone()
        .any(|standing| standing == Standing::Foreign)
    {
        return Ok(None);
    }
    let mut pairs = Vec::new();
    for ((purpose, secret), standing) in uses.into_iter().zip(&secrets).zip(standings) {
        let secret = match standing {
            Standing::Good => secret.clone().unwrap_or_default(),
            _ => write(installed, purpose, secret.as_ref()).await?,
        };
        pairs.push((purpose.secret(&installed.service), secret));
    }
    let pem = |index: usize, key: &str| {
        let (name, secret) = pairs.get(index)?;
        Some(Pem {
            origin: format!("{key} of Secret {name}"),
            text: make::value(secret, key)?,
        })
    };
    let credentials = || {
        Some(Credentials {
            server_certificate: pem(0, "tls.crt")?,
            server_key: pem(0, "tls.key")?,
            client_certificate: pem(1, "tls.crt")?,
        })
    };
    Ok(credentials())
}

async fn read(installed: &Installed, purpose: Use) -> Result<Option<Value>, ApiError> {
    match installed.api.get(&path(installed, purpose)).await {
        Ok(secret) => Ok(Some(secret)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates the Secret, or renews what is in it.
async fn write(
    installed: &Installed,
    purpose: Use,
    current: Option<&Value>,
) -> Result<Value, ApiError> {
    let place = make::Place {
        service: &installed.service,
        namespace: &installed.namespace,
    };
    let wanted = make::secret(purpose, &place, current, clock::now());
    let wanted = wanted.map_err(|reason| ApiError::Unreadable { reason })?;
    let name = purpose.secret(&installed.service);
    let written = if current.is_some() {
        let path = path(installed, purpose);
        installed
            .api
            .call(Method::PATCH, &path, Body::Merge(&wanted))
            .await?
    } else {
        installed
            .api
            .call(Method::POST, &all(installed), Body::Json(&wanted))
            .await?
    };
    tracing::info!(secret = name, "made a certificate");
    Ok(written)
}

fn all(installed: &Installed) -> String {
    format!("/api/v1/namespaces/{}/secrets", installed.namespace)
}

fn path(installed: &Installed, purpose: Use) -> String {
    let name = purpose.secret(&installed.service);
    format!("{}/{name}", all(installed))
}
