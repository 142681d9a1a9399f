//! Who a restored file belongs to, when the restore runs as root.
//!
//! Whoever has the data directory already: somebody made it for the user that is to run the server,
//! and the source's user may be another's number here, or nobody's. In a directory that the restore
//! made, a member's owner is looked up by name in this host's `/etc/passwd` and `/etc/group`, then by
//! number. Not here: directories of users other than those files.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tar::Header;

/// The users and groups of this host.
#[derive(Debug)]
pub(crate) struct Owners {
    /// The user and group of the data directory, where that is not root's.
    of_directory: Option<(u32, u32)>,
    users: Names,
    groups: Names,
}

#[derive(Debug, Default)]
struct Names {
    by_name: HashMap<Vec<u8>, u32>,
    numbers: HashSet<u32>,
}

impl Owners {
    /// The owners to give in a data directory that is there, when this process may give files away;
    /// `None` when it is not root.
    pub(crate) fn when_root(pgdata: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let found = fs::metadata(pgdata).ok();
        let owner = found.map(|found| (found.uid(), found.gid()));
        Some(Self {
            of_directory: owner.filter(|(user, _)| *user != 0),
            users: Names::parse(&fs::read("/etc/passwd").unwrap_or_default()),
            groups: Names::parse(&fs::read("/etc/group").unwrap_or_default()),
        })
    }

    /// The user and group that a member is to have, if they are known.
    pub(crate) fn of(&self, header: &Header) -> Option<(u32, u32)> {
        if self.of_directory.is_some() {
            return self.of_directory;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, user: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_username(name).unwrap();
        header.set_uid(user);
        header.set_gid(user);
        header
    }

    #[test]
    fn a_member_belongs_to_the_directorys_owner_or_to_its_own_as_this_host_knows_it() {
        let mut owners = Owners {
            of_directory: None,
            users: Names::parse(b"root:x:0:0::/:\npostgres:x:101:104::/:\nother:x:26:26::/:\n"),
            groups: Names::parse(b"postgres:x:104:\n"),
        };
        for (name, user, expected) in [
            ("postgres", 26, Some((101, 101))),
            ("", 26, Some((26, 26))),
            ("nobody-here", 999, None),
        ] {
            assert_eq!(owners.of(&header(name, user)), expected, "{name} {user}");
        }
        owners.of_directory = Some((101, 104));
        for user in [0, 26, 999] {
            assert_eq!(owners.of(&header("", user)), Some((101, 104)), "{user}");
        }
    }
}
