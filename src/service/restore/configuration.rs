//! A restored `postgresql.conf`, rid of the lines that lead back to the source or nowhere.
//!
//! Pure. Not here: the recovery settings, which go to `postgresql.auto.conf` (`settings`).

use crate::service::restore::settings::setting_name;

/// Settings of places that belong to the source alone. Started with its `data_directory`, the new
/// server would run on the source's files.
const OF_THE_SOURCE: [&str; 2] = ["data_directory", "external_pid_file"];

/// Directives that stop the server where what they name is missing.
const INCLUDES: [&str; 2] = ["include", "include_dir"];

/// The file with such lines made comments, and these lines; `None` where there are none.
///
/// `is_there` tells whether a file or directory is, relative ones below the data directory.
pub(crate) fn retired(
    text: &[u8],
    is_there: impl Fn(&str) -> bool,
) -> Option<(Vec<u8>, Vec<String>)> {
    let mut kept = Vec::with_capacity(text.len() + 64);
    let mut lines = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let name = setting_name(line).unwrap_or_default();
        let is_dangling =
            INCLUDES.contains(&name.as_str()) && value(line).is_some_and(|path| !is_there(&path));
        if OF_THE_SOURCE.contains(&name.as_str()) || is_dangling {
            kept.extend_from_slice(b"# retired by cellarman restore: ");
            lines.push(String::from_utf8_lossy(line).trim().to_owned());
        }
        kept.extend_from_slice(line);
    }
    (!lines.is_empty()).then_some((kept, lines))
}

/// The value that a line gives, quoted or not.
fn value(line: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let rest = line.trim_start();
    let name_end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?;
    let rest = rest[name_end..].trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let Some(quoted) = rest.strip_prefix('\'') else {
        let word: String = rest
            .chars()
            .take_while(|c| !c.is_whitespace() && *c != '#')
            .collect();
        return (!word.is_empty()).then_some(word);
    };
    let mut value = String::new();
    let mut letters = quoted.chars().peekable();
    while let Some(letter) = letters.next() {
        // A quote within is doubled.
        if letter == '\'' && letters.next_if_eq(&'\'').is_none() {
            return Some(value);
        }
        value.push(letter);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_lead_back_or_nowhere_become_comments() {
        let is_there = |path: &str| path == "here.conf" || path == "it's";
        for (line, is_retired) in [
            ("data_directory = '/srv/live'", true),
            ("  External_Pid_File='/run/x.pid'", true),
            ("#data_directory = 'ConfigDir'", false),
            ("include_dir = 'conf.d'\t# as Debian has it", true),
            ("include 'gone.conf'", true),
            ("include here.conf", false),
            ("include 'it''s'", false),
            ("include_if_exists 'gone.conf'", false),
            ("port = 5432", false),
            ("", false),
        ] {
            let retired = retired(line.as_bytes(), is_there);
            let expected = format!("# retired by cellarman restore: {line}");
            let found = retired.map(|(text, _)| String::from_utf8(text).unwrap());
            assert_eq!(found, is_retired.then_some(expected), "{line}");
        }
    }

    #[test]
    fn other_lines_stay_as_they_are() {
        let text = b"port = 1\r\ndata_directory = 'x'\nlast \xff";
        let (kept, lines) = retired(text, |_| false).unwrap();
        assert_eq!(
            kept,
            b"port = 1\r\n# retired by cellarman restore: data_directory = 'x'\nlast \xff"
        );
        assert_eq!(lines, ["data_directory = 'x'"]);
    }
}
