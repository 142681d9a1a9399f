//! `pg_waldump`'s output as one text a record, in the form that `ours` gives.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use cellarman::domain::lsn::Lsn;
use testbed::process;

/// The records of a timeline from one segment to another.
pub(super) fn rows(waldump: &Path, first: &Path, last: &Path) -> Vec<String> {
    let mut command = Command::new(waldump);
    command.env("TZ", "UTC").arg("-b").arg(first).arg(last);
    // Where the log ends before the segment does, it says so and fails.
    let ended = process::run(&mut command);
    let mut records: Vec<String> = Vec::new();
    for line in ended.stdout.lines() {
        if line.starts_with("rmgr: ") {
            records.push(line.to_owned());
        } else if let Some(record) = records.last_mut() {
            record.push('\n');
            record.push_str(line);
        }
    }
    assert!(!records.is_empty(), "{}", ended.describe());
    records.iter().map(|record| row(record)).collect()
}

/// The text between two others.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let rest = text.split_once(begin).map_or("", |(_, rest)| rest);
    let rest = rest.trim_start();
    rest.split_once(end).map_or(rest, |(found, _)| found).trim()
}

fn row(record: &str) -> String {
    let (head, said) = record.split_once(", desc: ").expect("a description");
    let (desc, blocks) = said.split_once("\n\tblkref").unwrap_or((said, ""));
    let manager = between(head, "rmgr: ", " ");
    let lsn = |text: &str| text.parse::<Lsn>().expect("an LSN");
    let mut row = format!(
        "rmgr={manager} len={} tx={} lsn={} prev={}",
        between(head, "(rec/tot):", ",").replace(' ', ""),
        between(head, "tx:", ","),
        lsn(between(head, "lsn:", ",")),
        lsn(between(head, "prev ", ",")),
    );
    if matches!(manager, "XLOG" | "Transaction") {
        let _ = write!(row, " | {}", told(desc.trim_end()));
    }
    if !blocks.is_empty() {
        for block in blocks.split("\n\tblkref") {
            let _ = write!(row, "\n {}", block.trim());
        }
    }
    row
}

/// Of a description what `ours` gives too, in its order.
fn told(desc: &str) -> String {
    let (kind, rest) = desc.split_once(' ').unwrap_or((desc, ""));
    let parts: Vec<&str> = desc.split("; ").collect();
    let keep = |names: &[&str]| {
        let mut kept = parts[0].trim().to_owned();
        for part in &parts[1..] {
            if names.iter().any(|name| part.starts_with(name)) {
                let _ = write!(kept, "; {}", part.trim());
            }
        }
        kept
    };
    match kind {
        "RESTORE_POINT"
        | "BACKUP_END"
        | "ASSIGNMENT"
        | "END_OF_RECOVERY"
        | "OVERWRITE_CONTRECORD" => {
            // Of the end of a recovery, wal_level, which comes last and not in every version.
            desc.split("; wal_level")
                .next()
                .unwrap_or(desc)
                .trim()
                .to_owned()
        }
        "CHECKPOINT_ONLINE" | "CHECKPOINT_SHUTDOWN" => {
            let kept = keep(&["tli", "prev tli", "xid", "oldest xid"]);
            kept.split(" in DB").next().unwrap_or(&kept).to_owned()
        }
        _ if rest.is_empty() => kind.to_owned(),
        "COMMIT" | "ABORT" | "PREPARE" | "COMMIT_PREPARED" | "ABORT_PREPARED" => {
            keep(&["rels: ", "subxacts: ", "origin: "])
        }
        _ => kind.to_owned(),
    }
}
