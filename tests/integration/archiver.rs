//! PostgreSQL's archiver with nobody at the wheel: a stopped cluster full of WAL to be archived.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use testbed::cluster::Cluster;
use testbed::process::{self, Ended};
use testbed::world::{PATH, SERVER, World};

use crate::bucket::Bucket;

/// Asks for the oldest file that is ready, as PostgreSQL does, as often as it is told to.
pub(crate) struct Archiver<'a> {
    world: &'a World,
    /// What is in the bucket.
    pub(crate) bucket: Bucket,
    /// The cluster's data directory.
    pub(crate) directory: PathBuf,
}

impl<'a> Archiver<'a> {
    /// Makes a cluster `name` with so many segments of 1 MiB to archive, and stops it.
    pub(crate) fn with_wal(world: &'a World, name: &str, segments: u32) -> Self {
        let cluster = Cluster::create(&world.release, &world.scratch, name, &["--wal-segsize=1"]);
        cluster.configure("archive_mode = on\narchive_command = 'false'\nmax_wal_size = 1GB");
        cluster.start();
        let sql = cluster.sql();
        sql.run("CREATE TABLE t (note text)");
        for _ in 0..segments {
            sql.run("INSERT INTO t SELECT md5(random()::text) FROM generate_series(1, 400)");
            sql.run("SELECT pg_switch_wal()");
        }
        cluster.stop_at_once();
        Self {
            world,
            bucket: Bucket::of(&world.store),
            directory: cluster.directory().to_path_buf(),
        }
    }

    /// The archiver's view of a cluster that archives by itself.
    pub(crate) fn of(world: &'a World, cluster: &Cluster) -> Self {
        Self {
            world,
            bucket: Bucket::of(&world.store),
            directory: cluster.directory().to_path_buf(),
        }
    }

    /// The files whose status has this ending, in order.
    pub(crate) fn status(&self, ending: &str) -> Vec<String> {
        let entries = fs::read_dir(self.directory.join("pg_wal/archive_status"));
        let mut names: Vec<String> = entries
            .expect("a pg_wal")
            .filter_map(|entry| {
                let name = entry.expect("an entry").file_name().into_string().ok()?;
                Some(name.strip_suffix(ending)?.to_owned())
            })
            .collect();
        names.sort();
        names
    }

    /// The path that the archiver would ask for next, relative to the data directory.
    pub(crate) fn next_ready(&self) -> Option<String> {
        let name = self.status(".ready").into_iter().next()?;
        Some(format!("pg_wal/{name}"))
    }

    /// The call that archives `path`, with further options.
    pub(crate) fn command(&self, options: &[&str], path: &str) -> Command {
        let words = [&["wal", "archive"], options, &[path]].concat();
        let mut command = self.world.cellarman.command(&words);
        command.current_dir(&self.directory);
        command
    }

    /// Archives `path`, however it ends.
    pub(crate) fn archive(&self, options: &[&str], path: &str) -> Ended {
        process::run(&mut self.command(options, path))
    }

    /// Archives the next file and is told that it is stored; how long it took.
    pub(crate) fn archive_one(&self, options: &[&str]) -> Duration {
        let path = self.next_ready().expect("a file that is ready");
        let ended = self.archive(options, &path);
        ended.ok();
        self.acknowledge(&path);
        ended.took
    }

    /// Notes, as PostgreSQL does, that `path` is stored.
    pub(crate) fn acknowledge(&self, path: &str) {
        let name = path.trim_start_matches("pg_wal/");
        let status = self.directory.join("pg_wal/archive_status");
        fs::rename(
            status.join(format!("{name}.ready")),
            status.join(format!("{name}.done")),
        )
        .expect("the status changes");
    }

    /// What is acknowledged is in the store, and what is in the store is whole and ours.
    pub(crate) fn check(&self) {
        self.check_new(&mut BTreeSet::new());
    }

    /// The same of what came since: `checked` are the keys that were looked at before.
    pub(crate) fn check_new(&self, checked: &mut BTreeSet<String>) {
        // Before the listing: what is acknowledged meanwhile may not be in it.
        let acknowledged = self.status(".done");
        let keys = self.bucket.list(&format!("{PATH}/{SERVER}/wals/"));
        let names: BTreeSet<&str> = keys.keys().map(|key| Bucket::wal_name(key)).collect();
        for name in acknowledged {
            assert!(names.contains(name.as_str()), "{name} is not in the store");
        }
        for key in keys.keys().filter(|key| !checked.contains(*key)) {
            let (name, bytes) = (Bucket::wal_name(key), self.bucket.wal_file(key));
            let local = fs::read(self.directory.join("pg_wal").join(name));
            let local = local.unwrap_or_else(|error| panic!("{name} is stored: {error}"));
            assert!(local == bytes, "{name} is stored with other bytes");
        }
        assert_eq!(names.len(), keys.len(), "one file, one object: {keys:?}");
        checked.extend(keys.into_keys());
    }
}
