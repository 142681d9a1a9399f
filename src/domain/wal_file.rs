//! The four kinds of file that PostgreSQL hands to its archive command, told apart by name.
//!
//! Source: `IsXLogFileName`, `IsPartialXLogFileName`, `IsTLHistoryFileName` and
//! `IsBackupHistoryFileName`, PostgreSQL 18, src/include/access/xlog_internal.h.

use std::fmt;
use std::str::FromStr;

use crate::domain::segment::SegmentName;
use crate::domain::timeline::TimelineId;

/// The name of a file of the WAL archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFileName {
    /// A whole segment: 24 hexadecimal digits.
    Segment(SegmentName),
    /// The unfinished last segment of a timeline that was left: `.partial` after the name.
    Partial(SegmentName),
    /// A backup history file: `.`, the backup's start offset in 8 digits and `.backup` after the name.
    BackupHistory(SegmentName, u32),
    /// A timeline history file: 8 hexadecimal digits and `.history`.
    TimelineHistory(TimelineId),
}

/// A name that is none of PostgreSQL's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not the name of a WAL file: expected a segment (24 hexadecimal digits), \
     .partial, .backup or .history file"
)]
pub struct WalFileNameError {
    text: String,
}

impl WalFileName {
    /// The segment that the file is or belongs to; `None` for a timeline history.
    pub fn segment(self) -> Option<SegmentName> {
        match self {
            Self::Segment(segment) | Self::Partial(segment) | Self::BackupHistory(segment, _) => {
                Some(segment)
            }
            Self::TimelineHistory(_) => None,
        }
    }

    /// The timeline that the file belongs to.
    pub fn timeline(self) -> TimelineId {
        match self {
            Self::Segment(segment) | Self::Partial(segment) | Self::BackupHistory(segment, _) => {
                segment.timeline()
            }
            Self::TimelineHistory(timeline) => timeline,
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => write!(f, "{segment}"),
            Self::Partial(segment) => write!(f, "{segment}.partial"),
            Self::BackupHistory(segment, offset) => write!(f, "{segment}.{offset:08X}.backup"),
            Self::TimelineHistory(timeline) => write!(f, "{:08X}.history", timeline.to_u32()),
        }
    }
}

impl FromStr for WalFileName {
    type Err = WalFileNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex8 = |digits: &str| {
            let is_hex = digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            is_hex
                .then(|| u32::from_str_radix(digits, 16).ok())
                .flatten()
        };
        let segment = |name: &str| name.parse::<SegmentName>().ok();
        let parsed = if let Some(name) = text.strip_suffix(".history") {
            hex8(name)
                .and_then(TimelineId::new)
                .map(Self::TimelineHistory)
        } else if let Some(name) = text.strip_suffix(".partial") {
            segment(name).map(Self::Partial)
        } else if let Some(name) = text.strip_suffix(".backup") {
            name.split_once('.')
                .and_then(|(name, offset)| Some(Self::BackupHistory(segment(name)?, hex8(offset)?)))
        } else {
            segment(text).map(Self::Segment)
        };
        parsed.ok_or_else(|| WalFileNameError {
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_as_it_is_written() {
        for text in [
            "000000010000000A000000FE",
            "000000010000000A000000FE.partial",
            "000000010000000A000000FE.00000028.backup",
            "0000000B.history",
        ] {
            assert_eq!(text.parse::<WalFileName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_names_are_refused() {
        for text in [
            "",
            "x",
            "1.history",
            "0000000B.history.gz",
            "000000010000000A000000FE.backup",
            "000000010000000A000000FE.28.backup",
            "RECOVERYXLOG",
            "000000010000000A000000FE.ready",
        ] {
            assert!(text.parse::<WalFileName>().is_err(), "{text}");
        }
    }
}
