//! Tests of the whole program against real servers: one binary, so that it is linked once.
//!
//! What also needs Barman is in `tests/interchange`.
#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail the test and talk to the person who reads it"
)]

mod harness;
mod stores;
