//! The one ObjectStore of a file, its fields known and of the right types.

use std::path::Path;

use serde::Deserialize;
use serde_norway::Value;

use super::error::ConfigError;
use super::manifest::{self, ObjectStore};
use super::secrets;

/// The one ObjectStore among the documents of a file.
pub(super) fn object_store(
    path: &Path,
    text: &str,
    documents: &[Value],
) -> Result<ObjectStore, ConfigError> {
    let document = the_one(path, documents)?;
    if let Some(unknown) = manifest::unknown_field(document) {
        return Err(ConfigError::UnknownField {
            path: path.to_path_buf(),
            field: unknown.field,
            nearest: unknown.nearest,
        });
    }
    serde_norway::from_value(without_nulls(document.clone())).map_err(|source| {
        // Read from the text, the same error knows its line and field.
        let located = serde_norway::Deserializer::from_str(text)
            .zip(documents)
            .find(|(_, value)| is_object_store(value))
            .and_then(|(document, _)| ObjectStore::deserialize(document).err());
        ConfigError::Yaml {
            path: path.to_path_buf(),
            source: located.unwrap_or(source),
        }
    })
}

/// The one ObjectStore among documents, and a warning for a field that is not known.
pub(super) fn lenient_object_store(
    origin: &Path,
    documents: &[Value],
) -> Result<(ObjectStore, Option<String>), ConfigError> {
    let document = the_one(origin, documents)?;
    let warning = manifest::unknown_field(document)
        .map(|unknown| format!("The field {} is not known and was left out.", unknown.field));
    let object_store =
        serde_norway::from_value(without_nulls(document.clone())).map_err(|source| {
            ConfigError::Yaml {
                path: origin.to_path_buf(),
                source,
            }
        })?;
    Ok((object_store, warning))
}

fn is_object_store(document: &Value) -> bool {
    secrets::kind_of(document) == Some("ObjectStore")
}

/// The one ObjectStore among documents, as it is.
fn the_one<'a>(path: &Path, documents: &'a [Value]) -> Result<&'a Value, ConfigError> {
    let ours: Vec<&Value> = documents
        .iter()
        .filter(|document| is_object_store(document))
        .collect();
    let [document] = ours[..] else {
        let name = |document: &&Value| {
            let name = document.get("metadata")?.get("name")?.as_str()?;
            Some(name.to_owned())
        };
        let kinds = documents.iter().filter_map(secrets::kind_of);
        return Err(ConfigError::ManifestCount {
            path: path.to_path_buf(),
            names: ours
                .iter()
                .map(|document| name(document).unwrap_or_else(|| "-".to_owned()))
                .collect(),
            kinds: kinds.map(str::to_owned).collect(),
        });
    };
    let version = document.get("apiVersion").and_then(Value::as_str);
    if !version.is_some_and(|version| version.starts_with("barmancloud.cnpg.io/")) {
        return Err(ConfigError::Field {
            path: path.to_path_buf(),
            field: "apiVersion".to_owned(),
            problem: format!("is {:?}", version.unwrap_or_default()),
            advice: "Write apiVersion: barmancloud.cnpg.io/v1.".to_owned(),
        });
    }
    Ok(document)
}

/// A field that is there but empty is as good as absent.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Mapping(mapping) => mapping
            .into_iter()
            .filter(|(_, inner)| !inner.is_null())
            .map(|(name, inner)| (name, without_nulls(inner)))
            .collect::<serde_norway::Mapping>()
            .into(),
        other => other,
    }
}
