//! Log lines to stderr, at a level that fits the command.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::args::Command;

/// Starts logging: what `command` does is told by itself where a person waits for it, and only
/// when something is odd where PostgreSQL runs it once per WAL file.
pub fn start(verbose: u8, command: &Command) {
    let quiet = match command {
        Command::Wal(_) | Command::Check(_) | Command::Completions { .. } => Level::WARN,
        Command::Backup(_)
        | Command::Restore(_)
        | Command::Targets(_)
        | Command::Expire(_)
        | Command::Index(_)
        | Command::Verify(_) => Level::INFO,
    };
    let level = match verbose {
        0 => quiet,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    // Other crates log whole requests at the finer levels, credentials among them.
    let targets = Targets::new().with_target("cellarman", level);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // A second start, as tests make, keeps the first one's subscriber.
    drop(
        tracing_subscriber::registry()
            .with(lines)
            .with(targets)
            .try_init(),
    );
}
