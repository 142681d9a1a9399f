//! Where each object of a server's archive lies: the keys of Barman Cloud's layout.
//!
//! ```text
//! <path>/<server>/base/<backup id>/backup.info
//! <path>/<server>/base/<backup id>/data.tar[.gz|.bz2|.snappy|.lz4], data_0001.tar[..], ..
//! <path>/<server>/base/<backup id>/<tablespace oid>.tar[..], <oid>_0001.tar[..], ..
//! <path>/<server>/base/<backup id>/annotations/keep
//! <path>/<server>/wals/<16 hex>/<24 hex>[.partial|.<8 hex>.backup][.gz|.bz2|.xz|.snappy|.zst|.lz4]
//! <path>/<server>/wals/<8 hex>.history[..]
//! <path>/<server>/cellarman/..                 ours: Barman neither lists nor deletes it
//! <path>/<server>/cellarman/catalog.jsonl.zst  derived: what the records said when last read
//! ```
//!
//! Not here: what is in the objects, and requests to a store.

use std::fmt;
use std::str::FromStr;

use crate::codec::Codec;
use crate::domain::backup::BackupId;
use crate::domain::segment::SegmentName;
use crate::domain::wal_file::WalFileName;
use crate::store::ObjectKey;

/// The name of a server's archive: one element of every key, as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerName(String);

/// Text that is no server name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no server name: expected text without a slash, such as pg-main")]
pub struct ServerNameError {
    text: String,
}

impl ServerName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ServerName {
    type Err = ServerNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = !text.is_empty()
            && !text.contains(|c: char| c == '/' || c.is_control())
            && text != "."
            && text != "..";
        is_name
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| ServerNameError {
                text: text.to_owned(),
            })
    }
}

/// The keys of one server's archive below one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    path: String,
    server: ServerName,
}

/// The objects of a backup that hold files: `data` for the data directory or the object id of a
/// tablespace, cut into pieces, each a tar of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveName {
    /// The tablespace; `None` for the data directory.
    pub tablespace: Option<u32>,
    /// The piece, from 0.
    pub piece: u32,
}

impl Layout {
    /// The keys for `server` below `path`, the part of the destination after the bucket.
    ///
    /// As Barman joins them: leading slashes of the path are cut, a slash is added at its end only
    /// where none is.
    pub fn new(path: &str, server: &ServerName) -> Self {
        let mut path = path.trim_start_matches('/').to_owned();
        if !path.is_empty() && !path.ends_with('/') {
            path.push('/');
        }
        Self {
            path,
            server: server.clone(),
        }
    }

    /// The server.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// What the keys of all servers' objects begin with.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the keys of all the server's objects begin with.
    pub fn server_prefix(&self) -> String {
        format!("{}{}/", self.path, self.server)
    }

    /// What the keys of all objects of backups begin with.
    pub fn base_prefix(&self) -> String {
        format!("{}base/", self.server_prefix())
    }

    /// What the keys of all objects of one backup begin with.
    pub fn backup_prefix(&self, id: &BackupId) -> String {
        format!("{}{id}/", self.base_prefix())
    }

    /// The record of a backup.
    pub fn backup_info(&self, id: &BackupId) -> ObjectKey {
        ObjectKey::new(format!("{}backup.info", self.backup_prefix(id)))
    }

    /// One tar of a backup.
    pub fn archive(&self, id: &BackupId, name: &ArchiveName, codec: Codec) -> ObjectKey {
        let suffix = codec.suffix();
        ObjectKey::new(format!("{}{name}.tar{suffix}", self.backup_prefix(id)))
    }

    /// The two places of the mark that keeps a backup: the plain one first.
    ///
    /// Barman puts a slash between the path and the server whether or not the path ends in one.
    /// So the same archive, reached by a destination with and without a slash at its end, has its
    /// marks in two places, and each destination knows only one. Both must be read.
    pub fn keep(&self, id: &BackupId) -> [ObjectKey; 2] {
        [
            format!("{}annotations/keep", self.backup_prefix(id)),
            format!("{}{id}/annotations/keep", self.doubled_base_prefix()),
        ]
        .map(ObjectKey::new)
    }

    /// What the keys of marks begin with that Barman put under a doubled slash.
    ///
    /// The same as [`Self::base_prefix`] where the path is empty: then there is nothing to double.
    pub fn doubled_base_prefix(&self) -> String {
        let slash = if self.path.is_empty() { "" } else { "/" };
        format!("{}{slash}{}/base/", self.path, self.server)
    }

    /// What the keys of all files of the log begin with.
    pub fn wals_prefix(&self) -> String {
        format!("{}wals/", self.server_prefix())
    }

    /// What the keys of the segments begin with that share their first 16 digits with `segment`.
    pub fn wal_folder(&self, segment: SegmentName) -> String {
        format!("{}{}/", self.wals_prefix(), segment.folder())
    }

    /// One file of the log.
    pub fn wal(&self, name: &WalFileName, codec: Codec) -> ObjectKey {
        let folder = name
            .segment()
            .map_or_else(|| self.wals_prefix(), |segment| self.wal_folder(segment));
        ObjectKey::new(format!("{folder}{name}{}", codec.suffix()))
    }

    /// The file of the log that an object's base name stands for; `None` for foreign objects.
    pub fn parse_wal(base_name: &str) -> Option<(WalFileName, Codec)> {
        let (name, codec) = Codec::split_suffix(base_name);
        Some((name.parse().ok()?, codec))
    }

    /// An object of ours, such as `backups/<id>/objects.json`.
    pub fn private(&self, name: &str) -> ObjectKey {
        ObjectKey::new(format!("{}cellarman/{name}", self.server_prefix()))
    }

    /// What the keys of our own objects on one backup begin with.
    pub fn private_backup_prefix(&self, id: &BackupId) -> String {
        format!("{}cellarman/backups/{id}/", self.server_prefix())
    }
}

impl ArchiveName {
    /// The first piece of the data directory.
    pub const DATA: Self = Self {
        tablespace: None,
        piece: 0,
    };

    /// The tar that an object's base name stands for; `None` for objects that are no tar.
    ///
    /// # Errors
    /// Fails for a tar by name whose kind or compression is not known: to pass it over would be
    /// to restore a part.
    pub fn parse(base_name: &str) -> Result<Option<(Self, Codec)>, UnknownArchive> {
        let Some((stem, kind)) = base_name.split_once('.') else {
            return Ok(None);
        };
        let Some(name) = Self::parse_stem(stem) else {
            return Ok(None);
        };
        let (tar, codec) = Codec::split_suffix(kind);
        if tar == "tar" {
            Ok(Some((name, codec)))
        } else {
            Err(UnknownArchive {
                name: base_name.to_owned(),
            })
        }
    }

    fn parse_stem(stem: &str) -> Option<Self> {
        let (owner, piece) = match stem.split_once('_') {
            Some((owner, digits)) => (owner, parse_digits(digits).filter(|piece| *piece > 0)?),
            None => (stem, 0),
        };
        let tablespace = match owner {
            "data" => None,
            oid => Some(parse_digits(oid)?),
        };
        Some(Self { tablespace, piece })
    }
}

fn parse_digits(text: &str) -> Option<u32> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// An object that is part of a backup by its name, but of a kind that is not known here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no tar in a known compression")]
pub struct UnknownArchive {
    name: String,
}

impl fmt::Display for ArchiveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tablespace {
            Some(oid) => write!(f, "{oid}")?,
            None => write!(f, "data")?,
        }
        match self.piece {
            0 => Ok(()),
            piece => write!(f, "_{piece:04}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(path: &str) -> Layout {
        Layout::new(path, &"srv1".parse().unwrap())
    }

    fn id() -> BackupId {
        "20261121T054347".parse().unwrap()
    }

    #[test]
    fn paths_are_joined_as_barman_joins_them() {
        for (path, base) in [
            ("", "srv1/base/"),
            ("/", "srv1/base/"),
            ("p", "p/srv1/base/"),
            ("p/", "p/srv1/base/"),
            ("/p/q", "p/q/srv1/base/"),
            ("p//", "p//srv1/base/"),
        ] {
            assert_eq!(layout(path).base_prefix(), base, "{path:?}");
        }
    }

    #[test]
    fn the_mark_that_keeps_a_backup_has_two_places() {
        for (path, plain, doubled) in [
            ("pre/fix", "pre/fix/srv1", "pre/fix//srv1"),
            ("pre/fix/", "pre/fix/srv1", "pre/fix//srv1"),
            ("p//", "p//srv1", "p///srv1"),
            ("", "srv1", "srv1"),
        ] {
            let keys = layout(path).keep(&id());
            let expected = [plain, doubled]
                .map(|start| ObjectKey::new(format!("{start}/base/{}/annotations/keep", id())));
            assert_eq!(keys, expected, "{path:?}");
        }
    }

    #[test]
    fn wal_lies_in_folders_of_sixteen_digits_and_histories_above_them() {
        for (name, codec, key) in [
            (
                "000000010000000A000000FE",
                Codec::None,
                "000000010000000A/000000010000000A000000FE",
            ),
            (
                "000000010000000A000000FE.partial",
                Codec::Gzip,
                "000000010000000A/000000010000000A000000FE.partial.gz",
            ),
            (
                "000000010000000A000000FE.00000028.backup",
                Codec::Zstd,
                "000000010000000A/000000010000000A000000FE.00000028.backup.zst",
            ),
            ("00000002.history", Codec::Lz4, "00000002.history.lz4"),
        ] {
            let found = layout("p").wal(&name.parse().unwrap(), codec);
            assert_eq!(found.as_str(), format!("p/srv1/wals/{key}"));
            assert_eq!(
                Layout::parse_wal(found.base_name()),
                Some((name.parse().unwrap(), codec))
            );
        }
        assert_eq!(Layout::parse_wal("000000010000000A000000FE.txt"), None);
    }

    #[test]
    fn tars_read_as_they_are_written() {
        for (text, tablespace, piece, codec) in [
            ("data.tar", None, 0, Codec::None),
            ("data_0001.tar.gz", None, 1, Codec::Gzip),
            ("data_12345.tar.lz4", None, 12345, Codec::Lz4),
            ("16384.tar.bz2", Some(16384), 0, Codec::Bzip2),
            ("16384_0002.tar.snappy", Some(16384), 2, Codec::Snappy),
        ] {
            let name = ArchiveName { tablespace, piece };
            assert_eq!(ArchiveName::parse(text), Ok(Some((name, codec))), "{text}");
            let key = layout("").archive(&id(), &name, codec);
            assert_eq!(key.as_str(), format!("srv1/base/{}/{text}", id()));
        }
    }

    #[test]
    fn other_objects_of_a_backup_are_no_tars_and_unknown_kinds_are_refused() {
        for text in [
            "backup.info",
            "backup_label",
            "",
            "data",
            "_1.tar",
            "datax.tar",
        ] {
            assert_eq!(ArchiveName::parse(text), Ok(None), "{text}");
        }
        for text in ["data.tar.enc", "16384_0001.zip", "data."] {
            assert!(ArchiveName::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn server_names_are_one_element_of_a_key() {
        for text in ["", ".", "..", "a/b", "a\nb"] {
            assert!(text.parse::<ServerName>().is_err(), "{text:?}");
        }
        assert_eq!("pg main".parse::<ServerName>().unwrap().as_str(), "pg main");
    }
}
