//! Who the servers run as: PostgreSQL refuses to run as root, so root steps down to `postgres`.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The user that servers, and the program under test beside them, run as.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    step_down: Option<(u32, u32)>,
}

impl Account {
    /// `postgres` when we are root, else ourselves.
    pub fn of_servers() -> Result<Self, String> {
        let own_uid = fs::metadata("/proc/self")
            .map_err(|error| format!("cannot read /proc/self: {error}"))?
            .uid();
        if own_uid != 0 {
            return Ok(Self { step_down: None });
        }
        let passwd = fs::read_to_string("/etc/passwd")
            .map_err(|error| format!("cannot read /etc/passwd: {error}"))?;
        let fields = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.len() > 3 && fields[0] == "postgres")
            .ok_or("we are root and there is no user postgres to step down to")?;
        let number = |text: &str| {
            text.parse::<u32>()
                .map_err(|error| format!("odd line of postgres in /etc/passwd: {error}"))
        };
        Ok(Self {
            step_down: Some((number(fields[2])?, number(fields[3])?)),
        })
    }

    /// Whether the user differs from ours, so that it may be unable to read our files.
    pub fn is_another(self) -> bool {
        self.step_down.is_some()
    }

    /// Makes `command` run as this user.
    pub fn apply(self, command: &mut Command) {
        if let Some((uid, gid)) = self.step_down {
            command.uid(uid).gid(gid).env("HOME", "/nonexistent");
        }
    }

    /// Hands a file or directory to this user.
    pub fn own(self, path: &Path) {
        if let Some((uid, gid)) = self.step_down {
            chown(path, Some(uid), Some(gid)).unwrap_or_else(|error| {
                panic!("cannot hand {} to postgres: {error}", path.display())
            });
        }
    }
}
