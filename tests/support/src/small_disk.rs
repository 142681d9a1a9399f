//! A small file system in memory, to fill up. Mounting it takes root's rights.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scratch::Scratch;

/// The file system; taken away when dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of so many KiB at `name` in the scratch directory; the error says why not.
    pub fn mount(scratch: &Scratch, name: &str, kib: u32) -> Result<Self, String> {
        let path = scratch.make(name);
        let options = format!("size={kib}k,mode=0777");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "cellarman-test"])
            .arg(&path)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(path)),
            Ok(output) => Err(format!(
                "a small file system cannot be mounted here: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )),
            Err(error) => Err(format!("mount does not start: {error}")),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A place on it, as text.
    pub fn place(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a program that a failed test has left may hold it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
