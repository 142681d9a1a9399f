//! From the command line to the command.
//!
//! Not here: what the commands do.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cellarman::fault::{AnyFault, chain};
use cellarman::signals;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::arguments::{self, Command, CommonArguments, HealthcheckWay};
use crate::instance::Mode;
use crate::{allocator, crd, healthcheck, instance, logging, serving};

/// Where the instance manager looks for sockets. The name of a socket is its plugin's name.
const SOCKETS: &str = "/plugins";

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let parsed = match arguments::parse(words.clone()) {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    let (common, logger) = match &parsed.arguments.command {
        Command::Operator { common, .. } => (common.clone(), "operator"),
        Command::Instance { common, .. } => (common.clone(), "instance"),
        Command::Restore { common, .. } => (common.clone(), "restore"),
        Command::Healthcheck { common, .. } => (common.clone(), "healthcheck"),
        Command::Crd => return crd(),
    };
    logging::start(&common.log, logger);
    if !matches!(parsed.arguments.command, Command::Healthcheck { .. }) {
        allocator::tune(&words);
    }
    for word in &parsed.left_out {
        warn!(argument = word, "left out an argument that is not known");
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(parsed.arguments.command, common));
    // A blocked read must not keep the process: what mattered has been awaited.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|fault| {
        error!(hint = fault.hint(), "{}", chain(&*fault));
        ExitCode::from(fault.kind().exit_code())
    })
}

async fn run(command: Command, common: CommonArguments) -> Result<ExitCode, AnyFault> {
    match command {
        Command::Healthcheck {
            way: HealthcheckWay::Unix { socket },
            ..
        } => {
            let socket = socket_path(socket, &common.plugin_name);
            return Ok(ExitCode::from(healthcheck::unix(&socket).await));
        }
        Command::Instance { instance, .. } => {
            let socket = socket_path(instance.socket.clone(), &common.plugin_name);
            instance::serve(
                Mode::Instance,
                &common,
                &instance,
                &socket,
                until_told_to_end(),
            )
            .await?;
        }
        Command::Restore { instance, .. } => {
            let socket = socket_path(instance.socket.clone(), &common.plugin_name);
            instance::serve(
                Mode::RecoveryJob,
                &common,
                &instance,
                &socket,
                until_told_to_end(),
            )
            .await?;
        }
        Command::Operator { operator, .. } => {
            serving::serve(&common, &operator, until_told_to_end()).await?;
        }
        Command::Crd => return Ok(crd()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the definition; the exit code says whether it went through.
fn crd() -> ExitCode {
    let written = crd::yaml()
        .map_err(io::Error::other)
        .and_then(|text| io::stdout().write_all(text.as_bytes()));
    if written.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn socket_path(given: Option<PathBuf>, plugin_name: &str) -> PathBuf {
    given.unwrap_or_else(|| Path::new(SOCKETS).join(plugin_name))
}

/// Cancelled when the process is told to end.
fn until_told_to_end() -> CancellationToken {
    let cancel = CancellationToken::new();
    let ended = cancel.clone();
    signals::when_told_to_end(move || {
        info!("told to end: calls in flight end first");
        ended.cancel();
    });
    cancel
}
