//! A live workload whose every state is known: after N transactions, exactly these rows.
//!
//! Transaction `n` adds row `n`, whose text follows from `n`, to a table in the default
//! tablespace and to one in the tablespace `cold`, and moves a counter from `n - 1` to `n`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::sql::Sql;
use crate::wait;

/// A session that writes until it is stopped.
pub struct Workload {
    committed: Arc<Mutex<u64>>,
    is_stopping: Arc<AtomicBool>,
    writer: Option<JoinHandle<()>>,
}

/// Makes the tables; `cold` is the tablespace's directory.
pub fn prepare(cluster: &Cluster, cold: &Path) {
    let sql = cluster.sql();
    sql.run(&format!(
        "CREATE TABLESPACE cold LOCATION '{}'",
        cold.display()
    ));
    sql.run(
        "CREATE TABLE ledger (id bigint PRIMARY KEY, note text NOT NULL);
         CREATE TABLE vault (id bigint PRIMARY KEY, note text NOT NULL) TABLESPACE cold;
         CREATE TABLE counter (n bigint NOT NULL);
         INSERT INTO counter VALUES (0)",
    );
}

/// The statements of transaction `n`, without its begin and end.
pub fn statements(n: u64) -> String {
    format!(
        "INSERT INTO ledger VALUES ({n}, {note});
         INSERT INTO vault VALUES ({n}, {note});
         UPDATE counter SET n = n + 1;",
        note = format_args!("repeat(md5('{n}'), 12)")
    )
}

/// How many transactions this server holds; fails the test if any row is missing, twice or wrong.
#[track_caller]
pub fn verify(sql: &Sql) -> u64 {
    let counter = sql.value("SELECT n FROM counter");
    for table in ["ledger", "vault"] {
        let state = sql.value(&format!(
            "SELECT count(*), coalesce(min(id), 1), coalesce(max(id), 0),
                    count(*) FILTER (WHERE note IS DISTINCT FROM repeat(md5(id::text), 12))
             FROM {table}"
        ));
        let expected = format!("{counter}|1|{counter}|0");
        assert_eq!(
            state, expected,
            "rows of {table}: count, first, last, wrong"
        );
    }
    counter
        .parse()
        .unwrap_or_else(|_| panic!("the counter is {counter}"))
}

impl Workload {
    /// Starts writing, with transaction `1 + what is there`.
    pub fn start(cluster: &Cluster) -> Self {
        let sql = cluster.sql();
        let committed = Arc::new(Mutex::new(verify(&sql)));
        let is_stopping = Arc::new(AtomicBool::new(false));
        let writer = thread::spawn({
            let committed = Arc::clone(&committed);
            let is_stopping = Arc::clone(&is_stopping);
            move || {
                while !is_stopping.load(Ordering::Relaxed) {
                    let mut last = committed.lock().unwrap_or_else(PoisonError::into_inner);
                    sql.run(&format!("BEGIN; {} COMMIT", statements(*last + 1)));
                    *last += 1;
                    drop(last);
                    // Leaves the gate to whoever waits at it, and the processor to the others.
                    thread::sleep(Duration::from_millis(2));
                }
            }
        });
        Self {
            committed,
            is_stopping,
            writer: Some(writer),
        }
    }

    /// Holds the writer back between two transactions; the value is the last one committed, and
    /// whoever commits the next one itself raises it.
    pub fn hold(&self) -> MutexGuard<'_, u64> {
        self.committed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `more` transactions have been committed from now on.
    #[track_caller]
    pub fn advance(&self, more: u64) {
        let aim = *self.hold() + more;
        wait::until_true("the workload to go on", || {
            assert!(
                self.writer
                    .as_ref()
                    .is_some_and(|writer| !writer.is_finished()),
                "the workload failed"
            );
            *self.hold() >= aim
        });
    }

    /// Stops writing; the number of transactions.
    #[track_caller]
    pub fn stop(mut self) -> u64 {
        self.end();
        *self.hold()
    }

    fn end(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
            && !thread::panicking()
        {
            panic!("the workload failed");
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.end();
    }
}
