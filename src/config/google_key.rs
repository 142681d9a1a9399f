//! The keys that Google's tools write, as JSON documents.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::endpoint;
use crate::store::config::{GcsCredentials, GcsFederatedAccount, GcsFederation};

/// Where tokens are given for credentials that do not say.
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";

/// Where other authorities' tokens are exchanged, for credentials that do not say.
const EXCHANGE_URL: &str = "https://sts.googleapis.com/v1/token";

/// How long a federated service account's token is good, for credentials that do not say.
const ACCOUNT_SECONDS: u64 = 3600;

/// The documents that Google's tools write. Nothing of a wrong one is repeated: it may be secret.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Key {
    ServiceAccount {
        client_email: String,
        private_key: String,
        private_key_id: Option<String>,
        project_id: Option<String>,
        token_uri: Option<String>,
    },
    AuthorizedUser {
        client_id: String,
        client_secret: String,
        refresh_token: String,
        quota_project_id: Option<String>,
        token_uri: Option<String>,
    },
    ExternalAccount(ExternalAccount),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct ExternalAccount {
    audience: String,
    subject_token_type: String,
    token_url: Option<String>,
    credential_source: CredentialSource,
    service_account_impersonation_url: Option<String>,
    #[serde(default)]
    service_account_impersonation: Impersonation,
    quota_project_id: Option<String>,
}

/// Where the other authority's token is. Only files are served; the fields of other places are
/// not looked at.
#[derive(Deserialize)]
struct CredentialSource {
    file: Option<PathBuf>,
    #[serde(default)]
    format: Format,
}

#[derive(Default, Deserialize)]
struct Format {
    #[serde(rename = "type")]
    word: Option<String>,
    subject_token_field_name: Option<String>,
}

#[derive(Default, Deserialize)]
struct Impersonation {
    token_lifetime_seconds: Option<u64>,
}

/// Reads a key, and the project it belongs to. The error goes on after the name of the document.
pub(super) fn read(text: &str) -> Result<(GcsCredentials, Option<String>), String> {
    let key: Key = serde_json::from_str(text).map_err(|error| {
        format!(
            "is no key of Google's: a field is missing or wrong at line {}, column {}",
            error.line(),
            error.column()
        )
    })?;
    let token_url = |text: Option<String>| url_of("token_uri", text.as_deref(), TOKEN_URL);
    match key {
        Key::ServiceAccount {
            client_email,
            private_key,
            private_key_id,
            project_id,
            token_uri,
        } => Ok((
            GcsCredentials::ServiceAccount {
                account: client_email,
                key_id: private_key_id,
                private_key: SecretString::from(private_key),
                token_url: token_url(token_uri)?,
            },
            project_id,
        )),
        Key::AuthorizedUser {
            client_id,
            client_secret,
            refresh_token,
            quota_project_id,
            token_uri,
        } => Ok((
            GcsCredentials::AuthorizedUser {
                client_id,
                client_secret: SecretString::from(client_secret),
                refresh_token: SecretString::from(refresh_token),
                token_url: token_url(token_uri)?,
            },
            quota_project_id,
        )),
        Key::ExternalAccount(account) => {
            let project = account.quota_project_id.clone();
            let federation = Box::new(federation(account)?);
            Ok((GcsCredentials::Federated(federation), project))
        }
        Key::Other => Err(
            "is of a type that is not served: service_account, authorized_user and \
             external_account are"
                .to_owned(),
        ),
    }
}

fn federation(account: ExternalAccount) -> Result<GcsFederation, String> {
    let source = account.credential_source;
    let token_file = source.file.ok_or(
        "has a credential_source that is not served: a file is, and no URL, program or other \
         cloud",
    )?;
    let format = source.format;
    let token_field = match format.word.as_deref() {
        None | Some("text") => None,
        Some("json") => {
            let field = format.subject_token_field_name;
            Some(field.ok_or("has a JSON file as its source, and no subject_token_field_name")?)
        }
        Some(_) => return Err("has a source that is neither text nor json".to_owned()),
    };
    let field = "service_account_impersonation_url";
    let url = account.service_account_impersonation_url;
    let url = url.map(|text| url_of(field, Some(&text), ""));
    let given = account.service_account_impersonation.token_lifetime_seconds;
    let lifetime = Duration::from_secs(given.unwrap_or(ACCOUNT_SECONDS));
    Ok(GcsFederation {
        audience: account.audience,
        token_type: account.subject_token_type,
        token_file,
        token_field,
        token_url: url_of("token_url", account.token_url.as_deref(), EXCHANGE_URL)?,
        account: url
            .transpose()?
            .map(|url| GcsFederatedAccount { url, lifetime }),
    })
}

/// The URL that a field says, or else the usual one.
fn url_of(field: &str, text: Option<&str>, usual: &str) -> Result<Url, String> {
    endpoint::parse(text.unwrap_or(usual))
        .map_err(|problem| format!("has a {field} that {problem}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An account's, as the console writes it.
    pub(in crate::config) const ACCOUNT: &str = r#"{"type": "service_account", "project_id": "p", "private_key": "hush",
        "private_key_id": "k", "client_email": "a@p.iam.gserviceaccount.com",
        "token_uri": "https://token.example.org/t", "universe_domain": "googleapis.com"}"#;
    const PERSON: &str = r#"{"type": "authorized_user", "client_id": "c", "client_secret": "hush",
        "refresh_token": "hush"}"#;

    #[test]
    fn keys_of_accounts_and_persons_are_read() {
        let (credentials, project) = read(ACCOUNT).unwrap();
        assert_eq!(project.as_deref(), Some("p"));
        assert!(!format!("{credentials:?}").contains("hush"));
        let GcsCredentials::ServiceAccount {
            account, token_url, ..
        } = credentials
        else {
            unreachable!("it is an account's");
        };
        assert_eq!(account, "a@p.iam.gserviceaccount.com");
        assert_eq!(token_url.as_str(), "https://token.example.org/t");
        let (GcsCredentials::AuthorizedUser { token_url, .. }, None) = read(PERSON).unwrap() else {
            unreachable!("it is a person's");
        };
        assert_eq!(token_url.as_str(), TOKEN_URL);
    }

    /// As `gcloud iam workload-identity-pools create-cred-config` writes it.
    const FEDERATED: &str = r#"{"type": "external_account", "audience": "//iam/p",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.example.org/v1/token",
        "credential_source": {"file": "/run/token", "format": {"type": "text"}},
        "service_account_impersonation_url": "https://iam.example.org/v1/a:generateAccessToken"}"#;

    fn federated(text: &str) -> GcsFederation {
        let GcsCredentials::Federated(federation) = read(text).unwrap().0 else {
            unreachable!("it is federated");
        };
        *federation
    }

    #[test]
    fn a_token_of_another_authority_is_read_from_a_file() {
        let federation = federated(FEDERATED);
        assert_eq!(federation.token_file, PathBuf::from("/run/token"));
        assert_eq!(federation.token_field, None);
        let account = federation.account.unwrap();
        assert!(account.url.path().ends_with(":generateAccessToken"));
        assert_eq!(account.lifetime.as_secs(), ACCOUNT_SECONDS);
        let json = r#"{"type": "json", "subject_token_field_name": "id"}"#;
        let of_json = federated(&FEDERATED.replace(r#"{"type": "text"}"#, json));
        assert_eq!(of_json.token_field.as_deref(), Some("id"));
        for (from, to, words) in [
            (
                r#""file": "/run/token""#,
                r#""url": "http://x""#,
                "a file is",
            ),
            (
                r#""type": "text""#,
                r#""type": "json""#,
                "subject_token_field_name",
            ),
            (r#""type": "text""#, r#""type": "xml""#, "neither"),
            (
                "https://iam.",
                "ftp://iam.",
                "service_account_impersonation_url",
            ),
            ("https://sts.", "ftp://sts.", "token_url"),
        ] {
            let error = read(&FEDERATED.replace(from, to)).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_repeated() {
        for text in [
            "",
            "hush",
            r#"{"type": "hush"}"#,
            r#"{"type": "service_account", "private_key": "hush"}"#,
            r#"{"type": "service_account", "private_key": "hush", "client_email": 5}"#,
            r#"{"type": "external_account", "audience": "hush"}"#,
            &ACCOUNT.replace("https://token", "ftp://hush"),
        ] {
            let error = read(text).unwrap_err();
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
