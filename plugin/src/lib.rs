//! The CloudNativePG side of Cellarman: the operator's plugin, and the sidecars that it injects.
//!
//! | module | what it is |
//! |---|---|
//! | [`cluster`] | pure: what matters of a Cluster |
//! | [`operator`] | what the operator's side decides, and serving it |
//! | [`resources`] | manifests, secrets, status and events: Kubernetes or a directory |

pub mod cluster;
pub mod operator;
pub mod resources;
