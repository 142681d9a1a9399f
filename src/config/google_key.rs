//! The keys that Google's tools write, as JSON documents.

use secrecy::SecretString;
use serde::Deserialize;

use super::place;
use crate::store::config::GcsCredentials;

/// Where tokens are given for credentials that do not say.
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";

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
    #[serde(other)]
    Other,
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
    let token_url = |text: Option<String>| {
        let text = text.as_deref().unwrap_or(TOKEN_URL);
        place::endpoint(text).map_err(|problem| format!("has a token_uri that {problem}"))
    };
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
        Key::Other => Err(
            "is of a type that is not served: service_account and authorized_user are".to_owned(),
        ),
    }
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
