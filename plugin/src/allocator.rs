//! What the C library's allocator keeps of memory that was given back.
//!
//! WAL travels in pieces as large as a segment. Left to itself, glibc takes the first of them for
//! a sign to serve the next from its heaps, one for each thread, which then stay that large: two
//! thirds of a sidecar's memory. Its tunables are read when a process starts, so the process
//! starts itself once more with them. Not here: how much memory the work takes.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use tracing::warn;

/// The variable that glibc reads; musl passes it over.
const VARIABLE: &str = "GLIBC_TUNABLES";

/// Pieces from 1 MiB on go back to the kernel at once; two heaps serve all threads.
const TUNABLES: &str = "glibc.malloc.mmap_threshold=1048576:\
    glibc.malloc.trim_threshold=1048576:glibc.malloc.arena_max=2";

/// Starts this process once more with the tunables, in its place. Returns where the variable is set
/// already, by this very function or by somebody who knows better, and where that fails.
pub fn tune(arguments: &[String]) {
    if env::var_os(VARIABLE).is_some() {
        return;
    }
    let failure = match env::current_exe() {
        Ok(program) => Command::new(program)
            .arg0(arguments.first().map_or_else(OsString::new, OsString::from))
            .args(arguments.get(1..).unwrap_or_default())
            .env(VARIABLE, TUNABLES)
            .exec(),
        Err(error) => error,
    };
    warn!(error = %failure, "the allocator keeps more memory than it has to");
}
