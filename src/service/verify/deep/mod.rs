//! The deepest look at a backup: restored, held to its manifest, started, and its indexes checked.
//!
//! It is what a recovery would do, by the same restore and the same `restore_command`, to the first
//! consistent moment. Not here: looking at objects as they are stored.

pub mod error;
mod programs;
mod scratch;
mod server;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::barman::repository::Repository;
use crate::domain::backup::Backup;
use crate::domain::recovery::{Request, Target, TimelineWish};
use crate::fault::{Fault, Kind, chain};
use crate::postgres::amcheck::{DatabaseCheck, LocalSession};
use crate::service::restore::error::RestoreError;
use crate::service::restore::plan::{self, RestorePlan};
use crate::service::restore::request::{Configuration, RestoreRequest, TablespaceMapping};
use crate::service::restore::run;
use crate::service::restore::settings::{RestoreCommand, TargetAction, TimelineWord};
use crate::service::verify::deep::programs::Programs;
use crate::service::verify::deep::server::{Failure, Server, Start};
use crate::service::verify::report::{Finding, Severity};

pub(super) use crate::service::verify::deep::scratch::{Scratch, blocking};

const HINT_BACKUP: &str = "Keep the older backups and take a new one now; if that has the same fault, \
    the server itself has it.";
const HINT_USER: &str = "Set PGUSER to a superuser of the cluster.";
const HINT_LOG: &str = "Correct what the lines name and run it again: the server could not be started \
    on this host.";

/// Lines of a log or of a program that a finding repeats.
const LINES_MAX: usize = 3;

/// What one backup's restore needs.
#[derive(Debug, Clone)]
pub struct DeepRequest {
    /// A directory with room for the largest backup; a folder in it is made and taken away again.
    pub scratch: PathBuf,
    /// How the server fetches its log.
    pub restore_command: RestoreCommand,
    /// Archives restored at a time.
    pub jobs: usize,
    /// A superuser of the cluster.
    pub user: String,
    /// Where programs are looked for first: the variable PATH.
    pub path: Option<std::ffi::OsString>,
}

/// Why a look ended early.
enum Ended {
    /// The token was cancelled.
    Cancelled,
    /// With this finding.
    Found(Severity, String, String),
}

impl Ended {
    fn not_verified(text: impl Into<String>, hint: &str) -> Self {
        Self::Found(Severity::NotVerified, text.into(), hint.to_owned())
    }
}

/// Restores a backup and looks at it. Nothing of it is left. `None` when `cancel` is cancelled.
pub(super) async fn verify(
    repository: &Repository,
    (request, scratch): (&DeepRequest, &Arc<Scratch>),
    backup: &Backup,
    cancel: &CancellationToken,
) -> Option<Vec<Finding>> {
    let mut look = Look {
        repository,
        request,
        scratch,
        backup,
        cancel,
        findings: Vec::new(),
    };
    let looked = look.run().await;
    let cleared = {
        let scratch = Arc::clone(scratch);
        blocking(move || scratch.clear()).await
    };
    if let Err(error) = cleared {
        let hint = error.hint();
        look.add(Severity::NotVerified, chain(&error), &hint);
    }
    match looked {
        Ok(()) => {}
        Err(Ended::Cancelled) => return None,
        Err(Ended::Found(severity, text, hint)) => look.add(severity, text, &hint),
    }
    Some(look.findings)
}

struct Look<'a> {
    repository: &'a Repository,
    request: &'a DeepRequest,
    scratch: &'a Arc<Scratch>,
    backup: &'a Backup,
    cancel: &'a CancellationToken,
    findings: Vec<Finding>,
}

impl Look<'_> {
    fn add(&mut self, severity: Severity, text: impl Into<String>, hint: &str) {
        let finding = Finding::of(&self.backup.id, severity, (text, hint));
        self.findings.push(finding);
    }

    async fn run(&mut self) -> Result<(), Ended> {
        let major = self.backup.version.map(|version| version / 10_000);
        let major = major.ok_or_else(|| {
            let text = "its record does not say which PostgreSQL it is of, so it was not started";
            Ended::not_verified(text, "Restore it by hand and start it to be sure.")
        })?;
        let programs = programs::find(major, self.request.path.clone()).await;
        let programs = programs.map_err(|text| {
            let hint = format!(
                "Install the server of PostgreSQL {major} on this host, or put the folder of its \
                 programs into PATH."
            );
            Ended::not_verified(text, &hint)
        })?;
        info!(backup = %self.backup.id, "restoring to verify");
        let plan = self.restore().await?;
        self.hold_to_manifest(&programs).await?;
        info!(backup = %self.backup.id, "starting PostgreSQL to verify");
        self.start(&programs, &plan).await
    }

    /// Restores it, to be configured by us.
    async fn restore(&mut self) -> Result<RestorePlan, Ended> {
        let scratch = Arc::clone(self.scratch);
        let prepared = blocking(move || scratch.clear().and_then(|()| scratch.prepare())).await;
        prepared.map_err(|error| Ended::not_verified(chain(&error), &error.hint()))?;
        let tablespaces = self.backup.tablespaces.iter();
        let request = RestoreRequest {
            recovery: Request {
                target: Target::Immediate,
                inclusive: true,
                timeline: TimelineWish::Current,
                backup: Some(self.backup.id.clone()),
                may_end_later: false,
            },
            action: TargetAction::Promote,
            accepts_gap: false,
            pgdata: self.scratch.data(),
            tablespaces: tablespaces
                .map(|it| TablespaceMapping {
                    old: it.name.clone(),
                    new: self.scratch.tablespace(it.oid),
                })
                .collect(),
            restore_command: self.request.restore_command.clone(),
            configuration: Configuration::LeftToCaller,
            jobs: self.request.jobs,
        };
        let plan = tokio::select! {
            () = self.cancel.cancelled() => return Err(Ended::Cancelled),
            plan = plan::plan(self.repository, &request) => plan.map_err(|it| ended(&it))?,
        };
        let restored = run::run(self.repository, plan.clone(), self.cancel, Arc::new(|_| {}));
        restored.await.map_err(|error| ended(&error))?;
        Ok(plan)
    }

    /// Has `pg_verifybackup` hold each file to the manifest that came with the backup.
    async fn hold_to_manifest(&mut self, programs: &Programs) -> Result<(), Ended> {
        let data = self.scratch.data();
        if !data.join("backup_manifest").is_file() {
            let text = "it has no backup_manifest, as backups by other tools: pg_verifybackup had \
                        nothing to hold it to";
            self.add(Severity::Note, text, "");
            return Ok(());
        }
        let verify = match &programs.verify {
            Ok(verify) => verify,
            Err(text) => {
                let hint = "Install PostgreSQL's client programs of that version.";
                self.add(Severity::NotVerified, text.clone(), hint);
                return Ok(());
            }
        };
        let mut command = std::process::Command::new(verify);
        // The log is fetched when the server asks for it.
        command.arg("--no-parse-wal").arg("--quiet").arg(&data);
        command.env("LC_ALL", "C").stdin(Stdio::null());
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        let ended = tokio::select! {
            () = self.cancel.cancelled() => return Err(Ended::Cancelled),
            ended = command.output() => ended,
        };
        match ended {
            Err(error) => {
                let text = format!("cannot run {}: {error}", verify.display());
                self.add(Severity::NotVerified, text, "Check that program.");
            }
            Ok(ended) if ended.status.success() => {}
            Ok(ended) => {
                let said = String::from_utf8_lossy(&ended.stderr);
                let lines: Vec<&str> = said.lines().take(LINES_MAX).collect();
                let text = format!("pg_verifybackup refuses it: {}", lines.join("; "));
                self.add(Severity::Damaged, text, HINT_BACKUP);
            }
        }
        Ok(())
    }

    /// Starts a server on it, waits until it has recovered, and has it look at its indexes.
    async fn start(&mut self, programs: &Programs, plan: &RestorePlan) -> Result<(), Ended> {
        let start = self.prepared(programs, plan);
        let start = start.map_err(|it| Ended::not_verified(chain(&it), &it.hint()))?;
        let mut server = start.run().map_err(|error| {
            let text = format!("cannot start {}: {error}", programs.postgres.display());
            Ended::not_verified(text, HINT_LOG)
        })?;
        let asked = self.ask(&mut server).await;
        server.stop().await;
        asked
    }

    /// Writes what the server reads beside the copy.
    fn prepared<'a>(
        &'a self,
        programs: &'a Programs,
        plan: &RestorePlan,
    ) -> Result<Start<'a>, error::DeepError> {
        let scratch = self.scratch;
        let (configuration, hba, ident) = (
            scratch.file("postgresql.conf"),
            scratch.file("pg_hba.conf"),
            scratch.file("pg_ident.conf"),
        );
        scratch.write(&configuration, "")?;
        // Nobody else can enter the socket's directory.
        scratch.write(&hba, "local all all trust\n")?;
        scratch.write(&ident, "")?;
        scratch.write(&scratch.data().join("recovery.signal"), "")?;
        let timeline = match plan.timeline_word {
            TimelineWord::Current => "current".to_owned(),
            TimelineWord::Number(number) => number.to_string(),
        };
        Ok(Start {
            program: &programs.postgres,
            data: scratch.data(),
            socket: scratch.socket(),
            root: scratch.root(),
            log: scratch.file("server.log"),
            owner: scratch.owner(),
            settings: vec![
                ("config_file", configuration.display().to_string()),
                ("hba_file", hba.display().to_string()),
                ("ident_file", ident.display().to_string()),
                ("recovery_target", "immediate".to_owned()),
                ("recovery_target_timeline", timeline),
                ("restore_command", plan.restore_command.to_shell()),
            ],
        })
    }

    async fn ask(&mut self, server: &mut Server) -> Result<(), Ended> {
        let (socket, user) = (self.scratch.socket(), self.request.user.clone());
        let waited = server.wait(&socket, &user, self.cancel).await;
        let session = waited.map_err(|failure| match failure {
            Failure::Cancelled => Ended::Cancelled,
            Failure::Refused(why) => Ended::not_verified(why, HINT_USER),
            Failure::Ended(lines) => not_started(&lines),
        })?;
        let databases = session.databases().await;
        drop(session);
        let databases = databases.map_err(|it| Ended::not_verified(chain(&it), &it.hint()))?;
        let mut indexes: u64 = 0;
        for database in databases {
            let looked = self.check_database(&database).await;
            if self.cancel.is_cancelled() {
                return Err(Ended::Cancelled);
            }
            match looked {
                Ok(check) => {
                    indexes += check.indexes;
                    self.judge(&database, check);
                }
                Err(error) => {
                    let text = format!(
                        "database {database} could not be checked: {}",
                        chain(&error)
                    );
                    self.add(Severity::NotVerified, text, &error.hint());
                }
            }
        }
        info!(backup = %self.backup.id, indexes, "checked the indexes");
        Ok(())
    }

    async fn check_database(
        &self,
        database: &str,
    ) -> Result<DatabaseCheck, crate::postgres::query::PostgresError> {
        let socket = self.scratch.socket();
        let session = LocalSession::open(&socket, &self.request.user, database).await?;
        session.check_indexes(self.cancel).await
    }

    fn judge(&mut self, database: &str, check: DatabaseCheck) {
        if !check.has_amcheck {
            let text = format!(
                "amcheck is not installed on this host, so the indexes of database {database} were not \
                 checked"
            );
            self.add(Severity::Note, text, "");
        }
        for fault in check.faults {
            let (index, said) = (fault.index, fault.message);
            let text = format!("index {index} of database {database} did not pass: {said}");
            if fault.is_damage {
                self.add(Severity::Damaged, text, HINT_BACKUP);
            } else {
                let hint = "Install what the message names on this host, and run it again.";
                self.add(Severity::NotVerified, text, hint);
            }
        }
    }
}

/// What a restore that failed tells of the backup.
fn ended(error: &RestoreError) -> Ended {
    let text = || format!("it could not be restored: {}", chain(error));
    match error {
        RestoreError::Cancelled => Ended::Cancelled,
        RestoreError::Unsupported { .. } => {
            let text = format!("it was not restored: {}", chain(error));
            Ended::Found(Severity::Note, text, String::new())
        }
        RestoreError::WalMissing { .. } => Ended::Found(Severity::Damaged, text(), error.hint()),
        error if error.kind() == Kind::Corrupt => {
            Ended::Found(Severity::Damaged, text(), error.hint())
        }
        error => Ended::not_verified(text(), &error.hint()),
    }
}

/// What the end of a server tells of the backup: one that had begun to replay, and had its log, met
/// something in it.
fn not_started(lines: &[String]) -> Ended {
    let has = |words: &str| lines.iter().any(|line| line.contains(words));
    let fatal = ["FATAL:  ", "PANIC:  "];
    let worst = lines
        .iter()
        .filter(|line| fatal.iter().any(|word| line.starts_with(word)));
    let mut worst: Vec<&str> = worst.map(String::as_str).take(LINES_MAX).collect();
    if worst.is_empty() {
        let last = lines.len().saturating_sub(LINES_MAX);
        worst = lines[last..].iter().map(String::as_str).collect();
    }
    let text = format!("PostgreSQL did not start on it: {}", worst.join("; "));
    let is_its_own = has("redo starts at") && !has("could not restore file");
    if is_its_own {
        Ended::Found(Severity::Damaged, text, HINT_BACKUP.to_owned())
    } else {
        Ended::not_verified(text, HINT_LOG)
    }
}
