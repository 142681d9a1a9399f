//! What is wrong with a recovery target.
//!
//! Not here: which backup it needs.

use std::str::FromStr;

use cellarman::domain::backup::BackupId;
use cellarman::domain::lsn::Lsn;
use cellarman::service::restore::words;

use crate::cluster::RecoveryTarget;
use crate::operator::validation::Findings;

/// The fields of which one at most may be set, where recovery ends.
fn ends(target: &RecoveryTarget) -> Vec<(&'static str, &str)> {
    let is_immediate = target.target_immediate.unwrap_or(false);
    [
        ("targetXID", target.target_xid.as_deref()),
        ("targetName", target.target_name.as_deref()),
        ("targetLSN", target.target_lsn.as_deref()),
        ("targetTime", target.target_time.as_deref()),
        ("targetImmediate", is_immediate.then_some("true")),
    ]
    .into_iter()
    .filter_map(|(field, value)| Some((field, value?)))
    .filter(|(_, value)| !value.is_empty())
    .collect()
}

/// Refuses what no recovery can reach.
pub(super) fn check(target: &RecoveryTarget, findings: &mut Findings) {
    let path = |field| ["spec", "bootstrap", "recovery", "recoveryTarget", field];
    let ends = ends(target);
    if let [(first, _), .., (last, value)] = ends.as_slice() {
        let message = format!("There is {first} already, and recovery ends at one place. Set one.");
        findings.refuse(&path(last), value, message);
    }
    for (field, value) in &ends {
        if let Some(message) = problem(field, value) {
            findings.refuse(&path(field), value, message);
        }
    }
    let id = target.backup_id.as_deref().filter(|id| !id.is_empty());
    if let Some(id) = id
        && BackupId::from_str(id).is_err()
    {
        let message =
            "No backup has this id: expected one such as 20261121T054347, as status.backupId of a \
             Backup says."
                .to_owned();
        findings.refuse(&path("backupID"), id, message);
    }
    let timeline = target.target_tli.as_deref().filter(|tli| !tli.is_empty());
    if let Some(timeline) = timeline
        && let Err(error) = words::parse_timeline(timeline)
    {
        findings.refuse(&path("targetTLI"), timeline, sentence(&error.to_string()));
    }
}

fn problem(field: &str, value: &str) -> Option<String> {
    let error = match field {
        "targetXID" => words::parse_xid(value).err()?.to_string(),
        "targetName" => words::parse_name(value).err()?.to_string(),
        "targetTime" => words::parse_time(value).err()?.to_string(),
        "targetLSN" => Lsn::from_str(value).err()?.to_string(),
        _ => return None,
    };
    Some(sentence(&error))
}

/// An error's words as a sentence.
fn sentence(words: &str) -> String {
    format!("{words}.")
}
