//! The arguments that all commands share, and the list of commands.
//!
//! Not here: the arguments of one command, which stand in its own file.

#![expect(
    clippy::doc_markdown,
    rustdoc::bare_urls,
    reason = "these comments are the help that people read"
)]

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::barman::layout::ServerName;
use crate::cli::backup::BackupCommand;
use crate::cli::check::CheckArguments;
use crate::cli::expire::ExpireArguments;
use crate::cli::index::IndexCommand;
use crate::cli::restore::RestoreArguments;
use crate::cli::targets::TargetsArguments;
use crate::cli::verify::VerifyArguments;
use crate::cli::wal::WalCommand;
use crate::config::Source;
use crate::fault::{Fault, Kind};

/// Backup and point-in-time recovery for PostgreSQL on object storage.
#[derive(Debug, Parser)]
#[command(
    name = "cellarman",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// What all commands share.
    #[command(flatten)]
    pub global: GlobalArguments,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The options that all commands share.
#[derive(Debug, Args)]
pub struct GlobalArguments {
    /// An ObjectStore manifest, with its Secrets in the same file or beside it [env: CELLARMAN_STORE_FILE]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        conflicts_with = "store",
        help_heading = "Store"
    )]
    pub store_file: Option<PathBuf>,
    /// Where backups are: s3://bucket/path, https://account.blob.core.windows.net/container/path, gs://bucket/path,
    /// file:///directory or a path [env: CELLARMAN_STORE]
    #[arg(long, global = true, value_name = "URL", help_heading = "Store")]
    pub store: Option<String>,
    /// The endpoint of an S3-compatible store [env: AWS_ENDPOINT_URL]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        conflicts_with = "store_file",
        help_heading = "Store"
    )]
    pub endpoint_url: Option<String>,
    /// The folder of this cluster in the store [env: CELLARMAN_SERVER]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Store")]
    pub server: Option<String>,
    /// Print one JSON document instead of text
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Log more to stderr; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Archive and restore WAL files: for archive_command and restore_command
    #[command(subcommand)]
    Wal(WalCommand),
    /// Take, list, show, keep and delete base backups
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Restore a cluster to the end of its archive or to a point in time
    Restore(RestoreArguments),
    /// Show what can be gone back to, or how recovery would get to a time, transaction, position or name
    Targets(TargetsArguments),
    /// Delete the backups and the WAL that the retention policy no longer wants
    Expire(ExpireArguments),
    /// Make the index of the WAL, by which recovery targets are found
    #[command(subcommand)]
    Index(IndexCommand),
    /// Test the store, the credentials, the server and the archive, with a hint for each failing point
    Check(CheckArguments),
    /// Verify the archive: each backup's bytes, the WAL behind it and, with --deep, a server on it
    Verify(VerifyArguments),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Shared options that are missing or wrong.
#[derive(Debug, thiserror::Error)]
pub enum GlobalArgumentError {
    /// No store.
    #[error("no store is given")]
    NoStore,
    /// No server.
    #[error("no server is given")]
    NoServer,
    /// The store file's path cannot be made absolute.
    #[error("cannot resolve {path}", path = path.display())]
    StoreFile {
        /// As given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a server's name.
    #[error(transparent)]
    Server(#[from] crate::barman::layout::ServerNameError),
}

impl Fault for GlobalArgumentError {
    fn kind(&self) -> Kind {
        match self {
            Self::StoreFile { .. } => Kind::Config,
            Self::NoStore | Self::NoServer | Self::Server(_) => Kind::Usage,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::NoStore => "Give --store-file FILE or --store URL, or set CELLARMAN_STORE_FILE or CELLARMAN_STORE.",
            Self::NoServer => "Give --server NAME, the folder of this cluster in the store, or set CELLARMAN_SERVER.",
            Self::StoreFile { .. } => "Check that the file exists and can be read.",
            Self::Server(_) => "Choose a name of letters, digits, dots, dashes and underscores.",
        }
        .to_owned()
    }
}

impl GlobalArguments {
    /// Where the settings come from: the options, else the environment.
    pub fn source(&self) -> Result<Source, GlobalArgumentError> {
        let from_env = |name| {
            std::env::var(name)
                .ok()
                .filter(|value: &String| !value.is_empty())
        };
        let endpoint_url = || self.endpoint_url.clone();
        let url = |url| Source::Url {
            url,
            endpoint_url: endpoint_url(),
        };
        if let Some(file) = &self.store_file {
            return Ok(Source::File(file.clone()));
        }
        if let Some(store) = &self.store {
            return Ok(url(store.clone()));
        }
        from_env("CELLARMAN_STORE_FILE")
            .map(|file| Source::File(file.into()))
            .or_else(|| from_env("CELLARMAN_STORE").map(url))
            .ok_or(GlobalArgumentError::NoStore)
    }

    /// The server's name: the option, else the environment.
    pub fn server(&self) -> Result<ServerName, GlobalArgumentError> {
        let name = self
            .server
            .clone()
            .or_else(|| std::env::var("CELLARMAN_SERVER").ok());
        Ok(name.ok_or(GlobalArgumentError::NoServer)?.parse()?)
    }
}

/// The options that select this store and server from any working directory.
pub fn store_arguments(
    source: &Source,
    server: &ServerName,
) -> Result<Vec<String>, GlobalArgumentError> {
    let mut arguments = match source {
        Source::File(path) => {
            let absolute =
                std::path::absolute(path).map_err(|source| GlobalArgumentError::StoreFile {
                    path: path.clone(),
                    source,
                })?;
            vec!["--store-file".to_owned(), absolute.display().to_string()]
        }
        Source::Url { url, endpoint_url } => {
            let is_relative_path = !url.contains("://") && !url.starts_with('/');
            let url = if is_relative_path {
                let path = PathBuf::from(url);
                std::path::absolute(&path)
                    .map_err(|source| GlobalArgumentError::StoreFile { path, source })?
                    .display()
                    .to_string()
            } else {
                url.clone()
            };
            let endpoint = endpoint_url
                .iter()
                .flat_map(|url| ["--endpoint-url".to_owned(), url.clone()]);
            ["--store".to_owned(), url]
                .into_iter()
                .chain(endpoint)
                .collect()
        }
    };
    arguments.extend(["--server".to_owned(), server.to_string()]);
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_relative_store_is_made_absolute_for_later_commands() {
        let source = Source::Url {
            url: "backups".to_owned(),
            endpoint_url: None,
        };
        let arguments = store_arguments(&source, &"main".parse().unwrap()).unwrap();
        assert!(
            arguments[1].starts_with('/') && arguments[1].ends_with("/backups"),
            "{arguments:?}"
        );
        assert_eq!(arguments[2..], ["--server", "main"]);
    }
}
