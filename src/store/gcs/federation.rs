//! Tokens for whoever another authority vouches for: workload identity federation.
//!
//! The authority (Kubernetes, for one) keeps a token in a file. Google's token service exchanges it
//! for one of its own, and that is exchanged for a service account's where one is named.
//! Source: RFC 8693, and Google's "Workload identity federation". Not here: tokens that are to be
//! had from a URL, a program or another cloud.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::token::{Ask, SCOPE, Token, TokenDocument, TokenError, unusable};
use crate::store::config::{GcsFederatedAccount, GcsFederation};

/// What a token must be good for that is exchanged for a service account's.
const ACCOUNT_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// No file with a token is longer.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccountDocument {
    access_token: String,
}

impl Ask {
    /// A token for what the file says at this moment: it is renewed there while we run.
    pub(super) async fn federated(&self, federation: &GcsFederation) -> Result<Token, TokenError> {
        let subject = subject_token(federation).await?;
        let scope = match &federation.account {
            Some(_) => ACCOUNT_SCOPE,
            None => SCOPE,
        };
        let form = [
            (
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            ),
            (
                "requested_token_type",
                "urn:ietf:params:oauth:token-type:access_token",
            ),
            ("audience", &federation.audience),
            ("scope", scope),
            ("subject_token_type", &federation.token_type),
            ("subject_token", subject.expose_secret()),
        ];
        let token: TokenDocument = self.grant(&federation.token_url, &form).await?;
        match &federation.account {
            Some(account) => self.account_token(account, Token::from(token)).await,
            None => Ok(Token::from(token)),
        }
    }

    async fn account_token(
        &self,
        account: &GcsFederatedAccount,
        token: Token,
    ) -> Result<Token, TokenError> {
        let url = account.url.as_str();
        let lifetime = format!("{}s", account.lifetime.as_secs());
        let asked = serde_json::json!({"scope": [SCOPE], "lifetime": lifetime});
        let request = http::Request::post(url)
            .header("content-type", "application/json")
            .header("authorization", token.header.expose_secret())
            .body(Bytes::from(asked.to_string()));
        let given: AccountDocument = self.ask(url, request).await?;
        // As long as was asked for, by Google's word: its end by this host's clock says less.
        Ok(Token::new(&given.access_token, Some(account.lifetime)))
    }
}

/// What the authority has left for us.
async fn subject_token(federation: &GcsFederation) -> Result<SecretString, TokenError> {
    let path = federation.token_file.clone();
    let read = tokio::task::spawn_blocking(move || read(&path)).await;
    let text = read.map_err(io::Error::other).flatten();
    let place = federation.token_file.display();
    let text =
        text.map_err(|error| unusable(format!("cannot read the token in {place}: {error}")))?;
    let token = match &federation.token_field {
        None => Some(text.trim().to_owned()),
        Some(field) => field_of(&text, field),
    };
    token
        .filter(|token| !token.is_empty())
        .map(SecretString::from)
        .ok_or_else(|| unusable(format!("there is no token in {place}")))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// A field of a JSON document that is text.
fn field_of(text: &str, field: &str) -> Option<String> {
    let document: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(document.get(field)?.as_str()?.to_owned())
}
