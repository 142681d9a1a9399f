//! Keys as paths below the store's directory and back.
//!
//! Each part of a key between slashes is one file name. What a file system cannot name, or would
//! take for something else, is escaped as `%` and two hex digits; an empty part is a `%` alone.
//! Only the one spelling that this module writes is a key: other names are nobody's.

use std::path::{Path, PathBuf};

/// The directory below the root that holds what is no object.
pub(super) const PRIVATE: &str = ".cellarman";

/// The path of `key` below `root`.
pub(super) fn path_of(root: &Path, key: &str) -> PathBuf {
    let mut path = root.to_path_buf();
    for (depth, part) in key.split('/').enumerate() {
        path.push(escape(part, depth == 0));
    }
    path
}

/// The file name of one part of a key. `is_first`: the part stands directly below the root.
pub(super) fn escape(part: &str, is_first: bool) -> String {
    match part {
        "" => return "%".to_owned(),
        "." => return "%2E".to_owned(),
        ".." => return "%2E%2E".to_owned(),
        PRIVATE if is_first => return format!("%2E{}", &PRIVATE[1..]),
        _ => {}
    }
    let mut name = String::with_capacity(part.len());
    for character in part.chars() {
        match character {
            '%' => name.push_str("%25"),
            '\0' => name.push_str("%00"),
            other => name.push(other),
        }
    }
    name
}

/// The part of a key that a file name stands for; `None` for a name that [`escape`] never gives.
pub(super) fn unescape(name: &str, is_first: bool) -> Option<String> {
    let part = if name == "%" {
        String::new()
    } else {
        percent_encoding::percent_decode_str(name)
            .decode_utf8()
            .ok()?
            .into_owned()
    };
    (!part.contains('/') && escape(&part, is_first) == name).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_key_comes_back_from_its_file_name() {
        for part in [
            "",
            ".",
            "..",
            "...",
            ".cellarman",
            "%",
            "%2E",
            "a b",
            "ü+%41",
            "a\0b",
            "a\nb",
        ] {
            for is_first in [true, false] {
                let name = escape(part, is_first);
                assert!(!name.is_empty() && !name.contains(['/', '\0']) && name != ".");
                assert_eq!(
                    unescape(&name, is_first).as_deref(),
                    Some(part),
                    "{name} {is_first}"
                );
            }
        }
    }

    #[test]
    fn a_name_of_another_spelling_is_no_key() {
        for name in ["%41", "%zz", "a%", "%2F", "%2e", "%C3"] {
            assert_eq!(unescape(name, false), None, "{name}");
        }
        assert_eq!(unescape(PRIVATE, true), None);
    }
}
