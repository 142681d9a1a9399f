//! From extracted files to a cluster that is ready to start: links, recovery settings, and last
//! of all `pg_control`, without which no server starts.
//!
//! Not here: extraction. Everything here blocks and belongs on a blocking thread.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::domain::backup::BackupId;
use crate::pgfile::control::{ControlFile, ControlFileError};
use crate::service::restore::configuration;
use crate::service::restore::directories::{Footprint, sync_directory};
use crate::service::restore::error::RestoreError;
use crate::service::restore::file_systems::FileSystems;
use crate::service::restore::members::{CONTROL, CONTROL_HELD, DIRECTORIES};
use crate::service::restore::plan::RestorePlan;
use crate::service::restore::request::Configuration;
use crate::service::restore::settings::{self, RecoverySettings, conf_string};
use crate::service::restore::whole;

/// The file that makes the first `wal archive` of the new cluster demand an empty archive.
const CHECK_EMPTY_ARCHIVE: &str = "pg_wal/.cellarman/check-empty-archive";

/// What an administrator may connect by where the backup has no `pg_hba.conf`: over the socket
/// and as the same user of the system, no more.
const MINIMAL_HBA: &str =
    "# The backup holds no pg_hba.conf; written by cellarman restore.\nlocal all all peer\n";

/// Settings of places, which lead to the source's files where the source kept them elsewhere.
const PLACE_FILES: [&str; 2] = ["hba_file", "ident_file"];

/// Makes a cluster of the extracted files. Returns what the user should know.
///
/// The caller clears everything on an error.
pub(crate) fn finish(
    plan: &RestorePlan,
    footprint: &Footprint,
    file_systems: &FileSystems,
) -> Result<Vec<String>, RestoreError> {
    let mut finish = Finish {
        plan,
        owner: owner_to_give(&plan.pgdata)?,
        notes: Vec::new(),
    };
    let control = finish.check_database()?;
    finish.notes.extend(whole::check(plan)?);
    finish.make_directories()?;
    finish.link_tablespaces()?;
    finish.write_label()?;
    match plan.configuration {
        Configuration::Written => finish.configure()?,
        Configuration::LeftToCaller => finish.retire_recovery_settings()?,
    }
    file_systems.sync()?;
    footprint
        .marker()
        .note_control(blake3::hash(&control).to_hex().as_str())?;
    let (held, placed) = (plan.pgdata.join(CONTROL_HELD), plan.pgdata.join(CONTROL));
    fs::rename(&held, &placed).map_err(RestoreError::local("rename", &held))?;
    sync_directory(&plan.pgdata.join("global"))?;
    footprint.release()?;
    Ok(finish.notes)
}

/// Whom files made here belong to: the owner of the data directory, when this is root.
fn owner_to_give(pgdata: &Path) -> Result<Option<(u32, u32)>, RestoreError> {
    let found = fs::metadata(pgdata).map_err(RestoreError::local("look at", pgdata))?;
    Ok(rustix::process::geteuid()
        .is_root()
        .then(|| (found.uid(), found.gid())))
}

struct Finish<'a> {
    plan: &'a RestorePlan,
    owner: Option<(u32, u32)>,
    notes: Vec<String>,
}

impl Finish<'_> {
    fn path(&self, relative: &str) -> PathBuf {
        self.plan.pgdata.join(relative)
    }

    fn backup(&self) -> &BackupId {
        &self.plan.backup.id
    }

    fn no_database(&self, reason: impl Into<String>) -> RestoreError {
        RestoreError::NotADatabase {
            backup: self.backup().clone(),
            reason: reason.into(),
        }
    }

    /// Looks at what every data directory has. Returns the bytes of `pg_control`.
    fn check_database(&mut self) -> Result<Vec<u8>, RestoreError> {
        if self.owner.is_some_and(|(user, _)| user == 0) {
            self.notes.push(
                "The files belong to root, because their owner is not known here: give them to the \
                 user that runs PostgreSQL before starting it."
                    .to_owned(),
            );
        }
        if !self.path("PG_VERSION").is_file() {
            return Err(self.no_database("there is no PG_VERSION in it"));
        }
        let held = self.path(CONTROL_HELD);
        let bytes = match fs::read(&held) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.no_database("there is no global/pg_control in it"));
            }
            read => read.map_err(RestoreError::local("read", &held))?,
        };
        match ControlFile::parse(&bytes) {
            Ok(control) => {
                let wanted = self.plan.backup.system_id.map(|id| id.0);
                if wanted.is_some_and(|wanted| wanted != control.system_id) {
                    let found = control.system_id;
                    return Err(
                        self.no_database(format!("its pg_control is of another cluster, {found}"))
                    );
                }
            }
            Err(ControlFileError::Version { version }) => self.notes.push(format!(
                "pg_control is of format {version}, which is not known here, and was not checked."
            )),
            Err(error) => return Err(self.no_database(error.to_string())),
        }
        Ok(bytes)
    }

    fn make_directories(&self) -> Result<(), RestoreError> {
        for relative in DIRECTORIES {
            self.make_directory(relative)?;
        }
        Ok(())
    }

    /// Makes it a server that recovers by itself when it is started.
    fn configure(&mut self) -> Result<(), RestoreError> {
        self.complete_configuration()?;
        self.write_recovery_settings()?;
        self.write("recovery.signal", b"")?;
        self.make_directory("pg_wal/.cellarman")?;
        self.write(CHECK_EMPTY_ARCHIVE, b"")
    }

    fn make_directory(&self, relative: &str) -> Result<(), RestoreError> {
        let path = self.path(relative);
        if path.is_dir() {
            return Ok(());
        }
        let root_mode = fs::metadata(&self.plan.pgdata)
            .map_err(RestoreError::local("look at", &self.plan.pgdata))?
            .mode();
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(root_mode & 0o777)))
            .map_err(RestoreError::local("make", &path))?;
        self.give(&path)
    }

    /// Links each tablespace to where it lies now; links are not in the tars.
    fn link_tablespaces(&self) -> Result<(), RestoreError> {
        for tablespace in &self.plan.tablespaces {
            let link = self.path("pg_tblspc").join(tablespace.oid.to_string());
            std::os::unix::fs::symlink(&tablespace.new, &link)
                .map_err(RestoreError::local("link", &link))?;
            self.give(&link)?;
            // A tablespace's tar has no entry for its root.
            self.give(&tablespace.new)?;
        }
        Ok(())
    }

    /// Writes `backup_label`, without which the copy would start as if it had crashed, from the
    /// wrong place in the log, and be corrupt. The record's text is preferred to the tar's: an
    /// old one may have lain in the data directory.
    fn write_label(&self) -> Result<(), RestoreError> {
        let path = self.path("backup_label");
        if let Some(text) = &self.plan.info.backup_label {
            return self.write("backup_label", text.as_bytes());
        }
        if !path.is_file() {
            return Err(
                self.no_database("there is no backup_label, neither in it nor in its record")
            );
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600))
            .map_err(RestoreError::local("set the mode of", &path))?;
        self.give(&path)
    }

    /// Sees to it that the server finds a configuration of its own, and does not start the source.
    fn complete_configuration(&mut self) -> Result<(), RestoreError> {
        let path = self.path("postgresql.conf");
        if !path.is_file() {
            self.write_configuration()?;
        }
        // Also of a file of another name, which the one written includes.
        let name = self
            .configuration_name()
            .unwrap_or("postgresql.conf".to_owned());
        self.retire_lines(&name)?;
        if !self.path("pg_hba.conf").is_file() {
            self.write("pg_hba.conf", MINIMAL_HBA.as_bytes())?;
            self.notes.push(
                "The backup holds no pg_hba.conf, so one was written that lets only local users in as \
                 themselves. pg_verifybackup names it as an extra file."
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// The name of the source's configuration file, where it came back at the root.
    fn configuration_name(&self) -> Option<String> {
        let file = Path::new(self.plan.info.config_file.as_deref()?);
        let name = file.file_name()?.to_str()?;
        self.path(name).is_file().then(|| name.to_owned())
    }

    fn write_configuration(&mut self) -> Result<(), RestoreError> {
        if let Some(name) = self.configuration_name() {
            let line = format!("include {}\n", conf_string(&name));
            self.notes.push(format!(
                "The source's configuration is {name}: a postgresql.conf was written that includes it. \
                 pg_verifybackup names it as an extra file."
            ));
            return self.write("postgresql.conf", line.as_bytes());
        }
        self.notes.push(
            "The backup holds no postgresql.conf, so an empty one was written: every setting has \
             its default until you put yours there. pg_verifybackup names it as an extra file."
                .to_owned(),
        );
        self.write("postgresql.conf", b"")
    }

    fn retire_lines(&mut self, name: &str) -> Result<(), RestoreError> {
        let path = self.path(name);
        let text = fs::read(&path).map_err(RestoreError::local("read", &path))?;
        let is_there = |named: &str| self.plan.pgdata.join(named).exists();
        if let Some((kept, lines)) = configuration::retired(&text, is_there) {
            // Anew: it may be a link to the file that the source runs with.
            self.write(name, &kept)?;
            self.notes.push(format!(
                "{} led to the source's files, or to none, in these lines, which are comments now: {}. \
                 pg_verifybackup may name the file as changed.",
                path.display(),
                lines.join("; ")
            ));
        }
        Ok(())
    }

    /// What `postgresql.auto.conf` came back with.
    fn automatic_settings(&self) -> Result<Vec<u8>, RestoreError> {
        let path = self.path("postgresql.auto.conf");
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read.map_err(RestoreError::local("read", &path)),
        }
    }

    /// Makes comments of what an earlier recovery of the source was told.
    fn retire_recovery_settings(&self) -> Result<(), RestoreError> {
        let held = self.automatic_settings()?;
        match settings::without_recovery(&held) {
            Some(kept) => self.write("postgresql.auto.conf", &kept),
            None => Ok(()),
        }
    }

    fn write_recovery_settings(&self) -> Result<(), RestoreError> {
        let held = self.automatic_settings()?;
        let settings = RecoverySettings {
            target: self.plan.target.clone(),
            is_inclusive: self.plan.is_inclusive,
            timeline: self.plan.timeline_word,
            action: self.plan.action,
            restore_command: self.plan.restore_command.clone(),
            places: self.places(),
        };
        self.write("postgresql.auto.conf", &settings.appended_to(&held))
    }

    /// Files that the source kept outside its data directory and that came back inside it.
    fn places(&self) -> Vec<(&'static str, String)> {
        let info = &self.plan.info;
        let old_pgdata = info.pgdata.as_deref().map(Path::new);
        let files = [&info.hba_file, &info.ident_file];
        PLACE_FILES
            .into_iter()
            .zip(files)
            .filter_map(|(setting, file)| {
                let file = Path::new(file.as_deref()?);
                let is_default = old_pgdata.is_some_and(|pgdata| file.parent() == Some(pgdata));
                let here = self.plan.pgdata.join(file.file_name()?);
                (!is_default && here.is_file()).then(|| (setting, here.display().to_string()))
            })
            .collect()
    }

    /// Writes a small file anew, mode 0600.
    fn write(&self, relative: &str, bytes: &[u8]) -> Result<(), RestoreError> {
        let path = self.path(relative);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(RestoreError::local("replace", &path)(error));
            }
            _ => {}
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(RestoreError::local("write", &path))?;
        self.give(&path)
    }

    fn give(&self, path: &Path) -> Result<(), RestoreError> {
        let Some((user, group)) = self.owner else {
            return Ok(());
        };
        std::os::unix::fs::lchown(path, Some(user), Some(group))
            .map_err(RestoreError::local("set the owner of", path))
    }
}
