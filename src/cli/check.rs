//! `cellarman check`.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::barman::repository::Repository;
use crate::cli::Context;
use crate::fault::AnyFault;
use crate::postgres::connect::ConnectOptions;
use crate::service::check::{self, Check, Outcome, Point, ServerToCheck};
use crate::store::open;
use crate::store::retry::RetryPolicy;

/// The arguments.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Make the bucket or directory if it is missing. The server is then asked only if one is named
    #[arg(long)]
    create: bool,
    /// How to reach PostgreSQL: a URL or key=value words; else PGHOST, PGPORT, PGUSER and so on,
    /// else the unix socket
    #[arg(long, value_name = "DSN")]
    dsn: Option<String>,
}

/// The JSON document.
#[derive(Debug, Serialize)]
struct CheckDocument {
    store: String,
    server: String,
    is_ok: bool,
    points: Vec<PointDocument>,
}

#[derive(Debug, Serialize)]
struct PointDocument {
    name: &'static str,
    outcome: &'static str,
    kind: Option<&'static str>,
    detail: String,
    hint: Option<String>,
}

impl From<&Point> for PointDocument {
    fn from(point: &Point) -> Self {
        Self {
            name: point.name,
            outcome: word(point.outcome),
            kind: match point.outcome {
                Outcome::Failed(kind) => Some(kind.name()),
                _ => None,
            },
            detail: point.detail.clone(),
            hint: point.hint.clone(),
        }
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Warning => "warning",
        Outcome::Failed(_) => "failed",
        Outcome::NotRun => "not run",
    }
}

/// Runs it. Ends with the exit code of the first point that failed.
pub async fn run(arguments: CheckArguments, context: &Context) -> Result<ExitCode, AnyFault> {
    // A check is for somebody who waits: it tells what is so now.
    let settings = &context.settings.destination;
    let store = open::open_with(&settings.store, RetryPolicy::IMPATIENT).await?;
    let layout = context.repository.layout.clone();
    let server = layout.server().to_string();
    let check = Check {
        repository: Repository::new(store, layout),
        is_created: arguments.create,
        server: server_to_check(&arguments)?,
        archive_command: format!(
            "cellarman {} wal archive %p",
            context.store_arguments.join(" ")
        ),
    };
    let points = tokio::select! {
        points = check.run() => points,
        () = context.cancel.cancelled() => return Ok(ExitCode::from(
            crate::fault::Kind::Cancelled.exit_code(),
        )),
    };
    let failure = check::first_failure(&points);
    context.output.json(&CheckDocument {
        store: settings.url.clone(),
        server,
        is_ok: failure.is_none(),
        points: points.iter().map(PointDocument::from).collect(),
    });
    print(context, &points);
    Ok(failure.map_or(ExitCode::SUCCESS, |kind| ExitCode::from(kind.exit_code())))
}

fn server_to_check(arguments: &CheckArguments) -> Result<ServerToCheck, AnyFault> {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let names = ["PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGDATABASE"];
    let is_expected = arguments.dsn.is_some() || names.iter().any(|name| env(name).is_some());
    if arguments.create && !is_expected {
        return Ok(ServerToCheck::Nowhere("no server is named (--dsn, PGHOST)"));
    }
    Ok(ServerToCheck::At {
        connection: Box::new(ConnectOptions::resolve(arguments.dsn.as_deref(), &env)?),
        is_expected,
    })
}

fn print(context: &Context, points: &[Point]) {
    let rows = points.iter().map(|point| {
        vec![
            point.name.to_owned(),
            word(point.outcome).to_owned(),
            point.detail.clone(),
        ]
    });
    context
        .output
        .table(&["POINT", "RESULT", "FOUND"], rows.collect());
    for point in points {
        if let Some(hint) = &point.hint {
            context.output.line(format!("{}: {hint}", point.name));
        }
    }
}
