//! A random history of a server, with all that a target could be taken from.
//!
//! Not here: what becomes of targets (`verdict`).

use std::ops::Range;

use fastrand::Rng;
use testbed::cluster::Cluster;
use testbed::sql::Sql;
use testbed::world::{PATH, SERVER, World};

use crate::bucket::Bucket;

/// Names of restore points: few, so that some occur again.
const NAMES: [&str; 4] = ["noon", "before load", "it''s", "łódź"];

/// What happened, as the archive should know it.
pub(crate) struct History {
    /// Each row with the positions before and after its commit.
    pub(crate) rows: Vec<Row>,
    /// The backups and when each began, oldest first.
    pub(crate) backups: Vec<(String, String)>,
    xids: Vec<String>,
    lsns: Vec<String>,
    times: Vec<String>,
    names: Vec<String>,
    /// The number of the last timeline.
    timelines: u32,
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) number: u32,
    /// The commit's record begins at the first or later, and ends at the second or before.
    pub(crate) commit: Range<u64>,
}

/// A target as it is given to a restore.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// `time`, `xid`, `lsn`, `name` or `immediate`.
    pub(crate) kind: &'static str,
    pub(crate) value: String,
    pub(crate) is_exclusive: bool,
}

/// A server while its history is made.
struct Maker<'a> {
    world: &'a World,
    server: Cluster,
    sql: Sql,
    history: History,
}

impl History {
    /// Makes one: a server that archives, with some backups, and perhaps a lost segment at the end.
    pub(crate) fn make(world: &World, random: &mut Rng) -> Self {
        let server = world.primary(&["--wal-segsize=1"]);
        server.configure("track_commit_timestamp = on\nmax_prepared_transactions = 5");
        server.stop();
        server.start();
        let sql = server.sql();
        sql.run("CREATE TABLE happened (n int)");
        let mut maker = Maker {
            world,
            server,
            sql,
            history: Self {
                rows: Vec::new(),
                backups: Vec::new(),
                xids: vec!["4000000".to_owned()],
                lsns: vec!["0/28".to_owned(), "7F/0".to_owned()],
                times: vec!["2001-01-01 00:00:00+00".to_owned()],
                names: vec!["never made".to_owned()],
                timelines: 1,
            },
        };
        maker.insert();
        maker.back_up();
        for _ in 0..random.u32(20..40) {
            maker.act(random);
        }
        maker.insert();
        maker.server.archive_now();
        maker.server.stop();
        let history = maker.history;
        if random.u8(..4) == 0 {
            lose_a_segment(world, random);
        }
        change_the_index(world, random);
        eprintln!(
            "{} rows, {} backups, {} timelines",
            history.rows.len(),
            history.backups.len(),
            history.timelines
        );
        history
    }

    /// The number of the last timeline.
    pub(crate) fn timelines(&self) -> u32 {
        self.timelines
    }

    /// Any target: mostly of something that happened, sometimes a little beside it.
    pub(crate) fn target(&self, random: &mut Rng) -> Target {
        let (kind, values) = match random.u8(..16) {
            0..=4 => ("time", &self.times),
            5..=8 => ("xid", &self.xids),
            9..=11 => ("lsn", &self.lsns),
            12..=14 => ("name", &self.names),
            _ => ("immediate", &self.names),
        };
        let value = random.choice(values).expect("some of each kind").clone();
        Target {
            kind,
            value,
            is_exclusive: !matches!(kind, "name" | "immediate") && random.bool(),
        }
    }
}

impl Maker<'_> {
    fn act(&mut self, random: &mut Rng) {
        match random.u8(..24) {
            0..=8 => self.insert(),
            9..=10 => self.load(random),
            11..=12 => self.roll_back(),
            13..=14 => self.with_subtransactions(),
            15..=16 => self.prepared(random.bool()),
            17..=18 => self.restore_point(random),
            19..=20 => self.idle(),
            21 => self.back_up(),
            22 => drop(self.server.archive_now()),
            _ => self.promote(),
        }
    }

    fn position(&self) -> u64 {
        lsn(&self.sql.value("SELECT pg_current_wal_insert_lsn()"))
    }

    fn note_place(&mut self) {
        let here = self.sql.value("SELECT pg_current_wal_insert_lsn()");
        self.history.lsns.push(here);
        let now = self.sql.value("SELECT clock_timestamp()");
        self.history.times.push(now);
    }

    /// One row in a transaction of its own, all of whose marks are noted.
    fn insert(&mut self) {
        let number = u32::try_from(self.history.rows.len()).expect("few rows");
        let statement = format!("INSERT INTO happened VALUES ({number})");
        let begin = self.position();
        let xid = self.sql.value(&format!(
            "BEGIN; {statement}; SELECT pg_current_xact_id(); COMMIT"
        ));
        let commit = begin..self.position();
        let committed = format!("SELECT pg_xact_commit_timestamp('{xid}'::xid)");
        let committed_at = self.sql.value(&committed);
        self.history.times.push(committed_at);
        self.history.xids.push(xid);
        self.history.rows.push(Row { number, commit });
        self.note_place();
    }

    /// Some megabytes of log, so that records go over the edges of segments.
    fn load(&mut self, random: &mut Rng) {
        let bytes = random.u32(200_000..900_000);
        self.sql.run(&format!(
            "SELECT pg_logical_emit_message(false, 'load', repeat('x', {bytes}))"
        ));
        self.insert();
    }

    fn roll_back(&mut self) {
        let xid = self.sql.value(
            "BEGIN; INSERT INTO happened VALUES (-1); SELECT pg_current_xact_id(); ROLLBACK",
        );
        self.history.xids.push(xid);
        self.note_place();
    }

    /// One that is rolled back by itself, one that ends with its transaction.
    fn with_subtransactions(&mut self) {
        let inner = "SELECT (max(xmin::text::bigint))::text FROM happened WHERE n < 0";
        self.sql
            .run("BEGIN; SAVEPOINT a; INSERT INTO happened VALUES (-2)");
        self.history.xids.push(self.sql.value(inner));
        self.sql
            .run("ROLLBACK TO a; SAVEPOINT b; INSERT INTO happened VALUES (-3)");
        self.history.xids.push(self.sql.value(inner));
        self.sql.run("DELETE FROM happened WHERE n < 0; COMMIT");
        self.note_place();
    }

    fn prepared(&mut self, commits: bool) {
        let xid = self.sql.value(
            "BEGIN; CREATE TABLE IF NOT EXISTS other (n int); SELECT pg_current_xact_id(); \
             PREPARE TRANSACTION 'p'",
        );
        self.history.xids.push(xid);
        self.note_place();
        let word = if commits { "COMMIT" } else { "ROLLBACK" };
        self.sql.run(&format!("{word} PREPARED 'p'"));
        self.note_place();
    }

    fn restore_point(&mut self, random: &mut Rng) {
        let name = random.choice(NAMES).expect("names");
        self.sql
            .run(&format!("SELECT pg_create_restore_point('{name}')"));
        self.history.names.push(name.replace("''", "'"));
        self.note_place();
    }

    /// More than a second in which nothing ends, and a checkpoint that tells it.
    fn idle(&mut self) {
        self.note_place();
        self.sql.run("SELECT pg_sleep(2.2)");
        self.sql.run("CHECKPOINT");
        self.note_place();
        self.server.archive_now();
    }

    fn back_up(&mut self) {
        self.world.back_up(&self.server, &[]);
        let ended = self.world.cellarman.run(&["--json", "backup", "list"]);
        let listed: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
        let backups = listed["backups"].as_array().expect("backups");
        let last = backups.last().expect("one");
        let text = |field: &str| last[field].as_str().expect(field).to_owned();
        let backup = (text("id"), text("begin_time"));
        self.history.backups.push(backup);
        self.note_place();
    }

    /// Makes the server a standby of nobody for a moment: it leaves its timeline for a new one.
    fn promote(&mut self) {
        self.server.archive_now();
        self.server.stop();
        self.server
            .recover("restore_command = 'false'\nrecovery_target_timeline = 'latest'");
        let signals = self.server.directory();
        std::fs::rename(
            signals.join("recovery.signal"),
            signals.join("standby.signal"),
        )
        .expect("a signal");
        self.server.start();
        self.server.promote();
        self.server.wait_until_recovered();
        self.history.timelines += 1;
        self.sql = self.server.sql();
        self.insert();
        self.server.archive_now();
    }
}

fn lose_a_segment(world: &World, random: &mut Rng) {
    let bucket = Bucket::of(&world.store);
    let wals = bucket.list(&format!("{PATH}/{SERVER}/wals/"));
    let is_segment = |key: &&String| {
        let name = key.rsplit('/').next().unwrap_or_default();
        name.split('.').next().is_some_and(|stem| stem.len() == 24) && !name.contains(".backup")
    };
    let segments: Vec<&String> = wals.keys().filter(is_segment).collect();
    let lost = segments[random.usize(..segments.len())];
    eprintln!("lost: {lost}");
    bucket.delete(lost);
}

/// The index is derived: made anew, lost in part or damaged, it answers the same.
fn change_the_index(world: &World, random: &mut Rng) {
    let bucket = Bucket::of(&world.store);
    let objects = bucket.list(&format!("{PATH}/{SERVER}/cellarman/index/"));
    let object = random.choice(objects.keys());
    match (random.u8(..6), object) {
        (0, _) => world.cellarman.run(&["index", "build"]).ok(),
        (1, Some(lost)) => {
            eprintln!("lost: {lost}");
            bucket.delete(lost);
        }
        (2, Some(cut)) => {
            eprintln!("cut short: {cut}");
            let bytes = bucket.get(cut);
            bucket.put(cut, bytes[..random.usize(..bytes.len())].to_vec());
        }
        _ => {}
    }
}

/// A position as a number.
pub(crate) fn lsn(text: &str) -> u64 {
    text.parse::<cellarman::domain::lsn::Lsn>()
        .expect("an LSN")
        .to_u64()
}
