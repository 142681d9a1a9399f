//! What users write for a recovery target, read into values that cannot be wrong.
//!
//! Pure. Not here: choosing anything by them.

use std::path::PathBuf;

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeZone};

use crate::domain::recovery::TimelineWish;
use crate::service::restore::request::TablespaceMapping;

/// PostgreSQL's limit on the name of a restore point (`MAXFNAMELEN` less its end).
const NAME_BYTES_MAX: usize = 63;

/// The lowest XID that a transaction can have (`FirstNormalTransactionId`).
const FIRST_NORMAL_XID: u32 = 3;

/// Text that is no such thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Not a time.
    #[error(
        "{0:?} is no time: expected 2026-11-21 05:43:47.841538+01:00 or 2026-11-21T05:43:47Z; \
         without a zone it is UTC"
    )]
    Time(String),
    /// Not a transaction.
    #[error("{0:?} is no transaction id: expected a number from 3")]
    Xid(String),
    /// Not a restore point.
    #[error("{0:?} is no restore point: expected a name of 1 to 63 bytes")]
    Name(String),
    /// Not a timeline.
    #[error("{0:?} is no timeline: expected latest, current or a number from 1")]
    Timeline(String),
    /// Not a mapping.
    #[error(
        "{0:?} is no mapping: expected OLD=NEW, a tablespace's name or old directory and a new directory"
    )]
    Mapping(String),
}

/// A time in PostgreSQL's shape or RFC 3339's; without a zone it is UTC.
pub fn parse_time(text: &str) -> Result<DateTime<FixedOffset>, WordError> {
    let wrong = || WordError::Time(text.to_owned());
    let trimmed = text.trim();
    let (date, rest) = trimmed
        .split_once([' ', 'T', 't'])
        .unwrap_or((trimmed, "00:00"));
    let rest = rest.trim_start();
    let zone_at = rest
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, ':' | '.')))
        .unwrap_or(rest.len());
    let (time, zone) = rest.split_at(zone_at);
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").map_err(|_| wrong())?;
    let shape = if time.matches(':').count() == 1 {
        "%H:%M"
    } else {
        "%H:%M:%S%.f"
    };
    let time = NaiveTime::parse_from_str(time, shape).map_err(|_| wrong())?;
    let zone = parse_zone(zone.trim()).ok_or_else(wrong)?;
    zone.from_local_datetime(&NaiveDateTime::new(date, time))
        .single()
        .ok_or_else(wrong)
}

/// `Z`, `UTC`, `+01`, `+0100`, `+01:00`, or nothing for UTC.
fn parse_zone(text: &str) -> Option<FixedOffset> {
    if text.is_empty() || text.eq_ignore_ascii_case("z") || text.eq_ignore_ascii_case("utc") {
        return FixedOffset::east_opt(0);
    }
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let digits = match text[1..].split_once(':') {
        Some((hours, minutes)) if hours.len() == 2 && minutes.len() == 2 => {
            format!("{hours}{minutes}")
        }
        Some(_) => return None,
        None => text[1..].to_owned(),
    };
    let is_zone = matches!(digits.len(), 2 | 4) && digits.bytes().all(|b| b.is_ascii_digit());
    if !is_zone {
        return None;
    }
    let hours: i32 = digits[..2].parse().ok()?;
    let minutes: i32 = digits
        .get(2..)
        .filter(|m| !m.is_empty())
        .map_or(Some(0), |m| m.parse().ok())?;
    let is_real = hours < 16 && minutes < 60;
    is_real
        .then(|| FixedOffset::east_opt(sign * (hours * 3600 + minutes * 60)))
        .flatten()
}

/// A transaction id. The 64-bit ids of `pg_current_xact_id()` are taken too: the log knows their
/// lower half.
pub fn parse_xid(text: &str) -> Result<u32, WordError> {
    let wrong = || WordError::Xid(text.to_owned());
    let full: u64 = text.parse().map_err(|_| wrong())?;
    u32::try_from(full & u64::from(u32::MAX))
        .ok()
        .filter(|xid| *xid >= FIRST_NORMAL_XID)
        .ok_or_else(wrong)
}

/// The name of a restore point.
pub fn parse_name(text: &str) -> Result<String, WordError> {
    let is_name = (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(['\n', '\0']);
    if is_name {
        Ok(text.to_owned())
    } else {
        Err(WordError::Name(text.to_owned()))
    }
}

/// `latest`, `current` or a number; also in the 8 digits of a file's name, with `0x` before them.
pub fn parse_timeline(text: &str) -> Result<TimelineWish, WordError> {
    match text {
        "latest" => return Ok(TimelineWish::Latest),
        "current" => return Ok(TimelineWish::Current),
        _ => {}
    }
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    number
        .and_then(crate::domain::timeline::TimelineId::new)
        .map(TimelineWish::Number)
        .ok_or_else(|| WordError::Timeline(text.to_owned()))
}

/// `OLD=NEW`; the last `=` parts them, for a name may hold one. A relative NEW begins at the
/// working directory.
pub fn parse_mapping(text: &str) -> Result<TablespaceMapping, WordError> {
    let wrong = || WordError::Mapping(text.to_owned());
    let (old, new) = text.rsplit_once('=').ok_or_else(wrong)?;
    if old.is_empty() || new.is_empty() {
        return Err(wrong());
    }
    let new: PathBuf = std::path::absolute(new).map_err(|_| wrong())?;
    Ok(TablespaceMapping {
        old: old.to_owned(),
        new,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_in_both_shapes() {
        for (text, utc) in [
            (
                "2026-11-21 05:43:47.841538+00",
                "2026-11-21T05:43:47.841538+00:00",
            ),
            (
                "2026-11-21 05:43:47.841538+05:30",
                "2026-11-21T00:13:47.841538+00:00",
            ),
            ("2026-11-21T05:43:47Z", "2026-11-21T05:43:47+00:00"),
            ("2026-11-21T05:43:47-0300", "2026-11-21T08:43:47+00:00"),
            ("2026-11-21 05:43:47", "2026-11-21T05:43:47+00:00"),
            ("2026-11-21 05:43:47 UTC", "2026-11-21T05:43:47+00:00"),
            ("2026-11-21 05:43:47 +02", "2026-11-21T03:43:47+00:00"),
            ("2026-11-21 05:43", "2026-11-21T05:43:00+00:00"),
            ("2026-11-21", "2026-11-21T00:00:00+00:00"),
        ] {
            let time = parse_time(text).unwrap().with_timezone(&chrono::Utc);
            assert_eq!(time.to_rfc3339(), utc, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "yesterday",
            "05:43:47",
            "2026-11-31",
            "2026-11-21 25:00",
            "2026-11-21 05",
            "2026-11-21 05:43:47 Europe/Rome",
            "2026-11-21 05:43:47+1",
            "2026-11-21 05:43:47+24",
            "2026-11-21 05:43:47+01:0",
            "21.11.2026 05:43",
        ] {
            assert_eq!(
                parse_time(text),
                Err(WordError::Time(text.to_owned())),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "[-+0-9:. TZUCé=x]{0,40}") {
            let _ = (parse_time(&text), parse_xid(&text), parse_timeline(&text), parse_mapping(&text));
        }
    }

    #[test]
    fn xids_are_read_in_both_widths() {
        for (text, xid) in [
            ("742", Some(742)),
            ("4294968038", Some(742)),
            ("3", Some(3)),
            ("2", None),
            ("4294967296", None),
            ("-1", None),
            ("0x10", None),
        ] {
            assert_eq!(parse_xid(text).ok(), xid, "{text}");
        }
    }

    #[test]
    fn timelines_names_and_mappings_are_read() {
        assert_eq!(parse_timeline("latest"), Ok(TimelineWish::Latest));
        assert_eq!(parse_timeline("0x0000000A"), parse_timeline("10"));
        assert!(parse_timeline("0").is_err() && parse_timeline("newest").is_err());
        assert!(parse_name(&"n".repeat(63)).is_ok() && parse_name(&"n".repeat(64)).is_err());
        assert!(parse_name("").is_err());
        let mapping = parse_mapping("a=b=/new").unwrap();
        assert_eq!(
            (mapping.old.as_str(), mapping.new),
            ("a=b", PathBuf::from("/new"))
        );
        assert!(
            parse_mapping("a").is_err()
                && parse_mapping("=/b").is_err()
                && parse_mapping("a=").is_err()
        );
    }
}
