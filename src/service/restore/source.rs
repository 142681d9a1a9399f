//! What a recovery on the source's own machine can do to the source.
//!
//! Not here: places of this restore (`places`).

use std::path::Path;

use crate::barman::backup_info::BackupInfo;
use crate::domain::recovery::Target;
use crate::service::restore::places::Places;

/// A warning where a path of the source that is not this restore's own is there on this machine.
///
/// The tablespaces of the backup get places of their own, but the log that is replayed may make
/// further ones, and names their folders as the source knows them.
pub(crate) fn warning(target: &Target, places: &Places, info: &BackupInfo) -> Option<String> {
    if *target == Target::Immediate {
        // Next to nothing is replayed.
        return None;
    }
    let pgdata = info
        .pgdata
        .as_deref()
        .map(|old| (old, places.pgdata.as_path()));
    let tablespaces = places.tablespaces.iter();
    let moved = tablespaces.map(|tablespace| (tablespace.old.as_str(), tablespace.new.as_path()));
    let there = pgdata
        .into_iter()
        .chain(moved)
        .find_map(|(old, new)| is_another(Path::new(old), new).then_some(old))?;
    Some(format!(
        "{there} of the source is there on this machine: should the log that is replayed hold a \
         CREATE TABLESPACE, this cluster takes the very folder that the source uses for it. Recover \
         elsewhere, or to a target before it, where that may be."
    ))
}

/// Whether there is something at `old`, and it is not `new`.
fn is_another(old: &Path, new: &Path) -> bool {
    old.canonicalize().is_ok_and(|found| found != new)
}
