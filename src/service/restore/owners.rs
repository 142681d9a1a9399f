//! Who a restored file belongs to, when the restore runs as root.
//!
//! A member's owner is looked up by name in this host's `/etc/passwd` and `/etc/group`, then by
//! number. Not here: directories of users other than those files.

use std::collections::{HashMap, HashSet};
use std::fs;

use tar::Header;

/// The users and groups of this host.
#[derive(Debug)]
pub(crate) struct Owners {
    users: Names,
    groups: Names,
}

#[derive(Debug, Default)]
struct Names {
    by_name: HashMap<Vec<u8>, u32>,
    numbers: HashSet<u32>,
}

impl Owners {
    /// The owners to give, when this process may give files away; `None` when it is not root.
    pub(crate) fn when_root() -> Option<Self> {
        rustix::process::geteuid().is_root().then(|| Self {
            users: Names::parse(&fs::read("/etc/passwd").unwrap_or_default()),
            groups: Names::parse(&fs::read("/etc/group").unwrap_or_default()),
        })
    }

    /// The user and group that a member's header names, if this host has the user.
    pub(crate) fn of(&self, header: &Header) -> Option<(u32, u32)> {
        let user = self
            .users
            .number(header.username_bytes(), header.uid().ok())?;
        let group = self
            .groups
            .number(header.groupname_bytes(), header.gid().ok());
        Some((user, group.unwrap_or(user)))
    }
}

impl Names {
    /// Reads lines of `name:password:number:…`.
    fn parse(text: &[u8]) -> Self {
        let mut names = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            let mut fields = line.split(|byte| *byte == b':');
            let (name, number) = (fields.next(), fields.nth(1));
            let number = number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            if let (Some(name), Some(number)) = (name, number) {
                names.by_name.insert(name.to_owned(), number);
                names.numbers.insert(number);
            }
        }
        names
    }

    fn number(&self, name: Option<&[u8]>, number: Option<u64>) -> Option<u32> {
        let by_name = name
            .filter(|name| !name.is_empty())
            .and_then(|name| self.by_name.get(name).copied());
        let by_number = || {
            let number = u32::try_from(number?).ok()?;
            self.numbers.contains(&number).then_some(number)
        };
        by_name.or_else(by_number)
    }
}
