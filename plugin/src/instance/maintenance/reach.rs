//! How far the archive can be recovered, as a round sees it.
//!
//! WAL is archived several files at a time, so that the store may have a later one before an earlier
//! one: what the server still has ready is not missing. Not here: the look itself
//! (`cellarman::service::targets::extent`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cellarman::barman::repository::Repository;
use cellarman::clock;
use cellarman::domain::segment::SegmentName;
use cellarman::service::targets::extent;
use cellarman::service::targets::window::WindowError;
use tokio::task;

use crate::instance::Context;
use crate::instance::status::Reach;

/// Looks how far the archive can be recovered. What seems to be missing is looked at twice: a file
/// may have become ready and been archived during the first look.
pub(super) async fn look(context: &Context, repository: &Repository) -> Result<Reach, WindowError> {
    let pg_wal = context.pgdata.join("pg_wal");
    let mut on_their_way = ready(pg_wal.clone()).await;
    let mut extent = extent::extent(repository, &on_their_way).await?;
    if extent.missing_segments > 0 {
        on_their_way.extend(ready(pg_wal).await);
        extent = extent::extent(repository, &on_their_way).await?;
    }
    Ok(Reach::of(&extent, clock::now()))
}

/// The segments that the server has ready; none where that cannot be seen.
async fn ready(pg_wal: PathBuf) -> BTreeSet<SegmentName> {
    let names = task::spawn_blocking(move || ready_in(&pg_wal)).await;
    names.ok().and_then(Result::ok).unwrap_or_default()
}

fn ready_in(pg_wal: &Path) -> io::Result<BTreeSet<SegmentName>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(pg_wal.join("archive_status"))? {
        let name = entry?.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".ready"));
        names.extend(name.and_then(|name| name.parse::<SegmentName>().ok()));
    }
    Ok(names)
}
