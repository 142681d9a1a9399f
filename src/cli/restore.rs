//! `cellarman restore`.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are the help that people read"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, FixedOffset};
use clap::{ArgGroup, Args, ValueEnum};

use crate::cli::Context;
use crate::cli::progress::Progress;
use crate::cli::restore_report;
use crate::domain::lsn::Lsn;
use crate::domain::recovery::{Request, Target, TimelineWish};
use crate::fault::{AnyFault, Fault, Kind};
use crate::service::restore::plan;
use crate::service::restore::request::{Configuration, RestoreRequest, TablespaceMapping};
use crate::service::restore::run;
use crate::service::restore::settings::{RestoreCommand, TargetAction};
use crate::service::restore::words;

/// The arguments.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option that people give or leave out"
)]
#[command(group = ArgGroup::new("target").multiple(false))]
pub struct RestoreArguments {
    /// The data directory to make: absent or empty
    #[arg(long, value_name = "DIR")]
    pub pgdata: PathBuf,
    /// Restore this backup, by id or name, instead of the best one for the target
    #[arg(long, value_name = "ID")]
    pub backup_id: Option<String>,
    /// Recover to this time; without a zone it is UTC
    #[arg(long, value_name = "TIME", group = "target", value_parser = words::parse_time)]
    pub target_time: Option<DateTime<FixedOffset>>,
    /// Recover to the commit of this transaction
    #[arg(long, value_name = "XID", group = "target", value_parser = words::parse_xid)]
    pub target_xid: Option<u32>,
    /// Recover to this position in the log
    #[arg(long, value_name = "LSN", group = "target")]
    pub target_lsn: Option<Lsn>,
    /// Recover to this restore point
    #[arg(long, value_name = "NAME", group = "target", value_parser = words::parse_name)]
    pub target_name: Option<String>,
    /// Recover only until the backup is consistent
    #[arg(long, group = "target")]
    pub target_immediate: bool,
    /// Follow this timeline: latest, current (the backup's own) or a number
    #[arg(long, value_name = "TIMELINE", default_value = "latest", value_parser = words::parse_timeline)]
    pub target_timeline: TimelineWish,
    /// Stop just before the target instead of just after it
    #[arg(long, requires = "target", conflicts_with_all = ["target_immediate", "target_name"])]
    pub exclusive: bool,
    /// What the server does when it has reached the target
    #[arg(long, value_enum, value_name = "ACTION", default_value = "promote")]
    pub target_action: ActionArgument,
    /// Restore although the archive lacks WAL on the way to the target: recovery goes as far as the gap
    #[arg(long)]
    pub accept_gap: bool,
    /// Put a tablespace, by name or old directory, into another directory; may be repeated
    #[arg(long, value_name = "OLD=NEW", value_parser = words::parse_mapping)]
    pub tablespace: Vec<TablespaceMapping>,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Archives restored at a time [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: Option<u16>,
}

/// What the server does at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ActionArgument {
    /// Wait, readable, for a decision
    Pause,
    /// End recovery and take writes
    Promote,
    /// Shut down
    Shutdown,
}

impl From<ActionArgument> for TargetAction {
    fn from(action: ActionArgument) -> Self {
        match action {
            ActionArgument::Pause => Self::Pause,
            ActionArgument::Promote => Self::Promote,
            ActionArgument::Shutdown => Self::Shutdown,
        }
    }
}

/// Arguments of restore that are wrong together, or that this host cannot fulfil.
#[derive(Debug, thiserror::Error)]
pub enum RestoreArgumentError {
    /// Recovery to the end of the archive always ends in promotion.
    #[error("--target-action {} needs a target, and none is given", .0.as_str())]
    ActionWithoutTarget(TargetAction),
    /// A path cannot be made absolute, or this program's own cannot be found.
    #[error("cannot resolve the path of {what}")]
    Path {
        /// Whose.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// The path of this program cannot stand in a restore_command.
    #[error("the path of this program, {0:?}, is not UTF-8")]
    Program(PathBuf),
}

impl Fault for RestoreArgumentError {
    fn kind(&self) -> Kind {
        match self {
            Self::ActionWithoutTarget(_) => Kind::Usage,
            Self::Path { .. } | Self::Program(_) => Kind::Local,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::ActionWithoutTarget(_) => {
                "Give one of the --target options, or leave --target-action out.".to_owned()
            }
            Self::Program(_) => "Install the program under another path.".to_owned(),
            Self::Path { .. } => self.kind().hint().to_owned(),
        }
    }
}

impl RestoreArguments {
    fn target(&self) -> Target {
        if let Some(time) = self.target_time {
            Target::Time(time)
        } else if let Some(xid) = self.target_xid {
            Target::Xid(xid)
        } else if let Some(lsn) = self.target_lsn {
            Target::Lsn(lsn)
        } else if let Some(name) = &self.target_name {
            Target::Name(name.clone())
        } else if self.target_immediate {
            Target::Immediate
        } else {
            Target::Latest
        }
    }

    async fn to_request(&self, context: &Context) -> Result<RestoreRequest, AnyFault> {
        let target = self.target();
        let action = TargetAction::from(self.target_action);
        if target == Target::Latest && action != TargetAction::Promote {
            return Err(RestoreArgumentError::ActionWithoutTarget(action).into());
        }
        let backup = match &self.backup_id {
            Some(wanted) => Some(context.repository.resolve(wanted).await?),
            None => None,
        };
        let pgdata =
            std::path::absolute(&self.pgdata).map_err(|source| RestoreArgumentError::Path {
                what: self.pgdata.display().to_string(),
                source,
            })?;
        Ok(RestoreRequest {
            recovery: Request {
                target,
                inclusive: !self.exclusive,
                timeline: self.target_timeline,
                backup,
                may_end_later: false,
            },
            action,
            accepts_gap: self.accept_gap,
            pgdata,
            tablespaces: self.tablespace.clone(),
            restore_command: restore_command(context)?,
            configuration: Configuration::Written,
            jobs: self.jobs.map_or_else(cores, usize::from),
        })
    }
}

/// One job for each.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How a server on what was restored fetches its log.
pub(super) fn restore_command(context: &Context) -> Result<RestoreCommand, RestoreArgumentError> {
    let program = std::env::current_exe().map_err(|source| RestoreArgumentError::Path {
        what: "this program".to_owned(),
        source,
    })?;
    let program = program
        .into_os_string()
        .into_string()
        .map_err(|path| RestoreArgumentError::Program(path.into()))?;
    Ok(RestoreCommand {
        program,
        options: context.store_arguments.clone(),
    })
}

/// Plans, prints the plan, and restores unless that was all.
pub async fn run(arguments: RestoreArguments, context: &Context) -> Result<ExitCode, AnyFault> {
    let request = arguments.to_request(context).await?;
    let plan = tokio::select! {
        () = context.cancel.cancelled() => {
            return Err(crate::service::restore::error::RestoreError::Cancelled.into());
        }
        plan = plan::plan(&context.repository, &request) => plan?,
    };
    restore_report::print_plan(context.output, &plan, arguments.dry_run);
    if arguments.dry_run {
        context.output.json(&restore_report::document(&plan, None));
        return Ok(ExitCode::SUCCESS);
    }
    let begun = Instant::now();
    let progress = Arc::new(Progress::begin("restoring", Some(plan.fetch_bytes)));
    let on_bytes = {
        let progress = Arc::clone(&progress);
        Arc::new(move |bytes| progress.add(bytes))
    };
    let restored = run::run(&context.repository, plan.clone(), &context.cancel, on_bytes).await;
    progress.end();
    let restored = restored?;
    let restored = restore_report::Outcome {
        restored,
        elapsed: begun.elapsed(),
    };
    restore_report::print_outcome(context, &plan, &restored);
    context
        .output
        .json(&restore_report::document(&plan, Some(&restored)));
    Ok(ExitCode::SUCCESS)
}
