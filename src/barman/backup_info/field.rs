//! One line of a record, and its value as each type that a key may have.
//!
//! Not here: which key has which type.

use std::str::FromStr;

use chrono::{DateTime, FixedOffset};

use crate::barman::backup_info::BackupInfoError;
use crate::barman::literal::Literal;
use crate::barman::timestamp;
use crate::domain::backup::{BackupStatus, Tablespace};
use crate::domain::lsn::Lsn;
use crate::domain::segment::{SegmentName, SegmentSize};

/// One line of a record, both sides trimmed.
pub(super) struct Field<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a str,
}

impl Field<'_> {
    pub(super) fn text(&self) -> String {
        self.value.to_owned()
    }

    pub(super) fn parsed<T: FromStr>(&self, expected: &'static str) -> Result<T, BackupInfoError> {
        self.value.parse().map_err(|_| self.not(expected))
    }

    pub(super) fn number<T: FromStr>(&self) -> Result<T, BackupInfoError> {
        self.parsed("a number in range")
    }

    pub(super) fn lsn(&self) -> Result<Lsn, BackupInfoError> {
        self.parsed("an LSN such as 0/3000028")
    }

    pub(super) fn segment(&self) -> Result<SegmentName, BackupInfoError> {
        self.parsed("the name of a WAL segment")
    }

    pub(super) fn time(&self) -> Result<DateTime<FixedOffset>, BackupInfoError> {
        timestamp::parse(self.value).ok_or_else(|| self.not("a date and time"))
    }

    pub(super) fn status(&self) -> Result<BackupStatus, BackupInfoError> {
        BackupStatus::from_word(self.value).ok_or_else(|| self.not("a state that Barman knows"))
    }

    pub(super) fn segment_size(&self) -> Result<SegmentSize, BackupInfoError> {
        SegmentSize::new(self.number()?)
            .map_err(|_| self.not("a power of two from 1 MiB to 1 GiB, in bytes"))
    }

    pub(super) fn literal(&self) -> Result<Literal, BackupInfoError> {
        Literal::parse(self.value).map_err(|source| BackupInfoError::Literal {
            key: self.key.to_owned(),
            source,
        })
    }

    pub(super) fn label(&self) -> Result<String, BackupInfoError> {
        match self.literal()? {
            Literal::Text(text) => Ok(text),
            _ => Err(self.not("a quoted text")),
        }
    }

    pub(super) fn texts(&self) -> Result<Vec<String>, BackupInfoError> {
        let literal = self.literal()?;
        let texts = literal.as_elements().and_then(|elements| {
            let text = |element: &Literal| element.as_text().map(str::to_owned);
            elements.iter().map(text).collect()
        });
        texts.ok_or_else(|| self.not("a list of texts"))
    }

    pub(super) fn tablespaces(&self) -> Result<Vec<Tablespace>, BackupInfoError> {
        let literal = self.literal()?;
        let tablespaces = literal
            .as_elements()
            .and_then(|elements| elements.iter().map(tablespace).collect());
        tablespaces.ok_or_else(|| self.not("a list of (name, oid, location)"))
    }

    fn not(&self, expected: &'static str) -> BackupInfoError {
        BackupInfoError::Value {
            key: self.key.to_owned(),
            value: self.value.chars().take(80).collect(),
            expected,
        }
    }
}

fn tablespace(literal: &Literal) -> Option<Tablespace> {
    let [name, oid, location] = literal.as_elements()? else {
        return None;
    };
    let oid = oid
        .as_integer()
        .or_else(|| oid.as_text().and_then(|digits| digits.parse().ok()))?;
    Some(Tablespace {
        name: name.as_text()?.to_owned(),
        oid: u32::try_from(oid).ok()?,
        location: location.as_text()?.to_owned(),
    })
}
