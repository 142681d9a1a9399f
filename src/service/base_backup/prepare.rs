//! What is asked and checked before a backup begins: the server, its files, the archive.
//!
//! Nothing is written here, so a refusal leaves no trace.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tracing::warn;

use crate::barman::repository::{Repository, RepositoryError};
use crate::domain::backup::{SystemId, Tablespace};
use crate::domain::lsn::Lsn;
use crate::pgfile::control::{ControlFile, ControlFileError};
use crate::postgres::client::Server;
use crate::postgres::connect::ConnectOptions;
use crate::postgres::datadir::{DataDirectory, DataDirectoryError, check_tablespace};
use crate::postgres::facts::{ArchiveMode, ControlState, ServerSettings};
use crate::service::base_backup::error::BackupError;

/// How often the server and its control file are compared: a checkpoint may end in between.
const CHECKPOINTS_MAX: usize = 4;

/// How often a control file is read again that was being written.
const CONTROL_TRIES: u32 = 20;
const CONTROL_PAUSE: Duration = Duration::from_millis(20);

/// A server that can be backed up.
pub(super) struct Prepared {
    /// The session that the backup will live in.
    pub server: Server,
    /// Its settings.
    pub settings: ServerSettings,
    /// Who it is.
    pub control: ControlState,
    /// Whether it is a standby.
    pub is_standby: bool,
    /// Its data directory.
    pub data: DataDirectory,
    /// Its tablespaces outside that.
    pub tablespaces: Vec<Tablespace>,
    /// Its size, where the role may see it.
    pub cluster_size: Option<u64>,
    /// Further files that hold settings.
    pub included_files: Vec<String>,
    /// Files of settings outside the data directory, which are put at its top.
    pub outside: Vec<PathBuf>,
}

impl Prepared {
    /// Connects and checks everything.
    pub(super) async fn new(
        connection: &ConnectOptions,
        repository: &Repository,
    ) -> Result<Self, BackupError> {
        let server = Server::connect(connection).await?;
        let settings = server.settings().await?;
        let is_standby = server.is_in_recovery().await?;
        check_archiving(&settings, is_standby)?;
        let control = server.control().await?;
        check_archive(repository, control.system_id).await?;
        let path = settings
            .data_directory
            .as_deref()
            .ok_or(BackupError::Hidden {
                setting: "data_directory",
            })?;
        let tablespaces = server.tablespaces().await?;
        let mut data = DataDirectory::open(path, &tablespaces)?;
        let found = SystemId(control_of(data.root()).await?.system_id);
        if found != control.system_id {
            return Err(BackupError::OtherCluster {
                path: path.to_owned(),
                found,
                system_id: control.system_id,
            });
        }
        let outside = outside_files(&settings, &data)?;
        let included_files = server.included_files().await?;
        warn_of_left_out(&included_files, &data);
        for name in outside.iter().filter_map(|path| path.file_name()) {
            data.replace(name.to_owned());
        }
        Ok(Self {
            cluster_size: server.cluster_size().await?,
            included_files,
            server,
            settings,
            control,
            is_standby,
            data,
            tablespaces,
            outside,
        })
    }
}

impl Prepared {
    /// Asks for the tablespaces again, once the backup has begun: of one made since they were
    /// asked for, and before that, no replay tells.
    pub(super) async fn renew_tablespaces(&mut self) -> Result<(), BackupError> {
        self.tablespaces = self.server.tablespaces().await?;
        self.data.set_tablespaces(&self.tablespaces);
        for tablespace in &self.tablespaces {
            check_tablespace(tablespace, self.settings.version)?;
        }
        Ok(())
    }

    /// Sees whether the files here are those of the server, once it has begun a backup at `begin`.
    ///
    /// A standby of it, or a copy, has the same identity, and on another host often the same place.
    /// Its pages may be older than the log that a recovery from this backup would replay onto them.
    pub(super) async fn check_directory(&self, begin: Lsn) -> Result<(), BackupError> {
        let mut tries_left = CHECKPOINTS_MAX;
        loop {
            let here = control_of(self.data.root()).await?;
            let told = self.server.control().await?;
            // One that runs as well, such as a clone, can be ahead of the server.
            let is_same = told.redo_lsn == here.redo_lsn && told.timeline == here.timeline;
            if is_same && here.is_of_running(self.is_standby, begin) {
                return Ok(());
            }
            tries_left -= 1;
            if is_same || tries_left == 0 {
                return Err(BackupError::OtherServer {
                    path: self.data.root().to_owned(),
                    state: here.state,
                    redo: here.redo_lsn,
                    begin,
                });
            }
        }
    }
}

fn check_archiving(settings: &ServerSettings, is_standby: bool) -> Result<(), BackupError> {
    let refuse = |reason| Err(BackupError::NotArchiving { reason });
    if settings.archive_mode == ArchiveMode::Off {
        // A standby's WAL may be archived by its primary, which has settings of its own.
        return if is_standby {
            Ok(())
        } else {
            refuse("archive_mode is off")
        };
    }
    if settings.archive_command.is_empty() && settings.archive_library.is_empty() && !is_standby {
        return refuse("archive_command is empty");
    }
    Ok(())
}

/// What of `archive.json` matters here.
#[derive(Deserialize)]
struct ArchiveOwner {
    system_id: SystemIdText,
}

/// A system identifier as a number or as text: it exceeds what some JSON readers can hold.
#[derive(Deserialize)]
#[serde(untagged)]
enum SystemIdText {
    Number(u64),
    Text(String),
}

/// An archive that has begun to take another cluster's WAL can never complete this one's backup.
async fn check_archive(repository: &Repository, system_id: SystemId) -> Result<(), BackupError> {
    let key = repository.layout.private("archive.json");
    let text = match repository.get_small(&key).await {
        Ok(text) => text,
        Err(RepositoryError::Store(error)) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let owner = serde_json::from_slice(&text)
        .ok()
        .and_then(|owner: ArchiveOwner| match owner.system_id {
            SystemIdText::Number(number) => Some(number),
            SystemIdText::Text(text) => text.parse().ok(),
        });
    match owner.map(SystemId) {
        Some(archived) if archived != system_id => Err(BackupError::ForeignArchive {
            server: repository.layout.server().to_string(),
            archived,
            system_id,
        }),
        _ => Ok(()),
    }
}

/// What the control file says, read off the async threads.
async fn control_of(root: &Path) -> Result<ControlFile, BackupError> {
    let root = root.to_owned();
    let read = tokio::task::spawn_blocking(move || read_control(&root));
    let (_, control) = read.await.unwrap_or(Err(BackupError::Broken))?;
    Ok(control)
}

/// The control file's bytes and what they say. Waits for a write that is under way.
pub(super) fn read_control(root: &Path) -> Result<(Vec<u8>, ControlFile), BackupError> {
    let path = root.join("global/pg_control");
    let mut tries = 0;
    loop {
        let bytes = fs::read(&path).map_err(|source| DataDirectoryError::new(&path, source))?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok((bytes, control)),
            Err(ControlFileError::Checksum { .. } | ControlFileError::Short { .. })
                if tries < CONTROL_TRIES =>
            {
                tries += 1;
                std::thread::sleep(CONTROL_PAUSE);
            }
            Err(source) => return Err(BackupError::Control { path, source }),
        }
    }
}

/// `config_file`, `hba_file` and `ident_file` where they lie outside the data directory.
fn outside_files(
    settings: &ServerSettings,
    data: &DataDirectory,
) -> Result<Vec<PathBuf>, BackupError> {
    let mut outside: Vec<PathBuf> = Vec::new();
    let files = [
        (&settings.config_file, false),
        (&settings.hba_file, false),
        (&settings.ident_file, true),
    ];
    for (path, may_be_missing) in files {
        let Some(path) = path else { continue };
        let is_inside = path.starts_with(data.root())
            || settings
                .data_directory
                .as_ref()
                .is_some_and(|data| path.starts_with(data));
        let is_known = outside
            .iter()
            .any(|known| known.file_name() == path.file_name());
        if is_inside || is_known {
            continue;
        }
        match fs::File::open(path) {
            Ok(_) => outside.push(path.clone()),
            Err(error) if may_be_missing && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(DataDirectoryError::new(path, source).into()),
        }
    }
    Ok(outside)
}

/// Tells of settings in files that are no part of the backup: whoever restores it lacks them.
fn warn_of_left_out(included_files: &[String], data: &DataDirectory) {
    for path in included_files.iter().map(Path::new) {
        let real = fs::canonicalize(path);
        if !path.starts_with(data.root()) && !real.is_ok_and(|real| real.starts_with(data.root())) {
            warn!(path = %path.display(), "these settings lie outside the data directory and are left out");
        }
    }
}
