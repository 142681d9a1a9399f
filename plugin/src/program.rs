//! From the command line to the command.
//!
//! Not here: what the commands do.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cellarman::fault::{AnyFault, chain};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
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
    let cancel = CancellationToken::new();
    match command {
        Command::Healthcheck {
            way: HealthcheckWay::Unix { socket },
            ..
        } => {
            let socket = socket_path(socket, &common.plugin_name);
            return Ok(ExitCode::from(healthcheck::unix(&socket).await));
        }
        Command::Instance { instance, .. } => {
            cancel_on_signals(cancel.clone());
            let socket = socket_path(instance.socket.clone(), &common.plugin_name);
            instance::serve(Mode::Instance, &common, &instance, &socket, cancel).await?;
        }
        Command::Restore { instance, .. } => {
            cancel_on_signals(cancel.clone());
            let socket = socket_path(instance.socket.clone(), &common.plugin_name);
            instance::serve(Mode::RecoveryJob, &common, &instance, &socket, cancel).await?;
        }
        Command::Operator { operator, .. } => {
            cancel_on_signals(cancel.clone());
            serving::serve(&common, &operator, cancel).await?;
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

/// The first SIGINT or SIGTERM cancels; calls in flight then end first.
fn cancel_on_signals(cancel: CancellationToken) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        info!("told to end: calls in flight end first");
        cancel.cancel();
    });
}
