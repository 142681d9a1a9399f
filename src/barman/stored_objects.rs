//! What was stored of one backup, digest by digest: our own record beside Barman's.
//!
//! It lies at `<server>/cellarman/backups/<id>/objects.json`. Backups by other tools have none,
//! and one without it is restored all the same. Not here: computing or comparing digests.

use serde::{Deserialize, Serialize};

use crate::barman::layout::Layout;
use crate::domain::backup::BackupId;
use crate::store::ObjectKey;

/// The tars of a backup as they were stored, and what was wrong with what went into them.
///
/// Readers take fields that they do not know, so that later releases may add some.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoredObjects {
    /// Each stored tar.
    pub objects: Vec<StoredObject>,
    /// Pages whose checksum did not fit when they were read, by file. Empty where all did.
    #[serde(default)]
    pub damaged: Vec<DamagedFile>,
}

/// One stored tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// The last part of its key, such as `data_0001.tar.gz`.
    pub name: String,
    /// Its size as stored.
    pub size: u64,
    /// The blake3 of its stored bytes, in hexadecimal.
    pub blake3: String,
    /// The size of the tar inside, before compression.
    #[serde(default)]
    pub tar_bytes: Option<u64>,
}

/// A data file with damaged pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedFile {
    /// Its path below the data directory.
    pub path: String,
    /// The numbers of the damaged blocks within the relation, the first few of them.
    pub blocks: Vec<u32>,
}

impl StoredObjects {
    /// Where the record of a backup lies.
    pub fn key(layout: &Layout, id: &BackupId) -> ObjectKey {
        layout.private(&format!("backups/{id}/objects.json"))
    }

    /// Reads the record.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The text of the record.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(self)
    }

    /// What was recorded of the object with this last part of its key.
    pub fn get(&self, name: &str) -> Option<&StoredObject> {
        self.objects.iter().find(|object| object.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_later_release_is_read() {
        let json =
            br#"{"objects":[{"name":"data.tar","size":3,"blake3":"ab","later":1}],"later":{}}"#;
        let record = StoredObjects::parse(json).unwrap();
        assert_eq!(record.get("data.tar").unwrap().size, 3);
        assert_eq!(record.get("data_0001.tar"), None);
        let again = StoredObjects::parse(&record.to_json().unwrap()).unwrap();
        assert_eq!(again, record);
    }
}
