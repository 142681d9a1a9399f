//! The recovery settings, as lines of `postgresql.auto.conf`, for PostgreSQL 12 and later.
//!
//! Not here: writing the file, choosing the target.

use std::fmt::Write;

use chrono::Utc;

use crate::domain::recovery::Target;
use crate::domain::timeline::TimelineId;

/// What the server does when it has reached its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetAction {
    /// Stop replay and wait, readable.
    Pause,
    /// End recovery and take writes.
    #[default]
    Promote,
    /// Shut down, ready to go on later.
    Shutdown,
}

impl TargetAction {
    /// PostgreSQL's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Promote => "promote",
            Self::Shutdown => "shutdown",
        }
    }
}

/// How the server fetches WAL: this program again, with the options that lead to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreCommand {
    /// The absolute path of the program.
    pub program: String,
    /// The options before `wal restore`. Never a secret: they can be read by all in the
    /// process list.
    pub options: Vec<String>,
}

impl RestoreCommand {
    /// The shell command, with PostgreSQL's `%f` and `%p` in it.
    pub fn to_shell(&self) -> String {
        let mut words: Vec<String> = std::iter::once(&self.program)
            .chain(&self.options)
            .map(|word| shell_word(word).replace('%', "%%"))
            .collect();
        words.push("wal restore %f \"%p\"".to_owned());
        words.join(" ")
    }
}

/// Where recovery ends, and how WAL is fetched.
#[derive(Debug, Clone)]
pub struct RecoverySettings {
    /// Where replay ends.
    pub target: Target,
    /// Whether the target itself is replayed. Only for time, XID and LSN.
    pub is_inclusive: bool,
    /// The timeline to follow.
    pub timeline: TimelineWord,
    /// What happens at the target.
    pub action: TargetAction,
    /// How WAL is fetched.
    pub restore_command: RestoreCommand,
    /// Settings of places that the new cluster must have otherwise, such as `hba_file`.
    pub places: Vec<(&'static str, String)>,
}

/// What `recovery_target_timeline` becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimelineWord {
    /// The timeline of the backup itself, which needs no history file.
    Current,
    /// The timeline of this number.
    Number(TimelineId),
}

/// Every setting that could send replay elsewhere, or that belongs to a standby's life.
///
/// A value left over from the source would be a second target, which PostgreSQL refuses, a delay,
/// or a command that cleans up, or takes over, what is not this cluster's.
const NEUTRAL: [(&str, &str); 8] = [
    ("recovery_target", ""),
    ("recovery_target_name", ""),
    ("recovery_target_time", ""),
    ("recovery_target_xid", ""),
    ("recovery_target_lsn", ""),
    ("archive_cleanup_command", ""),
    ("recovery_end_command", ""),
    ("recovery_min_apply_delay", "0"),
];

/// The other settings written, which replace older lines too.
const WRITTEN: [&str; 4] = [
    "restore_command",
    "recovery_target_inclusive",
    "recovery_target_timeline",
    "recovery_target_action",
];

impl RecoverySettings {
    /// The settings in the order they must stand in.
    ///
    /// An empty target setting takes back the kind of target that an earlier line chose
    /// (`assign_recovery_target_*` in PostgreSQL), so the empty ones come first.
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let target = target_setting(&self.target);
        let mut pairs: Vec<(&'static str, String)> = NEUTRAL
            .iter()
            .filter(|(name, _)| target.as_ref().is_none_or(|(chosen, _)| chosen != name))
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        pairs.extend(target);
        let timeline = match self.timeline {
            TimelineWord::Current => "current".to_owned(),
            TimelineWord::Number(number) => number.to_string(),
        };
        pairs.push(inclusive_setting(self.is_inclusive));
        pairs.push(("recovery_target_timeline", timeline));
        pairs.push(("recovery_target_action", self.action.as_str().to_owned()));
        pairs.push(("restore_command", self.restore_command.to_shell()));
        pairs.extend(self.places.iter().cloned());
        pairs
    }

    /// The contents of `postgresql.auto.conf` with these settings added to what it `held`.
    ///
    /// Older lines of the same settings stay to be read, as comments.
    pub fn appended_to(&self, held: &[u8]) -> Vec<u8> {
        let pairs = self.pairs();
        let mut text = commented(held, |name| {
            WRITTEN.contains(&name) || pairs.iter().any(|(written, _)| *written == name)
        });
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text.extend_from_slice(b"# Recovery settings by cellarman restore.\n");
        for (name, value) in pairs {
            text.extend_from_slice(format!("{name} = {}\n", conf_string(&value)).as_bytes());
        }
        text
    }
}

/// The contents of `postgresql.auto.conf` with all that steers a recovery made comments; `None`
/// where there is nothing of it.
pub(crate) fn without_recovery(held: &[u8]) -> Option<Vec<u8>> {
    let is_of_recovery =
        |name: &str| WRITTEN.contains(&name) || NEUTRAL.iter().any(|(neutral, _)| *neutral == name);
    let text = commented(held, is_of_recovery);
    (text.len() != held.len()).then_some(text)
}

/// The lines, those of the settings meant made comments.
fn commented(held: &[u8], is_meant: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut text = Vec::with_capacity(held.len() + 1024);
    for line in held.split_inclusive(|byte| *byte == b'\n') {
        if setting_name(line).is_some_and(|name| is_meant(&name)) {
            text.extend_from_slice(b"# replaced by cellarman restore: ");
        }
        text.extend_from_slice(line);
    }
    text
}

/// The one setting that names the target; `None` for the end of the archive.
pub(crate) fn target_setting(target: &Target) -> Option<(&'static str, String)> {
    match target {
        Target::Latest => None,
        Target::Immediate => Some(("recovery_target", "immediate".to_owned())),
        Target::Time(time) => Some((
            "recovery_target_time",
            time.with_timezone(&Utc)
                .format("%Y-%m-%d %H:%M:%S%.f+00")
                .to_string(),
        )),
        Target::Xid(xid) => Some(("recovery_target_xid", xid.to_string())),
        Target::Lsn(lsn) => Some(("recovery_target_lsn", lsn.to_string())),
        Target::Name(name) => Some(("recovery_target_name", name.clone())),
    }
}

/// The setting that says whether the target itself is replayed.
pub(crate) fn inclusive_setting(is_inclusive: bool) -> (&'static str, String) {
    let word = if is_inclusive { "on" } else { "off" };
    ("recovery_target_inclusive", word.to_owned())
}

/// The name that a line of a configuration file sets, in lower case; `None` for comments, blank
/// lines and what is no setting.
pub(crate) fn setting_name(line: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let name: String = line
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$'))
        .collect();
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

/// A value as the server's configuration files quote it.
///
/// Source: `DeescapeQuotedString`, PostgreSQL 18, src/backend/utils/misc/guc-file.l.
pub(crate) fn conf_string(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for c in value.chars() {
        match c {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() && c.is_ascii() => {
                write!(quoted, "\\{:03o}", u32::from(c)).expect("writing to a String cannot fail");
            }
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

/// A word as a POSIX shell quotes it; words without special letters stay as they are.
pub(crate) fn shell_word(word: &str) -> String {
    let is_plain = !word.is_empty()
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_./:=@,+-%".contains(&b));
    if is_plain {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(target: Target) -> RecoverySettings {
        RecoverySettings {
            target,
            is_inclusive: true,
            timeline: TimelineWord::Number(TimelineId::FIRST),
            action: TargetAction::Promote,
            restore_command: RestoreCommand {
                program: "/opt/my tools/cellarman".to_owned(),
                options: vec!["--server".to_owned(), "it's 100%".to_owned()],
            },
            places: vec![("hba_file", "/new/pg_hba.conf".to_owned())],
        }
    }

    fn check(target: Target, held: &str, expected: &[&str]) -> String {
        let text = String::from_utf8(settings(target).appended_to(held.as_bytes())).unwrap();
        for line in expected {
            assert!(
                text.lines().any(|found| found == *line),
                "{line} is not in\n{text}"
            );
        }
        text
    }

    #[test]
    fn each_target_is_the_only_one_and_the_last() {
        let time = "2026-11-21T06:43:47.5+01:00".parse().unwrap();
        for (target, line) in [
            (Target::Immediate, "recovery_target = 'immediate'"),
            (
                Target::Time(time),
                "recovery_target_time = '2026-11-21 05:43:47.500+00'",
            ),
            (Target::Xid(742), "recovery_target_xid = '742'"),
            (
                Target::Lsn("0/3000028".parse().unwrap()),
                "recovery_target_lsn = '0/3000028'",
            ),
            (
                Target::Name("it's".to_owned()),
                "recovery_target_name = 'it''s'",
            ),
        ] {
            let text = check(target, "", &[line]);
            let is_target = |line: &&str| {
                NEUTRAL[..5]
                    .iter()
                    .any(|(name, _)| line.starts_with(&format!("{name} =")))
            };
            let lines: Vec<&str> = text.lines().filter(is_target).collect();
            assert_eq!(lines.last(), Some(&line));
            assert_eq!(lines.len(), 5, "{text}");
            assert!(
                lines[..4].iter().all(|line| line.ends_with("= ''")),
                "{text}"
            );
        }
        let text = check(Target::Latest, "", &["recovery_target_timeline = '1'"]);
        assert_eq!(
            text.lines().filter(|line| line.ends_with(" = ''")).count(),
            7
        );
    }

    #[test]
    fn older_lines_of_the_same_settings_become_comments() {
        let held = "work_mem = '8MB'\nRecovery_Target_Time = 'x'\n  restore_command='cp'\n\
                    recovery_min_apply_delay = '1h'\nprimary_conninfo = 'host=a'\n\
                    recovery_end_command = 'take-over'";
        let expected = [
            "work_mem = '8MB'",
            "# replaced by cellarman restore: Recovery_Target_Time = 'x'",
            "# replaced by cellarman restore:   restore_command='cp'",
            "# replaced by cellarman restore: recovery_min_apply_delay = '1h'",
            "primary_conninfo = 'host=a'",
            "# replaced by cellarman restore: recovery_end_command = 'take-over'",
            "recovery_end_command = ''",
            "recovery_min_apply_delay = '0'",
            "hba_file = '/new/pg_hba.conf'",
        ];
        check(Target::Latest, held, &expected);
    }

    #[test]
    fn what_an_earlier_recovery_was_told_becomes_a_comment() {
        let held = b"work_mem = '4MB'\nRestore_Command = 'cp'\nrecovery_target_xid = '7'";
        let kept = without_recovery(held).unwrap();
        assert_eq!(
            String::from_utf8(kept).unwrap(),
            "work_mem = '4MB'\n# replaced by cellarman restore: Restore_Command = 'cp'\n\
             # replaced by cellarman restore: recovery_target_xid = '7'"
        );
        assert_eq!(without_recovery(b"work_mem = '4MB'\n"), None);
    }

    #[test]
    fn the_restore_command_survives_shell_postgres_and_conf_file() {
        let command = settings(Target::Latest).restore_command.to_shell();
        assert_eq!(
            command,
            r#"'/opt/my tools/cellarman' --server 'it'\''s 100%%' wal restore %f "%p""#
        );
        let line = r#"restore_command = '''/opt/my tools/cellarman'' --server ''it''\\''''s 100%%'' wal restore %f "%p"'"#;
        check(Target::Latest, "", &[line]);
    }

    #[test]
    fn values_are_quoted_for_the_configuration_file() {
        for (value, quoted) in [
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", "'it''s'"),
            (r"a\b", r"'a\\b'"),
            ("a\nb\u{1}", r"'a\nb\001'"),
            ("é", "'é'"),
        ] {
            assert_eq!(conf_string(value), quoted);
        }
    }
}
