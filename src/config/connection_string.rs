//! Azure's connection strings: `Name=value;Name=value`, as the portal shows them.

use url::Url;

use super::endpoint;
use crate::store::config::AzureCredentials;

/// The account that every emulator has, and its key, which Microsoft's documentation shows.
const EMULATED_ACCOUNT: &str = "devstoreaccount1";
const EMULATED_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// What a connection string says.
pub(super) struct ConnectionString {
    pub(super) account: Option<String>,
    pub(super) credentials: AzureCredentials,
    pub(super) blob_endpoint: Option<Url>,
}

impl ConnectionString {
    /// Reads `Name=value;Name=value`. The error shows no value.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let field = |wanted: &str| {
            text.split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                let is_wanted = name.trim().eq_ignore_ascii_case(wanted);
                Some(value.trim().to_owned()).filter(|value| is_wanted && !value.is_empty())
            })
        };
        let is_emulated =
            field("UseDevelopmentStorage").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let emulated = |value: &str| is_emulated.then(|| value.to_owned());
        let account = field("AccountName").or_else(|| emulated(EMULATED_ACCOUNT));
        let key = field("AccountKey").or_else(|| emulated(EMULATED_KEY));
        let credentials = match (key, field("SharedAccessSignature")) {
            (Some(key), _) => AzureCredentials::AccountKey(key.into()),
            (None, Some(signature)) => AzureCredentials::SharedAccessSignature(signature.into()),
            (None, None) => {
                return Err("has neither AccountKey nor SharedAccessSignature".to_owned());
            }
        };
        let blob_endpoint = match field("BlobEndpoint") {
            Some(text) => {
                let url = endpoint::parse(&text).map_err(|_| "has a BlobEndpoint that is no URL");
                Some(url?)
            }
            None => match (field("EndpointSuffix"), &account) {
                (Some(suffix), Some(account)) => {
                    let scheme = field("DefaultEndpointsProtocol");
                    let scheme = scheme.as_deref().unwrap_or("https");
                    let text = format!("{scheme}://{account}.blob.{suffix}");
                    let url = endpoint::parse(&text);
                    Some(url.map_err(|_| "has an EndpointSuffix that makes no URL")?)
                }
                _ => None,
            },
        };
        Ok(Self {
            account,
            credentials,
            blob_endpoint,
        })
    }
}
