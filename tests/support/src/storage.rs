//! What tests ask of a store's server, whichever it is.

use std::fmt;
use std::net::TcpListener;

use crate::scratch::Scratch;

/// A server of objects of one test, with one bucket or container in it.
pub trait Storage: fmt::Debug + Sized {
    /// What Barman calls this kind of store.
    const BARMAN_PROVIDER: &'static str;

    /// Starts one with its data in `scratch`, or says why it cannot.
    fn start(scratch: &Scratch) -> Result<Self, String>;

    /// The URL of `path` in its bucket, as the program and Barman take it.
    fn url(&self, path: &str) -> String;

    /// What the program is told besides the URL.
    fn arguments(&self) -> Vec<String> {
        Vec::new()
    }

    /// What a client needs in its environment.
    fn environment(&self) -> Vec<(String, String)>;
}

/// A port of the loopback interface that nobody has; somebody may take it before it is used.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .unwrap_or_else(|error| panic!("no free port on 127.0.0.1: {error}"))
        .port()
}
