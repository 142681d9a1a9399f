//! The server's points: it answers, its settings archive WAL, its role may back up.

use std::fs;

use super::{Check, Points, ServerToCheck};
use crate::fault::Kind;
use crate::pgfile::control::ControlFile;
use crate::postgres::client::Server;
use crate::postgres::facts::{ArchiveMode, ArchiverState, ControlState, ServerSettings};

const POSTGRES: &str = "postgres";
const WAL_LEVEL: &str = "wal-level";
const ARCHIVE_MODE: &str = "archive-mode";
const ARCHIVE_COMMAND: &str = "archive-command";
const ARCHIVER: &str = "archiver";
const BACKUP_RIGHTS: &str = "backup-rights";
const DATA_DIRECTORY: &str = "data-directory";

const AFTER_POSTGRES: [&str; 6] = [
    WAL_LEVEL,
    ARCHIVE_MODE,
    ARCHIVE_COMMAND,
    ARCHIVER,
    BACKUP_RIGHTS,
    DATA_DIRECTORY,
];

/// What the archive's points need of the server.
#[derive(Debug)]
pub(super) struct Found {
    /// Who it is, if its role may know.
    pub(super) control: Option<ControlState>,
    /// What it says it archived last.
    pub(super) last_archived: Option<String>,
    /// Whether it is a primary that archives by us.
    pub(super) is_archiving_here: bool,
}

/// Tests them.
pub(super) async fn check(check: &Check, points: &mut Points) -> Option<Found> {
    let (connection, is_expected) = match &check.server {
        ServerToCheck::At {
            connection,
            is_expected,
        } => (connection, *is_expected),
        ServerToCheck::Nowhere(reason) => {
            points.not_run(&[POSTGRES], reason);
            points.not_run(&AFTER_POSTGRES, reason);
            return None;
        }
    };
    let server = match Server::connect(connection).await {
        Ok(server) => server,
        Err(error) => {
            if is_expected {
                points.failed(POSTGRES, &error);
            } else {
                points.not_run(
                    &[POSTGRES],
                    "no server is named (--dsn, PGHOST), and none answers at the usual place",
                );
            }
            points.not_run(&AFTER_POSTGRES, "the server does not answer");
            return None;
        }
    };
    let found = check_connected(check, &server, points).await;
    server.close().await;
    found
}

async fn check_connected(check: &Check, server: &Server, points: &mut Points) -> Option<Found> {
    let asked = async { Ok((server.settings().await?, server.is_in_recovery().await?)) };
    let (settings, is_standby) = match asked.await {
        Ok(answers) => answers,
        Err(error) => {
            let error: crate::postgres::query::PostgresError = error;
            points.failed(POSTGRES, &error);
            points.not_run(&AFTER_POSTGRES, "the settings cannot be read");
            return None;
        }
    };
    let role = if is_standby { "standby" } else { "primary" };
    let number = settings.version_number;
    points.ok(
        POSTGRES,
        format!("{}.{}, {role}", settings.version, number % 10_000),
    );
    let archiver = server.archiver().await;
    let is_archiving_here = check_settings(check, &settings, is_standby, points);
    match &archiver {
        Ok(state) => check_archiver(state, settings.archive_mode, points),
        Err(error) => points.failed(ARCHIVER, error),
    }
    match server.may_back_up().await {
        Ok(true) => points.ok(BACKUP_RIGHTS, "the role may begin and end backups"),
        Ok(false) => points.refuse(
            BACKUP_RIGHTS,
            Kind::Postgres,
            (
                "the role may not begin or end backups".to_owned(),
                "Use a superuser, or grant the role pg_monitor and EXECUTE on the server's \
                 functions that begin and end a backup.",
            ),
        ),
        Err(error) => points.failed(BACKUP_RIGHTS, &error),
    }
    let control = server.control().await.ok();
    check_data_directory(
        &settings,
        control.map(|control| (control, is_standby)),
        points,
    );
    Some(Found {
        control,
        last_archived: archiver.ok().and_then(|state| state.last_archived),
        is_archiving_here: is_archiving_here && !is_standby,
    })
}

/// Tests the settings that archiving needs. Whether the server calls us to archive.
fn check_settings(
    check: &Check,
    settings: &ServerSettings,
    is_standby: bool,
    points: &mut Points,
) -> bool {
    let level = settings.wal_level.as_str();
    if matches!(level, "replica" | "logical") {
        points.ok(WAL_LEVEL, level);
    } else {
        points.refuse(
            WAL_LEVEL,
            Kind::Config,
            (
                format!("wal_level is {level}"),
                "Set wal_level = replica and restart the server.",
            ),
        );
    }
    match settings.archive_mode {
        ArchiveMode::Off => points.refuse(
            ARCHIVE_MODE,
            Kind::Config,
            (
                "archive_mode is off".to_owned(),
                "Set archive_mode = on and restart the server.",
            ),
        ),
        ArchiveMode::On if is_standby => points.ok(ARCHIVE_MODE, "on: archives once promoted"),
        ArchiveMode::On => points.ok(ARCHIVE_MODE, "on"),
        ArchiveMode::Always => points.ok(ARCHIVE_MODE, "always"),
    }
    check_archive_command(check, settings, points) && settings.archive_mode != ArchiveMode::Off
}

fn check_archive_command(check: &Check, settings: &ServerSettings, points: &mut Points) -> bool {
    let command = settings.archive_command.trim();
    let wanted = &check.archive_command;
    let hint = format!("Set archive_command = '{wanted}' and reload the server.");
    if !settings.archive_library.is_empty() {
        let detail = format!("the library {} archives instead", settings.archive_library);
        points.warn(ARCHIVE_COMMAND, detail, hint);
        return false;
    }
    if command.is_empty() {
        let detail = "archive_command is empty".to_owned();
        points.refuse(ARCHIVE_COMMAND, Kind::Config, (detail, &hint));
        return false;
    }
    if !command.contains("%p") {
        let detail = "archive_command does not say %p, the file to archive".to_owned();
        points.refuse(ARCHIVE_COMMAND, Kind::Config, (detail, &hint));
        return false;
    }
    if !command.contains("cellarman") {
        points.warn(ARCHIVE_COMMAND, "it calls something else", hint);
        return false;
    }
    points.ok(ARCHIVE_COMMAND, "calls cellarman");
    true
}

fn check_archiver(state: &ArchiverState, mode: ArchiveMode, points: &mut Points) {
    let last = state.last_archived.as_deref();
    if mode == ArchiveMode::Off {
        points.not_run(&[ARCHIVER], "archive_mode is off");
    } else if state.is_failing {
        let file = state.last_failed.as_deref().unwrap_or("a file");
        points.refuse(
            ARCHIVER,
            Kind::Postgres,
            (
                format!("archiving {file} failed last"),
                "Read the server's log: it has what the archive_command said.",
            ),
        );
    } else if let Some(last) = last {
        points.ok(ARCHIVER, format!("archived {last}"));
    } else {
        points.warn(
            ARCHIVER,
            "nothing was archived yet",
            "Run SELECT pg_switch_wal() on the primary and check again.",
        );
    }
}

/// Tests that the server's files are here: `server` is what it said of itself just before.
fn check_data_directory(
    settings: &ServerSettings,
    server: Option<(ControlState, bool)>,
    points: &mut Points,
) {
    let Some(path) = &settings.data_directory else {
        points.refuse(
            DATA_DIRECTORY,
            Kind::Postgres,
            (
                "the role may not see data_directory".to_owned(),
                "Grant the role pg_monitor or pg_read_all_settings.",
            ),
        );
        return;
    };
    let is_elsewhere = server.is_some_and(|(control, is_standby)| {
        // One that cannot be read, or is being written, tells nothing.
        let bytes = fs::read(path.join("global/pg_control")).unwrap_or_default();
        ControlFile::parse(&bytes).is_ok_and(|file| {
            file.system_id != control.system_id.0
                || !file.is_of_running(is_standby, control.redo_lsn)
        })
    });
    match fs::read_dir(path) {
        Ok(_) if is_elsewhere => points.refuse(
            DATA_DIRECTORY,
            Kind::Local,
            (
                format!("{} is not where the server works", path.display()),
                "Run backups on the server's host, as the server's user.",
            ),
        ),
        Ok(_) => points.ok(DATA_DIRECTORY, path.display().to_string()),
        Err(error) => points.refuse(
            DATA_DIRECTORY,
            Kind::Local,
            (
                format!("cannot read {}: {error}", path.display()),
                "Run backups on the server's host, as the server's user.",
            ),
        ),
    }
}
