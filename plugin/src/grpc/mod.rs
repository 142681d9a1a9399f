//! What every gRPC server here shares: identity, health, errors, sockets.
//!
//! Not here: the services themselves.

pub mod health;
pub mod identity;
pub mod panics;
pub mod socket;
pub mod status;
