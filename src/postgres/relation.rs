//! Names of the files that hold relations: `16384`, `16384_vm.1`, `t3_16390`, `16384_init`.
//!
//! Source: `parse_filename_for_nontemp_relation` and `looks_like_temp_rel_name`, PostgreSQL 18,
//! src/backend/storage/file/reinit.c and fd.c.

/// Blocks in a segment of a relation, as every known package of PostgreSQL is built.
const BLOCKS_PER_SEGMENT: u32 = 131_072;

/// A relation's file, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationFile<'a> {
    /// Whether it belongs to a session's temporary table.
    pub is_temporary: bool,
    /// The relation's number, as written.
    pub number: &'a str,
    /// `fsm`, `vm` or `init`; absent for the main fork.
    pub fork: Option<&'a str>,
    /// Which file of the fork: 0 for the first.
    pub segment: u32,
}

impl<'a> RelationFile<'a> {
    /// The relation's file of this name; `None` for any other file.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (stem, segment) = match name.split_once('.') {
            Some((stem, segment)) => (stem, parse_segment(segment)?),
            None => (name, 0),
        };
        let (stem, is_temporary) = match stem.strip_prefix('t') {
            Some(rest) => {
                let (backend, rest) = rest.split_once('_')?;
                is_digits(backend).then_some((rest, true))?
            }
            None => (stem, false),
        };
        let (number, fork) = match stem.split_once('_') {
            Some((number, fork)) => {
                (matches!(fork, "fsm" | "vm" | "init")).then_some((number, Some(fork)))?
            }
            None => (stem, None),
        };
        is_digits(number).then_some(Self {
            is_temporary,
            number,
            fork,
            segment,
        })
    }

    /// The relation's block that the file begins with.
    pub fn first_block(&self) -> u32 {
        self.segment.saturating_mul(BLOCKS_PER_SEGMENT)
    }
}

fn parse_segment(text: &str) -> Option<u32> {
    is_digits(text).then(|| text.parse().ok()).flatten()
}

/// Whether `text` is one or more digits.
pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relation_files_are_told_from_others() {
        for (name, expected) in [
            ("16384", Some((false, "16384", None, 0))),
            ("16384.12", Some((false, "16384", None, 12))),
            ("16384_vm", Some((false, "16384", Some("vm"), 0))),
            ("16384_init", Some((false, "16384", Some("init"), 0))),
            ("16384_fsm.2", Some((false, "16384", Some("fsm"), 2))),
            ("t3_16390", Some((true, "16390", None, 0))),
            ("t12_16390_fsm.1", Some((true, "16390", Some("fsm"), 1))),
            ("", None),
            ("t", None),
            ("t3", None),
            ("t_1", None),
            ("16384_x", None),
            ("16384.", None),
            ("16384.x", None),
            ("16384.1.2", None),
            ("PG_VERSION", None),
            ("pg_filenode.map", None),
            ("pg_control", None),
        ] {
            let parsed = RelationFile::parse(name)
                .map(|file| (file.is_temporary, file.number, file.fork, file.segment));
            assert_eq!(parsed, expected, "{name}");
        }
        assert_eq!(
            RelationFile::parse("1.2").map(|file| file.first_block()),
            Some(262_144)
        );
    }
}
