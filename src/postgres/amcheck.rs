//! Asking a server to look at its own indexes: the extension amcheck.
//!
//! Source of the functions and of which indexes they take: PostgreSQL 18, "amcheck" among the
//! additional modules. Not here: which server that is.

use std::path::Path;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};
use tokio_util::sync::CancellationToken;

use crate::postgres::query::{PostgresError, failed, one, reason, rows};

/// How long a server on this host may take to answer whoever connects.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What was found in one database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseCheck {
    /// Indexes that were looked at.
    pub indexes: u64,
    /// Whether amcheck can be had at all.
    pub has_amcheck: bool,
    /// What was wrong: of each index, what the server said.
    pub faults: Vec<IndexFault>,
}

/// An index that did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexFault {
    /// The index, with its schema.
    pub index: String,
    /// What the server said.
    pub message: String,
    /// Whether it said that data is damaged. Otherwise the look itself failed.
    pub is_damage: bool,
}

/// A session with one database of a server on this host, by its socket.
#[derive(Debug)]
pub struct LocalSession {
    client: Client,
    connection: JoinHandle<()>,
}

impl Drop for LocalSession {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl LocalSession {
    /// Opens it.
    pub async fn open(
        socket_directory: &Path,
        user: &str,
        database: &str,
    ) -> Result<Self, PostgresError> {
        let mut config = Config::new();
        config
            .host_path(socket_directory)
            .user(user)
            .dbname(database)
            .application_name("cellarman");
        let refuse = |reason| PostgresError::Connect {
            target: socket_directory.display().to_string(),
            reason,
        };
        let (client, connection) = tokio::time::timeout(CONNECT_TIMEOUT, config.connect(NoTls))
            .await
            .map_err(|_| refuse(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))?
            .map_err(|error| refuse(reason(&error)))?;
        let connection = tokio::spawn(async move {
            drop(connection.await);
        });
        let session = Self { client, connection };
        let name = "prepare the session";
        let statement = "SELECT set_config('search_path', 'pg_catalog', false), \
             set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false)";
        rows(&session.client, name, statement, &[]).await?;
        Ok(session)
    }

    /// Whether the server still recovers.
    pub async fn is_in_recovery(&self) -> Result<bool, PostgresError> {
        let statement = "SELECT pg_catalog.pg_is_in_recovery()::text";
        let name = "ask whether the server is in recovery";
        let row = one(&self.client, name, statement).await?;
        Ok(row.text("pg_is_in_recovery", 0)? == "true")
    }

    /// The databases that can be connected to.
    pub async fn databases(&self) -> Result<Vec<String>, PostgresError> {
        let statement = "SELECT datname::text FROM pg_catalog.pg_database \
             WHERE datallowconn ORDER BY datname";
        let found = rows(&self.client, "list the databases", statement, &[]).await?;
        found.iter().map(|row| row.text("datname", 0)).collect()
    }

    /// Has every btree index of this database looked at, one after another.
    ///
    /// Makes the extension where the database has it not: for copies that nobody keeps. Ends early
    /// when `cancel` is cancelled.
    pub async fn check_indexes(
        &self,
        cancel: &CancellationToken,
    ) -> Result<DatabaseCheck, PostgresError> {
        let mut check = DatabaseCheck::default();
        let name = "look for amcheck";
        let statement = "SELECT name::text FROM pg_catalog.pg_available_extensions \
             WHERE name = 'amcheck'";
        if rows(&self.client, name, statement, &[]).await?.is_empty() {
            return Ok(check);
        }
        check.has_amcheck = true;
        let statement = "CREATE EXTENSION IF NOT EXISTS amcheck";
        rows(&self.client, "make amcheck", statement, &[]).await?;
        let statement = "SELECT pg_catalog.quote_ident(n.nspname) || '.bt_index_check' \
             FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace \
             WHERE e.extname = 'amcheck'";
        let function = one(&self.client, "find amcheck", statement).await?;
        let function = function.text("schema", 0)?;
        for (oid, index) in self.indexes().await? {
            if cancel.is_cancelled() {
                return Ok(check);
            }
            check.indexes += 1;
            // As long as it takes: a large index is read whole.
            let statement = format!("SELECT {function}({oid}::oid::regclass)");
            let looked = tokio::select! {
                looked = self.client.batch_execute(&statement) => looked,
                () = cancel.cancelled() => return Ok(check),
            };
            if let Err(error) = looked {
                let is_damage = error.code().is_some_and(is_damage);
                let fault = failed("check an index", &error);
                if matches!(fault, PostgresError::Lost { .. }) {
                    return Err(fault);
                }
                check.faults.push(IndexFault {
                    index,
                    message: reason(&error),
                    is_damage,
                });
            }
        }
        Ok(check)
    }

    /// The btree indexes of this database that can be looked at, by size, the smallest first.
    async fn indexes(&self) -> Result<Vec<(u32, String)>, PostgresError> {
        let statement = "SELECT c.oid::text, n.nspname || '.' || c.relname \
             FROM pg_catalog.pg_index i \
             JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
             JOIN pg_catalog.pg_am a ON a.oid = c.relam \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence <> 't' \
             AND i.indisready AND i.indisvalid ORDER BY c.relpages, c.oid";
        let found = rows(&self.client, "list the indexes", statement, &[]).await?;
        let pairs = found.iter();
        pairs
            .map(|row| Ok((row.parse("oid", 0)?, row.text("relname", 1)?)))
            .collect()
    }
}

/// Whether the server says that data is damaged, and not that it could not look.
fn is_damage(code: &SqlState) -> bool {
    [&SqlState::DATA_CORRUPTED, &SqlState::INDEX_CORRUPTED].contains(&code)
}
