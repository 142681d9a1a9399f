//! Tests of the plugin through its sockets and of what is shipped with it: one binary, so that it
//! is linked once. None of them needs a Kubernetes; the real operator is in `tests/e2e`.
#![expect(clippy::panic, reason = "helpers of tests fail the test")]

mod archiving;
mod backup;
mod backup_bed;
mod caller;
mod deploy;
mod descriptors;
mod identity;
mod maintenance;
mod metrics;
mod operator_side;
mod recovery_targets;
mod restore;
mod sidecar;
mod wal;
mod wal_faults;
