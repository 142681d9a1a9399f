//! How a query is asked and how it fails: timeouts, errors that name the query, answers as text.
//!
//! Not here: the queries (`postgres::client`).

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, FixedOffset, NaiveDateTime};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use crate::domain::version::UnknownVersion;
use crate::fault::{Fault, Kind, chain};

/// Every query but those that begin and end a backup.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_mins(1);

/// A query that failed, or a server that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No session could be opened.
    #[error("cannot connect to PostgreSQL at {target}: {reason}")]
    Connect {
        /// The addresses tried.
        target: String,
        /// What the server or the network said.
        reason: String,
    },
    /// The server refused a query.
    #[error("cannot {query}: {message}")]
    Query {
        /// What was asked.
        query: &'static str,
        /// What the server said.
        message: String,
        /// Whether it said that the role lacks the right.
        is_denied: bool,
    },
    /// The session is gone.
    #[error("cannot {query}: the session with the server is lost: {reason}")]
    Lost {
        /// What was asked.
        query: &'static str,
        /// What the connection said.
        reason: String,
    },
    /// No answer in time.
    #[error("cannot {query}: no answer within {} s", waited.as_secs())]
    Timeout {
        /// What was asked.
        query: &'static str,
        /// How long was waited.
        waited: Duration,
    },
    /// An answer that makes no sense.
    #[error("cannot {query}: the server's {field} makes no sense: {value:?}")]
    Answer {
        /// What was asked.
        query: &'static str,
        /// The part that is wrong.
        field: &'static str,
        /// What came.
        value: String,
    },
    /// A version outside the table.
    #[error(transparent)]
    Version(#[from] UnknownVersion),
}

impl Fault for PostgresError {
    fn kind(&self) -> Kind {
        match self {
            Self::Version(_) => Kind::Unsupported,
            _ => Kind::Postgres,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Query {
                is_denied: true, ..
            } => {
                "Use a superuser, or grant the role pg_monitor and EXECUTE on the server's backup \
                  functions (pg_backup_start and pg_backup_stop; pg_start_backup and \
                  pg_stop_backup before 15)."
                    .to_owned()
            }
            Self::Version(_) => "Use a release of Cellarman that knows this version.".to_owned(),
            _ => self.kind().hint().to_owned(),
        }
    }
}

/// A row with the name of the query it answers.
pub(super) struct Answer {
    query: &'static str,
    row: Row,
}

impl Answer {
    pub(super) fn new(query: &'static str, row: Row) -> Self {
        Self { query, row }
    }

    pub(super) fn text_or_null(
        &self,
        field: &'static str,
        column: usize,
    ) -> Result<Option<String>, PostgresError> {
        self.row
            .try_get(column)
            .map_err(|error| PostgresError::Answer {
                query: self.query,
                field,
                value: reason(&error),
            })
    }

    pub(super) fn text(&self, field: &'static str, column: usize) -> Result<String, PostgresError> {
        self.text_or_null(field, column)?
            .ok_or_else(|| PostgresError::Answer {
                query: self.query,
                field,
                value: "null".to_owned(),
            })
    }

    pub(super) fn parse<T: FromStr>(
        &self,
        field: &'static str,
        column: usize,
    ) -> Result<T, PostgresError> {
        let value = self.text(field, column)?;
        value.parse().map_err(|_| PostgresError::Answer {
            query: self.query,
            field,
            value,
        })
    }

    /// A timestamp without zone in a session whose zone is UTC.
    pub(super) fn time(
        &self,
        field: &'static str,
        column: usize,
    ) -> Result<DateTime<FixedOffset>, PostgresError> {
        let value = self.text(field, column)?;
        NaiveDateTime::parse_from_str(&value, "%Y-%m-%d %H:%M:%S%.f")
            .map(|time| time.and_utc().fixed_offset())
            .map_err(|_| PostgresError::Answer {
                query: self.query,
                field,
                value,
            })
    }
}

pub(super) async fn rows(
    client: &Client,
    query: &'static str,
    statement: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Answer>, PostgresError> {
    rows_within(QUERY_TIMEOUT, client, query, (statement, values)).await
}

/// The answer to a query that may take `limit`.
pub(super) async fn rows_within(
    limit: Duration,
    client: &Client,
    query: &'static str,
    (statement, values): (&str, &[&(dyn ToSql + Sync)]),
) -> Result<Vec<Answer>, PostgresError> {
    let waited = limit;
    let found = tokio::time::timeout(limit, client.query(statement, values))
        .await
        .map_err(|_| PostgresError::Timeout { query, waited })?
        .map_err(|error| failed(query, &error))?;
    Ok(found.into_iter().map(|row| Answer { query, row }).collect())
}

pub(super) async fn one(
    client: &Client,
    query: &'static str,
    statement: &str,
) -> Result<Answer, PostgresError> {
    single(
        query,
        rows(client, query, statement, &[]).await?.into_iter(),
    )
}

pub(super) fn single(
    query: &'static str,
    mut answers: impl Iterator<Item = Answer>,
) -> Result<Answer, PostgresError> {
    answers.next().ok_or_else(|| PostgresError::Answer {
        query,
        field: "answer",
        value: "no row".to_owned(),
    })
}

pub(super) fn failed(query: &'static str, error: &tokio_postgres::Error) -> PostgresError {
    match error.as_db_error() {
        Some(answer) if !error.is_closed() => PostgresError::Query {
            query,
            message: reason(error),
            is_denied: answer.code() == &SqlState::INSUFFICIENT_PRIVILEGE,
        },
        _ => PostgresError::Lost {
            query,
            reason: reason(error),
        },
    }
}

/// What the server said, with its detail and hint, or what the connection said.
pub(super) fn reason(error: &tokio_postgres::Error) -> String {
    if let Some(answer) = error.as_db_error() {
        let mut text = answer.message().to_owned();
        for more in [answer.detail(), answer.hint()].into_iter().flatten() {
            text.push_str("; ");
            text.push_str(more);
        }
        return text;
    }
    chain(error)
}
