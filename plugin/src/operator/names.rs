//! What things are called after the plugin's name.
//!
//! Under its usual name the plugin stands in for plugin-barman-cloud, and everything is called as
//! there. Under another name it may stand beside it, even in one Pod, so that nothing of the one
//! may have the name of something of the other.

/// The name under which operators know plugin-barman-cloud, and this plugin in its place.
pub const USUAL_PLUGIN: &str = "barman-cloud.cloudnative-pg.io";

/// The names of what the plugin makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The plugin.
    pub plugin: String,
    /// The sidecar's container.
    pub container: &'static str,
    /// The volume with the certificates of the stores.
    pub certificates_volume: &'static str,
    /// What follows the Cluster's name in the names of its Role and RoleBinding.
    pub role_suffix: &'static str,
    /// The label that marks the Role of a Cluster.
    pub role_label: &'static str,
    /// Who keeps that Role, for the label `app.kubernetes.io/managed-by`.
    pub managed_by: &'static str,
}

impl Names {
    /// The names that go with this name of the plugin.
    pub fn of(plugin: &str) -> Self {
        let plugin = plugin.to_owned();
        if plugin == USUAL_PLUGIN {
            Self {
                plugin,
                container: "plugin-barman-cloud",
                certificates_volume: "barman-certificates",
                role_suffix: "-barman-cloud",
                role_label: "barmancloud.cnpg.io/cluster",
                managed_by: "plugin-barman-cloud",
            }
        } else {
            Self {
                plugin,
                container: "plugin-cellarman",
                certificates_volume: "cellarman-certificates",
                role_suffix: "-cellarman",
                role_label: "barmancloud.cnpg.io/cellarman-cluster",
                managed_by: "cellarman-plugin",
            }
        }
    }

    /// Whether the plugin has its usual name.
    pub fn are_usual(&self) -> bool {
        self.plugin == USUAL_PLUGIN
    }

    /// The Role and the RoleBinding of a Cluster; both have this name.
    pub fn role(&self, cluster: &str) -> String {
        format!("{cluster}{}", self.role_suffix)
    }
}
