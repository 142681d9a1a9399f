//! Tests of the whole program against real servers: one binary, so that it is linked once.
//!
//! What also needs Barman is in `tests/interchange`.
#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail the test, and say what it did when it failed"
)]

mod archiver;
mod azure;
mod bad_input;
mod bucket;
mod crash;
mod credentials;
mod engines;
mod expire;
mod gcs;
mod gcs_credentials;
mod gcs_endpoint;
mod harness;
mod restore_truth;
mod signature;
mod stores;
mod targets;
mod timelines;
mod tls;
mod verify;
mod wal_index;
mod wal_records;
mod wire;
