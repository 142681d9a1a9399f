//! What is to be done about a Secret with a certificate, and a new one.
//!
//! A renewed certificate keeps its key: while some know the old one and some the new one, either
//! is signed by the other. Pure but for the random numbers of a new key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Datelike, TimeDelta, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::grpc::certificate::{certificates, validity};

/// The mark of Secrets that the plugin makes; others it leaves alone.
const MADE_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "cellarman-plugin");

/// How long a certificate is valid.
const VALID_DAYS: i64 = 90;

/// It is renewed when so many of them are left.
const RENEW_DAYS: i64 = 30;

/// Which side shows the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// The plugin.
    Server,
    /// The operator.
    Client,
}

impl Use {
    /// The Secret it is in.
    pub fn secret(self, service: &str) -> String {
        match self {
            Self::Server => format!("{service}-server-tls"),
            Self::Client => format!("{service}-client-tls"),
        }
    }
}

/// What is to be done about a Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Create it.
    Missing,
    /// Leave it alone.
    Foreign,
    /// Put a new certificate into it.
    Due,
    /// Nothing.
    Good,
}

/// Where the plugin is installed.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its Service.
    pub service: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
}

/// What is to be done about a Secret.
pub fn standing(secret: Option<&Value>, now: DateTime<Utc>) -> Standing {
    let Some(secret) = secret else {
        return Standing::Missing;
    };
    let metadata = &secret["metadata"];
    let annotations = metadata["annotations"].as_object();
    let is_cert_managers = annotations
        .into_iter()
        .flatten()
        .any(|(key, _)| key.starts_with("cert-manager.io/"));
    if is_cert_managers || metadata["labels"][MADE_BY.0] != MADE_BY.1 {
        return Standing::Foreign;
    }
    let key = value(secret, "tls.key");
    let has_key = key.is_some_and(|key| PrivateKeyDer::from_pem_slice(&key).is_ok());
    let leaf = value(secret, "tls.crt").and_then(|pem| {
        let leaf: CertificateDer<'_> = certificates(&pem).ok()?.into_iter().next()?;
        validity(&leaf)
    });
    let soon = now + TimeDelta::days(RENEW_DAYS);
    match leaf {
        Some(leaf) if has_key && leaf.not_before <= now && leaf.not_after > soon => Standing::Good,
        _ => Standing::Due,
    }
}

/// A decoded value of a Secret.
pub fn value(secret: &Value, key: &str) -> Option<Vec<u8>> {
    let value = secret["data"][key].as_str()?;
    STANDARD
        .decode(value)
        .ok()
        .filter(|value| !value.is_empty())
}

/// The Secret with a new certificate: whole, or what is to be merged into `current`.
pub fn secret(
    purpose: Use,
    place: &Place<'_>,
    current: Option<&Value>,
    now: DateTime<Utc>,
) -> Result<Value, String> {
    let key = current
        .and_then(|secret| value(secret, "tls.key"))
        .and_then(|pem| KeyPair::from_pem(str::from_utf8(&pem).ok()?).ok());
    let key = match key {
        Some(key) => key,
        None => KeyPair::generate().map_err(|error| error.to_string())?,
    };
    let certificate = params(purpose, place, now)?
        .self_signed(&key)
        .map_err(|error| error.to_string())?
        .pem();
    let certificate = STANDARD.encode(certificate);
    let data = json!({
        "tls.crt": certificate,
        "tls.key": STANDARD.encode(key.serialize_pem()),
        "ca.crt": certificate,
    });
    if let Some(current) = current {
        // In between, somebody else may have renewed it: that is a conflict.
        let version = &current["metadata"]["resourceVersion"];
        return Ok(json!({"metadata": {"resourceVersion": version}, "data": data}));
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {
            "name": purpose.secret(place.service),
            "namespace": place.namespace,
            "labels": {
                MADE_BY.0: MADE_BY.1,
                "app.kubernetes.io/name": "plugin-barman-cloud",
            },
        },
        "data": data,
    }))
}

fn params(
    purpose: Use,
    place: &Place<'_>,
    now: DateTime<Utc>,
) -> Result<CertificateParams, String> {
    let Place { service, namespace } = place;
    let names = match purpose {
        Use::Server => vec![
            (*service).to_owned(),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ],
        Use::Client => vec![format!("{service}-client")],
    };
    let common_name = names.first().cloned().unwrap_or_default();
    let mut params = CertificateParams::new(names).map_err(|error| error.to_string())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    // Since yesterday, for clocks differ.
    let (year, month, day) = day_of(now - TimeDelta::days(1))?;
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = day_of(now + TimeDelta::days(VALID_DAYS))?;
    params.not_after = date_time_ymd(year, month, day);
    match purpose {
        Use::Server => {
            // The operator takes this certificate for its trust anchor, and Go has anchors sign
            // only where they say that they may.
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }
        Use::Client => {
            params.is_ca = IsCa::ExplicitNoCa;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
    }
    Ok(params)
}

fn day_of(time: DateTime<Utc>) -> Result<(i32, u8, u8), String> {
    let number = |value: u32| u8::try_from(value).map_err(|error| error.to_string());
    Ok((time.year(), number(time.month())?, number(time.day())?))
}
