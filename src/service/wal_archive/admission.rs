//! Before the first file of a server goes into an archive: is the archive empty or its own?
//!
//! Runs when nothing is remembered of the archive, and when a marker demands an empty one.
//! Not here: the judgement itself (`ownership`).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::barman::repository::RepositoryError;
use crate::domain::backup::SystemId;
use crate::domain::segment::SegmentName;
use crate::domain::timeline::{TimelineHistory, TimelineId};
use crate::service::wal_archive::contents::{self, Outline};
use crate::service::wal_archive::decision::Admission;
use crate::service::wal_archive::error::ArchiveError;
use crate::service::wal_archive::ownership::{self, Holdings, Server, Stranger};
use crate::service::wal_archive::{Archiver, Demand};
use crate::service::wal_state::{KnownArchive, Marker};
use crate::store::error::StoreErrorKind;
use crate::store::{ObjectKey, PutOptions};

/// The object that says whose archive this is, below the private prefix.
const OWNER: &str = "archive.json";

/// The object on which conditional puts are tried out.
const PROBE: &str = "probe";

#[derive(Serialize, Deserialize)]
struct OwnerFile {
    // A string, since readers of JSON in other languages lose digits of large numbers.
    system_id: String,
    segment_size: u64,
}

impl Archiver {
    /// Makes sure that `server` may archive here, and learns how its store behaves.
    ///
    /// `server` is unknown for a history file without a readable control file: then nothing is
    /// learnt, but that an archive is empty which must be.
    pub(super) async fn admit(
        &self,
        server: Option<&Server>,
        admission: Admission,
        marker: Option<&Marker>,
    ) -> Result<Option<KnownArchive>, ArchiveError> {
        let outline = contents::outline(&self.repository).await?;
        let found = contents::any_file(&self.repository, &outline).await?;
        if admission == Admission::Empty
            && let Some(found) = found
        {
            return Err(ArchiveError::NotEmpty {
                archive: self.archive_for_people(),
                found,
            });
        }
        match server {
            Some(server) => self.own(server, &outline, found.is_some()).await?,
            None if marker.is_none() => return Ok(None),
            None => {}
        }
        let is_put_conditional = self.learn_conditional_put().await?;
        info!(
            archive = self.archive_for_people(),
            is_put_conditional, "this archive is the server's own"
        );
        Ok(Some(KnownArchive {
            system_id: server.map(|server| server.system_id),
            is_put_conditional,
            settled: None,
            empty_for: marker.map(|marker| marker.id.clone()),
            learnt: self.repository.store.learnt(),
        }))
    }

    /// Makes sure that what is there is this server's own, and says so there for later.
    async fn own(
        &self,
        server: &Server,
        outline: &Outline,
        has_files: bool,
    ) -> Result<(), ArchiveError> {
        let owner = self.owner().await?;
        if has_files {
            let holdings = self.holdings(server, outline, owner).await?;
            self.judge(server, &holdings)?;
        } else if let Some(owner) = owner {
            self.check_owner(server, owner)?;
        }
        if owner.is_none() {
            self.claim(server).await?;
        }
        Ok(())
    }

    /// For a file outside a data directory, where nothing is remembered: only whose archive it is.
    pub(super) async fn check_owner_only(&self, server: &Server) -> Result<bool, ArchiveError> {
        match self.owner().await? {
            Some(owner) => {
                self.check_owner(server, owner)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Where the archive is, for people.
    pub(super) fn archive_for_people(&self) -> String {
        let location = self.repository.store.location().trim_end_matches('/');
        format!("{location}/{}", self.repository.layout.wals_prefix())
    }

    async fn owner(&self) -> Result<Option<SystemId>, ArchiveError> {
        let key = self.repository.layout.private(OWNER);
        let bytes = match self.repository.get_small(&key).await {
            Ok(bytes) => bytes,
            Err(RepositoryError::Store(error)) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let owner = serde_json::from_slice::<OwnerFile>(&bytes).ok();
        let system_id = owner.and_then(|owner| owner.system_id.parse().ok());
        system_id
            .map(|id| Some(SystemId(id)))
            .ok_or_else(|| ArchiveError::NotOwn {
                archive: self.archive_for_people(),
                reason: format!("{key} makes no sense"),
            })
    }

    /// Writes whose archive this is. Two servers that do so at once are told apart by what is
    /// there in the end.
    async fn claim(&self, server: &Server) -> Result<(), ArchiveError> {
        let key = self.repository.layout.private(OWNER);
        let owner = OwnerFile {
            system_id: server.system_id.to_string(),
            segment_size: server.segment_size.bytes(),
        };
        let body = serde_json::to_vec(&owner).map_err(|error| ArchiveError::NotOwn {
            archive: self.archive_for_people(),
            reason: error.to_string(),
        })?;
        self.put_if_absent(&key, Bytes::from(body)).await?;
        match self.owner().await? {
            Some(owner) => self.check_owner(server, owner),
            None => Err(ArchiveError::Unsteady { key }),
        }
    }

    /// Whether the store refuses to put where something is, found out on a probe object.
    async fn learn_conditional_put(&self) -> Result<bool, ArchiveError> {
        let key = self.repository.layout.private(PROBE);
        let body = Bytes::from_static(b"whether this store honours If-None-Match\n");
        for _ in 0..2 {
            if self.put_if_absent(&key, body.clone()).await? == Put::Refused {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn put_if_absent(&self, key: &ObjectKey, body: Bytes) -> Result<Put, ArchiveError> {
        let options = |if_absent| PutOptions {
            if_absent,
            ..self.put_options(self.options.tags.clone())
        };
        let store = &self.repository.store;
        match store.put(key, body.clone(), &options(true)).await {
            Ok(()) => Ok(Put::Done),
            Err(error) if error.kind == StoreErrorKind::Exists => Ok(Put::Refused),
            Err(error) if error.kind == StoreErrorKind::Unsupported => {
                store.put(key, body, &options(false)).await?;
                Ok(Put::Done)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn judge(&self, server: &Server, holdings: &Holdings) -> Result<(), ArchiveError> {
        match ownership::judge(server, holdings) {
            Err(stranger @ Stranger::BeyondFork { .. }) if self.demand == Demand::Own => {
                warn!("going on in this archive as told, although {stranger}");
                Ok(())
            }
            Err(stranger) => Err(ArchiveError::not_own(self.archive_for_people(), &stranger)),
            Ok(()) => Ok(()),
        }
    }

    fn check_owner(&self, server: &Server, owner: SystemId) -> Result<(), ArchiveError> {
        if owner == server.system_id {
            return Ok(());
        }
        let stranger = Stranger::OtherCluster {
            theirs: owner,
            ours: server.system_id,
        };
        Err(ArchiveError::not_own(self.archive_for_people(), &stranger))
    }

    async fn holdings(
        &self,
        server: &Server,
        outline: &Outline,
        owner: Option<SystemId>,
    ) -> Result<Holdings, ArchiveError> {
        let system_id = match owner {
            Some(owner) => Some(owner),
            None => contents::system_id(&self.repository, outline).await?,
        };
        Ok(Holdings {
            system_id,
            has_segments: !outline.folders.is_empty(),
            timelines: timelines(outline),
            last_on_ancestors: self.last_on_ancestors(server, outline).await?,
        })
    }

    /// The last segment on each ancestor timeline, as far as it can lie beyond the fork.
    async fn last_on_ancestors(
        &self,
        server: &Server,
        outline: &Outline,
    ) -> Result<Vec<SegmentName>, ArchiveError> {
        let ancestors = server.history.iter().flat_map(TimelineHistory::ancestors);
        let mut found = Vec::new();
        for ancestor in ancestors {
            let Some(fork) = ownership::fork_segment(server, ancestor.timeline) else {
                continue;
            };
            let fork_folder = self.repository.layout.wal_folder(fork);
            let last_folder = outline
                .folders
                .iter()
                .filter(|(timeline, folder)| {
                    *timeline == ancestor.timeline && *folder >= fork_folder
                })
                .map(|(_, folder)| folder)
                .max();
            if let Some(folder) = last_folder
                && let Some(last) =
                    contents::last_in_folder(&self.repository, folder, |_| true).await?
            {
                found.extend(last.name.segment());
            }
        }
        Ok(found)
    }
}

/// What came of a conditional put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Put {
    /// The object was put.
    Done,
    /// Something was there.
    Refused,
}

/// Each timeline of the archive, with one file or folder of it.
fn timelines(outline: &Outline) -> Vec<(TimelineId, String)> {
    let histories = outline
        .histories
        .iter()
        .map(|file| (file.name.timeline(), file.key.to_string()));
    let folders = outline.folders.iter().cloned();
    let mut all: Vec<_> = folders.chain(histories).collect();
    all.sort();
    all.dedup_by_key(|(timeline, _)| *timeline);
    all
}
