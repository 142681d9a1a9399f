//! What `cellarman-plugin operator` takes.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::arguments::CnpgArguments;

/// The arguments: those of the reference, and where they differ, ours.
#[derive(Debug, Clone, Args)]
pub struct OperatorArguments {
    /// Where figures of this process are served; 0 for nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "0")]
    pub metrics_bind_address: String,
    /// Where /healthz and /readyz are served
    #[arg(long, value_name = "ADDRESS", default_value = ":8081")]
    pub health_probe_bind_address: String,
    /// Let one replica alone run the controller; all serve the operator
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub leader_elect: bool,
    /// Accepted for the reference's sake
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", action = ArgAction::Set, hide = true)]
    pub metrics_secure: bool,
    /// Accepted for the reference's sake
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, hide = true)]
    pub enable_http2: bool,
    /// Serve on a unix socket in this folder instead of TCP
    #[arg(long, value_name = "DIRECTORY")]
    pub plugin_path: Option<PathBuf>,
    /// The server's certificate
    #[arg(long, value_name = "FILE")]
    pub server_cert: Option<PathBuf>,
    /// The server's key
    #[arg(long, value_name = "FILE")]
    pub server_key: Option<PathBuf>,
    /// The client's certificate, the only one let in
    #[arg(long, value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// Where the plugin is served
    #[arg(long, value_name = "ADDRESS", default_value = ":9090")]
    pub server_address: String,
    /// Where new Clusters' recovery targets are looked at (admission webhook); nowhere if not given
    #[arg(long, value_name = "ADDRESS")]
    pub webhook_address: Option<String>,
    /// The image of the sidecars
    #[arg(long, env = "SIDECAR_IMAGE", value_name = "IMAGE", default_value = "")]
    pub sidecar_image: String,
    /// What Clusters are.
    #[command(flatten)]
    pub cnpg: CnpgArguments,
    /// The plugin's Service; the Secrets with its certificates are named after it
    #[arg(long, env = "PLUGIN_SERVICE", value_name = "NAME")]
    pub service_name: Option<String>,
}
