//! The archive's log listed once, and held to what the backups need.
//!
//! Not here: what they need (`line`), and the contents of segments.

use std::pin::pin;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;

use crate::barman::repository::wal::UnreadableHistory;
use crate::barman::repository::wal_listing::{StoredWal, WalScope};
use crate::barman::repository::{Repository, RepositoryError};
use crate::codec::Codec;
use crate::domain::backup::BackupId;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::domain::timeline::TimelineHistory;
use crate::domain::wal_file::WalFileName;
use crate::service::verify::archived::Archived;
use crate::service::verify::line::{self, Lines, Need};
use crate::store::ObjectKey;

/// Segments named as cut short; the others are counted as missing only.
const CUT_SHORT_MAX: usize = 20;

/// The log that the backups need, as the archive has it.
#[derive(Debug, Default)]
pub struct WalFound {
    /// The lines that lead on from the backups, and what they lack.
    pub lines: Lines,
    /// Histories that are there and make no sense.
    pub unreadable: Vec<UnreadableHistory>,
    /// Segments that are there with too few bytes, and so count as missing: the first few of them.
    pub cut_short: Vec<CutShort>,
}

/// A segment that cannot be whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutShort {
    /// Its key.
    pub key: ObjectKey,
    /// Its size as stored.
    pub size: u64,
}

impl WalFound {
    /// Segments that are missing, those that may yet come left out.
    pub fn missing(&self) -> u64 {
        let missing = self.lines.missing.iter();
        missing
            .filter(|missing| !missing.is_on_its_way)
            .map(|missing| missing.count)
            .sum()
    }
}

/// The log as listed, to be held to one set of backups or another.
#[derive(Debug)]
pub(super) struct ListedWal {
    histories: Vec<TimelineHistory>,
    unreadable: Vec<UnreadableHistory>,
    archived: Vec<Archived>,
    cut_short: Vec<CutShort>,
    now: DateTime<Utc>,
}

/// Lists the log from the first backup's begin on: one request for each thousand files.
pub(super) async fn list(
    repository: &Repository,
    needs: &[Need],
    now: DateTime<Utc>,
) -> Result<ListedWal, RepositoryError> {
    let histories = repository.read_histories().await?;
    let mut sizes: Vec<SegmentSize> = Vec::new();
    for need in needs {
        if !sizes.contains(&need.size) {
            sizes.push(need.size);
        }
    }
    let mut listed = ListedWal {
        histories: histories.read,
        unreadable: histories.unreadable,
        archived: sizes.into_iter().map(Archived::new).collect(),
        cut_short: Vec::new(),
        now,
    };
    let first = needs.iter().map(|need| need.begin_wal).min();
    let Some(first) = first else {
        return Ok(listed);
    };
    // The folder's own name sorts before all that is in it.
    let after = ObjectKey::new(repository.layout.wal_folder(first));
    let mut pages = pin!(repository.wal_objects(WalScope::All, Some(&after)));
    while let Some(page) = pages.try_next().await? {
        for file in page.files {
            listed.add(file);
        }
    }
    Ok(listed)
}

impl ListedWal {
    fn add(&mut self, file: StoredWal) {
        let (name, is_whole) = match file.name {
            WalFileName::Segment(name) => (name, true),
            WalFileName::Partial(name) => (name, false),
            _ => return,
        };
        if is_whole && self.is_cut_short(&file) {
            if self.cut_short.len() < CUT_SHORT_MAX {
                self.cut_short.push(CutShort {
                    key: file.key,
                    size: file.size,
                });
            }
            return;
        }
        for archived in &mut self.archived {
            let Some(number) = name.number(archived.size) else {
                continue;
            };
            if is_whole {
                archived.add(name.timeline(), number, file.modified);
            } else {
                archived.add_partial(name.timeline(), number);
            }
        }
    }

    /// Whether it has too few bytes for any segment of this archive.
    fn is_cut_short(&self, file: &StoredWal) -> bool {
        let mut sizes = self.archived.iter().map(|archived| archived.size.bytes());
        file.size == 0 || (file.codec == Codec::None && sizes.all(|size| size != file.size))
    }

    /// Holds it to what these backups need.
    pub(super) fn check(&self, needs: &[Need]) -> Lines {
        let mut all = Lines::default();
        for archived in &self.archived {
            let needs: Vec<&Need> = needs
                .iter()
                .filter(|need| need.size == archived.size)
                .collect();
            let found = line::check(&needs, &self.histories, archived, self.now);
            all.lines.extend(found.lines);
            all.missing.extend(found.missing);
            all.without_history.extend(found.without_history);
        }
        all
    }

    /// The same, with all that was odd about the listing.
    pub(super) fn into_found(self, lines: Lines) -> WalFound {
        WalFound {
            lines,
            unreadable: self.unreadable,
            cut_short: self.cut_short,
        }
    }
}

/// The backups that a gap concerns.
pub(super) fn concerned(lines: &Lines) -> impl Iterator<Item = &BackupId> {
    lines.missing.iter().flat_map(|missing| &missing.backups)
}

/// Missing segments as people read them: `NAME`, or `NAME to NAME`.
pub fn range_text(first: SegmentName, last: SegmentName) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first} to {last}")
    }
}
