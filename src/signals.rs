//! Being told to end, by SIGINT or SIGTERM.
//!
//! Not here: what ending takes.

use tokio::signal::unix::{SignalKind, signal};

/// Calls `told` at the first of the two signals; both stop killing the process from now on.
///
/// To be called within a runtime. Where signals cannot be listened to, they kill as before.
pub fn when_told_to_end(told: impl FnOnce() + Send + 'static) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        told();
    });
}
