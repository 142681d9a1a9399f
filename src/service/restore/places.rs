//! Where everything goes: the data directory as asked for, tablespaces where they lay or where
//! the user wants them. Each place is looked at, and none overlaps with another.
//!
//! Not here: making them (`directories`).

use std::path::{Component, Path, PathBuf};

use crate::barman::backup_info::BackupInfo;
use crate::domain::backup::Backup;
use crate::service::restore::directories::{self, DirectoryState};
use crate::service::restore::error::RestoreError;
use crate::service::restore::request::{RestoreRequest, TablespaceMapping};

/// A tablespace and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTablespace {
    /// Its name.
    pub name: String,
    /// Its object id.
    pub oid: u32,
    /// Where it lay.
    pub old: String,
    /// Where its link will lead, absolute.
    pub new: PathBuf,
    /// Where it lies below the data directory, for the odd one inside it.
    pub inside_pgdata: Option<PathBuf>,
    /// What the place is now.
    pub state: DirectoryState,
}

/// The directories that will be filled.
pub(crate) struct Places {
    pub(crate) pgdata: PathBuf,
    pub(crate) pgdata_state: DirectoryState,
    pub(crate) tablespaces: Vec<PlannedTablespace>,
}

impl Places {
    /// Where everything goes: the data directory as asked, tablespaces where they lay or where
    /// the mappings say. Each place is looked at.
    pub(crate) fn decide(
        request: &RestoreRequest,
        backup: &Backup,
        info: &BackupInfo,
    ) -> Result<Self, RestoreError> {
        let pgdata = resolve(&request.pgdata)?;
        let pgdata_state = directories::examine(&pgdata, &pgdata)?;
        check_mappings(request, backup)?;
        let old_pgdata = info.pgdata.as_deref().map(Path::new);
        let mut tablespaces: Vec<PlannedTablespace> = Vec::new();
        for tablespace in &backup.tablespaces {
            let old = tablespace.location.trim_end_matches('/');
            let mapped = request
                .tablespaces
                .iter()
                .find(|mapping| is_meant(mapping, &tablespace.name, old));
            let inside = old_pgdata.and_then(|pgdata| Path::new(old).strip_prefix(pgdata).ok());
            let inside_pgdata = inside
                .filter(|path| !path.as_os_str().is_empty())
                .map(Path::to_owned);
            let new = match (mapped, &inside_pgdata) {
                (Some(mapping), _) => resolve(&mapping.new)?,
                (None, Some(inside)) => pgdata.join(inside),
                (None, None) => resolve(Path::new(old))?,
            };
            let is_inside = mapped.is_none() && inside_pgdata.is_some();
            check_apart(&new, &pgdata, is_inside, &tablespaces)?;
            let state = if is_inside {
                DirectoryState::Absent
            } else {
                directories::examine(&new, &pgdata)?
            };
            tablespaces.push(PlannedTablespace {
                name: tablespace.name.clone(),
                oid: tablespace.oid,
                old: tablespace.location.clone(),
                new,
                inside_pgdata,
                state,
            });
        }
        Ok(Self {
            pgdata,
            pgdata_state,
            tablespaces,
        })
    }
}

fn is_meant(mapping: &TablespaceMapping, name: &str, location: &str) -> bool {
    mapping.old == name || mapping.old.trim_end_matches('/') == location
}

/// Each mapping names one tablespace, and no two the same.
fn check_mappings(request: &RestoreRequest, backup: &Backup) -> Result<(), RestoreError> {
    let mut seen = Vec::new();
    for mapping in &request.tablespaces {
        let meant = backup.tablespaces.iter().find(|tablespace| {
            is_meant(
                mapping,
                &tablespace.name,
                tablespace.location.trim_end_matches('/'),
            )
        });
        match meant {
            Some(tablespace) if !seen.contains(&tablespace.oid) => seen.push(tablespace.oid),
            _ => {
                let known: Vec<String> = backup
                    .tablespaces
                    .iter()
                    .map(|tablespace| format!("{} at {}", tablespace.name, tablespace.location))
                    .collect();
                return Err(RestoreError::UnknownTablespace {
                    old: mapping.old.clone(),
                    known: if known.is_empty() {
                        "none".to_owned()
                    } else {
                        known.join(", ")
                    },
                });
            }
        }
    }
    Ok(())
}

/// No directory to be filled lies in another, but for a tablespace that always lay in the data directory.
fn check_apart(
    new: &Path,
    pgdata: &Path,
    is_inside: bool,
    others: &[PlannedTablespace],
) -> Result<(), RestoreError> {
    let overlaps = |other: &Path| new.starts_with(other) || other.starts_with(new);
    let is_apart =
        (is_inside || !overlaps(pgdata)) && !others.iter().any(|other| overlaps(&other.new));
    if is_apart {
        return Ok(());
    }
    Err(RestoreError::Target {
        path: new.to_owned(),
        reason: "it overlaps with another directory of this restore".to_owned(),
    })
}

/// The path with all links in it resolved, as far as it is there.
fn resolve(path: &Path) -> Result<PathBuf, RestoreError> {
    let refused = |reason: &str| RestoreError::Target {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    if !path.is_absolute() {
        return Err(refused("the path is not absolute"));
    }
    if path.to_str().is_none() {
        return Err(refused(
            "the path is not UTF-8, and so cannot stand in the settings",
        ));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(refused("the path has a .. in it"));
    }
    for there in path.ancestors() {
        if let Ok(resolved) = there.canonicalize() {
            let rest = path
                .strip_prefix(there)
                .map_err(|_| refused("the path cannot be resolved"))?;
            return Ok(if rest.as_os_str().is_empty() {
                resolved
            } else {
                resolved.join(rest)
            });
        }
        if there.symlink_metadata().is_ok() {
            return Err(refused(
                "the path leads through a link to nowhere, or cannot be read",
            ));
        }
    }
    Err(refused("the path cannot be resolved"))
}
