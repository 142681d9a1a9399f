//! What the program takes: the reference's commands and flags, and ours.
//!
//! A sidecar must come up whatever stands in `additionalContainerArgs`: what `instance` and
//! `restore` do not know is left out and told. Not here: what the commands do.

pub mod operator;

use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};

use crate::arguments::operator::OperatorArguments;

/// The name under which the operator, the instances and `kubectl cnpg` know the plugin.
pub const PLUGIN_NAME: &str = "barman-cloud.cloudnative-pg.io";

/// The commands whose unknown arguments are left out.
const LENIENT: [&str; 2] = ["instance", "restore"];

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "cellarman-plugin", version, about)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve CloudNativePG's operator
    Operator {
        /// What is shared.
        #[command(flatten)]
        common: CommonArguments,
        /// Its own.
        #[command(flatten)]
        operator: Box<OperatorArguments>,
    },
    /// Serve an instance of PostgreSQL, as its sidecar
    Instance {
        /// What is shared.
        #[command(flatten)]
        common: CommonArguments,
        /// Its own.
        #[command(flatten)]
        instance: InstanceArguments,
    },
    /// Serve a recovery job, as its sidecar
    Restore {
        /// What is shared.
        #[command(flatten)]
        common: CommonArguments,
        /// Its own.
        #[command(flatten)]
        instance: InstanceArguments,
    },
    /// Ask a running sidecar whether it serves
    Healthcheck {
        /// What is shared.
        #[command(flatten)]
        common: CommonArguments,
        /// How it is asked.
        #[command(subcommand)]
        way: HealthcheckWay,
    },
    /// Print the CustomResourceDefinition of ObjectStores
    Crd,
}

/// How a sidecar is asked.
#[derive(Debug, Subcommand)]
pub enum HealthcheckWay {
    /// Through its socket
    Unix {
        /// The socket, where it is not in its usual place
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
    },
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct CommonArguments {
    /// The name that the plugin answers to
    #[arg(long, env = "PLUGIN_NAME", value_name = "NAME", default_value = PLUGIN_NAME, global = true)]
    pub plugin_name: String,
    /// How the program logs.
    #[command(flatten)]
    pub log: LogArguments,
}

/// How the program logs, in the reference's words.
#[derive(Debug, Clone, Default, Args)]
pub struct LogArguments {
    /// error, warning, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", global = true)]
    pub log_level: String,
    /// A file to log to instead of standard error
    #[arg(long, value_name = "FILE", global = true)]
    pub log_destination: Option<PathBuf>,
    /// Begin that file anew
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, global = true)]
    pub log_truncate_destination: bool,
    /// The field that holds the level
    #[arg(long, value_name = "NAME", default_value = "level", global = true)]
    pub log_field_level: String,
    /// The field that holds the time
    #[arg(long, value_name = "NAME", default_value = "ts", global = true)]
    pub log_field_timestamp: String,
    /// Accepted for the reference's sake
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true, global = true)]
    pub zap_devel: Option<String>,
    /// Accepted for the reference's sake
    #[arg(long, hide = true, global = true)]
    pub zap_encoder: Option<String>,
    /// Accepted for the reference's sake
    #[arg(long, hide = true, global = true)]
    pub zap_log_level: Option<String>,
    /// Accepted for the reference's sake
    #[arg(long, hide = true, global = true)]
    pub zap_stacktrace_level: Option<String>,
    /// Accepted for the reference's sake
    #[arg(long, hide = true, global = true)]
    pub zap_time_encoding: Option<String>,
}

/// The API that Clusters belong to, where it is not CloudNativePG's own.
#[derive(Debug, Clone, Args)]
pub struct CnpgArguments {
    /// The group of Clusters, where it is not CloudNativePG's own
    #[arg(
        long,
        env = "CUSTOM_CNPG_GROUP",
        value_name = "GROUP",
        default_value = ""
    )]
    pub custom_cnpg_group: String,
    /// The version of Clusters
    #[arg(
        long,
        env = "CUSTOM_CNPG_VERSION",
        value_name = "VERSION",
        default_value = ""
    )]
    pub custom_cnpg_version: String,
}

/// What a sidecar takes; most comes from the environment that the operator and the plugin give it.
#[derive(Debug, Clone, Args)]
pub struct InstanceArguments {
    /// Read manifests from a directory of YAML instead of the Kubernetes API
    #[arg(long, value_name = "DIRECTORY")]
    pub resources: Option<PathBuf>,
    /// The socket, where it is not in its usual place
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The namespace of the Cluster
    #[arg(long, env = "NAMESPACE", value_name = "NAME", default_value = "")]
    pub namespace: String,
    /// The Cluster
    #[arg(long, env = "CLUSTER_NAME", value_name = "NAME", default_value = "")]
    pub cluster_name: String,
    /// The instance
    #[arg(long, env = "POD_NAME", value_name = "NAME", default_value = "")]
    pub pod_name: String,
    /// The data directory
    #[arg(
        long,
        env = "PGDATA",
        value_name = "DIRECTORY",
        default_value = "/var/lib/postgresql/data/pgdata"
    )]
    pub pgdata: PathBuf,
    /// Where pg_wal goes when the Cluster has a volume for it
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "/var/lib/postgresql/wal/pg_wal"
    )]
    pub wal_storage: PathBuf,
    /// What Clusters are.
    #[command(flatten)]
    pub cnpg: CnpgArguments,
    /// Accepted for the reference's sake
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    pub pprof_server: Option<String>,
}

/// A command line that was parsed, and what was left out of it.
#[derive(Debug)]
pub struct Parsed {
    /// The command line.
    pub arguments: Arguments,
    /// What was left out, as it stood there.
    pub left_out: Vec<String>,
}

/// Parses a command line, the program's own name first.
pub fn parse(words: Vec<String>) -> Result<Parsed, clap::Error> {
    let is_lenient = words
        .get(1)
        .is_some_and(|command| LENIENT.contains(&command.as_str()));
    let (words, left_out) = if is_lenient {
        keep_known(words)
    } else {
        (words, Vec::new())
    };
    let arguments = Arguments::try_parse_from(words)?;
    Ok(Parsed {
        arguments,
        left_out,
    })
}

/// Takes out what a sidecar does not know, and what has a value that cannot be.
///
/// A single item such as `--log-level debug` is read as the two that were meant.
fn keep_known(words: Vec<String>) -> (Vec<String>, Vec<String>) {
    let mut command = Arguments::command();
    command.build();
    let mut words = words.into_iter();
    let mut kept: Vec<String> = words.by_ref().take(2).collect();
    let mut left_out = Vec::new();
    let known = kept
        .get(1)
        .and_then(|name| command.find_subcommand(name))
        .cloned()
        .unwrap_or_default();
    let mut words = words
        .flat_map(|word| match word.split_once(' ') {
            Some((name, value)) if name.starts_with('-') => {
                vec![name.to_owned(), value.trim().to_owned()]
            }
            _ => vec![word],
        })
        .peekable();
    while let Some(word) = words.next() {
        let takes_value = option_takes_value(&known, &word);
        let mut item = vec![word];
        if takes_value == Some(true)
            && let Some(value) = words.next_if(|next| !next.starts_with('-'))
        {
            item.push(value);
        }
        let is_sound = takes_value.is_some() && {
            let trial = kept.iter().chain(&item);
            Arguments::try_parse_from(trial).map_or_else(|error| !error.use_stderr(), |_| true)
        };
        if is_sound {
            kept.append(&mut item);
        } else {
            left_out.push(item.join(" "));
        }
    }
    (kept, left_out)
}

/// Whether `word` is an option of `command` that needs the next word; `None` when it is none.
fn option_takes_value(command: &clap::Command, word: &str) -> Option<bool> {
    let name = word.strip_prefix("--")?;
    let (name, attached) = name
        .split_once('=')
        .map_or((name, false), |(name, _)| (name, true));
    let option = command
        .get_arguments()
        .find(|argument| argument.get_long() == Some(name))?;
    let takes_next = option.get_action().takes_values() && !option.is_require_equals_set();
    Some(takes_next && !attached)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Parsed {
        let words = ["cellarman-plugin"].iter().chain(words);
        parse(words.map(ToString::to_string).collect()).unwrap()
    }

    fn log_level(parsed: &Parsed) -> &str {
        match &parsed.arguments.command {
            Command::Instance { common, .. } | Command::Restore { common, .. } => {
                &common.log.log_level
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_sidecar_leaves_out_what_it_does_not_know() {
        for (words, left_out) in [
            (&["instance", "--log-level=debug"][..], &[][..]),
            (
                &["instance", "-e AES256", "--log-level", "debug"],
                &["-e", "AES256"],
            ),
            (
                &["instance", "--nonsense", "word", "--log-level debug"],
                &["--nonsense", "word"],
            ),
            (
                &["instance", "--socket", "--log-level=debug", "--nonsense=1"],
                &["--socket", "--nonsense=1"],
            ),
            (
                &[
                    "restore",
                    "--log-truncate-destination=perhaps",
                    "--log-level=debug",
                    "--pprof-server",
                    "--pprof-server=true",
                ],
                &["--log-truncate-destination=perhaps", "--pprof-server=true"],
            ),
        ] {
            let parsed = parsed(words);
            assert_eq!(parsed.left_out, left_out, "{words:?}");
            assert_eq!(log_level(&parsed), "debug", "{words:?}");
        }
    }

    #[test]
    fn the_references_flags_are_taken() {
        for words in [
            "operator --metrics-bind-address=0 --health-probe-bind-address=:8081 --leader-elect --metrics-secure --enable-http2=false --plugin-path=/plugins --server-cert=/server/tls.crt --server-key=/server/tls.key --client-cert=/client/tls.crt --server-address=:9090 --log-level=debug",
            "instance --log-level=info --log-destination=/controller/log --log-truncate-destination --log-field-level=severity --log-field-timestamp=time --zap-devel --zap-encoder=json --zap-log-level=info --zap-stacktrace-level=error --zap-time-encoding=iso8601 --pprof-server=true",
            "restore --log-level=trace",
            "healthcheck unix",
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            assert!(parsed(&words).left_out.is_empty(), "{words:?}");
        }
    }

    #[test]
    fn a_person_is_told_of_a_slip() {
        let words = ["cellarman-plugin", "operator", "--nonsense"];
        assert!(parse(words.map(str::to_owned).to_vec()).is_err());
    }
}
