//! What a backup lacks, told from a listing and its records alone.
//!
//! Pure. Not here: the bytes of what is there (`contents`).

use crate::barman::repository::stored_backups::StoredBackup;
use crate::barman::stored_objects::StoredObjects;
use crate::domain::backup::Backup;
use crate::service::verify::report::{Finding, Severity};

/// What to do about an object that is gone or changed.
pub(super) const HINT_OBJECT: &str = "Do not delete anything: put the object back if a copy of the \
    bucket or an older version of the object has it. Otherwise this backup is lost; take a new one now.";

/// Damaged files named in a finding.
const FILES_NAMED_MAX: usize = 5;

/// Missing pieces named: a number in a name may be anything.
const PIECES_NAMED_MAX: usize = 20;

/// All that is missing of a backup, or is there and should not be.
pub(super) fn check(
    backup: &Backup,
    stored: &StoredBackup,
    objects: Option<&StoredObjects>,
) -> Vec<Finding> {
    let mut texts: Vec<String> = Vec::new();
    let owners = backup.tablespaces.iter().map(|it| Some(it.oid));
    for tablespace in std::iter::once(None).chain(owners) {
        let pieces = Pieces::of(stored, tablespace);
        if objects.is_none() {
            texts.extend(pieces.missing());
        }
        texts.extend(pieces.twice());
    }
    for object in objects.iter().flat_map(|objects| &objects.objects) {
        let mut archives = stored.archives.iter();
        let found = archives.find(|archive| archive.key.base_name() == object.name);
        match found {
            None => texts.push(format!("{} is missing", object.name)),
            Some(archive) if archive.size != object.size => texts.push(format!(
                "{} has {} bytes, and {} were stored",
                object.name, archive.size, object.size
            )),
            Some(_) => {}
        }
    }
    texts.extend(
        stored
            .unknown
            .iter()
            .map(|name| format!("{name} is no tar in a compression that this release knows")),
    );
    let damaged = |text| Finding::of(&backup.id, Severity::Damaged, (text, HINT_OBJECT));
    let mut findings: Vec<Finding> = texts.into_iter().map(damaged).collect();
    findings.extend(damaged_pages(backup, objects));
    findings
}

/// The numbers of the pieces of one tablespace, or of the data directory.
struct Pieces {
    owner: String,
    numbers: Vec<u32>,
}

impl Pieces {
    fn of(stored: &StoredBackup, tablespace: Option<u32>) -> Self {
        let archives = stored.archives.iter();
        let owned = archives.filter(|archive| archive.name.tablespace == tablespace);
        let mut numbers: Vec<u32> = owned.map(|archive| archive.name.piece).collect();
        numbers.sort_unstable();
        Self {
            owner: tablespace.map_or_else(|| "data".to_owned(), |oid| oid.to_string()),
            numbers,
        }
    }

    /// Holes in the numbers. Of what is missing at the end they do not tell: our own record does.
    fn missing(&self) -> Vec<String> {
        let owner = &self.owner;
        let end = self.numbers.last().copied().unwrap_or(1);
        let missing = (0..end).filter(|piece| self.numbers.binary_search(piece).is_err());
        let named = missing.map(|piece| match piece {
            0 => format!("{owner}.tar is missing"),
            piece => format!("{owner}_{piece:04}.tar is missing"),
        });
        named.take(PIECES_NAMED_MAX).collect()
    }

    fn twice(&self) -> Vec<String> {
        let pairs = self.numbers.windows(2).filter(|pair| pair[0] == pair[1]);
        let named = pairs.map(|pair| {
            let owner = &self.owner;
            format!("piece {} of {owner} is there in two compressions", pair[0])
        });
        named.collect()
    }
}

/// What was damaged in the source already.
fn damaged_pages(backup: &Backup, objects: Option<&StoredObjects>) -> Option<Finding> {
    let damaged = &objects?.damaged;
    if damaged.is_empty() {
        return None;
    }
    let files = damaged.iter().take(FILES_NAMED_MAX);
    let files: Vec<String> = files
        .map(|file| format!("{} (blocks {:?})", file.path, file.blocks))
        .collect();
    let text = format!(
        "it holds pages that were damaged when they were backed up, in {} files: {}",
        damaged.len(),
        files.join(", ")
    );
    let hint = "Keep the older backups and look at the server's disk: the pages were damaged there. \
                What is on them can be had from an older backup alone.";
    Some(Finding::of(&backup.id, Severity::Damaged, (text, hint)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::barman::backup_info::BackupInfo;
    use crate::barman::layout::ArchiveName;
    use crate::barman::repository::StoredArchive;
    use crate::barman::stored_objects::{DamagedFile, StoredObject};
    use crate::codec::Codec;
    use crate::domain::backup::Tablespace;
    use crate::store::ObjectKey;

    fn backup() -> Backup {
        let info = BackupInfo {
            tablespaces: Some(vec![Tablespace {
                name: "cold".to_owned(),
                oid: 16384,
                location: "/cold".to_owned(),
            }]),
            ..BackupInfo::default()
        };
        info.to_backup(&"20261121T054347".parse().unwrap())
    }

    fn stored(names: &[&str]) -> StoredBackup {
        let archives = names.iter().map(|name| {
            let (archive, codec) = ArchiveName::parse(name).unwrap().unwrap();
            assert_eq!(codec, Codec::None);
            StoredArchive {
                key: ObjectKey::new(format!("p/srv/base/b/{name}")),
                name: archive,
                codec,
                size: 3,
            }
        });
        StoredBackup {
            archives: archives.collect(),
            ..StoredBackup::default()
        }
    }

    fn object(name: &str, size: u64) -> StoredObject {
        StoredObject {
            name: name.to_owned(),
            size,
            blake3: String::new(),
            tar_bytes: None,
        }
    }

    #[test]
    fn each_thing_that_is_missing_is_named() {
        let all = ["data.tar", "data_0001.tar", "16384.tar"];
        for (names, objects, expected) in [
            (&all[..], None, &[][..]),
            (&all[..2], None, &["16384.tar is missing"]),
            (&all[1..], None, &["data.tar is missing"]),
            (
                &["data.tar", "data_0003.tar", "16384.tar"],
                None,
                &["data_0001.tar is missing", "data_0002.tar is missing"],
            ),
            (
                &["data.tar", "data.tar", "16384.tar"],
                None,
                &["piece 0 of data is there in two compressions"],
            ),
            (
                &all,
                Some(&[("data_0002.tar", 3), ("data.tar", 4)]),
                &[
                    "data_0002.tar is missing",
                    "data.tar has 3 bytes, and 4 were stored",
                ],
            ),
        ] {
            let objects = objects.map(|objects| StoredObjects {
                objects: objects
                    .iter()
                    .map(|(name, size)| object(name, *size))
                    .collect(),
                damaged: Vec::new(),
            });
            let findings = check(&backup(), &stored(names), objects.as_ref());
            let texts: Vec<&str> = findings.iter().map(|it| it.text.as_str()).collect();
            assert_eq!(texts, expected, "{names:?}");
            assert!(findings.iter().all(|it| it.severity == Severity::Damaged));
        }
    }

    #[test]
    fn pages_that_were_damaged_when_they_were_backed_up_are_told() {
        let objects = StoredObjects {
            objects: Vec::new(),
            damaged: vec![DamagedFile {
                path: "base/5/16385".to_owned(),
                blocks: vec![7],
            }],
        };
        let stored = stored(&["data.tar", "16384.tar"]);
        let findings = check(&backup(), &stored, Some(&objects));
        assert_eq!(findings.len(), 1);
        assert!(findings[0].text.contains("base/5/16385 (blocks [7])"));
    }
}
