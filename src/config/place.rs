//! Where objects go: URLs and paths taken apart.

use std::path::{Path, PathBuf};

use url::Url;

use super::container::Container;
use super::error::ConfigError;

/// Google's pages for people, and how those of buckets begin.
const CONSOLE_HOST: &str = "console.cloud.google.com/";
const CONSOLE: &str = "console.cloud.google.com/storage/browser/";

/// A place in a store, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A directory of this host.
    Directory(PathBuf),
    /// A bucket, and what every key begins with.
    Bucket {
        /// The bucket's name.
        bucket: String,
        /// Without slashes in front; those behind are kept.
        path: String,
    },
    /// A container of Azure, and what every key begins with.
    Container {
        /// The container and where it is.
        container: Container,
        /// Without slashes in front; those behind are kept.
        path: String,
    },
    /// A bucket of Google, and what every key begins with.
    GoogleBucket {
        /// The bucket's name.
        bucket: String,
        /// Without slashes at either end, as Barman has it.
        path: String,
    },
}

impl Place {
    /// Takes `text` apart. `name` is the option or field that says it.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let refuse = |problem: &str| ConfigError::Place {
            place: name.to_owned(),
            problem: problem.to_owned(),
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return directory(text).ok_or_else(|| refuse("is empty"));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "s3" => bucket(rest).map_err(refuse),
            "file" => Url::parse(text)
                .ok()
                .filter(|url| url.query().is_none() && url.fragment().is_none())
                .and_then(|url| url.to_file_path().ok())
                .map(Self::Directory)
                .ok_or_else(|| {
                    refuse("is not file:///DIRECTORY: three slashes, and %XX for odd characters")
                }),
            "gs" => google_bucket(rest).map_err(refuse),
            "https" if rest.starts_with(CONSOLE_HOST) => match rest.strip_prefix(CONSOLE) {
                Some(rest) => google_bucket(rest).map_err(refuse),
                None => Err(refuse(
                    "is a page of the console, but not of a bucket: give gs://BUCKET/PATH",
                )),
            },
            "azure" | "az" | "abfs" | "abfss" | "wasb" | "wasbs" => Err(refuse(
                "is no place: Azure's are https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH",
            )),
            // The form in which CloudNativePG's manifests name Azure's containers.
            scheme @ ("http" | "https") => Container::parse(scheme, rest)
                .map(|(container, path)| Self::Container { container, path })
                .map_err(refuse),
            other => Err(refuse(&format!("begins with {other}://, which is unknown"))),
        }
    }
}

fn directory(text: &str) -> Option<Place> {
    let absolute = std::path::absolute(Path::new(text)).ok()?;
    Some(Place::Directory(absolute))
}

fn google_bucket(rest: &str) -> Result<Place, &'static str> {
    let (bucket, path) = bucket_and_path(rest)?;
    Ok(Place::GoogleBucket {
        bucket: bucket.to_owned(),
        path: path.trim_matches('/').to_owned(),
    })
}

fn bucket(rest: &str) -> Result<Place, &'static str> {
    let (bucket, path) = bucket_and_path(rest)?;
    Ok(Place::Bucket {
        bucket: bucket.to_owned(),
        path: path.trim_start_matches('/').to_owned(),
    })
}

fn bucket_and_path(rest: &str) -> Result<(&str, &str), &'static str> {
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err("names no bucket: it should be s3://BUCKET/PATH or gs://BUCKET/PATH");
    }
    if bucket.contains('@') {
        return Err("must not hold credentials: use variables or a Secret");
    }
    let is_name = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    if !bucket.chars().all(is_name) {
        return Err("names no bucket: letters, digits, dots and dashes make its name");
    }
    if path.contains(['?', '#']) {
        return Err("must not hold ? or #");
    }
    Ok((bucket, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, Kind};

    #[test]
    fn buckets_keep_the_slashes_behind_and_lose_those_in_front() {
        for (text, bucket, path) in [
            ("s3://b", "b", ""),
            ("s3://b/", "b", ""),
            ("s3://b/p", "b", "p"),
            ("s3://b/p/", "b", "p/"),
            ("s3://b/p//", "b", "p//"),
            ("s3://b//p/q", "b", "p/q"),
            ("S3://my.bucket-1/a b+c%", "my.bucket-1", "a b+c%"),
        ] {
            let expected = Place::Bucket {
                bucket: bucket.to_owned(),
                path: path.to_owned(),
            };
            assert_eq!(Place::parse("--store", text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn buckets_of_google_lose_the_slashes_at_both_ends() {
        for (text, bucket, path) in [
            ("gs://b", "b", ""),
            ("gs://b/", "b", ""),
            ("gs://b//p/q//", "b", "p/q"),
            ("gs://b_1.c/a b", "b_1.c", "a b"),
            (
                "https://console.cloud.google.com/storage/browser/b/p/",
                "b",
                "p",
            ),
            (
                "https://console.cloud.google.com/storage/browser/b",
                "b",
                "",
            ),
        ] {
            let expected = Place::GoogleBucket {
                bucket: bucket.to_owned(),
                path: path.to_owned(),
            };
            assert_eq!(Place::parse("--store", text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn directories_are_absolute() {
        for (text, path) in [
            ("/srv/backups", "/srv/backups"),
            ("file:///srv/backups/", "/srv/backups/"),
            ("file:///srv/a%20b", "/srv/a b"),
            ("file://localhost/srv", "/srv"),
        ] {
            let expected = Place::Directory(PathBuf::from(path));
            assert_eq!(Place::parse("--store", text).unwrap(), expected, "{text}");
        }
        let Place::Directory(relative) = Place::parse("--store", "backups").unwrap() else {
            unreachable!("it is a directory");
        };
        assert!(relative.is_absolute() && relative.ends_with("backups"));
    }

    #[test]
    fn other_places_are_refused_with_the_reason() {
        for (text, kind, words) in [
            ("", Kind::Config, "empty"),
            ("s3://", Kind::Config, "names no bucket"),
            ("s3:///path", Kind::Config, "names no bucket"),
            ("s3://key:secret@b/p", Kind::Config, "credentials"),
            ("s3://b/p?x=1", Kind::Config, "? or #"),
            ("file://host/dir", Kind::Config, "three slashes"),
            ("ftp://host/dir", Kind::Config, "ftp://"),
            ("gs://", Kind::Config, "names no bucket"),
            ("gs://me:secret@b/p", Kind::Config, "credentials"),
            (
                "https://console.cloud.google.com/storage/settings",
                Kind::Config,
                "not of a bucket",
            ),
            ("az://c/p", Kind::Config, "https://ACCOUNT.blob"),
            (
                "https://a.blob.core.windows.net",
                Kind::Config,
                "no container",
            ),
            (
                "https://a.blob.core.windows.net/c?sig=secret@x",
                Kind::Config,
                "AZURE_STORAGE_SAS_TOKEN",
            ),
            ("http://127.0.0.1:10000/c", Kind::Config, "an emulator"),
            (
                "https://a.blob.core.windows.net/Upper/p",
                Kind::Config,
                "no container",
            ),
        ] {
            let error = Place::parse("--store", text).unwrap_err();
            assert_eq!(error.kind(), kind, "{text}");
            assert!(error.to_string().contains(words), "{text}: {error}");
            assert!(!error.to_string().contains("secret@"), "{error}");
        }
    }
}
