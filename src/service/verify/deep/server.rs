//! A server on a restored copy, for nobody but us: started, waited for, stopped by its pid.
//!
//! It listens on a socket in a directory that others cannot enter, archives nothing, and runs none of
//! the source's jobs. Not here: what it is asked.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::postgres::amcheck::LocalSession;

/// Between two attempts to connect.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long it may take to go when told to go at once.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// What is read of the end of its log.
const LOG_BYTES: u64 = 16 << 10;
/// A database that every cluster has.
pub(super) const ANY_DATABASE: &str = "template1";

/// What outranks whatever the copy brings in its `postgresql.auto.conf`.
///
/// Nothing of it reaches out: no listening, archiving, replicating, no libraries and so no jobs of
/// theirs. It is small, and what it writes need not last. Prepared transactions of the copy must fit.
const SETTINGS: [(&str, &str); 29] = [
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("port", "5432"),
    ("external_pid_file", ""),
    ("ssl", "off"),
    ("archive_mode", "off"),
    ("archive_command", ""),
    ("primary_conninfo", ""),
    ("synchronous_standby_names", ""),
    ("max_wal_senders", "0"),
    ("max_logical_replication_workers", "0"),
    ("shared_preload_libraries", ""),
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
    ("session_replication_role", "replica"),
    ("hot_standby", "off"),
    ("max_connections", "20"),
    ("max_prepared_transactions", "1000"),
    ("shared_buffers", "32MB"),
    ("huge_pages", "off"),
    ("maintenance_work_mem", "64MB"),
    ("autovacuum", "off"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_line_prefix", ""),
    ("log_min_messages", "log"),
    ("recovery_target_action", "promote"),
];

/// What to start.
pub(super) struct Start<'a> {
    pub(super) program: &'a Path,
    pub(super) data: PathBuf,
    pub(super) socket: PathBuf,
    /// A directory that the server's user can enter.
    pub(super) root: &'a Path,
    pub(super) log: PathBuf,
    /// The user and group it runs as, when this process is root.
    pub(super) owner: Option<(u32, u32)>,
    /// Further settings.
    pub(super) settings: Vec<(&'static str, String)>,
}

/// A server that runs.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    log: PathBuf,
}

/// Why a server does not serve.
#[derive(Debug)]
pub(super) enum Failure {
    /// It ended, and what its log says last.
    Ended(Vec<String>),
    /// It refuses us, and why.
    Refused(String),
    /// The token was cancelled.
    Cancelled,
}

impl Start<'_> {
    /// Starts it. Killed when what is returned is dropped before it was stopped.
    pub(super) fn run(self) -> io::Result<Server> {
        let log = File::create(&self.log)?;
        let mut command = std::process::Command::new(self.program);
        command.arg("-D").arg(self.data).arg("-k").arg(self.socket);
        let settings = SETTINGS
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        for (name, value) in settings.chain(self.settings) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command
            .current_dir(self.root)
            .env("LC_ALL", "C")
            // What interrupts us must not stop it before it is stopped in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        Ok(Server {
            child: command.spawn()?,
            log: self.log,
        })
    }
}

impl Server {
    /// Waits until it has recovered and takes connections, however long that is: it replays the log
    /// that a backup of any size needs.
    pub(super) async fn wait(
        &mut self,
        socket: &Path,
        user: &str,
        cancel: &CancellationToken,
    ) -> Result<LocalSession, Failure> {
        loop {
            if cancel.is_cancelled() {
                return Err(Failure::Cancelled);
            }
            if let Ok(Some(_)) = self.child.try_wait() {
                return Err(Failure::Ended(self.last_words()));
            }
            match LocalSession::open(socket, user, ANY_DATABASE).await {
                Ok(session) => {
                    if matches!(session.is_in_recovery().await, Ok(false)) {
                        return Ok(session);
                    }
                }
                Err(error) if error.to_string().contains("does not exist") => {
                    return Err(Failure::Refused(error.to_string()));
                }
                Err(_) => {}
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = time::sleep(POLL_INTERVAL) => {}
            }
        }
    }

    /// Stops it at once: nothing that it wrote is kept.
    pub(super) async fn stop(mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // It may have ended by itself.
            kill_process(pid, Signal::QUIT).ok();
        }
        if time::timeout(STOP_TIMEOUT, self.child.wait())
            .await
            .is_err()
        {
            self.child.kill().await.ok();
        }
    }

    /// The last lines of its log.
    fn last_words(&self) -> Vec<String> {
        let mut text = Vec::new();
        let read = File::open(&self.log).and_then(|mut log| {
            let size = log.metadata()?.len();
            log.seek(SeekFrom::Start(size.saturating_sub(LOG_BYTES)))?;
            log.take(LOG_BYTES).read_to_end(&mut text)
        });
        if read.is_err() {
            return Vec::new();
        }
        let text = String::from_utf8_lossy(&text);
        text.lines().map(str::to_owned).collect()
    }
}
