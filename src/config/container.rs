//! Azure's containers: where they are, and who may ask them, as a URL or a connection string says.
//!
//! Not here: variables and manifests (`azure`).

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::connection_string::ConnectionString;
use crate::store::config::{AzureConfig, AzureCredentials};

/// A container and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    /// The storage account.
    pub(super) account: String,
    /// Its name.
    name: String,
    /// Where the account's service answers.
    endpoint_url: Url,
}

impl Container {
    /// Takes `https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH` apart, or an emulator's
    /// `http://HOST:PORT/ACCOUNT/CONTAINER/PATH`: the container, and the path with the slashes behind.
    pub(super) fn parse(scheme: &str, rest: &str) -> Result<(Self, String), &'static str> {
        const FORM: &str = "names no container: it should be \
            https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH, or http://HOST:PORT/ACCOUNT/CONTAINER/PATH for an emulator";
        if rest.contains(['?', '#']) {
            return Err("must not hold ? or #: a shared access signature goes into \
                 AZURE_STORAGE_SAS_TOKEN or a Secret");
        }
        let (host, path) = rest.split_once('/').ok_or(FORM)?;
        if host.contains('@') {
            return Err("must not hold credentials: use the AZURE_* variables or a Secret");
        }
        let mut endpoint_url = Url::parse(&format!("{scheme}://{host}")).map_err(|_| FORM)?;
        let labels: Vec<&str> = host.split('.').collect();
        // The public cloud's, the sovereign clouds', zones' and private links' hosts alike.
        let is_azure = labels.iter().skip(1).take(2).any(|label| *label == "blob");
        let (account, path) = if is_azure {
            (labels[0].trim_end_matches("-secondary"), path)
        } else {
            let (account, path) = first_element(path);
            endpoint_url.set_path(account);
            (account, path)
        };
        let (container, path) = first_element(path);
        let is_account =
            !account.is_empty() && account.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let is_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'$');
        if !is_account || container.is_empty() || !container.bytes().all(is_name) {
            return Err(FORM);
        }
        let place = Self {
            account: account.to_owned(),
            name: container.to_owned(),
            endpoint_url,
        };
        Ok((place, path.trim_start_matches('/').to_owned()))
    }

    /// As it is reached with these credentials.
    pub(super) fn with(self, credentials: AzureCredentials) -> AzureConfig {
        AzureConfig {
            account: self.account,
            container: self.name,
            endpoint_url: self.endpoint_url,
            credentials,
            ca_bundle: None,
            encryption_scope: None,
            read_timeout: None,
        }
    }

    /// With what a connection string says: credentials, and where the service answers.
    pub(super) fn connected(mut self, text: &SecretString) -> Result<AzureConfig, String> {
        let said = ConnectionString::read(text.expose_secret())?;
        if let Some(endpoint_url) = said.blob_endpoint {
            self.endpoint_url = endpoint_url;
        }
        if let Some(account) = said.account {
            self.account = account;
        }
        Ok(self.with(said.credentials))
    }

    /// Where tokens for this cloud are given; nothing for the public one.
    pub(super) fn authority(&self) -> Option<Url> {
        let host = self.endpoint_url.host_str().unwrap_or_default();
        let authority = if host.ends_with(".usgovcloudapi.net") {
            "https://login.microsoftonline.us"
        } else if host.ends_with(".chinacloudapi.cn") {
            "https://login.chinacloudapi.cn"
        } else {
            return None;
        };
        Url::parse(authority).ok()
    }
}

fn first_element(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    path.split_once('/').unwrap_or((path, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_place_is_understood() {
        for (text, account, endpoint_url, path) in [
            (
                "https://acc.blob.core.windows.net/cellar/a",
                "acc",
                "https://acc.blob.core.windows.net/",
                "a",
            ),
            (
                "https://acc-secondary.blob.core.windows.net/cellar",
                "acc",
                "https://acc-secondary.blob.core.windows.net/",
                "",
            ),
            (
                "https://acc.blob.core.usgovcloudapi.net/cellar/a//b c%/",
                "acc",
                "https://acc.blob.core.usgovcloudapi.net/",
                "a//b c%/",
            ),
            (
                "https://acc.z7.blob.storage.azure.net/cellar/a/",
                "acc",
                "https://acc.z7.blob.storage.azure.net/",
                "a/",
            ),
            (
                "http://127.0.0.1:10000/devstoreaccount1/cellar//a",
                "devstoreaccount1",
                "http://127.0.0.1:10000/devstoreaccount1",
                "a",
            ),
        ] {
            let (scheme, rest) = text.split_once("://").unwrap();
            let (container, found) = Container::parse(scheme, rest).unwrap();
            assert_eq!(container.account, account, "{text}");
            assert_eq!(container.name, "cellar", "{text}");
            assert_eq!(container.endpoint_url.as_str(), endpoint_url, "{text}");
            assert_eq!(found, path, "{text}");
        }
    }
}
