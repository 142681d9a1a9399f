//! One segment as a line of JSON.
//!
//! Not here: the object that the line is in.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::barman::index_object::IndexObjectError;
use crate::domain::log::outline::Ends;
use crate::domain::log::stop::TransactionEnd;
use crate::domain::log::summary::{Checkpoint, RestorePoint, SegmentSummary, Switch};
use crate::domain::log::xid_set::XidSet;
use crate::domain::lsn::Lsn;
use crate::domain::timeline::TimelineId;

/// What a segment tells. Readers take fields that they do not know.
#[derive(Serialize, Deserialize)]
pub(super) struct Line {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_record: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_record_end: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends: Option<EndsLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    restore_points: Vec<RestorePointLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    checkpoints: Vec<CheckpointLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    switches: Vec<SwitchLine>,
    #[serde(default, skip_serializing_if = "is_zero")]
    unread_records: u64,
    is_whole: bool,
}

/// Times are microseconds since 1970; sets are [`XidSet::encode`]d, in base64.
#[derive(Serialize, Deserialize)]
struct EndsLine {
    commits: u64,
    aborts: u64,
    earliest: i64,
    latest: i64,
    oldest_xid: u32,
    newest_xid: u32,
    last_lsn: String,
    last_xid: u32,
    last_time: i64,
    last_is_commit: bool,
    xids: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subtransactions: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct RestorePointLine {
    lsn: String,
    time: i64,
    /// The bytes of the name, in base64: it has whatever encoding its database has.
    name: String,
}

#[derive(Serialize, Deserialize)]
struct CheckpointLine {
    lsn: String,
    time: i64,
}

#[derive(Serialize, Deserialize)]
struct SwitchLine {
    lsn: String,
    from: u32,
    to: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn micros(time: DateTime<Utc>) -> i64 {
    time.timestamp_micros()
}

impl Line {
    /// The line of this segment.
    pub(super) fn of(segment: &SegmentSummary) -> Self {
        let ends = segment.ends.as_ref().zip(segment.last_end.as_ref());
        let points = segment.restore_points.iter();
        let checkpoints = segment.checkpoints.iter();
        let switches = segment.switches.iter();
        Self {
            name: segment.name.to_string(),
            first_record: segment.first_record.map(|lsn| lsn.to_string()),
            last_record_end: segment.last_record_end.map(|lsn| lsn.to_string()),
            ends: ends.map(|(ends, last)| EndsLine::of(segment, ends, last)),
            restore_points: points
                .map(|point| RestorePointLine {
                    lsn: point.lsn.to_string(),
                    time: micros(point.time),
                    name: STANDARD_NO_PAD.encode(&point.name),
                })
                .collect(),
            checkpoints: checkpoints
                .map(|checkpoint| CheckpointLine {
                    lsn: checkpoint.lsn.to_string(),
                    time: micros(checkpoint.time),
                })
                .collect(),
            switches: switches
                .map(|switch| SwitchLine {
                    lsn: switch.lsn.to_string(),
                    from: switch.from.to_u32(),
                    to: switch.to.to_u32(),
                })
                .collect(),
            unread_records: segment.unread_records,
            is_whole: segment.is_whole,
        }
    }

    /// The segment of this line, which is the `line`th.
    pub(super) fn to_summary(&self, line: usize) -> Result<SegmentSummary, IndexObjectError> {
        let value = |field| IndexObjectError::Value { line, field };
        let lsn = |text: &String, field| text.parse::<Lsn>().map_err(|_| value(field));
        let time = |micros, field| DateTime::from_timestamp_micros(micros).ok_or(value(field));
        let points = self.restore_points.iter().map(|point| {
            Ok(RestorePoint {
                lsn: lsn(&point.lsn, "lsn")?,
                time: time(point.time, "time")?,
                name: STANDARD_NO_PAD
                    .decode(&point.name)
                    .map_err(|_| value("name"))?,
            })
        });
        let checkpoints = self.checkpoints.iter().map(|checkpoint| {
            Ok(Checkpoint {
                lsn: lsn(&checkpoint.lsn, "lsn")?,
                time: time(checkpoint.time, "time")?,
            })
        });
        let switches = self.switches.iter().map(|switch| {
            Ok(Switch {
                lsn: lsn(&switch.lsn, "lsn")?,
                from: TimelineId::new(switch.from).ok_or(value("from"))?,
                to: TimelineId::new(switch.to).ok_or(value("to"))?,
            })
        });
        let ends = self
            .ends
            .as_ref()
            .map(|ends| ends.parse(line))
            .transpose()?;
        let (ends, last_end, xids, subtransactions) = match ends {
            Some(Parsed(ends, last, xids, others)) => (Some(ends), Some(last), xids, others),
            None => (None, None, XidSet::default(), XidSet::default()),
        };
        let position = |text: &Option<String>, field| text.as_ref().map(|t| lsn(t, field));
        Ok(SegmentSummary {
            name: self.name.parse().map_err(|_| value("name"))?,
            first_record: position(&self.first_record, "first_record").transpose()?,
            last_record_end: position(&self.last_record_end, "last_record_end").transpose()?,
            ends,
            last_end,
            xids,
            subtransactions,
            restore_points: points.collect::<Result<_, IndexObjectError>>()?,
            checkpoints: checkpoints.collect::<Result<_, IndexObjectError>>()?,
            switches: switches.collect::<Result<_, IndexObjectError>>()?,
            unread_records: self.unread_records,
            is_whole: self.is_whole,
        })
    }
}

/// The ends, the last of them, the transactions and the subtransactions.
struct Parsed(Ends, (Lsn, TransactionEnd), XidSet, XidSet);

impl EndsLine {
    fn of(segment: &SegmentSummary, ends: &Ends, last: &(Lsn, TransactionEnd)) -> Self {
        let encoded = |set: &XidSet| STANDARD_NO_PAD.encode(set.encode());
        let others = Some(&segment.subtransactions).filter(|set| !set.is_empty());
        Self {
            commits: ends.commits,
            aborts: ends.aborts,
            earliest: micros(ends.earliest),
            latest: micros(ends.latest),
            oldest_xid: ends.oldest_xid,
            newest_xid: ends.newest_xid,
            last_lsn: last.0.to_string(),
            last_xid: last.1.xid,
            last_time: micros(last.1.time),
            last_is_commit: last.1.is_commit,
            xids: encoded(&segment.xids),
            subtransactions: others.map(encoded),
        }
    }

    fn parse(&self, line: usize) -> Result<Parsed, IndexObjectError> {
        let value = |field| IndexObjectError::Value { line, field };
        let time = |micros, field| DateTime::from_timestamp_micros(micros).ok_or(value(field));
        let set = |text: &String, field| {
            let bytes = STANDARD_NO_PAD.decode(text).map_err(|_| value(field))?;
            match XidSet::decode(&bytes) {
                Ok((set, [])) => Ok(set),
                _ => Err(value(field)),
            }
        };
        let ends = Ends {
            commits: self.commits,
            aborts: self.aborts,
            earliest: time(self.earliest, "earliest")?,
            latest: time(self.latest, "latest")?,
            oldest_xid: self.oldest_xid,
            newest_xid: self.newest_xid,
        };
        let last = TransactionEnd {
            xid: self.last_xid,
            time: time(self.last_time, "last_time")?,
            is_commit: self.last_is_commit,
        };
        let last_lsn = self.last_lsn.parse().map_err(|_| value("last_lsn"))?;
        let others = self.subtransactions.as_ref();
        let others = others
            .map(|text| set(text, "subtransactions"))
            .transpose()?;
        let xids = set(&self.xids, "xids")?;
        Ok(Parsed(
            ends,
            (last_lsn, last),
            xids,
            others.unwrap_or_default(),
        ))
    }
}
