//! Which replica's turn it is: a Lease that one holds and renews, and others wait for.
//!
//! As other holders of Leases do it, a holder is gone when it did not renew for as long as this
//! replica watched; no two clocks are compared. Not here: what the holder does.

use std::time::{Duration, Instant};

use cellarman::clock;
use chrono::SecondsFormat;
use http::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Installed;
use crate::resources::api::{ApiError, Body};

/// A holder that does not renew for this long has lost it.
const LEASE: Duration = Duration::from_secs(15);

/// How often the holder renews, and others look.
const LOOK: Duration = Duration::from_secs(3);

/// A holder that could not renew for this long stops, before another may begin.
const RENEW_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs `work` whenever the Lease is held, until `cancel`; its token is cancelled when the Lease
/// is lost. The Lease is given back at the end.
pub async fn whenever_held<W, F>(installed: &Installed, cancel: &CancellationToken, work: W)
where
    W: Fn(CancellationToken) -> F,
    F: Future<Output = ()>,
{
    let mut seen = None;
    while !cancel.is_cancelled() {
        match try_acquire(installed, &mut seen).await {
            Ok(true) => {
                tracing::info!(
                    lease = installed.lease,
                    "this replica looks after ObjectStores"
                );
                let held = cancel.child_token();
                tokio::select! {
                    () = work(held.clone()) => {}
                    () = renew(installed, cancel) => {}
                }
                held.cancel();
                if !cancel.is_cancelled() {
                    tracing::warn!(lease = installed.lease, "lost the lease");
                }
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(lease = installed.lease, %error, "cannot ask for the lease");
            }
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    if let Err(error) = release(installed).await {
        // It runs out by itself.
        tracing::debug!(%error, "cannot give the lease back");
    }
}

/// Who held it, as it was last seen to change.
#[derive(Debug)]
pub struct Seen {
    renewed: Value,
    at: Instant,
}

/// Takes the Lease if nobody holds it. `seen` is kept between calls.
pub async fn try_acquire(installed: &Installed, seen: &mut Option<Seen>) -> Result<bool, ApiError> {
    let lease = match installed.api.get(&path(installed)).await {
        Ok(lease) => lease,
        Err(error) if error.is_not_found() => return create(installed).await,
        Err(error) => return Err(error),
    };
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let is_free = holder.is_empty() || holder == installed.replica || has_run_out(&lease, seen);
    if !is_free {
        return Ok(false);
    }
    let transitions = lease["spec"]["leaseTransitions"].as_i64().unwrap_or(0);
    let now = now();
    let change = json!({
        "metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]},
        "spec": {
            "holderIdentity": installed.replica,
            "leaseDurationSeconds": LEASE.as_secs(),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions.saturating_add(1),
        },
    });
    let path = path(installed);
    let body = Body::Merge(&change);
    match installed.api.call(Method::PATCH, &path, body).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_conflict() || error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

fn has_run_out(lease: &Value, seen: &mut Option<Seen>) -> bool {
    let renewed = json!([
        lease["spec"]["holderIdentity"],
        lease["spec"]["renewTime"],
        lease["metadata"]["resourceVersion"]
    ]);
    let now = Instant::now();
    let seconds = lease["spec"]["leaseDurationSeconds"].as_u64();
    let duration = seconds.map_or(LEASE, Duration::from_secs);
    match seen {
        Some(seen) if seen.renewed == renewed => now.duration_since(seen.at) > duration,
        _ => {
            *seen = Some(Seen { renewed, at: now });
            false
        }
    }
}

async fn create(installed: &Installed) -> Result<bool, ApiError> {
    let now = now();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": installed.lease, "namespace": installed.namespace},
        "spec": {
            "holderIdentity": installed.replica,
            "leaseDurationSeconds": LEASE.as_secs(),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": 0,
        },
    });
    let path = all(installed);
    match installed
        .api
        .call(Method::POST, &path, Body::Json(&lease))
        .await
    {
        Ok(_) => Ok(true),
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Renews until it is lost, or `cancel`.
async fn renew(installed: &Installed, cancel: &CancellationToken) {
    let mut renewed = Instant::now();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let left = RENEW_TIMEOUT.saturating_sub(renewed.elapsed());
        match tokio::time::timeout(left, renew_once(installed)).await {
            Ok(Ok(true)) => renewed = Instant::now(),
            Ok(Err(error)) if renewed.elapsed() < RENEW_TIMEOUT => {
                tracing::debug!(%error, "cannot renew the lease; trying again");
            }
            Ok(Ok(false) | Err(_)) | Err(_) => return,
        }
    }
}

async fn renew_once(installed: &Installed) -> Result<bool, ApiError> {
    let path = path(installed);
    let lease = installed.api.get(&path).await?;
    if lease["spec"]["holderIdentity"] != json!(installed.replica) {
        return Ok(false);
    }
    let change = json!({
        "metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]},
        "spec": {"renewTime": now()},
    });
    let body = Body::Merge(&change);
    match installed.api.call(Method::PATCH, &path, body).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the Lease back, if it is held, so that the next one need not wait.
pub async fn release(installed: &Installed) -> Result<(), ApiError> {
    let path = path(installed);
    let lease = installed.api.get(&path).await?;
    if lease["spec"]["holderIdentity"] != json!(installed.replica) {
        return Ok(());
    }
    let change = json!({
        "metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]},
        "spec": {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now()},
    });
    let body = Body::Merge(&change);
    installed.api.call(Method::PATCH, &path, body).await?;
    Ok(())
}

fn all(installed: &Installed) -> String {
    let namespace = &installed.namespace;
    format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
}

fn path(installed: &Installed) -> String {
    format!("{}/{}", all(installed), installed.lease)
}

/// The time as Leases have it: to the microsecond.
fn now() -> String {
    clock::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}
