//! A `backup_manifest` read file by file: it is never in memory as a whole.
//!
//! Source: the PostgreSQL 18 manual, "Backup Manifest Format". Versions 1 and 2 differ in nothing
//! that is read here. Not here: writing one (`manifest`), checksums.

use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::domain::lsn::Lsn;

/// A file of the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Its path within the data directory, tablespaces by `pg_tblspc/<oid>/`.
    pub path: Vec<u8>,
    /// The bytes it has in the backup.
    pub size: u64,
}

/// Reads a manifest to its end, telling `on_file` of each file; where the log that the backup
/// needs begins, one position for each timeline, is known at the end.
pub fn read(
    manifest: impl Read,
    on_file: impl FnMut(ManifestFile),
) -> Result<Vec<Lsn>, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_reader(manifest);
    let starts = Top(on_file).deserialize(&mut json)?;
    json.end()?;
    Ok(starts)
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
}

#[derive(Deserialize)]
struct RawRange {
    #[serde(rename = "Start-LSN")]
    start: String,
}

struct Top<F>(F);

impl<'de, F: FnMut(ManifestFile)> DeserializeSeed<'de> for Top<F> {
    type Value = Vec<Lsn>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, F: FnMut(ManifestFile)> Visitor<'de> for Top<F> {
    type Value = Vec<Lsn>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a backup manifest")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut starts = None;
        let mut has_files = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "Files" => {
                    map.next_value_seed(Files(&mut self.0))?;
                    has_files = true;
                }
                "WAL-Ranges" => starts = Some(map.next_value::<Vec<RawRange>>()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let starts = starts.ok_or_else(|| Error::missing_field("WAL-Ranges"))?;
        if !has_files {
            return Err(Error::missing_field("Files"));
        }
        let parse = |range: &RawRange| range.start.parse().map_err(Error::custom);
        starts.iter().map(parse).collect()
    }
}

struct Files<'a, F>(&'a mut F);

impl<'de, F: FnMut(ManifestFile)> DeserializeSeed<'de> for Files<'_, F> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(ManifestFile)> Visitor<'de> for Files<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut files: A) -> Result<(), A::Error> {
        while let Some(raw) = files.next_element::<RawFile>()? {
            let path = match (raw.path, raw.encoded_path) {
                (Some(path), None) => path.into_bytes(),
                (None, Some(encoded)) => {
                    unhex(&encoded).ok_or_else(|| Error::custom("an Encoded-Path is not hex"))?
                }
                _ => return Err(Error::custom("a file has no one path")),
            };
            (self.0)(ManifestFile {
                path,
                size: raw.size,
            });
        }
        Ok(())
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let is_whole = text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_whole {
        pairs.map(byte).collect()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgfile::manifest::{ManifestBuilder, WalRange};
    use proptest::prelude::*;

    fn fixture(stored: &[u8]) -> Vec<u8> {
        zstd::decode_all(stored).unwrap()
    }

    fn files(manifest: &[u8]) -> Result<(Vec<ManifestFile>, Vec<Lsn>), serde_json::Error> {
        let mut files = Vec::new();
        let starts = read(manifest, |file| files.push(file))?;
        Ok((files, starts))
    }

    #[test]
    fn manifests_of_postgresql_are_read() {
        for stored in [
            &include_bytes!("../../tests/fixtures/postgresql/backup_manifest-13.zst")[..],
            include_bytes!("../../tests/fixtures/postgresql/backup_manifest-15.zst"),
            include_bytes!("../../tests/fixtures/postgresql/backup_manifest-17.zst"),
            include_bytes!("../../tests/fixtures/postgresql/backup_manifest-18.zst"),
        ] {
            let manifest = fixture(stored);
            let (files, starts) = files(&manifest).unwrap();
            let whole: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
            assert_eq!(files.len(), whole["Files"].as_array().unwrap().len());
            let control = files.iter().find(|file| file.path == b"global/pg_control");
            assert_eq!(control.unwrap().size, 8192);
            let start = whole["WAL-Ranges"][0]["Start-LSN"].as_str().unwrap();
            assert_eq!(starts, [start.parse().unwrap()]);
        }
    }

    #[test]
    fn our_own_manifests_are_read_odd_names_too() {
        let mut builder = ManifestBuilder::new(2, 7).unwrap();
        for (name, size) in [(&b"a \"b\" \\"[..], 1), (b"\xff\x00", u64::MAX)] {
            builder.add_file(name, size, 0, 0).unwrap();
        }
        let range = WalRange {
            timeline: crate::domain::timeline::TimelineId::FIRST,
            start: Lsn::new(40),
            end: Lsn::new(80),
        };
        let manifest = builder.finish(&[range]).unwrap().into_bytes().unwrap();
        let (files, starts) = files(&manifest).unwrap();
        assert_eq!(files[0].path, b"a \"b\" \\");
        assert_eq!(
            (files[1].path.as_slice(), files[1].size),
            (&b"\xff\x00"[..], u64::MAX)
        );
        assert_eq!(starts, [Lsn::new(40)]);
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"Files": []}"#,
            r#"{"Files": [{"Path": "a"}], "WAL-Ranges": []}"#,
            r#"{"Files": [{"Size": 1}], "WAL-Ranges": []}"#,
            r#"{"Files": [{"Encoded-Path": "f", "Size": 1}], "WAL-Ranges": []}"#,
            r#"{"Files": [], "WAL-Ranges": [{"Start-LSN": "x"}]}"#,
            r#"{"Files": [], "WAL-Ranges": []} more"#,
        ] {
            assert!(files(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_mutated_manifest_is_read_or_refused(at in 0usize..60_000, byte: u8, cut in 0usize..60_000) {
            let mut manifest =
                fixture(include_bytes!("../../tests/fixtures/postgresql/backup_manifest-15.zst"));
            let (at, cut) = (at % manifest.len(), cut % manifest.len());
            manifest[at] = byte;
            let _ = files(&manifest);
            prop_assert!(files(&manifest[..cut]).is_err());
        }
    }
}
