//! What is said of Google Cloud Storage: variables, key files, the fields of a manifest.
//!
//! Not here: asking anybody for a token, which `store::gcs` does.

use std::fs;
use std::path::Path;

use url::Url;

use super::environment::{self, Lookup, variable};
use super::error::ConfigError;
use super::manifest::{AzureCredentials, Configuration};
use super::validate::Validator;
use super::{arguments, endpoint, google_key};
use crate::store::config::{GcsConfig, GcsCredentials};

/// Where a key file is; the manifest's operators set it too.
const KEY_FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// Where an emulator answers. Google's own libraries then send no credentials, and so do we.
const EMULATOR: &str = "STORAGE_EMULATOR_HOST";
const PROJECT: &str = "GOOGLE_CLOUD_PROJECT";
const UNIVERSE: &str = "GOOGLE_CLOUD_UNIVERSE_DOMAIN";
/// Where the metadata service answers: a host, with a port or without.
const METADATA_HOST: &str = "GCE_METADATA_HOST";
/// The variable by which Barman's requests to Google are told what to trust.
const CA_BUNDLE: &str = "REQUESTS_CA_BUNDLE";

/// Where persons' own credentials are, below their home.
const OWN_FILE: &str = ".config/gcloud/application_default_credentials.json";

/// What a manifest says that variables would say otherwise.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Where the service answers.
    pub(super) endpoint_url: Option<Url>,
    /// The document of a key.
    pub(super) key: Option<String>,
    /// The metadata service is to be asked, whatever files there are.
    pub(super) is_machine: bool,
}

/// The bucket, with all that `given` and the variables say. The error of a bad key is its text alone.
pub(super) fn config(
    bucket: String,
    given: Given,
    env: Lookup<'_>,
) -> Result<GcsConfig, ConfigError> {
    let emulator = match &given.endpoint_url {
        Some(_) => None,
        None => emulator(env)?,
    };
    let is_emulator = emulator.is_some();
    let own = given.endpoint_url.or(emulator);
    let endpoint_url = match own {
        None => universe(env)?,
        own => own,
    };
    let (credentials, project) = if is_emulator {
        (GcsCredentials::Anonymous, None)
    } else if given.is_machine {
        (metadata(env)?, None)
    } else {
        match given.key {
            Some(text) => google_key::read(&text).map_err(|problem| ConfigError::Variable {
                name: KEY_FILE,
                problem,
            })?,
            None => of_host(env)?,
        }
    };
    Ok(GcsConfig {
        bucket,
        ca_bundle: environment::ca_bundle(env, CA_BUNDLE, endpoint_url.as_ref())?,
        endpoint_url,
        credentials,
        kms_key_name: None,
        storage_class: None,
        project: variable(env, PROJECT).or(project),
        read_timeout: None,
    })
}

/// Whether the variables name an emulator, which wants no credentials.
fn emulator(env: Lookup<'_>) -> Result<Option<Url>, ConfigError> {
    let Some(text) = variable(env, EMULATOR) else {
        return Ok(None);
    };
    let text = if text.contains("://") {
        text
    } else {
        format!("http://{text}")
    };
    let refuse = |problem| ConfigError::Variable {
        name: EMULATOR,
        problem,
    };
    endpoint::parse(&text).map(Some).map_err(refuse)
}

fn universe(env: Lookup<'_>) -> Result<Option<Url>, ConfigError> {
    let Some(domain) = variable(env, UNIVERSE).filter(|domain| domain != "googleapis.com") else {
        return Ok(None);
    };
    let refuse = |problem| ConfigError::Variable {
        name: UNIVERSE,
        problem,
    };
    endpoint::parse(&format!("https://storage.{domain}"))
        .map(Some)
        .map_err(refuse)
}

/// A file that is named, or a person's own, or else the machine.
fn of_host(env: Lookup<'_>) -> Result<(GcsCredentials, Option<String>), ConfigError> {
    let named = variable(env, KEY_FILE);
    let own = variable(env, "HOME")
        .map(|home| Path::new(&home).join(OWN_FILE))
        .filter(|path| path.exists());
    let path = match (named, own) {
        (Some(named), _) => Path::new(&named).to_path_buf(),
        (None, Some(own)) => own,
        (None, None) => return Ok((metadata(env)?, None)),
    };
    let refuse = |problem: String| ConfigError::Variable {
        name: KEY_FILE,
        problem: format!("leads to {}, {problem}", path.display()),
    };
    let text = fs::read_to_string(&path).map_err(|error| refuse(format!("but {error}")))?;
    // As CloudNativePG leaves it where GKE provides.
    if text.trim().is_empty() {
        return Ok((metadata(env)?, None));
    }
    google_key::read(&text).map_err(|problem| refuse(format!("which {problem}")))
}

fn metadata(env: Lookup<'_>) -> Result<GcsCredentials, ConfigError> {
    let Some(host) = variable(env, METADATA_HOST) else {
        return Ok(GcsCredentials::Metadata { url: None });
    };
    let url = endpoint::parse(&format!("http://{host}"));
    let url = url.map_err(|problem| ConfigError::Variable {
        name: METADATA_HOST,
        problem,
    })?;
    Ok(GcsCredentials::Metadata { url: Some(url) })
}

impl Validator<'_> {
    /// The bucket of a manifest.
    pub(super) fn gcs(
        &mut self,
        configuration: &Configuration,
        bucket: String,
    ) -> Result<GcsConfig, ConfigError> {
        const KEY: &str = "googleCredentials.applicationCredentials";
        let google = &configuration.google_credentials;
        let mut given = Given {
            endpoint_url: self.service_url(configuration)?,
            is_machine: google.gke_environment,
            key: None,
        };
        if let Some(selector) = &google.application_credentials {
            if google.gke_environment {
                return Err(self.refuse(
                    "googleCredentials",
                    "has applicationCredentials and gkeEnvironment",
                    "Leave one of them out.",
                ));
            }
            let field = format!("spec.configuration.{KEY}");
            // As it is: the end of a line after a document is no slip of anybody's pen.
            let bytes = self.secrets.bytes(&field, selector)?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let problem = google_key::read(&text).err();
            if let Some(problem) = problem {
                return Err(self.refuse(
                    KEY,
                    format!("names a document that {problem}"),
                    "Put the JSON of a service account's key into the Secret, as Google gave it.",
                ));
            }
            given.key = Some(text);
        } else if !google.gke_environment && has_others(configuration) {
            return Err(self.refuse(
                "googleCredentials",
                "is missing, and the credentials that are there are for another kind of store",
                "Give googleCredentials, or change destinationPath.",
            ));
        }
        let mut gcs = config(bucket, given, self.env)?;
        if configuration.endpoint_ca.is_some() {
            gcs.ca_bundle = self.ca_bundle(configuration, gcs.endpoint_url.as_ref())?;
        }
        gcs.storage_class.clone_from(&configuration.storage_class);
        gcs.read_timeout = self.read_timeout(configuration);
        gcs.kms_key_name = kms_key_name(configuration);
        for (part, word) in [
            ("data", &configuration.data.encryption),
            ("wal", &configuration.wal.encryption),
        ] {
            if word.as_deref().is_some_and(|word| !word.is_empty()) {
                self.warnings.push(format!(
                    "Google encrypts by itself: {part}.encryption is for S3 and was left out."
                ));
            }
        }
        Ok(gcs)
    }

    /// Tells of an option that only Google's buckets have.
    pub(super) fn warn_of_kms_key_name(&mut self, configuration: &Configuration) {
        if kms_key_name(configuration).is_some() {
            let warning = "The option --kms-key-name is for Google's buckets and was left out.";
            self.warnings.push(warning.to_owned());
        }
    }
}

/// One key for all: the one for backups before the one for WAL.
fn kms_key_name(configuration: &Configuration) -> Option<String> {
    let of = |items: &[String]| arguments::read(items).kms_key_name;
    of(&configuration.data.additional_command_args)
        .or_else(|| of(&configuration.wal.archive_additional_command_args))
}

fn has_others(configuration: &Configuration) -> bool {
    let s3 = &configuration.s3_credentials;
    s3.access_key_id.is_some()
        || s3.inherit_from_iam_role
        || configuration.azure_credentials != AzureCredentials::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::google_key::tests::ACCOUNT;
    use crate::config::{Settings, Source, load};
    use crate::store::config::StoreConfig;

    fn with(variables: &[(&str, &str)], given: Given) -> Result<GcsConfig, ConfigError> {
        let env = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        };
        config("b".to_owned(), given, &env)
    }

    #[test]
    fn an_emulator_is_asked_without_credentials() {
        for (host, url) in [
            ("127.0.0.1:4443", "http://127.0.0.1:4443/"),
            ("http://gcs:80", "http://gcs/"),
        ] {
            let config = with(
                &[(EMULATOR, host), (KEY_FILE, "/nowhere")],
                Given::default(),
            );
            let config = config.unwrap();
            assert_eq!(config.endpoint_url.unwrap().as_str(), url);
            assert!(matches!(config.credentials, GcsCredentials::Anonymous));
        }
        let named = with(&[(EMULATOR, "ftp://gcs")], Given::default()).unwrap_err();
        assert!(named.to_string().contains(EMULATOR), "{named}");
    }

    #[test]
    fn a_file_is_taken_before_the_machine_and_an_empty_one_means_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.json");
        let name = path.display().to_string();
        let variables = [(KEY_FILE, name.as_str()), (METADATA_HOST, "meta:8080")];
        let missing = with(&variables, Given::default()).unwrap_err();
        assert!(missing.to_string().contains(&name), "{missing}");
        fs::write(&path, ACCOUNT).unwrap();
        let of_file = with(&variables, Given::default()).unwrap().credentials;
        assert!(matches!(of_file, GcsCredentials::ServiceAccount { .. }));
        let machine = Given {
            is_machine: true,
            ..Given::default()
        };
        let of_machine = with(&variables, machine).unwrap().credentials;
        fs::write(&path, "\n").unwrap();
        let of_empty = with(&variables, Given::default()).unwrap().credentials;
        let of_none = with(&variables[1..], Given::default()).unwrap().credentials;
        for credentials in [of_machine, of_empty, of_none] {
            let GcsCredentials::Metadata { url: Some(url) } = credentials else {
                unreachable!("it is the machine's: {credentials:?}");
            };
            assert_eq!(url.as_str(), "http://meta:8080/");
        }
    }

    #[test]
    fn another_universe_has_another_address() {
        let config = with(&[(UNIVERSE, "example.cloud")], Given::default()).unwrap();
        let url = config.endpoint_url.unwrap();
        assert_eq!(url.as_str(), "https://storage.example.cloud/");
        let usual = with(&[(UNIVERSE, "googleapis.com")], Given::default()).unwrap();
        assert_eq!(usual.endpoint_url, None);
    }

    /// A manifest with this configuration, a Secret with a key beside it.
    fn of_manifest(configuration: &str) -> Result<Settings, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.yaml");
        let text = format!(
            "apiVersion: barmancloud.cnpg.io/v1\nkind: ObjectStore\nmetadata: {{name: s}}\nspec:\n  \
             configuration:\n{configuration}\n---\napiVersion: v1\nkind: Secret\n\
             metadata: {{name: gcs}}\nstringData:\n  odd: '{{}}'\n  key.json: |\n    {}\n",
            ACCOUNT.replace('\n', " ")
        );
        fs::write(&path, text).unwrap();
        let env = |name: &str| (name == METADATA_HOST).then(|| "meta".to_owned());
        load(&Source::File(path), &env)
    }

    const PLACE: &str = "    destinationPath: gs://b/p/";

    #[test]
    fn a_manifest_names_a_key_or_the_machine() {
        let key = "    googleCredentials: {applicationCredentials: {name: gcs, key: key.json}}";
        let more = "    storageClass: NEARLINE\n    endpointURL: http://127.0.0.1:1\n    \
            wal: {encryption: AES256}\n    \
            data: {additionalCommandArgs: [--kms-key-name=projects/p/k, --read-timeout=7]}";
        let settings = of_manifest(&format!("{PLACE}\n{key}\n{more}")).unwrap();
        assert_eq!(settings.destination.path, "p");
        assert_eq!(settings.destination.url, "gs://b/p");
        assert_eq!(settings.warnings.len(), 1, "{:?}", settings.warnings);
        assert!(settings.warnings[0].contains("wal.encryption"));
        assert!(!format!("{settings:?}").contains("hush"));
        let StoreConfig::Gcs(gcs) = settings.destination.store else {
            unreachable!("it is Google's");
        };
        assert!(matches!(
            gcs.credentials,
            GcsCredentials::ServiceAccount { .. }
        ));
        assert_eq!(gcs.kms_key_name.as_deref(), Some("projects/p/k"));
        assert_eq!(gcs.storage_class.as_deref(), Some("NEARLINE"));
        assert_eq!(gcs.read_timeout.map(|timeout| timeout.as_secs()), Some(7));
        let machine = format!("{PLACE}\n    googleCredentials: {{gkeEnvironment: true}}");
        for configuration in [machine.as_str(), PLACE] {
            let StoreConfig::Gcs(gcs) = of_manifest(configuration).unwrap().destination.store
            else {
                unreachable!("it is Google's");
            };
            assert!(matches!(gcs.credentials, GcsCredentials::Metadata { .. }));
        }
    }

    #[test]
    fn a_manifest_is_refused_with_the_field() {
        for (rest, words) in [
            (
                "googleCredentials: {applicationCredentials: {name: gcs, key: odd}}",
                "applicationCredentials names a document that is no key",
            ),
            (
                "googleCredentials: {gkeEnvironment: true, \
                 applicationCredentials: {name: gcs, key: key.json}}",
                "applicationCredentials and gkeEnvironment",
            ),
            ("s3Credentials: {inheritFromIAMRole: true}", "another kind"),
        ] {
            let error = of_manifest(&format!("{PLACE}\n    {rest}")).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(words) && !text.contains("hush"), "{text}");
        }
    }
}
