//! Real servers for the tests: PostgreSQL clusters, MinIO, Barman, and the program under test.
//!
//! Not a fake of anything, and not part of the product: it knows nothing of Cellarman but the
//! path of its binary. A test that finds its server missing says so with [`not_run!`].
//! Everything here fails by panicking, with the log of the process concerned: a harness that
//! cannot do its part has no test to hand the error to.
#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "a harness fails its test, and talks to the person who reads the test's output"
)]

pub mod account;
pub mod azurite;
pub mod barman;
pub mod cache;
pub mod certificates;
pub mod cluster;
pub mod endpoint;
pub mod fake_gcs;
pub mod minio;
pub mod process;
pub mod program;
pub mod report;
pub mod scratch;
pub mod small_disk;
pub mod sql;
pub mod storage;
pub mod wait;
pub mod workload;
pub mod world;
