//! What every gRPC server here shares: identity, health, errors, sockets, TLS.
//!
//! Not here: the services themselves.

pub mod certificate;
pub mod health;
pub mod identity;
pub mod panics;
pub mod socket;
pub mod status;
pub mod tls;
