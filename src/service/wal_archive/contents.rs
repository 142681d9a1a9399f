//! What the WAL archive holds, by as few listings as a question needs.
//!
//! Not here: what to conclude from it (`decision`, `ownership`).

use std::io::Read;

use crate::barman::layout::Layout;
use crate::barman::repository::Repository;
use crate::codec::Codec;
use crate::codec::decompress::decompressor;
use crate::domain::backup::SystemId;
use crate::domain::segment::{SegmentName, SegmentSize};
use crate::domain::timeline::TimelineId;
use crate::domain::wal_file::WalFileName;
use crate::pgfile::wal::page::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::service::object_read::{self, ReadError};
use crate::service::wal_archive::error::ArchiveError;
use crate::store::error::StoreError;
use crate::store::{ListRequest, ObjectKey, ObjectMeta};

/// How many of the newest backups are asked whose archive it is.
const BACKUPS_ASKED_MAX: usize = 5;

/// How many of the newest folders are searched for a segment.
const FOLDERS_ASKED_MAX: usize = 3;

/// A file of the archive.
#[derive(Debug, Clone)]
pub(super) struct Archived {
    pub(super) key: ObjectKey,
    pub(super) name: WalFileName,
    pub(super) codec: Codec,
}

/// The archive's folders and histories: one listing of its top.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// The history files.
    pub(super) histories: Vec<Archived>,
    /// The folders of segments, in byte order: the timeline and the key prefix.
    pub(super) folders: Vec<(TimelineId, String)>,
}

/// What lies around one name.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// The same name, under any suffix.
    pub(super) same_name: Vec<Archived>,
    /// The last segment of its timeline from there on.
    pub(super) last: Option<SegmentName>,
}

impl Archived {
    fn from_meta(meta: ObjectMeta) -> Option<Self> {
        let (name, codec) = Layout::parse_wal(meta.key.base_name())?;
        Some(Self {
            key: meta.key,
            name,
            codec,
        })
    }
}

/// The top of the archive.
pub(super) async fn outline(repository: &Repository) -> Result<Outline, StoreError> {
    let mut outline = Outline::default();
    let mut request = ListRequest {
        prefix: repository.layout.wals_prefix(),
        is_delimited: true,
        ..ListRequest::default()
    };
    loop {
        let page = repository.store.list(&request).await?;
        let histories = page.objects.into_iter().filter_map(Archived::from_meta);
        outline.histories.extend(histories);
        let folders = page.prefixes.into_iter();
        outline
            .folders
            .extend(folders.filter_map(|prefix| Some((timeline_of_folder(&prefix)?, prefix))));
        match page.next {
            Some(token) => request.token = Some(token),
            None => return Ok(outline),
        }
    }
}

/// Any one file of the archive, looked for from its top.
pub async fn first_found(repository: &Repository) -> Result<Option<ObjectKey>, StoreError> {
    let outline = outline(repository).await?;
    any_file(repository, &outline).await
}

/// Any one file of the archive: what shows that it is not empty.
pub(super) async fn any_file(
    repository: &Repository,
    outline: &Outline,
) -> Result<Option<ObjectKey>, StoreError> {
    for (_, folder) in &outline.folders {
        let mut found = None;
        walk(repository, folder.clone(), None, |file| {
            found = Some(file.key);
            false
        })
        .await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(outline.histories.first().map(|file| file.key.clone()))
}

/// The first and the last whole segment of an archive, in the order of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first.
    pub first: SegmentName,
    /// The last; on the newest timeline that has any.
    pub last: SegmentName,
}

/// How far the archive reaches; `None` when it holds no whole segment.
pub async fn extent(repository: &Repository) -> Result<Option<Extent>, StoreError> {
    let outline = outline(repository).await?;
    let mut first = None;
    for (_, folder) in &outline.folders {
        walk(repository, folder.clone(), None, |file| {
            first = whole_segment(file.name);
            first.is_none()
        })
        .await?;
        if first.is_some() {
            break;
        }
    }
    let Some(first) = first else { return Ok(None) };
    let is_segment = |name| whole_segment(name).is_some();
    for (_, folder) in outline.folders.iter().rev() {
        let last = last_in_folder(repository, folder, is_segment).await?;
        if let Some(last) = last.and_then(|file| whole_segment(file.name)) {
            return Ok(Some(Extent { first, last }));
        }
    }
    Ok(None)
}

fn whole_segment(name: WalFileName) -> Option<SegmentName> {
    match name {
        WalFileName::Segment(segment) => Some(segment),
        _ => None,
    }
}

/// The last file in a folder of those that are wanted.
pub(super) async fn last_in_folder(
    repository: &Repository,
    folder: &str,
    is_wanted: impl Fn(WalFileName) -> bool,
) -> Result<Option<Archived>, StoreError> {
    let mut last: Option<Archived> = None;
    walk(repository, folder.to_owned(), None, |file| {
        if is_wanted(file.name) {
            last = Some(file);
        }
        true
    })
    .await?;
    Ok(last)
}

/// What is there of the same name, and for a segment also the last of its timeline from there on.
pub(super) async fn neighbours(
    repository: &Repository,
    name: WalFileName,
    wants_last: bool,
) -> Result<Neighbours, StoreError> {
    let plain_key = repository.layout.wal(&name, Codec::None);
    let mut neighbours = Neighbours::default();
    let (prefix, start_after) = match name {
        WalFileName::Segment(segment) if wants_last => {
            let timeline = format!("{:08X}", segment.timeline().to_u32());
            // Without its last digit the name comes before itself in byte order, and before at
            // most fifteen others.
            let mut start = plain_key.as_str().to_owned();
            start.pop();
            let prefix = format!("{}{timeline}", repository.layout.wals_prefix());
            (prefix, Some(start))
        }
        _ => (plain_key.as_str().to_owned(), None),
    };
    walk(repository, prefix, start_after, |file| {
        if let WalFileName::Segment(segment) = file.name {
            neighbours.last = neighbours.last.max(Some(segment));
        }
        if file.name == name {
            neighbours.same_name.push(file);
        }
        true
    })
    .await?;
    Ok(neighbours)
}

/// The cluster that the archive belongs to: by its newest readable backup, else by the header of
/// its newest segment.
pub(super) async fn system_id(
    repository: &Repository,
    outline: &Outline,
) -> Result<Option<SystemId>, ArchiveError> {
    let ids = repository.backup_ids().await?;
    for id in ids.iter().rev().take(BACKUPS_ASKED_MAX) {
        // A record that cannot be read tells nothing; another one may.
        if let Ok(info) = repository.backup_info(id).await
            && let Some(system_id) = info.to_backup(id).system_id
        {
            return Ok(Some(system_id));
        }
    }
    let is_segment = |name| matches!(name, WalFileName::Segment(_));
    for (_, folder) in outline.folders.iter().rev().take(FOLDERS_ASKED_MAX) {
        if let Some(file) = last_in_folder(repository, folder, is_segment).await? {
            let header = header(repository, &file).await?;
            return Ok(header.map(|header| SystemId(header.system_id)));
        }
    }
    Ok(None)
}

/// The cluster that the archive belongs to, and the size of its segments by a header of one of
/// the newest; `None` when none can be read.
pub(crate) async fn cluster(
    repository: &Repository,
) -> Result<Option<(SystemId, SegmentSize)>, ArchiveError> {
    let outline = outline(repository).await?;
    let is_segment = |name| matches!(name, WalFileName::Segment(_));
    for (_, folder) in outline.folders.iter().rev().take(FOLDERS_ASKED_MAX) {
        if let Some(file) = last_in_folder(repository, folder, is_segment).await?
            && let Some(header) = header(repository, &file).await?
        {
            let system_id = system_id(repository, &outline).await?;
            let system_id = system_id.unwrap_or(SystemId(header.system_id));
            return Ok(Some((system_id, header.segment_size)));
        }
    }
    Ok(None)
}

/// The header of a segment in the archive; `None` when it has none that can be read.
async fn header(
    repository: &Repository,
    file: &Archived,
) -> Result<Option<SegmentHeader>, StoreError> {
    let codec = file.codec;
    let body = repository.store.get(&file.key, None).await?;
    let head = object_read::read(body, move |reader| {
        let mut head = [0; SEGMENT_HEADER_BYTES];
        decompressor(reader, codec)?.read_exact(&mut head)?;
        Ok(head)
    })
    .await;
    match head {
        Ok(head) => Ok(SegmentHeader::parse(&head).ok()),
        Err(ReadError::Store(error)) => Err(error),
        Err(ReadError::Work(_)) => Ok(None),
    }
}

/// Visits the WAL files below `prefix` in order of their keys, until `visit` says false.
async fn walk(
    repository: &Repository,
    prefix: String,
    start_after: Option<String>,
    mut visit: impl FnMut(Archived) -> bool,
) -> Result<(), StoreError> {
    let mut request = ListRequest {
        prefix,
        start_after,
        ..ListRequest::default()
    };
    loop {
        let page = repository.store.list(&request).await?;
        for file in page.objects.into_iter().filter_map(Archived::from_meta) {
            if !visit(file) {
                return Ok(());
            }
        }
        match page.next {
            Some(token) => request.token = Some(token),
            None => return Ok(()),
        }
    }
}

/// The timeline of a folder of segments, such as `…/wals/0000000100000000/`.
fn timeline_of_folder(prefix: &str) -> Option<TimelineId> {
    let name = prefix.strip_suffix('/')?.rsplit('/').next()?;
    let is_folder = name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let timeline = is_folder.then(|| u32::from_str_radix(name.get(..8)?, 16).ok());
    TimelineId::new(timeline??)
}
