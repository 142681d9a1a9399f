//! A gRPC server on a unix socket.
//!
//! It serves at once, whatever is away. When it is told to end, it takes no more calls and those
//! in flight end first. Not here: the services.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use cellarman::fault::{Fault, Kind};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tracing::{info, warn};

use crate::grpc::panics::CatchPanics;

/// How serving fails.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there already.
    #[error("another process serves on {}", path.display())]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot make the socket {}", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server broke down.
    #[error("serving on {} failed", path.display())]
    Serve {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
}

impl Fault for SocketError {
    fn kind(&self) -> Kind {
        match self {
            Self::Busy { .. } => Kind::Conflict,
            Self::Bind { .. } => Kind::Local,
            Self::Serve { .. } => Kind::Internal,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Busy { .. } => "End the other process, or give this one another --socket.",
            _ => self.kind().hint(),
        }
        .to_owned()
    }
}

/// Serves until `cancel`, and then until the calls in flight have ended.
pub async fn serve(
    path: &Path,
    routes: Routes,
    cancel: CancellationToken,
) -> Result<(), SocketError> {
    let listener = bind(path)?;
    info!(socket = %path.display(), "serving");
    let served = Server::builder()
        .layer(CatchPanics)
        .add_routes(routes)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), cancel.cancelled_owned())
        .await;
    if let Err(error) = fs::remove_file(path) {
        warn!(socket = %path.display(), %error, "cannot remove the socket");
    }
    served.map_err(|source| SocketError::Serve {
        path: path.to_path_buf(),
        source,
    })
}

/// Binds the socket; one that a killed process left is removed.
fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let bind_error = |source| SocketError::Bind {
        path: path.to_path_buf(),
        source,
    };
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        if UnixStream::connect(path).is_ok() {
            return Err(SocketError::Busy {
                path: path.to_path_buf(),
            });
        }
        fs::remove_file(path).map_err(bind_error)?;
    }
    UnixListener::bind(path).map_err(bind_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_taken_over_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        drop(bind(&path).unwrap());
        assert!(path.exists());
        let live = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(SocketError::Busy { .. })));
        drop(live);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        assert!(matches!(bind(&path), Err(SocketError::Bind { .. })));
    }
}
