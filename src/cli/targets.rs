//! `cellarman targets`: what can be gone back to, how recovery would get to one target, and what lies
//! near one.

use std::process::ExitCode;

use chrono::{DateTime, FixedOffset};
use clap::{ArgGroup, Args};

use crate::cli::{Context, targets_around, targets_report};
use crate::domain::lsn::Lsn;
use crate::domain::recovery::{Request, Target, TimelineWish};
use crate::fault::AnyFault;
use crate::service::restore::recovery_plan::{self, RecoveryRequest};
use crate::service::restore::words;
use crate::service::targets::around::{self, Point, Question};
use crate::service::targets::window;

/// The arguments.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("target").multiple(false))]
pub struct TargetsArguments {
    /// How recovery gets to this time; without a zone it is UTC
    #[arg(long, value_name = "TIME", group = "target", value_parser = words::parse_time)]
    time: Option<DateTime<FixedOffset>>,
    /// How recovery gets to the end of this transaction
    #[arg(long, value_name = "XID", group = "target", value_parser = words::parse_xid)]
    xid: Option<u32>,
    /// How recovery gets to this position in the log
    #[arg(long, value_name = "LSN", group = "target")]
    lsn: Option<Lsn>,
    /// How recovery gets to this restore point
    #[arg(long, value_name = "NAME", group = "target", value_parser = words::parse_name)]
    name: Option<String>,
    /// How recovery gets to the moment a backup is consistent
    #[arg(long, group = "target")]
    immediate: bool,
    /// What recovery could stop at near this time or position: transactions and restore points
    #[arg(long, value_name = "TIME|LSN", group = "target", value_parser = targets_around::parse_point)]
    around: Option<Point>,
    /// How many of them are shown before and behind it
    #[arg(long, value_name = "COUNT", requires = "around", default_value = "10", value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// Begin at this backup, by id or name, instead of the best one for the target
    #[arg(
        long,
        value_name = "ID",
        requires = "target",
        conflicts_with = "around"
    )]
    backup_id: Option<String>,
    /// Follow this timeline: latest, current (the backup's own) or a number
    #[arg(long, value_name = "TIMELINE", requires = "target", default_value = "latest", value_parser = words::parse_timeline)]
    timeline: TimelineWish,
    /// Stop just before the target instead of just after it
    #[arg(long, requires = "target", conflicts_with_all = ["immediate", "name", "around"])]
    exclusive: bool,
}

impl TargetsArguments {
    fn target(&self) -> Option<Target> {
        if self.immediate {
            return Some(Target::Immediate);
        }
        let name = self.name.as_ref();
        self.time
            .map(Target::Time)
            .or(self.xid.map(Target::Xid))
            .or(self.lsn.map(Target::Lsn))
            .or(name.map(|name| Target::Name(name.clone())))
    }
}

/// Prints the windows, or the plan for the one target that is asked about. A target that cannot
/// be reached is an error with the reason.
pub async fn run(arguments: TargetsArguments, context: &Context) -> Result<ExitCode, AnyFault> {
    let (repository, output) = (&context.repository, context.output);
    if let Some(point) = arguments.around {
        let question = Question {
            point,
            timeline: match arguments.timeline {
                TimelineWish::Number(timeline) => Some(timeline),
                TimelineWish::Latest | TimelineWish::Current => None,
            },
            count_max: usize::from(arguments.count),
        };
        let around = around::around(repository, question).await?;
        targets_around::print(output, question, &around);
        output.json(&targets_around::document(&around));
        return Ok(ExitCode::SUCCESS);
    }
    let Some(target) = arguments.target() else {
        let windows = window::windows(repository).await?;
        targets_report::print_windows(output, &windows);
        output.json(&targets_report::windows_document(&windows));
        return Ok(ExitCode::SUCCESS);
    };
    let backup = match &arguments.backup_id {
        Some(wanted) => Some(repository.resolve(wanted).await?),
        None => None,
    };
    let recovery = Request {
        target,
        inclusive: !arguments.exclusive,
        timeline: arguments.timeline,
        backup,
        may_end_later: false,
    };
    let request = RecoveryRequest {
        recovery: &recovery,
        accepts_gap: false,
        may_reword: true,
    };
    let plan = recovery_plan::plan(repository, &request).await?;
    targets_report::print_plan(output, &plan);
    output.json(&targets_report::plan_document(&plan));
    Ok(ExitCode::SUCCESS)
}
