//! News of objects, one JSON document a line: the same news is counted, and the last are kept.
//!
//! Not here: who is told.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::resources::directory::files::{self, Files};
use crate::resources::directory::now;
use crate::resources::{Event, EventType, ResourceError};

const FILE_NAME: &str = "events.jsonl";
/// How many are kept.
const KEPT_MAX: usize = 500;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    namespace: String,
    kind: String,
    name: String,
    #[serde(rename = "type")]
    event_type: String,
    reason: String,
    message: String,
    count: u64,
    first_timestamp: String,
    last_timestamp: String,
}

/// Adds the news. The directory is locked by the caller.
pub(super) fn add(files: &Files, event: &Event) -> Result<(), ResourceError> {
    let path = files.root.join(FILE_NAME);
    let rejected = |error: io::Error| ResourceError::Rejected {
        object: event.about.to_string(),
        reason: format!("{}: {error}", path.display()),
    };
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.map_err(rejected)?,
    };
    let lines = text.lines();
    let mut records: Vec<Record> = lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let new = record(files, event);
    match records.iter().position(|old| is_same(old, &new)) {
        Some(at) => {
            let old = records.remove(at);
            records.push(Record {
                count: old.count.saturating_add(1),
                first_timestamp: old.first_timestamp,
                ..new
            });
        }
        None => records.push(new),
    }
    let left_out = records.len().saturating_sub(KEPT_MAX);
    let mut text = String::new();
    for record in records.iter().skip(left_out) {
        let line = serde_json::to_string(record).map_err(io::Error::from);
        text.push_str(&line.map_err(rejected)?);
        text.push('\n');
    }
    files::write(&path, text.as_bytes()).map_err(rejected)
}

fn record(files: &Files, event: &Event) -> Record {
    let event_type = match event.event_type {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    };
    Record {
        namespace: files.namespace.clone(),
        kind: event.about.kind.as_str().to_owned(),
        name: event.about.name.clone(),
        event_type: event_type.to_owned(),
        reason: event.reason.to_owned(),
        message: event.message.clone(),
        count: 1,
        first_timestamp: now(),
        last_timestamp: now(),
    }
}

fn is_same(one: &Record, other: &Record) -> bool {
    let words = |record: &Record| {
        [
            record.namespace.clone(),
            record.kind.clone(),
            record.name.clone(),
            record.event_type.clone(),
            record.reason.clone(),
            record.message.clone(),
        ]
    };
    words(one) == words(other)
}
