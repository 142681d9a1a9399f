//! Whether the archive has a server's own bytes of a segment, and not another's of the same name.
//!
//! Asked only where the server's archiver does not say so itself: it may fail for another reason,
//! as an archive_command does that also sends the file to a second place. Not here: waiting (`wal_wait`).

use std::fs::File;
use std::io;
use std::path::Path;

use tokio::task;

use crate::barman::layout::Layout;
use crate::barman::repository::Repository;
use crate::codec::Codec;
use crate::codec::decompress::decompressor;
use crate::codec::digest::DigestWriter;
use crate::domain::segment::SegmentName;
use crate::domain::wal_file::WalFileName;
use crate::postgres::datadir::DataDirectoryError;
use crate::service::base_backup::error::BackupError;
use crate::service::object_read::{self, ReadError};
use crate::store::{ListRequest, ObjectKey};

/// Compares what is archived of the segment with the file in `pg_wal`, which the server keeps
/// while it is not acknowledged. Nothing archived, or nothing that can be read, is not the same.
pub(super) async fn is_archived(
    repository: &Repository,
    pg_wal: &Path,
    segment: SegmentName,
) -> Result<bool, BackupError> {
    let path = pg_wal.join(segment.to_string());
    let here = task::spawn_blocking(move || {
        let digest = File::open(&path).and_then(digest_of);
        digest.map_err(|source| DataDirectoryError::new(&path, source))
    });
    let here = here.await.map_err(|_| BackupError::Broken)??;
    let archived = archived(repository, segment).await?;
    for (key, codec) in &archived {
        let body = repository.store.get(key, None).await?;
        let codec = *codec;
        let there = object_read::read(body, move |reader| digest_of(decompressor(reader, codec)?));
        match there.await {
            Ok(there) if there == here => {}
            Ok(_) | Err(ReadError::Work(_)) => return Ok(false),
            Err(ReadError::Store(error)) => return Err(error.into()),
        }
    }
    Ok(!archived.is_empty())
}

/// The objects of that name, in any compression.
async fn archived(
    repository: &Repository,
    segment: SegmentName,
) -> Result<Vec<(ObjectKey, Codec)>, BackupError> {
    let name = WalFileName::Segment(segment);
    let request = ListRequest {
        prefix: repository.layout.wal(&name, Codec::None).to_string(),
        ..ListRequest::default()
    };
    let page = repository.store.list(&request).await?;
    let found = page.objects.into_iter().filter_map(|object| {
        let (found, codec) = Layout::parse_wal(object.key.base_name())?;
        (found == name).then_some((object.key, codec))
    });
    Ok(found.collect())
}

fn digest_of(mut reader: impl io::Read) -> io::Result<String> {
    let mut sink = DigestWriter::new(io::sink());
    io::copy(&mut reader, &mut sink)?;
    Ok(sink.blake3())
}
