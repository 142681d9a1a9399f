//! The CloudNativePG side of Cellarman: the operator's plugin, and the sidecars that it injects.
//!
//! | module | what it is |
//! |---|---|
//! | [`program`], [`arguments`], [`logging`], [`healthcheck`] | the command line |
//! | [`allocator`] | what the C library keeps of memory that was given back |
//! | [`cluster`], [`object_store`] | pure: what matters of a Cluster and of an ObjectStore |
//! | [`crd`] | the CustomResourceDefinition of ObjectStores |
//! | [`resources`] | manifests, secrets, status and events: Kubernetes or a directory |
//! | [`archives`] | an ObjectStore and its Secrets, opened |
//! | [`recovery`] | what a Cluster asks of a recovery, and refusals in its words |
//! | [`grpc`] | what every gRPC server here shares |
//! | [`instance`] | the sidecar of an instance or of a recovery job |
//! | [`operator`] | pure: what the operator's side decides |
//! | [`cache`] | the objects of all namespaces that it decides by |
//! | [`controller`] | what one replica of the operator's side does for all |
//! | [`admission`] | whether a new Cluster's recovery reaches its target |
//! | [`serving`] | the operator's calls |
//!
//! Which of them may import which is a table in the root's `tests/tidy.rs`.

pub mod admission;
pub mod allocator;
pub mod archives;
pub mod arguments;
pub mod cache;
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
pub mod recovery;
pub mod resources;
pub mod serving;
