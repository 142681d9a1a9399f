//! How far a Cluster is to be recovered, from its words to a request.
//!
//! The operator itself tells the server its target; here it decides which backup is restored. Not
//! here: choosing that.

use cellarman::barman::repository::{Repository, RepositoryError};
use cellarman::domain::lsn::Lsn;
use cellarman::domain::recovery::{Request, Target, TimelineWish};
use cellarman::fault::{Fault, Kind};
use cellarman::service::restore::words::{self, WordError};

use crate::cluster::RecoveryTarget;

/// Where the words stand.
pub const FIELD: &str = "spec.bootstrap.recovery.recoveryTarget";

/// A target that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A word that cannot be.
    #[error("{FIELD}.{field} cannot be read")]
    Word {
        /// The field.
        field: &'static str,
        /// Why.
        source: WordError,
    },
    /// A position that is none.
    #[error("{FIELD}.targetLSN is {0:?}, and an LSN looks like 0/3000060")]
    Lsn(String),
    /// More than one target.
    #[error("{FIELD} has more than one target: {0}")]
    Several(String),
}

impl Fault for TargetError {
    fn kind(&self) -> Kind {
        Kind::Config
    }

    fn hint(&self) -> String {
        match self {
            Self::Several(_) => format!("Leave all but one of them out of {FIELD}."),
            Self::Word { .. } | Self::Lsn(_) => {
                "Correct it in a new Cluster: recovery begins once.".to_owned()
            }
        }
    }
}

/// What a Cluster asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// How far.
    pub target: Target,
    /// Whether what lies exactly at the target is replayed.
    pub inclusive: bool,
    /// Along which line.
    pub timeline: TimelineWish,
    /// From this backup, by its id or its name.
    pub backup: Option<String>,
}

impl Asked {
    /// The request, with the backup that it names looked up in the catalog.
    ///
    /// # Errors
    /// Where the catalog has no such backup, or cannot be read.
    pub async fn into_request(self, repository: &Repository) -> Result<Request, RepositoryError> {
        let backup = match &self.backup {
            Some(wanted) => Some(repository.resolve(wanted).await?),
            None => None,
        };
        Ok(Request {
            target: self.target,
            inclusive: self.inclusive,
            timeline: self.timeline,
            backup,
            may_end_later: false,
        })
    }
}

/// Reads the words.
pub fn asked(given: Option<&RecoveryTarget>) -> Result<Asked, TargetError> {
    let nothing = RecoveryTarget::default();
    let given = given.unwrap_or(&nothing);
    let text = |value: &Option<String>| {
        let value = value.as_deref().map(str::trim);
        value.filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let word = |field| move |source| TargetError::Word { field, source };
    let mut targets: Vec<(&'static str, Target)> = Vec::new();
    if let Some(time) = text(&given.target_time) {
        let time = words::parse_time(&time).map_err(word("targetTime"))?;
        targets.push(("targetTime", Target::Time(time)));
    }
    if let Some(xid) = text(&given.target_xid) {
        let xid = words::parse_xid(&xid).map_err(word("targetXID"))?;
        targets.push(("targetXID", Target::Xid(xid)));
    }
    if let Some(lsn) = text(&given.target_lsn) {
        let lsn: Lsn = lsn.parse().map_err(|_| TargetError::Lsn(lsn))?;
        targets.push(("targetLSN", Target::Lsn(lsn)));
    }
    if let Some(name) = given.target_name.as_ref().filter(|name| !name.is_empty()) {
        let name = words::parse_name(name).map_err(word("targetName"))?;
        targets.push(("targetName", Target::Name(name)));
    }
    if given.target_immediate == Some(true) {
        targets.push(("targetImmediate", Target::Immediate));
    }
    if targets.len() > 1 {
        let fields: Vec<&str> = targets.iter().map(|(field, _)| *field).collect();
        return Err(TargetError::Several(fields.join(", ")));
    }
    let timeline = match text(&given.target_tli) {
        Some(timeline) => words::parse_timeline(&timeline).map_err(word("targetTLI"))?,
        None => TimelineWish::Latest,
    };
    let target = targets.pop().map_or(Target::Latest, |(_, target)| target);
    Ok(Asked {
        target,
        inclusive: given.exclusive != Some(true),
        timeline,
        backup: text(&given.backup_id),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Asked, TargetError> {
        let given: RecoveryTarget = serde_json::from_str(json).unwrap();
        asked(Some(&given))
    }

    #[test]
    fn every_kind_of_target_is_read() {
        assert_eq!(asked(None).unwrap().target, Target::Latest);
        for (json, target) in [
            (r#"{"targetXID": "742"}"#, Target::Xid(742)),
            (
                r#"{"targetName": "before drop"}"#,
                Target::Name("before drop".to_owned()),
            ),
            (
                r#"{"targetLSN": "0/3000060"}"#,
                Target::Lsn("0/3000060".parse().unwrap()),
            ),
            (r#"{"targetImmediate": true}"#, Target::Immediate),
            (
                r#"{"targetImmediate": false, "targetTime": ""}"#,
                Target::Latest,
            ),
        ] {
            assert_eq!(read(json).unwrap().target, target, "{json}");
        }
        let whole = read(
            r#"{"targetXID": "7", "exclusive": true, "targetTLI": "3", "backupID": "20260101T000000"}"#,
        );
        let whole = whole.unwrap();
        assert!(!whole.inclusive);
        assert_eq!(whole.timeline, words::parse_timeline("3").unwrap());
        assert_eq!(whole.backup.as_deref(), Some("20260101T000000"));
        let latest = read(r#"{"targetTLI": "latest"}"#).unwrap();
        assert_eq!(latest.timeline, TimelineWish::Latest);
    }

    #[test]
    fn times_are_read_in_every_shape_and_without_a_zone_as_utc() {
        let expected = words::parse_time("2023-08-11 09:14:21+00").unwrap();
        for text in [
            "2023-08-11 11:14:21.00000+02",
            "2023-08-11 11:14:21+02:00",
            "2023-08-11T09:14:21Z",
            "2023-08-11T09:14:21.000Z",
            "2023-08-11T11:14:21+02:00",
            "2023-08-11 09:14:21",
            "2023-08-11T09:14:21",
        ] {
            let asked = read(&format!(r#"{{"targetTime": "{text}"}}"#)).unwrap();
            let Target::Time(time) = asked.target else {
                panic!("{asked:?}")
            };
            assert_eq!(time.to_utc(), expected.to_utc(), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_field() {
        for (json, field) in [
            (r#"{"targetTime": "tomorrow"}"#, "targetTime"),
            (r#"{"targetXID": "x"}"#, "targetXID"),
            (r#"{"targetLSN": "3"}"#, "targetLSN"),
            (r#"{"targetTLI": "0"}"#, "targetTLI"),
            (
                r#"{"targetXID": "7", "targetImmediate": true}"#,
                "targetXID, targetImmediate",
            ),
        ] {
            let text = read(json).unwrap_err().to_string();
            assert!(text.contains(field), "{json}: {text}");
        }
    }
}
