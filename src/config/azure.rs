//! What is said of Azure's credentials: the usual AZURE_* variables, the fields of a manifest.
//!
//! Not here: where a container is (`container`), and asking anybody for a token (`store::azure`).

use std::path::PathBuf;

use secrecy::SecretString;
use url::Url;

use super::container::Container;
use super::environment::{self, Lookup, variable};
use super::error::ConfigError;
use super::manifest::{Configuration, GoogleCredentials, S3Credentials};
use super::validate::Validator;
use super::{arguments, endpoint};
use crate::store::config::{AzureConfig, AzureCredentials};

const CONNECTION_STRING: &str = "AZURE_STORAGE_CONNECTION_STRING";
const CA_BUNDLE: &str = "REQUESTS_CA_BUNDLE";

/// The container with what the variables say.
pub(super) fn from_environment(
    place: Container,
    env: Lookup<'_>,
) -> Result<AzureConfig, ConfigError> {
    let mut config = by_variables(place, env)?;
    config.ca_bundle = environment::ca_bundle(env, CA_BUNDLE, Some(&config.endpoint_url))?;
    Ok(config)
}

/// In Barman's order.
fn by_variables(place: Container, env: Lookup<'_>) -> Result<AzureConfig, ConfigError> {
    let secret = |name| variable(env, name).map(SecretString::from);
    if let Some(text) = secret(CONNECTION_STRING) {
        return place
            .connected(&text)
            .map_err(|problem| ConfigError::Variable {
                name: CONNECTION_STRING,
                problem,
            });
    }
    let credentials = if let Some(signature) = secret("AZURE_STORAGE_SAS_TOKEN") {
        AzureCredentials::SharedAccessSignature(signature)
    } else if let Some(key) = secret("AZURE_STORAGE_KEY") {
        AzureCredentials::AccountKey(key)
    } else {
        of_the_host(&place, env)?
    };
    Ok(place.with(credentials))
}

/// What the host provides: a registered application, else as [`identity`].
fn of_the_host(place: &Container, env: Lookup<'_>) -> Result<AzureCredentials, ConfigError> {
    let parts = (
        variable(env, "AZURE_TENANT_ID"),
        variable(env, "AZURE_CLIENT_ID"),
        variable(env, "AZURE_CLIENT_SECRET"),
    );
    let (Some(tenant_id), Some(client_id), Some(secret)) = parts else {
        return identity(place, env);
    };
    Ok(AzureCredentials::ClientSecret {
        tenant_id,
        client_id,
        client_secret: secret.into(),
        authority_url: authority(place, env)?,
    })
}

/// An identity without a secret: the workload's, where Kubernetes keeps its token in a file, else
/// the machine's.
fn identity(place: &Container, env: Lookup<'_>) -> Result<AzureCredentials, ConfigError> {
    let client_id = variable(env, "AZURE_CLIENT_ID");
    let parts = (
        variable(env, "AZURE_TENANT_ID"),
        variable(env, "AZURE_FEDERATED_TOKEN_FILE"),
    );
    match (client_id, parts) {
        (Some(client_id), (Some(tenant_id), Some(file))) => {
            Ok(AzureCredentials::WorkloadIdentity {
                tenant_id,
                client_id,
                token_file: PathBuf::from(file),
                authority_url: authority(place, env)?,
            })
        }
        (client_id, _) => Ok(AzureCredentials::ManagedIdentity {
            client_id,
            endpoint_url: url(env, "IDENTITY_ENDPOINT")?,
        }),
    }
}

fn authority(place: &Container, env: Lookup<'_>) -> Result<Option<Url>, ConfigError> {
    Ok(url(env, "AZURE_AUTHORITY_HOST")?.or_else(|| place.authority()))
}

fn url(env: Lookup<'_>, name: &'static str) -> Result<Option<Url>, ConfigError> {
    let Some(text) = variable(env, name) else {
        return Ok(None);
    };
    endpoint::parse(&text)
        .map(Some)
        .map_err(|problem| ConfigError::Variable { name, problem })
}

impl Validator<'_> {
    /// The container with what the manifest says.
    pub(super) fn azure(
        &mut self,
        configuration: &Configuration,
        place: Container,
    ) -> Result<AzureConfig, ConfigError> {
        let mut config = self.azure_credentials(configuration, place)?;
        config.ca_bundle = if configuration.endpoint_ca.is_some() {
            self.ca_bundle(configuration, None)?
        } else {
            environment::ca_bundle(self.env, CA_BUNDLE, Some(&config.endpoint_url))?
        };
        config.encryption_scope = arguments::read(&configuration.data.additional_command_args)
            .encryption_scope
            .or(
                arguments::read(&configuration.wal.archive_additional_command_args)
                    .encryption_scope,
            );
        config.read_timeout = self.read_timeout(configuration);
        for (field, value) in [
            ("wal.encryption", &configuration.wal.encryption),
            ("data.encryption", &configuration.data.encryption),
            ("storageClass", &configuration.storage_class),
            ("endpointURL", &configuration.endpoint_url),
        ] {
            if value.as_deref().is_some_and(|value| !value.is_empty()) {
                self.warnings.push(format!(
                    "The field spec.configuration.{field} has no meaning on Azure and was left out."
                ));
            }
        }
        Ok(config)
    }

    fn azure_credentials(
        &mut self,
        configuration: &Configuration,
        place: Container,
    ) -> Result<AzureConfig, ConfigError> {
        let azure = &configuration.azure_credentials;
        let word = arguments::read(&configuration.data.additional_command_args)
            .azure_credential
            .or(
                arguments::read(&configuration.wal.archive_additional_command_args)
                    .azure_credential,
            );
        if azure.use_default_azure_credentials || word.as_deref() == Some("default") {
            let credentials = of_the_host(&place, self.env)?;
            return Ok(place.with(credentials));
        }
        if azure.inherit_from_azure_ad || word.as_deref() == Some("managed-identity") {
            let credentials = identity(&place, self.env)?;
            return Ok(place.with(credentials));
        }
        if let Some(selector) = &azure.connection_string {
            let text = self.secret("azureCredentials.connectionString", selector)?;
            return place.connected(&text).map_err(|problem| {
                self.refuse(
                    "azureCredentials.connectionString",
                    problem,
                    "Copy the whole connection string of the account into the Secret.",
                )
            });
        }
        if let Some(selector) = &azure.storage_account {
            let account = self.text("azureCredentials.storageAccount", selector)?;
            if account != place.account {
                self.warnings.push(format!(
                    "The storage account is {}, as destinationPath says, not the one of azureCredentials.storageAccount.",
                    place.account
                ));
            }
        }
        let credentials = match (&azure.storage_key, &azure.storage_sas_token) {
            (Some(_), Some(_)) => {
                return Err(self.refuse(
                    "azureCredentials",
                    "has a key and a shared access signature",
                    "Give storageKey or storageSasToken, not both.",
                ));
            }
            (Some(selector), None) => {
                AzureCredentials::AccountKey(self.secret("azureCredentials.storageKey", selector)?)
            }
            (None, Some(selector)) => AzureCredentials::SharedAccessSignature(
                self.secret("azureCredentials.storageSasToken", selector)?,
            ),
            (None, None) if azure.storage_account.is_some() => {
                return Err(self.refuse(
                    "azureCredentials",
                    "names an account and nothing that proves who asks",
                    "Give storageKey or storageSasToken, or useDefaultAzureCredentials: true.",
                ));
            }
            (None, None) if has_credentials_of_others(configuration) => {
                return Err(self.refuse(
                    "azureCredentials",
                    "is missing, and the credentials that are there are for another kind of store",
                    "Give azureCredentials, or change destinationPath.",
                ));
            }
            (None, None) => return by_variables(place, self.env),
        };
        Ok(place.with(credentials))
    }
}

fn has_credentials_of_others(configuration: &Configuration) -> bool {
    configuration.s3_credentials != S3Credentials::default()
        || configuration.google_credentials != GoogleCredentials::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(text: &str, variables: &[(&str, &str)]) -> Result<AzureConfig, ConfigError> {
        let env = |wanted: &str| {
            let found = variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        };
        let (scheme, rest) = text.split_once("://").unwrap();
        from_environment(Container::parse(scheme, rest).unwrap().0, &env)
    }

    const PLACE: &str = "https://acc.blob.core.windows.net/cellar/a";

    #[test]
    fn variables_are_taken_in_barmans_order() {
        let all = [
            (
                CONNECTION_STRING,
                "AccountName=other;AccountKey=a2V5;EndpointSuffix=core.windows.net",
            ),
            ("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=2"),
            ("AZURE_STORAGE_KEY", "a2V5"),
            ("AZURE_CLIENT_SECRET", "secret"),
            ("AZURE_FEDERATED_TOKEN_FILE", "/token"),
            ("AZURE_TENANT_ID", "t"),
            ("AZURE_CLIENT_ID", "c"),
        ];
        let connected = by(PLACE, &all).unwrap();
        assert_eq!(connected.account, "other");
        assert_eq!(
            connected.endpoint_url.as_str(),
            "https://other.blob.core.windows.net/"
        );
        for (from, expected) in [
            (0, "AccountKey"),
            (1, "SharedAccessSignature"),
            (2, "AccountKey"),
            (3, "ClientSecret"),
            (4, "WorkloadIdentity"),
            (5, "ManagedIdentity"),
            (7, "ManagedIdentity"),
        ] {
            let shown = format!("{:?}", by(PLACE, &all[from..]).unwrap().credentials);
            assert!(shown.starts_with(expected), "{from}: {shown}");
            assert!(!shown.contains("secret\"") && !shown.contains("a2V5"));
        }
    }

    #[test]
    fn tokens_come_from_the_clouds_own_authority() {
        for (place, host, expected) in [
            (PLACE, None, None),
            (
                "https://acc.blob.core.chinacloudapi.cn/cellar",
                None,
                Some("https://login.chinacloudapi.cn/"),
            ),
            (
                PLACE,
                Some("http://127.0.0.1:1"),
                Some("http://127.0.0.1:1/"),
            ),
        ] {
            let mut variables = vec![
                ("AZURE_CLIENT_SECRET", "s"),
                ("AZURE_TENANT_ID", "t"),
                ("AZURE_CLIENT_ID", "c"),
            ];
            variables.extend(host.map(|host| ("AZURE_AUTHORITY_HOST", host)));
            let config = by(place, &variables).unwrap();
            let AzureCredentials::ClientSecret { authority_url, .. } = config.credentials else {
                unreachable!("a registered application asks");
            };
            assert_eq!(authority_url.as_ref().map(Url::as_str), expected);
        }
    }

    #[test]
    fn connection_strings_say_where_and_who() {
        for (text, account, endpoint_url) in [
            (
                "UseDevelopmentStorage=true",
                "devstoreaccount1",
                "https://acc.blob.core.windows.net/",
            ),
            (
                "DefaultEndpointsProtocol=http;AccountName=dev;AccountKey=a2V5==;BlobEndpoint=http://127.0.0.1:10000/dev;",
                "dev",
                "http://127.0.0.1:10000/dev",
            ),
            (
                "BlobEndpoint=https://x.example.org/;SharedAccessSignature=sv=1&sig=a=",
                "acc",
                "https://x.example.org/",
            ),
        ] {
            let config = by(PLACE, &[(CONNECTION_STRING, text)]).unwrap();
            assert_eq!(config.account, account, "{text}");
            assert_eq!(config.endpoint_url.as_str(), endpoint_url, "{text}");
        }
        for (text, words) in [
            ("secret", "neither"),
            (
                "AccountName=a;BlobEndpoint=secret;AccountKey=secret",
                "BlobEndpoint",
            ),
        ] {
            let error = by(PLACE, &[(CONNECTION_STRING, text)]).unwrap_err();
            let shown = error.to_string();
            assert!(
                shown.contains(words) && !shown.contains("secret"),
                "{shown}"
            );
        }
    }
}
