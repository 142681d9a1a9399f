//! SQL without psql, which PostgreSQL's npm package lacks: one blocking connection.

use std::path::Path;

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// One session as `postgres` in the database `postgres`.
pub struct Sql {
    runtime: Runtime,
    client: Client,
}

impl Sql {
    /// Connects through the socket in `socket_directory`.
    pub fn connect(socket_directory: &Path) -> Result<Self, String> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap_or_else(|error| panic!("cannot make a runtime: {error}"));
        let connected = runtime.block_on(
            Config::new()
                .host_path(socket_directory)
                .port(5432)
                .user("postgres")
                .dbname("postgres")
                .connect(NoTls),
        );
        let (client, connection) = connected.map_err(|error| format!("{error:?}"))?;
        runtime.spawn(connection);
        Ok(Self { runtime, client })
    }

    /// Runs statements, as one transaction unless they say otherwise.
    #[track_caller]
    pub fn run(&self, sql: &str) {
        self.try_rows(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The rows of a query as text, columns joined by `|`, NULL as nothing.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<String> {
        self.try_rows(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The only row of a query.
    #[track_caller]
    pub fn value(&self, sql: &str) -> String {
        let mut rows = self.rows(sql);
        assert!(rows.len() == 1, "{sql} gave {} rows, not one", rows.len());
        rows.remove(0)
    }

    /// As [`Sql::rows`], with the server's refusal as a value.
    pub fn try_rows(&self, sql: &str) -> Result<Vec<String>, String> {
        let messages = self
            .runtime
            .block_on(self.client.simple_query(sql))
            .map_err(|error| format!("{error:?}"))?;
        Ok(messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(
                    (0..row.len())
                        .map(|column| row.get(column).unwrap_or_default())
                        .collect::<Vec<_>>()
                        .join("|"),
                ),
                _ => None,
            })
            .collect())
    }
}
