//! What the usual variables say: the AWS_* ones, and certificates for all.

use std::fs;

use secrecy::SecretString;
use url::Url;

use super::certificates;
use super::endpoint;
use super::error::ConfigError;
use crate::store::config::S3Credentials;

/// Answers for the process's variables.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variable, unless it is empty.
pub(super) fn variable(env: Lookup<'_>, name: &str) -> Option<String> {
    env(name)
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}

/// A key pair, or else what the host provides.
pub(super) fn credentials(env: Lookup<'_>) -> Result<S3Credentials, ConfigError> {
    const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
    const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
    let missing = |name, other: &str| ConfigError::Variable {
        name,
        problem: format!("is missing, though {other} is set"),
    };
    match (variable(env, KEY_ID), variable(env, SECRET)) {
        (Some(access_key_id), Some(secret)) => Ok(S3Credentials::Static {
            access_key_id,
            secret_access_key: SecretString::from(secret),
            session_token: variable(env, "AWS_SESSION_TOKEN").map(SecretString::from),
        }),
        (None, None) => Ok(S3Credentials::Chain {
            profile: variable(env, "AWS_PROFILE"),
        }),
        (Some(_), None) => Err(missing(SECRET, KEY_ID)),
        (None, Some(_)) => Err(missing(KEY_ID, SECRET)),
    }
}

/// The region.
pub(super) fn region(env: Lookup<'_>) -> Option<String> {
    variable(env, "AWS_REGION").or_else(|| variable(env, "AWS_DEFAULT_REGION"))
}

/// Where the service answers.
pub(super) fn endpoint_url(env: Lookup<'_>) -> Result<Option<Url>, ConfigError> {
    for name in ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"] {
        if let Some(text) = variable(env, name) {
            return endpoint::parse(&text)
                .map(Some)
                .map_err(|problem| ConfigError::Variable { name, problem });
        }
    }
    Ok(None)
}

/// The name of the bundle that S3's clients trust.
pub(super) const S3_CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// The certificates to trust, in the file that the variable names. Not read for a plain endpoint: a bundle of all the world's
/// certificates takes longer to read than a WAL file to send.
pub(super) fn ca_bundle(
    env: Lookup<'_>,
    name: &'static str,
    endpoint_url: Option<&Url>,
) -> Result<Option<Vec<u8>>, ConfigError> {
    let is_plain = endpoint_url.is_some_and(|url| url.scheme() == "http");
    let Some(path) = variable(env, name).filter(|_| !is_plain) else {
        return Ok(None);
    };
    let refuse = |problem| ConfigError::Variable { name, problem };
    let pem = fs::read(&path).map_err(|error| refuse(format!("names {path}, but {error}")))?;
    certificates::normalized(&pem)
        .map(Some)
        .map_err(|problem| refuse(format!("names {path}, which {problem}")))
}
