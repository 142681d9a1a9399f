//! An archive unpacked on its own, without a backup around it: for tests that feed it bytes
//! which no tool wrote.
//!
//! Not here: anything that a restore uses.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;

use tokio_util::sync::CancellationToken;

use crate::fault::chain;
use crate::service::restore::extract::{Landing, extract};
use crate::service::restore::marker::Marker;

/// Unpacks a tar, not compressed, into the empty directory `root`: as a data directory or as a
/// tablespace. How many files were written, or why it was refused.
pub fn unpack(archive: impl Read, root: &Path, is_pgdata: bool) -> Result<u64, String> {
    let marker = Marker::open(root).map_err(|error| chain(&error))?;
    let landing = Landing {
        root,
        is_pgdata,
        left_out: &[],
        piece: 0,
        root_files: &Mutex::new(HashMap::new()),
        owners: None,
        marker: &marker,
        cancel: &CancellationToken::new(),
        write_bytes: 1 << 20,
    };
    let extracted = extract(archive, &landing).map_err(|error| chain(&error))?;
    Ok(extracted.files)
}
