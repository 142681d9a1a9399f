//! `backup_manifest`: every file of a base backup with its size and checksum, which
//! `pg_verifybackup` and incremental backups read.
//!
//! Source: the PostgreSQL 18 manual, "Backup Manifest Format"; version 1 is PostgreSQL 13 to
//! 16's, version 2 adds the system identifier. Not here: reading one
//! (`manifest_reader`).

use std::io::{self, Read, Write};

use chrono::DateTime;

use crate::domain::lsn::Lsn;
use crate::domain::timeline::TimelineId;

/// Log that a backup needs, from `start` up to `end`, exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline it lies on.
    pub timeline: TimelineId,
    /// Its first byte.
    pub start: Lsn,
    /// The byte behind its last.
    pub end: Lsn,
}

/// A manifest being written. What is added is kept compressed, some 15 bytes a file.
pub struct ManifestBuilder {
    lines: zstd::stream::write::Encoder<'static, Vec<u8>>,
    digest: sha2::Sha256,
    size: u64,
    is_empty: bool,
}

/// Fast, and enough: most of a line is what the line before it has, too.
const COMPRESSION_LEVEL: i32 = 1;

impl ManifestBuilder {
    /// A manifest of `version` 1 or 2 of the cluster `system_id`, without files.
    pub fn new(version: u32, system_id: u64) -> io::Result<Self> {
        let mut builder = Self {
            lines: zstd::stream::write::Encoder::new(Vec::new(), COMPRESSION_LEVEL)?,
            digest: sha2::Sha256::default(),
            size: 0,
            is_empty: true,
        };
        builder.push(&format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": {version},\n"
        ))?;
        if version >= 2 {
            builder.push(&format!("\"System-Identifier\": {system_id},\n"))?;
        }
        builder.push("\"Files\": [")?;
        Ok(builder)
    }

    /// Adds a file: its path within the data directory, tablespaces by `pg_tblspc/<oid>/`,
    /// the bytes it has in the backup, when it was last changed, in seconds since 1970, and
    /// the CRC-32C of those bytes.
    pub fn add_file(
        &mut self,
        path: impl AsRef<[u8]>,
        size: u64,
        mtime: i64,
        crc32c: u32,
    ) -> io::Result<()> {
        let separator = if self.is_empty { "\n" } else { ",\n" };
        self.is_empty = false;
        let path = path.as_ref();
        let path = match str::from_utf8(path) {
            Ok(path) => format!("\"Path\": {}", serde_json::to_string(path)?),
            Err(_) => format!("\"Encoded-Path\": \"{}\"", hex(path)),
        };
        let modified = DateTime::from_timestamp(mtime, 0).unwrap_or_default();
        // The checksum is the bytes of the number as they lie in memory, lowest first.
        let checksum = hex(&crc32c.to_le_bytes());
        self.push(&format!(
            "{separator}{{ {path}, \"Size\": {size}, \"Last-Modified\": \"{}\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{checksum}\" }}",
            modified.format("%Y-%m-%d %H:%M:%S GMT"),
        ))
    }

    /// Ends the manifest with the log that the backup needs, oldest first.
    pub fn finish(mut self, wal_ranges: &[WalRange]) -> io::Result<Manifest> {
        self.push("\n],\n\"WAL-Ranges\": [\n")?;
        for (index, range) in wal_ranges.iter().enumerate() {
            let separator = if index == 0 { "" } else { ",\n" };
            self.push(&format!(
                "{separator}{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \"End-LSN\": \"{}\" }}",
                range.timeline, range.start, range.end
            ))?;
        }
        self.push("\n],\n")?;
        // The checksum covers every line before its own.
        let checksum = hex(&sha2::Digest::finalize_reset(&mut self.digest));
        self.push(&format!("\"Manifest-Checksum\": \"{checksum}\"}}\n"))?;
        Ok(Manifest {
            size: self.size,
            lines: zstd::stream::read::Decoder::new(io::Cursor::new(self.lines.finish()?))?,
        })
    }

    fn push(&mut self, text: &str) -> io::Result<()> {
        sha2::Digest::update(&mut self.digest, text);
        self.size += to_u64(text.len());
        self.lines.write_all(text.as_bytes())
    }
}

/// A whole manifest, to be read once; it is decompressed while it is read.
pub struct Manifest {
    size: u64,
    lines: zstd::stream::read::Decoder<'static, io::BufReader<io::Cursor<Vec<u8>>>>,
}

impl Manifest {
    /// The bytes that reading it gives, when read from its start.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// All of it in memory: some 150 bytes a file.
    pub fn into_bytes(mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.lines.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Read for Manifest {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.lines.read(buffer)
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).expect("a usize has at most 64 bits")
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|half| char::from(DIGITS[usize::from(half)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const VERSION_1: &[u8] =
        include_bytes!("../../tests/fixtures/postgresql/backup_manifest-15.zst");
    const OF_13: &[u8] = include_bytes!("../../tests/fixtures/postgresql/backup_manifest-13.zst");
    const OF_17: &[u8] = include_bytes!("../../tests/fixtures/postgresql/backup_manifest-17.zst");
    const VERSION_2: &[u8] =
        include_bytes!("../../tests/fixtures/postgresql/backup_manifest-18.zst");

    fn checksum(text: &str) -> u32 {
        u32::from_str_radix(text, 16).unwrap().swap_bytes()
    }

    /// The same files and log through our builder.
    fn rebuild(manifest: &[u8]) -> Vec<u8> {
        let manifest: Value = serde_json::from_slice(manifest).unwrap();
        let version = manifest["PostgreSQL-Backup-Manifest-Version"]
            .as_u64()
            .unwrap();
        let system_id = manifest["System-Identifier"].as_u64().unwrap_or(0);
        let mut builder = ManifestBuilder::new(u32::try_from(version).unwrap(), system_id).unwrap();
        for file in manifest["Files"].as_array().unwrap() {
            let modified = file["Last-Modified"]
                .as_str()
                .unwrap()
                .replace("GMT", "+0000");
            let modified = DateTime::parse_from_str(&modified, "%Y-%m-%d %H:%M:%S %z").unwrap();
            builder
                .add_file(
                    file["Path"].as_str().unwrap(),
                    file["Size"].as_u64().unwrap(),
                    modified.timestamp(),
                    checksum(file["Checksum"].as_str().unwrap()),
                )
                .unwrap();
        }
        let ranges = manifest["WAL-Ranges"].as_array().unwrap().iter();
        let ranges: Vec<_> = ranges
            .map(|range| WalRange {
                timeline: range["Timeline"].to_string().parse().unwrap(),
                start: range["Start-LSN"].as_str().unwrap().parse().unwrap(),
                end: range["End-LSN"].as_str().unwrap().parse().unwrap(),
            })
            .collect();
        builder.finish(&ranges).unwrap().into_bytes().unwrap()
    }

    #[test]
    fn manifests_are_those_of_postgresql_to_the_byte() {
        for stored in [OF_13, VERSION_1, OF_17, VERSION_2] {
            let original = zstd::decode_all(stored).unwrap();
            let rebuilt = rebuild(&original);
            assert!(rebuilt == original, "{}", String::from_utf8_lossy(&rebuilt));
        }
    }

    #[test]
    fn every_name_is_written_so_that_it_reads_back() {
        let names: [&[u8]; 5] = [
            b"base/1/1",
            "Łódź".as_bytes(),
            b"a \"b\" \\ c",
            b"new\nline\x01",
            b"\xff\x00",
        ];
        let mut builder = ManifestBuilder::new(2, u64::MAX).unwrap();
        for name in names {
            builder.add_file(name, u64::MAX, i64::MAX, 0).unwrap();
        }
        let bytes = builder.finish(&[]).unwrap().into_bytes().unwrap();
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(manifest["System-Identifier"].as_u64(), Some(u64::MAX));
        let files = manifest["Files"].as_array().unwrap();
        assert_eq!(files.len(), 5);
        for (file, name) in files.iter().zip(names).take(4) {
            assert_eq!(file["Path"].as_str().unwrap().as_bytes(), name);
            assert_eq!(file["Last-Modified"], "1970-01-01 00:00:00 GMT");
        }
        assert_eq!(files[4]["Encoded-Path"], "ff00");
    }

    #[test]
    fn its_size_is_known_before_it_is_read_and_little_is_kept() {
        let mut builder = ManifestBuilder::new(1, 0).unwrap();
        for number in 0..50_000u32 {
            let path = format!("base/16384/{}", 16_384 + number);
            let checksum = number.wrapping_mul(2_654_435_761);
            builder
                .add_file(path, 8192, 1_790_000_000, checksum)
                .unwrap();
        }
        let mut manifest = builder.finish(&[]).unwrap();
        let kept = manifest.lines.get_ref().get_ref().get_ref().len();
        assert!(kept < 50_000 * 20, "{kept}");
        let size = manifest.size();
        assert_eq!(io::copy(&mut manifest, &mut io::sink()).unwrap(), size);
    }
}
