//! The live server, by named queries over one session.
//!
//! Not here: how it is reached (`postgres::connect`) and its data directory (`postgres::datadir`).

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use tracing::{debug, warn};

use crate::domain::backup::{SystemId, Tablespace};
use crate::domain::segment::SegmentSize;
use crate::domain::timeline::TimelineId;
use crate::domain::version::ServerVersion;
use crate::postgres::connect::ConnectOptions;
use crate::postgres::facts::{
    ArchiveMode, ArchiverState, BackupBegin, BackupEnd, ControlState, ServerSettings,
};
use crate::postgres::query::{
    Answer, PostgresError, QUERY_TIMEOUT, failed, one, reason, rows, rows_within, single,
};

/// How long a server may take to end a backup: it flushes the log and names a segment's end, and
/// hours of copying would be lost with the answer.
const END_TIMEOUT: Duration = Duration::from_mins(10);

/// How long a server may look at its files to tell their size, which is for people alone.
const SIZE_TIMEOUT: Duration = Duration::from_secs(20);

/// A session with a server. A backup lives in the session that began it.
#[derive(Debug)]
pub struct Server {
    client: Client,
    connection: JoinHandle<()>,
    version: ServerVersion,
}

impl Server {
    /// Opens a session and prepares it for a long idle time.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, PostgresError> {
        Self::connect_within(options, QUERY_TIMEOUT).await
    }

    /// The limit is for all hosts together: a server that is stopped, or swapped out, accepts a
    /// connection and then says nothing.
    async fn connect_within(
        options: &ConnectOptions,
        limit: Duration,
    ) -> Result<Self, PostgresError> {
        let refuse = |reason| PostgresError::Connect {
            target: options.to_string(),
            reason,
        };
        let (client, connection) = tokio::time::timeout(limit, options.config.connect(NoTls))
            .await
            .map_err(|_| refuse(format!("no answer within {} s", limit.as_secs())))?
            .map_err(|error| refuse(reason(&error)))?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(error = reason(&error), "the session with PostgreSQL ended");
            }
        });
        let name = "prepare the session";
        let statement = "SELECT set_config(name, value, false) FROM (VALUES \
             ('TimeZone', 'UTC'), ('DateStyle', 'ISO'), ('statement_timeout', '0'), \
             ('transaction_timeout', '0'), ('lock_timeout', '0'), ('idle_session_timeout', '0'), \
             ('search_path', 'pg_catalog')) AS wanted (name, value) \
             JOIN pg_catalog.pg_settings USING (name)";
        rows(&client, name, statement, &[]).await?;
        let row = one(
            &client,
            "read the version",
            "SELECT current_setting('server_version_num')",
        )
        .await?;
        let number = row.parse("server_version_num", 0)?;
        let version = ServerVersion::from_number(number)?;
        Ok(Self {
            client,
            connection,
            version,
        })
    }

    /// Whether the session is gone, and with it the backup that it began.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Reads the settings.
    pub async fn settings(&self) -> Result<ServerSettings, PostgresError> {
        const NAME: &str = "read the settings";
        let statement = "SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN \
             ('server_version_num', 'data_directory', 'config_file', 'hba_file', 'ident_file', \
              'data_checksums', 'block_size', 'wal_segment_size', 'wal_level', 'archive_mode', \
              'archive_command', 'archive_library', 'archive_timeout', 'summarize_wal')";
        let found = rows(&self.client, NAME, statement, &[]).await?;
        let mut pairs = Vec::with_capacity(found.len());
        for row in &found {
            pairs.push((row.text("name", 0)?, row.text_or_null("setting", 1)?));
        }
        let get = |name: &str| {
            pairs
                .iter()
                .find(|(known, _)| known == name)
                .and_then(|(_, value)| value.clone())
        };
        let number = |field: &'static str| -> Result<u64, PostgresError> {
            let value = get(field).unwrap_or_default();
            value.parse().map_err(|_| PostgresError::Answer {
                query: NAME,
                field,
                value,
            })
        };
        let segment_bytes = number("wal_segment_size")?;
        let segment_size = SegmentSize::new(segment_bytes).map_err(|_| PostgresError::Answer {
            query: NAME,
            field: "wal_segment_size",
            value: segment_bytes.to_string(),
        })?;
        let path = |name: &str| get(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let hooks = |name: &str| get(name).filter(|value| value != "(disabled)");
        Ok(ServerSettings {
            version_number: u32::try_from(number("server_version_num")?).unwrap_or(0),
            version: self.version,
            data_directory: path("data_directory"),
            config_file: path("config_file"),
            hba_file: path("hba_file"),
            ident_file: path("ident_file"),
            has_data_checksums: get("data_checksums").as_deref() == Some("on"),
            block_bytes: usize::try_from(number("block_size")?).unwrap_or(0),
            segment_size,
            wal_level: get("wal_level").unwrap_or_default(),
            archive_mode: match get("archive_mode").as_deref() {
                Some("on") => ArchiveMode::On,
                Some("always") => ArchiveMode::Always,
                _ => ArchiveMode::Off,
            },
            archive_command: hooks("archive_command").unwrap_or_default(),
            archive_library: hooks("archive_library").unwrap_or_default(),
            archive_timeout: Duration::from_secs(number("archive_timeout")?),
            summarize_wal: get("summarize_wal").map(|value| value == "on"),
        })
    }

    /// Reads what the control file says.
    pub async fn control(&self) -> Result<ControlState, PostgresError> {
        let statement = "SELECT s.system_identifier::text, c.timeline_id::text, \
             r.min_recovery_end_timeline::text, c.redo_lsn::text FROM pg_catalog.pg_control_system() s, \
             pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_control_recovery() r";
        let row = one(&self.client, "read the control data", statement).await?;
        // The identifier is unsigned, and SQL shows it as a signed number.
        let system_id: i64 = row.parse("system_identifier", 0)?;
        let min_recovery: u32 = row.parse("min_recovery_end_timeline", 2)?;
        Ok(ControlState {
            system_id: SystemId(u64::from_ne_bytes(system_id.to_ne_bytes())),
            redo_lsn: row.parse("redo_lsn", 3)?,
            timeline: row.parse("timeline_id", 1)?,
            min_recovery_timeline: TimelineId::new(min_recovery),
        })
    }

    /// Whether it is a standby, or otherwise replays WAL.
    pub async fn is_in_recovery(&self) -> Result<bool, PostgresError> {
        let statement = "SELECT pg_catalog.pg_is_in_recovery()::text";
        let row = one(
            &self.client,
            "ask whether the server is in recovery",
            statement,
        )
        .await?;
        Ok(row.text("pg_is_in_recovery", 0)? == "true")
    }

    /// Ends the current WAL segment, if anything was written to it. For a primary alone.
    pub async fn switch_wal(&self) -> Result<(), PostgresError> {
        let statement = "SELECT pg_catalog.pg_switch_wal()::text";
        one(&self.client, "switch to the next WAL segment", statement).await?;
        Ok(())
    }

    /// The tablespaces outside the data directory's own folders, by name.
    pub async fn tablespaces(&self) -> Result<Vec<Tablespace>, PostgresError> {
        // One made in place (a relative location) is a folder of the data directory.
        let statement = "SELECT spcname::text, oid::text, location FROM (SELECT spcname, oid, \
             pg_catalog.pg_tablespace_location(oid) AS location FROM pg_catalog.pg_tablespace) t \
             WHERE location LIKE '/%' ORDER BY spcname";
        rows(&self.client, "list the tablespaces", statement, &[])
            .await?
            .iter()
            .map(|row| {
                Ok(Tablespace {
                    name: row.text("spcname", 0)?,
                    oid: row.parse("oid", 1)?,
                    location: row.text("location", 2)?,
                })
            })
            .collect()
    }

    /// The size of all tablespaces in bytes; `None` where the role may not see it, and where the
    /// server looks at so many files that it takes too long.
    pub async fn cluster_size(&self) -> Result<Option<u64>, PostgresError> {
        const NAME: &str = "measure the cluster";
        let statement = "SELECT sum(pg_catalog.pg_tablespace_size(oid))::int8::text \
             FROM pg_catalog.pg_tablespace";
        self.limit_statements(SIZE_TIMEOUT).await?;
        let measured = one(&self.client, NAME, statement).await;
        self.limit_statements(Duration::ZERO).await?;
        match measured {
            Ok(row) => Ok(row.parse("size", 0).ok()),
            Err(PostgresError::Query { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// From now on the server itself ends statements that take longer; zero is no limit.
    async fn limit_statements(&self, limit: Duration) -> Result<(), PostgresError> {
        let statement = format!("SET statement_timeout = {}", limit.as_millis());
        rows(&self.client, "limit a statement", &statement, &[]).await?;
        Ok(())
    }

    /// The files other than `config_file` that settings in force come from.
    pub async fn included_files(&self) -> Result<Vec<String>, PostgresError> {
        let statement = "SELECT DISTINCT sourcefile FROM pg_catalog.pg_settings \
             WHERE sourcefile IS NOT NULL AND sourcefile NOT IN \
             (SELECT setting FROM pg_catalog.pg_settings \
              WHERE name = 'config_file' AND setting IS NOT NULL) ORDER BY sourcefile";
        rows(&self.client, "list the included files", statement, &[])
            .await?
            .iter()
            .map(|row| row.text("sourcefile", 0))
            .collect()
    }

    /// What the archiver has done.
    pub async fn archiver(&self) -> Result<ArchiverState, PostgresError> {
        let statement = "SELECT last_archived_wal, last_failed_wal, \
             (last_failed_time > coalesce(last_archived_time, '-infinity'))::text \
             FROM pg_catalog.pg_stat_archiver";
        let row = one(&self.client, "ask what the archiver does", statement).await?;
        Ok(ArchiverState {
            last_archived: row.text_or_null("last_archived_wal", 0)?,
            last_failed: row.text_or_null("last_failed_wal", 1)?,
            is_failing: row.text_or_null("is_failing", 2)?.as_deref() == Some("true"),
        })
    }

    /// Whether the role may begin and end a backup.
    pub async fn may_back_up(&self) -> Result<bool, PostgresError> {
        let statement = if self.version.has_backup_start {
            "SELECT (pg_catalog.has_function_privilege('pg_catalog.pg_backup_start(text, bool)', 'execute') \
             AND pg_catalog.has_function_privilege('pg_catalog.pg_backup_stop(bool)', 'execute'))::text"
        } else {
            "SELECT (pg_catalog.has_function_privilege('pg_catalog.pg_start_backup(text, bool, bool)', 'execute') \
             AND pg_catalog.has_function_privilege('pg_catalog.pg_stop_backup(bool, bool)', 'execute'))::text"
        };
        let row = one(&self.client, "ask for the role's rights", statement).await?;
        Ok(row.text("rights", 0)? == "true")
    }

    /// Begins a backup. Waits for a checkpoint: at once when `is_immediate`, else spread over
    /// the server's checkpoint time, so without a timeout. Ends with the session.
    pub async fn begin_backup(
        &self,
        label: &str,
        is_immediate: bool,
    ) -> Result<BackupBegin, PostgresError> {
        const NAME: &str = "begin the backup";
        let statement = if self.version.has_backup_start {
            "SELECT pg_catalog.pg_backup_start($1, $2)::text, now()::timestamp::text"
        } else {
            "SELECT pg_catalog.pg_start_backup($1, $2, false)::text, now()::timestamp::text"
        };
        let found = self
            .client
            .query(statement, &[&label, &is_immediate])
            .await
            .map_err(|error| failed(NAME, &error))?;
        let row = single(NAME, found.into_iter().map(|row| Answer::new(NAME, row)))?;
        Ok(BackupBegin {
            lsn: row.parse("lsn", 0)?,
            time: row.time("time", 1)?,
        })
    }

    /// Ends the backup that this session began, without waiting for its WAL to be archived.
    pub async fn end_backup(&self) -> Result<BackupEnd, PostgresError> {
        const NAME: &str = "end the backup";
        // The clock is read after the function has returned: by then the copy is consistent.
        let statement = if self.version.has_backup_start {
            "SELECT lsn::text, clock_timestamp()::timestamp::text, labelfile \
             FROM pg_catalog.pg_backup_stop(false)"
        } else {
            "SELECT lsn::text, clock_timestamp()::timestamp::text, labelfile \
             FROM pg_catalog.pg_stop_backup(false, false)"
        };
        let found = rows_within(END_TIMEOUT, &self.client, NAME, (statement, &[])).await?;
        let row = single(NAME, found.into_iter())?;
        Ok(BackupEnd {
            lsn: row.parse("lsn", 0)?,
            time: row.time("time", 1)?,
            label: row.text("labelfile", 2)?,
        })
    }

    /// Ends the session. A backup that was begun and not ended ends with it, as not taken.
    pub async fn close(self) {
        // A query that still runs, as the checkpoint of a backup, would keep the session.
        let cancel = self.client.cancel_token();
        if tokio::time::timeout(QUERY_TIMEOUT, cancel.cancel_query(NoTls))
            .await
            .is_err()
        {
            warn!("the server did not take the request to cancel");
        }
        drop(self.client);
        let mut connection = self.connection;
        if tokio::time::timeout(QUERY_TIMEOUT, &mut connection)
            .await
            .is_err()
        {
            connection.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[tokio::test]
    async fn a_server_that_accepts_and_says_nothing_is_not_waited_for_for_ever() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let dsn = format!("host=127.0.0.1 port={port} user=postgres");
        let options = ConnectOptions::resolve(Some(&dsn), &|_| None).unwrap();
        let limit = Duration::from_millis(100);
        let error = Server::connect_within(&options, limit).await.unwrap_err();
        assert!(error.to_string().contains("no answer within"), "{error}");
    }
}
