//! The CloudNativePG side of Cellarman: the operator's plugin, and the sidecars that it injects.
//!
//! | module | what it is |
//! |---|---|
//! | [`program`], [`arguments`], [`logging`], [`healthcheck`] | the command line |
//! | [`allocator`] | what the C library keeps of memory that was given back |
//! | [`cluster`], [`object_store`] | pure: what matters of a Cluster and of an ObjectStore |
//! | [`crd`] | the CustomResourceDefinition of ObjectStores |
//! | [`resources`] | manifests, secrets, status and events: Kubernetes or a directory |
//! | [`grpc`] | what every gRPC server here shares |
//! | [`instance`] | the sidecar of an instance or of a recovery job |
//! | [`controller`] | what one replica of the operator's side does for all |
//! | [`operator`] | what the operator's side decides, and serving it |

pub mod allocator;
pub mod arguments;
pub mod cluster;
pub mod controller;
pub mod crd;
pub mod grpc;
pub mod healthcheck;
pub mod instance;
pub mod logging;
pub mod object_store;
pub mod operator;
pub mod program;
pub mod resources;
