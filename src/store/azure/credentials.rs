//! Who asks: from the configuration to what gives a key, a signature or a fresh token.

use std::sync::Arc;

use object_store::azure::{
    AzureAccessKey, AzureCredential, AzureCredentialProvider, MicrosoftAzureBuilder, split_sas,
};
use object_store::{RetryConfig, StaticCredentialProvider};
use secrecy::ExposeSecret;

use super::location;
use crate::store::config::{AzureConfig, AzureCredentials};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::http::{CredentialConnector, HttpClient};
use crate::store::request::Request;

/// What gives credentials for that configuration. Asks nobody yet.
pub(super) fn provider(config: &AzureConfig) -> Result<AzureCredentialProvider, StoreError> {
    let request = Request {
        operation: "open",
        subject: location(config),
    };
    match &config.credentials {
        AzureCredentials::AccountKey(key) => {
            // The source would show nothing but that it is no base64, at which place.
            let key = AzureAccessKey::try_new(key.expose_secret().trim()).map_err(|_| {
                request.explained(StoreErrorKind::Config, "the account key is no base64")
            })?;
            Ok(fixed(AzureCredential::AccessKey(key)))
        }
        AzureCredentials::SharedAccessSignature(signature) => {
            let pairs = split_sas(signature.expose_secret().trim());
            let pairs = pairs.ok().filter(|pairs| has_signature(pairs));
            let pairs = pairs.ok_or_else(|| {
                request.explained(
                    StoreErrorKind::Config,
                    "the shared access signature has not the form sv=…&sig=…",
                )
            })?;
            Ok(fixed(AzureCredential::SASToken(pairs)))
        }
        tokens => by_token(config, tokens)
            .map_err(|error| request.explained(StoreErrorKind::Config, error.to_string())),
    }
}

fn has_signature(pairs: &[(String, String)]) -> bool {
    pairs.iter().any(|(name, _)| name == "sig")
}

fn fixed(credential: AzureCredential) -> AzureCredentialProvider {
    Arc::new(StaticCredentialProvider::new(credential))
}

/// Credentials that are tokens, kept until shortly before they expire.
fn by_token(
    config: &AzureConfig,
    credentials: &AzureCredentials,
) -> object_store::Result<AzureCredentialProvider> {
    let http = HttpClient::for_credentials(config.ca_bundle.as_deref());
    let once = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(&config.account)
        .with_container_name(&config.container)
        .with_retry(once)
        .with_http_connector(CredentialConnector(http));
    let authority = match credentials {
        AzureCredentials::ClientSecret {
            tenant_id,
            client_id,
            client_secret,
            authority_url,
        } => {
            let secret = client_secret.expose_secret();
            builder = builder
                .with_credential_type("client_secret")
                .with_client_secret_authorization(client_id, secret, tenant_id);
            authority_url.as_ref()
        }
        AzureCredentials::WorkloadIdentity {
            tenant_id,
            client_id,
            token_file,
            authority_url,
        } => {
            builder = builder
                .with_credential_type("workload_identity")
                .with_client_id(client_id)
                .with_tenant_id(tenant_id)
                .with_federated_token_file(token_file.to_string_lossy());
            authority_url.as_ref()
        }
        AzureCredentials::ManagedIdentity {
            client_id,
            endpoint_url,
        } => {
            builder = builder.with_credential_type("managed_identity");
            if let Some(client_id) = client_id {
                builder = builder.with_client_id(client_id);
            }
            if let Some(endpoint_url) = endpoint_url {
                builder = builder.with_msi_endpoint(endpoint_url.as_str());
            }
            None
        }
        AzureCredentials::AccountKey(_) | AzureCredentials::SharedAccessSignature(_) => None,
    };
    if let Some(authority) = authority {
        builder = builder.with_authority_host(authority.as_str().trim_end_matches('/'));
    }
    Ok(Arc::clone(builder.build()?.credentials()))
}
