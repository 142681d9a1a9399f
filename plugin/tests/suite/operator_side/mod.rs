//! The operator's side against an API server in memory, and its connections.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod api;
mod backend;
mod certificates;
mod controller;
pub(crate) mod hooks;
mod lease;
mod news;
mod tls;
mod webhook;
